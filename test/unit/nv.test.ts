// The name-value codec against bytes of the reference, and against bytes of nobody.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../src/error.ts';
import {
  decodeMessageHead,
  decodeNv,
  encodeMessage,
  encodeNv,
  MESSAGE_HEAD_BYTES,
  type NvEntry,
  type NvType,
} from '../../src/nv.ts';

interface VectorField {
  readonly name: string;
  readonly type: NvType;
  readonly value: string | number | readonly (string | number)[];
}

function vectors<T>(name: string): readonly T[] {
  const url = new URL(`../vectors/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, 'utf8')).cases;
}

/** The value as the vectors write it. */
function plain({ name, type, value }: NvEntry): VectorField {
  if (typeof value === 'bigint') return { name, type, value: String(value) };
  if (typeof value !== 'object') return { name, type, value };
  const list = Array.from(value as Iterable<number | bigint>, (item) =>
    typeof item === 'bigint' ? String(item) : item,
  );
  return { name, type, value: list };
}

function entryOf({ name, type, value }: VectorField): NvEntry {
  const wide = /64/.test(type);
  const one = (item: string | number) => (wide ? BigInt(item) : Number(item));
  if (type === 'string') return { name, type, value: String(value) };
  if (typeof value !== 'object') return { name, type, value: one(value) } as NvEntry;
  const list = value.map(one);
  return {
    name,
    type,
    value: type === 'uint8_array' ? Uint8Array.from(list as number[]) : list,
  } as NvEntry;
}

function refuses(body: () => unknown, code: string): void {
  try {
    body();
  } catch (error) {
    assert.instance(error, HastError);
    assert.is((error as HastError).code, code);
    return;
  }
  assert.unreachable(`expected ${code}`);
}

const nv = suite('nv');

nv('decodes and encodes every area of the reference', () => {
  for (const { description, nv_hex, expected } of vectors<{
    description: string;
    nv_hex: string;
    expected: VectorField[];
  }>('nv')) {
    const area = decodeNv(Buffer.from(nv_hex, 'hex'));
    assert.equal(area.entries.map(plain), expected, description);
    assert.is(encodeNv(expected.map(entryOf)).toString('hex'), nv_hex, description);
  }
});

nv('accepts and refuses exactly what is required', () => {
  for (const { description, nv_hex, required, reference_decoded } of vectors<{
    description: string;
    nv_hex: string;
    required: string;
    reference_decoded: string[] | null;
  }>('nv-validate')) {
    const bytes = Buffer.from(nv_hex, 'hex');
    if (required === 'reject') {
      refuses(() => decodeNv(bytes), 'NV_INVALID');
    } else {
      const shown = decodeNv(bytes).entries.map(({ name, type, value }) =>
        `${name}(${type}): ${value}`.trim(),
      );
      assert.equal(
        shown,
        reference_decoded?.map((line) => line.trim()),
        description,
      );
    }
  }
});

nv('meets malformed messages as required', () => {
  const bytesOf = (name: string) => {
    const found = vectors<{ name: string; bytes_hex: string }>('malformed').find(
      (each) => each.name === name,
    );
    return Buffer.from(found?.bytes_hex ?? '', 'hex');
  };
  const empty = bytesOf('empty-nv');
  assert.equal(decodeMessageHead(empty), { version: 1, length: 0 });
  assert.is(decodeNv(empty.subarray(MESSAGE_HEAD_BYTES)).entries.length, 0);
  refuses(() => decodeMessageHead(bytesOf('nv-length-4g')), 'MESSAGE_INVALID');
  refuses(() => decodeNv(bytesOf('data-length-wrap').subarray(MESSAGE_HEAD_BYTES)), 'NV_INVALID');
  const token = decodeNv(bytesOf('zero-token-without-M1').subarray(MESSAGE_HEAD_BYTES));
  assert.is(token.get('resource', 'string'), 'data');
  assert.equal(token.get('token', 'uint8_array'), new Uint8Array(16));
});

nv('looks up by name and exact type, the first entry of a name', () => {
  const area = decodeNv(
    encodeNv([
      { name: 'seq', type: 'int64', value: 1n },
      { name: 'seq', type: 'uint64', value: 2n },
    ]),
  );
  assert.is(area.get('seq', 'int64'), 1n);
  assert.is(area.get('seq', 'uint64'), undefined);
  assert.ok(area.has('seq'));
  assert.not.ok(area.has('constructor'));
});

nv('keeps strings that are not UTF-8 apart, byte for byte', () => {
  const area = (bytes: number[]) =>
    Buffer.concat([
      Buffer.from([17, 2, bytes.length + 1, 0, 0, 0]),
      Buffer.from('a\0\0\0\0\0\0\0'),
      Buffer.from([...bytes, ...new Array(8 - bytes.length).fill(0)]),
    ]);
  for (const bytes of [
    [0xff],
    [0xfe, 0x41],
    [0xc3, 0xa9],
    [0xed, 0xb2, 0x80],
    [0xef, 0xbf, 0xbd],
  ]) {
    const value = decodeNv(area(bytes)).get('a', 'string') ?? '';
    assert.equal(encodeNv([{ name: 'a', type: 'string', value }]), area(bytes));
  }
  const skull = encodeNv([{ name: 'a', type: 'string', value: '\u{1F480}' }]);
  assert.is(decodeNv(skull).get('a', 'string'), '\u{1F480}');
});

nv('refuses to encode what cannot be read again', () => {
  const long = 'n'.repeat(255);
  const entries: NvEntry[] = [
    { name: '', type: 'uint8', value: 1 },
    { name: long, type: 'uint8', value: 1 },
    { name: 'a\0b', type: 'uint8', value: 1 },
    { name: 'a', type: 'string', value: 'x\0' },
    { name: 'a', type: 'uint8', value: 256 },
    { name: 'a', type: 'int8', value: -129 },
    { name: 'a', type: 'uint64', value: 2n ** 64n },
    { name: 'a', type: 'uint64', value: -1n },
    { name: 'a', type: 'int16_array', value: [] },
  ];
  for (const entry of entries) refuses(() => encodeNv([entry]), 'NV_INVALID');
});

nv('caps a message at 64 KiB and refuses versions above 2', () => {
  const fits = encodeMessage(2, [{ name: 'a', type: 'uint8_array', value: new Uint8Array(65520) }]);
  assert.is(fits.length, MESSAGE_HEAD_BYTES + 65534);
  const large: NvEntry = { name: 'a', type: 'uint8_array', value: new Uint8Array(65528) };
  refuses(() => encodeMessage(2, [large]), 'MESSAGE_INVALID');
  refuses(() => decodeMessageHead(Buffer.from([3, 0, 0, 0, 0])), 'MESSAGE_INVALID');
  refuses(() => decodeMessageHead(Buffer.from([2, 0, 0])), 'MESSAGE_INVALID');
});

nv('random bytes give a value or a HastError', () => {
  const valid = vectors<{ nv_hex: string }>('nv').map(({ nv_hex }) => Buffer.from(nv_hex, 'hex'));
  let accepted = 0;
  for (let seed = 1; seed <= 4000; seed += 1) {
    let state = seed;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    // One half pure noise, one half valid areas with a few bytes changed.
    const bytes =
      seed % 2 === 0
        ? Buffer.from(Array.from({ length: random(300) }, () => random(256)))
        : Buffer.concat([valid[random(valid.length)], valid[random(valid.length)]] as Buffer[]);
    for (let i = random(4); i > 0 && bytes.length > 0; i -= 1)
      bytes[random(bytes.length)] = random(256);
    try {
      const area = decodeNv(bytes);
      const again = decodeNv(encodeNv(area.entries));
      assert.equal(again.entries, area.entries, `seed ${seed}`);
      accepted += 1;
    } catch (error) {
      assert.instance(error, HastError, `seed ${seed}: ${error}`);
    }
    try {
      decodeMessageHead(bytes);
    } catch (error) {
      assert.instance(error, HastError, `seed ${seed}`);
    }
  }
  assert.ok(accepted > 100, `only ${accepted} of the areas were accepted`);
});

nv.run();
