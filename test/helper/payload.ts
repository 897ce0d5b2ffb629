// Payloads as an original sends and takes them: compressed, then hashed. Not the code under test.
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { NvArea, NvEntry } from '../../src/nv.ts';
import { text, u32 } from './fake-peer.ts';

export interface Codec {
  readonly compression: 'none' | 'hole' | 'lzf';
  readonly checksum: 'none' | 'crc32' | 'sha256';
}

export const PLAIN: Codec = { compression: 'none', checksum: 'none' };

export const CODECS: readonly Codec[] = (['none', 'hole', 'lzf'] as const).flatMap((compression) =>
  (['none', 'crc32', 'sha256'] as const).map((checksum) => ({ compression, checksum })),
);

/** Names of the fields that describe a payload. */
export const PAYLOAD_FIELDS = ['compression', 'checksum', 'hash', 'size'];

const REACH = 8192;
const LONGEST = 264;

/** Takes the last place where the same three bytes stood. */
function lzfEncode(data: Buffer): Buffer {
  const out: number[] = [];
  const seen = new Map<number, number>();
  let literal = 0;
  const literalsUpTo = (end: number): void => {
    for (; literal < end; literal += 32) {
      const run = data.subarray(literal, Math.min(end, literal + 32));
      out.push(run.length - 1, ...run);
    }
    literal = end;
  };
  let at = 0;
  while (at + 3 <= data.length) {
    const key = data.readUIntBE(at, 3);
    const from = seen.get(key);
    seen.set(key, at);
    if (from === undefined || at - from > REACH) {
      at += 1;
      continue;
    }
    let size = 3;
    while (size < LONGEST && data[from + size] === data[at + size] && at + size < data.length) {
      size += 1;
    }
    literalsUpTo(at);
    const back = at - from - 1;
    const short = size <= 8;
    out.push(((short ? size - 2 : 7) << 5) | (back >> 8), ...(short ? [] : [size - 9]), back & 255);
    at += size;
    literal = at;
  }
  literalsUpTo(data.length);
  return Buffer.from(out);
}

function lzfDecode(stream: Buffer, length: number): Buffer {
  const out = Buffer.alloc(length);
  let to = 0;
  for (let at = 0; at < stream.length; ) {
    const item = stream.readUInt8(at++);
    if (item < 32) {
      to += stream.copy(out, to, at, at + item + 1);
      at += item + 1;
      continue;
    }
    let size = (item >> 5) + 2;
    if (size === 9) size += stream.readUInt8(at++);
    const back = ((item & 31) << 8) + stream.readUInt8(at++) + 1;
    for (; size > 0; size -= 1, to += 1) out.writeUInt8(out.readUInt8(to - back), to);
  }
  if (to !== length) throw new Error(`a stream of ${to} bytes instead of ${length}`);
  return out;
}

function sizePrefix(length: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(length);
  return bytes;
}

function compressed(data: Buffer, { compression }: Codec): readonly [NvEntry[], Buffer] {
  const head = sizePrefix(data.length);
  if (compression !== 'none' && data.every((byte) => byte === 0)) {
    return [[text('compression', 'hole')], head];
  }
  if (compression === 'lzf' && data.length > 1024) {
    const stream = lzfEncode(data);
    if (stream.length + 1024 <= data.length) {
      return [[text('compression', 'lzf')], Buffer.concat([head, stream])];
    }
  }
  return [[], data];
}

function hashOf(checksum: string, bytes: Buffer): Buffer {
  return checksum === 'crc32'
    ? sizePrefix(crc32(bytes))
    : createHash('sha256').update(bytes).digest();
}

/** The fields at the end of a message, and the bytes behind it. */
export function pack(data: Buffer, codec: Codec): { fields: NvEntry[]; bytes: Buffer } {
  const [fields, bytes] = compressed(data, codec);
  if (codec.checksum !== 'none') {
    const value = hashOf(codec.checksum, bytes);
    fields.push(text('checksum', codec.checksum), { name: 'hash', type: 'uint8_array', value });
  }
  return { fields: [...fields, u32('size', bytes.length)], bytes };
}

/** @throws Error for what an original would not take */
export function unpack(area: NvArea, bytes: Buffer, length: number): Buffer {
  const checksum = area.get('checksum', 'string');
  if (checksum !== undefined) {
    const hash = Buffer.from(area.get('hash', 'uint8_array') ?? []);
    if (!hash.equals(hashOf(checksum, bytes))) throw new Error('another hash');
  }
  const compression = area.get('compression', 'string');
  if (compression === undefined) {
    if (bytes.length !== length) throw new Error(`${bytes.length} bytes instead of ${length}`);
    return bytes;
  }
  if (bytes.readUInt32LE() !== length) throw new Error('another length is announced');
  if (compression === 'hole' && bytes.length === 4) return Buffer.alloc(length);
  if (compression !== 'lzf' || length <= 1024) throw new Error(`a payload of ${compression}`);
  return lzfDecode(bytes.subarray(4), length);
}
