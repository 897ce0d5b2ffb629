/**
 * The name-value codec of the handshake and of the metadata block, and the 5-byte head of a
 * message.
 *
 * The deliberate twin of src-native/codec/nv: a process with privileges reads foreign bytes here,
 * in memory-safe code. Both twins are held against test/vectors/.
 * Source: docs/wire.md, "name-value encoding".
 */
import { HastError } from './error.ts';
import { LIMITS } from './limits.ts';

/**
 * What each type is in JavaScript. 64-bit numbers are bigint; a string that is not UTF-8 is kept
 * byte for byte (see `textOfBytes`).
 */
export interface NvValues {
  readonly int8: number;
  readonly uint8: number;
  readonly int16: number;
  readonly uint16: number;
  readonly int32: number;
  readonly uint32: number;
  readonly int64: bigint;
  readonly uint64: bigint;
  readonly int8_array: readonly number[];
  readonly uint8_array: Uint8Array;
  readonly int16_array: readonly number[];
  readonly uint16_array: readonly number[];
  readonly int32_array: readonly number[];
  readonly uint32_array: readonly number[];
  readonly int64_array: readonly bigint[];
  readonly uint64_array: readonly bigint[];
  readonly string: string;
}
export type NvType = keyof NvValues;
export type NvEntry = {
  [T in NvType]: { readonly name: string; readonly type: T; readonly value: NvValues[T] };
}[NvType];

/** In the order of their codes, from 1. */
const TYPES = [
  'int8',
  'uint8',
  'int16',
  'uint16',
  'int32',
  'uint32',
  'int64',
  'uint64',
  'int8_array',
  'uint8_array',
  'int16_array',
  'uint16_array',
  'int32_array',
  'uint32_array',
  'int64_array',
  'uint64_array',
  'string',
] as const satisfies readonly NvType[];

const ENTRY_HEAD_BYTES = 6;
const HOST_ORDER_FLAG = 0x80;

function bad(what: string, offset: number): HastError {
  return new HastError('NV_INVALID', { message: `name-value entry at byte ${offset}: ${what}` });
}

/** A number up to 2^53, so that no length can wrap. */
function up8(count: number): number {
  return Math.ceil(count / 8) * 8;
}

// ---- Text -----------------------------------------------------------------------------------
// Strings are bytes without a charset. Valid UTF-8 becomes that text. Anything else becomes one
// character per byte, with bytes from 0x80 as lone surrogates U+DC80..DCFF: no valid text contains
// these, so different bytes never become equal strings, and encoding gives the same bytes back.

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const ESCAPED = /[\uDC80-\uDCFF]/u; // by code point: not half of a pair

function textOfBytes(bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes);
  } catch {
    return Array.from(bytes, (byte) =>
      String.fromCharCode(byte < 0x80 ? byte : 0xdc00 + byte),
    ).join('');
  }
}

function bytesOfText(text: string): Buffer {
  if (!ESCAPED.test(text)) return Buffer.from(text, 'utf8');
  return Buffer.from(Array.from(text, (letter) => letter.charCodeAt(0) & 0xff));
}

// ---- Values ---------------------------------------------------------------------------------

function elementBytes(type: NvType): number {
  const bits = /\d+/.exec(type)?.[0];
  return bits === undefined ? 1 : Number(bits) / 8;
}

function isScalar(type: NvType): boolean {
  return type !== 'string' && !type.endsWith('_array');
}

function readNumber(view: DataView, at: number, type: NvType): number | bigint {
  switch (elementBytes(type)) {
    case 1:
      return type.startsWith('u') ? view.getUint8(at) : view.getInt8(at);
    case 2:
      return type.startsWith('u') ? view.getUint16(at, true) : view.getInt16(at, true);
    case 4:
      return type.startsWith('u') ? view.getUint32(at, true) : view.getInt32(at, true);
    default:
      return type.startsWith('u') ? view.getBigUint64(at, true) : view.getBigInt64(at, true);
  }
}

function numberBytes(type: NvType, value: number | bigint): Buffer {
  const size = elementBytes(type);
  const bytes = Buffer.alloc(size);
  const number = BigInt(value);
  const unsigned = BigInt.asUintN(size * 8, number);
  const fits = type.startsWith('u')
    ? unsigned === number
    : BigInt.asIntN(size * 8, number) === number;
  if (!fits) throw new HastError('NV_INVALID', { message: `${value} does not fit into ${type}` });
  if (size === 8) bytes.writeBigUInt64LE(unsigned);
  else bytes.writeUIntLE(Number(unsigned), 0, size);
  return bytes;
}

function readValue(type: NvType, data: Uint8Array, offset: number): NvEntry['value'] {
  const size = elementBytes(type);
  if (type === 'string') {
    if (data.indexOf(0) !== data.length - 1) throw bad('a string ends with its only NUL', offset);
    return textOfBytes(data.subarray(0, -1));
  }
  if (isScalar(type) && data.length !== size) throw bad(`${type} takes ${size} bytes`, offset);
  if (data.length % size !== 0) throw bad(`${type} takes a multiple of ${size} bytes`, offset);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (isScalar(type)) return readNumber(view, 0, type);
  if (type === 'uint8_array') return Uint8Array.from(data);
  return Array.from({ length: data.length / size }, (_, i) =>
    readNumber(view, i * size, type),
  ) as readonly number[];
}

function valueBytes(entry: NvEntry): Buffer {
  if (entry.type === 'string') {
    const bytes = bytesOfText(entry.value);
    if (bytes.includes(0)) throw new HastError('NV_INVALID', { message: 'a string holds a NUL' });
    return Buffer.concat([bytes, Buffer.of(0)]);
  }
  if (typeof entry.value === 'number' || typeof entry.value === 'bigint') {
    return numberBytes(entry.type, entry.value);
  }
  const numbers = Array.from<number | bigint>(entry.value as Iterable<number | bigint>);
  if (numbers.length === 0) throw new HastError('NV_INVALID', { message: 'an array is empty' });
  return Buffer.concat(numbers.map((number) => numberBytes(entry.type, number)));
}

// ---- Areas ----------------------------------------------------------------------------------

/**
 * The entries of one area. Of a name that is there twice only the first counts, for every question.
 */
export class NvArea {
  readonly entries: readonly NvEntry[];
  /** How many bytes the entries took; what follows is a zero tail, or nothing. */
  readonly length: number;
  /** The whole area as it came. */
  readonly bytes: Uint8Array;
  readonly #first = new Map<string, NvEntry>();

  constructor(entries: readonly NvEntry[], length: number, bytes: Uint8Array) {
    this.entries = entries;
    this.length = length;
    this.bytes = bytes;
    for (const entry of entries) {
      if (!this.#first.has(entry.name)) this.#first.set(entry.name, entry);
    }
  }

  has(name: string): boolean {
    return this.#first.has(name);
  }

  /** The value when the entry is there with exactly this type; nothing is ever converted. */
  get<T extends NvType>(name: string, type: T): NvValues[T] | undefined {
    const entry = this.#first.get(name);
    return entry?.type === type ? (entry.value as NvValues[T]) : undefined;
  }
}

/**
 * Reads an area up to its end or to the first zero type byte.
 * @throws HastError NV_INVALID when any entry is not valid
 */
export function decodeNv(area: Uint8Array): NvArea {
  const view = new DataView(area.buffer, area.byteOffset, area.byteLength);
  const entries: NvEntry[] = [];
  let at = 0;
  while (at < area.length && area[at] !== 0) {
    const left = area.length - at;
    if (left < 8) throw bad('cut short', at);
    const code = view.getUint8(at);
    if ((code & HOST_ORDER_FLAG) !== 0) throw bad('in host order', at);
    const type = TYPES[code - 1];
    if (type === undefined) throw bad(`unknown type ${code}`, at);
    const nameBytes = view.getUint8(at + 1);
    const dataBytes = view.getUint32(at + 2, true);
    const dataOffset = ENTRY_HEAD_BYTES + up8(nameBytes);
    if (nameBytes < 2) throw bad('has no name', at);
    if (dataOffset > left) throw bad('its name is cut short', at);
    const name = area.subarray(at + ENTRY_HEAD_BYTES, at + ENTRY_HEAD_BYTES + nameBytes);
    if (name.indexOf(0) !== nameBytes - 1) throw bad('a name ends with its only NUL', at);
    if (dataBytes === 0) throw bad('has no data', at);
    if (dataOffset + up8(dataBytes) > left) throw bad('its data is cut short', at);
    const data = area.subarray(at + dataOffset, at + dataOffset + dataBytes);
    const value = readValue(type, data, at);
    entries.push({ name: textOfBytes(name.subarray(0, -1)), type, value } as NvEntry);
    at += dataOffset + up8(dataBytes);
  }
  return new NvArea(entries, at, area);
}

/** Writes the entries in the given order, all padding zero. @throws HastError NV_INVALID */
export function encodeNv(entries: readonly NvEntry[]): Buffer {
  const parts: Buffer[] = [];
  for (const entry of entries) {
    const name = bytesOfText(entry.name);
    if (name.length === 0 || name.length > LIMITS.nameBytesMax || name.includes(0)) {
      throw new HastError('NV_INVALID', { message: `"${entry.name}" cannot be a name` });
    }
    const data = valueBytes(entry);
    const dataOffset = ENTRY_HEAD_BYTES + up8(name.length + 1);
    const bytes = Buffer.alloc(dataOffset + up8(data.length));
    bytes.writeUInt8(TYPES.indexOf(entry.type) + 1, 0);
    bytes.writeUInt8(name.length + 1, 1);
    bytes.writeUInt32LE(data.length, 2);
    name.copy(bytes, ENTRY_HEAD_BYTES);
    data.copy(bytes, dataOffset);
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}

// ---- Messages -------------------------------------------------------------------------------

export const MESSAGE_HEAD_BYTES = 5;
const VERSION_MAX = 2;

export interface MessageHead {
  readonly version: number;
  /** Length of the area that follows, in bytes; at most 64 KiB. */
  readonly length: number;
}

/**
 * Reads the 5 bytes before an area, so that the area is never waited for when it is not acceptable.
 * @throws HastError MESSAGE_INVALID
 */
export function decodeMessageHead(bytes: Uint8Array): MessageHead {
  if (bytes.length < MESSAGE_HEAD_BYTES) {
    throw new HastError('MESSAGE_INVALID', { message: 'the head of a message is cut short' });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint8(0);
  const length = view.getUint32(1, true);
  if (version > VERSION_MAX) {
    throw new HastError('MESSAGE_INVALID', { message: `message of protocol version ${version}` });
  }
  if (length > LIMITS.messageBytesMax) {
    throw new HastError('MESSAGE_INVALID', { message: `message of ${length} bytes is too long` });
  }
  return { version, length };
}

/** A whole message without payload. @throws HastError NV_INVALID, MESSAGE_INVALID */
export function encodeMessage(version: number, entries: readonly NvEntry[]): Buffer {
  const area = encodeNv(entries);
  const head = Buffer.alloc(MESSAGE_HEAD_BYTES);
  head.writeUInt8(version, 0);
  head.writeUInt32LE(area.length, 1);
  decodeMessageHead(head);
  return Buffer.concat([head, area]);
}
