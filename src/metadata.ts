/**
 * Reading of the 4096-byte metadata block, for `dump` and for what `create` finds in its way.
 *
 * The reading twin of src-native/codec/metadata: bytes of a disk are read by a process with
 * privileges here, in memory-safe code. The format is docs/on-disk.md. Writing is the core's alone.
 */
import { createHash } from 'node:crypto';
import { crc32c } from './crc32c.ts';
import { HastError } from './error.ts';
import { LIMITS } from './limits.ts';
import { decodeNv, type NvArea } from './nv.ts';

/** HAST's nine fields; u64 as bigint, sizes in bytes, keepdirty in extents. */
export interface BlockFields {
  readonly resource: string;
  readonly datasize: bigint;
  readonly extentsize: number;
  readonly keepdirty: number;
  readonly offset: bigint;
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly prevrole: 'init' | 'primary' | 'secondary';
}

/** What our own records say beyond them. */
export interface BlockFacts {
  /** Id of the data as it is now; 0 is unknown. */
  readonly generation: bigint;
  /** The ids before it, newest first. */
  readonly history: readonly bigint[];
  /** A synchronisation writes here, or one was never finished. */
  readonly syncTarget: boolean;
  /** The peer's data is newer than this disk's. */
  readonly localStale: boolean;
  /** What was written here alone is given up: the primary overwrites it when it connects. */
  readonly discarded: boolean;
  /** The peer has given up its disk: all of it is written again. */
  readonly peerStale: boolean;
  /** In memsync or async: what was answered may not be on the peer's disk. */
  readonly ahead: boolean;
  /** A flush has failed here: what a read gives need not be stored. */
  readonly flushFailed: boolean;
  /** What was flushed here without an original, or in a pass to it, it may not have. */
  readonly peerBehind: boolean;
  /** Boot id of the machine when it began to take writes that may not be flushed; 0: all are. */
  readonly boot: bigint;
}

export interface MetadataBlock {
  readonly fields: BlockFields;
  /** Undefined: history is unknown, because HAST's own programs wrote the block last. */
  readonly facts: BlockFacts | undefined;
  /** The first sector is torn, or older than the newest record, which `fields` are from. */
  readonly needsRewrite: boolean;
}

const NV_BYTES_MAX = 512;
const PREVROLES = ['init', 'primary', 'secondary'] as const;

const RECORD = {
  offsets: [1024, 2560],
  bytes: 660,
  magic: 'hastdrec',
  version: 1,
  at: {
    version: 8,
    flags: 12,
    sequence: 16,
    hash: 24,
    generation: 56,
    history: 64,
    boot: 128,
    fieldsBytes: 140,
    fields: 144,
    crc: 656,
  },
  historyIds: 8,
  flags: {
    syncTarget: 1,
    localStale: 2,
    factsKnown: 4,
    peerStale: 8,
    ahead: 16,
    discarded: 32,
    flushFailed: 64,
    peerBehind: 128,
  },
} as const;

interface Record {
  readonly sequence: bigint;
  readonly fields: BlockFields;
  readonly facts: BlockFacts | undefined;
}

/** Undefined unless the area is valid and all nine fields are there with exactly their types. */
function decodeFields(bytes: Uint8Array): BlockFields | undefined {
  let area: NvArea;
  try {
    area = decodeNv(bytes);
  } catch (error) {
    if (error instanceof HastError) return undefined;
    throw error;
  }
  const resource = area.get('resource', 'string');
  const datasize = area.get('datasize', 'uint64');
  const extentsize = area.get('extentsize', 'uint32');
  const keepdirty = area.get('keepdirty', 'uint32');
  const offset = area.get('offset', 'uint64');
  const resuid = area.get('resuid', 'uint64');
  const localcnt = area.get('localcnt', 'uint64');
  const remotecnt = area.get('remotecnt', 'uint64');
  const prevrole = PREVROLES.find((role) => role === area.get('prevrole', 'string'));
  if (
    resource === undefined ||
    resource === '' ||
    Buffer.byteLength(resource) > LIMITS.nameBytesMax ||
    datasize === undefined ||
    extentsize === undefined ||
    keepdirty === undefined ||
    offset === undefined ||
    resuid === undefined ||
    localcnt === undefined ||
    remotecnt === undefined ||
    prevrole === undefined
  ) {
    return undefined;
  }
  return {
    resource,
    datasize,
    extentsize,
    keepdirty,
    offset,
    resuid,
    localcnt,
    remotecnt,
    prevrole,
  };
}

/** Sequence numbers may wrap: one up from any number is later than that number. */
function isLater(a: Record, b: Record): boolean {
  return BigInt.asIntN(64, a.sequence - b.sequence) > 0n;
}

/** Undefined when it was never written, is torn, or is of a version we do not know. */
function decodeRecord(bytes: Buffer): Record | undefined {
  const { at } = RECORD;
  if (bytes.toString('latin1', 0, RECORD.magic.length) !== RECORD.magic) return undefined;
  if (bytes.readUInt32LE(at.version) !== RECORD.version) return undefined;
  if (bytes.readUInt32LE(at.crc) !== crc32c(bytes.subarray(0, at.crc))) return undefined;
  const used = bytes.readUInt32LE(at.fieldsBytes);
  if (used > NV_BYTES_MAX) return undefined;
  const area = bytes.subarray(at.fields, at.fields + used);
  const hash = createHash('sha256').update(area).digest();
  if (!hash.equals(bytes.subarray(at.hash, at.hash + hash.length))) return undefined;
  const fields = decodeFields(area);
  if (fields === undefined) return undefined;

  const flags = bytes.readUInt32LE(at.flags);
  const has = (flag: keyof typeof RECORD.flags) => (flags & RECORD.flags[flag]) !== 0;
  const history = Array.from({ length: RECORD.historyIds }, (_, i) =>
    bytes.readBigUInt64LE(at.history + 8 * i),
  );
  const facts: BlockFacts = {
    generation: bytes.readBigUInt64LE(at.generation),
    history: history.filter((id) => id !== 0n),
    syncTarget: has('syncTarget'),
    localStale: has('localStale'),
    discarded: has('discarded'),
    peerStale: has('peerStale'),
    ahead: has('ahead'),
    flushFailed: has('flushFailed'),
    peerBehind: has('peerBehind'),
    boot: bytes.readBigUInt64LE(at.boot),
  };
  return {
    sequence: bytes.readBigUInt64LE(at.sequence),
    fields,
    facts: has('factsKnown') ? facts : undefined,
  };
}

function sameFields(a: BlockFields | undefined, b: BlockFields | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return (Object.keys(a) as (keyof BlockFields)[]).every((key) => a[key] === b[key]);
}

/**
 * Reads a block; a record of ours decides where the first sector is torn or older.
 * @param bytes  the first 4096 bytes of a component
 * @throws HastError META_INVALID when neither the first sector nor a record is usable
 */
export function decodeBlock(bytes: Uint8Array): MetadataBlock {
  if (bytes.length !== LIMITS.metadataBytes) {
    throw new HastError('META_INVALID', { message: `${bytes.length} bytes are no metadata block` });
  }
  const block = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sector = decodeFields(block.subarray(0, NV_BYTES_MAX));
  const records = RECORD.offsets
    .map((offset) => decodeRecord(block.subarray(offset, offset + RECORD.bytes)))
    .filter((record) => record !== undefined);
  const [first, second] = records;
  if (first !== undefined && second !== undefined && isLater(second, first)) records.reverse();
  const [newest, older] = records;
  if (newest === undefined) {
    if (sector !== undefined) return { fields: sector, facts: undefined, needsRewrite: false };
    throw new HastError('META_INVALID', { message: 'there is no valid HAST metadata' });
  }
  const current = sameFields(sector, newest.fields);
  // Neither: HAST's own programs wrote the sector since. The records are history.
  if (sector !== undefined && !current && !sameFields(sector, older?.fields)) {
    return { fields: sector, facts: undefined, needsRewrite: false };
  }
  return { fields: newest.fields, facts: newest.facts, needsRewrite: !current };
}

/**
 * Why these fields cannot be right for a component of this size; undefined when they can.
 * The same checks as the core's before it serves.
 */
export function misfit(
  fields: BlockFields,
  sizeBytes: bigint,
  sectorBytes: number,
): string | undefined {
  const { datasize, extentsize, keepdirty, offset } = fields;
  if (offset <= BigInt(LIMITS.metadataBytes) || offset > sizeBytes) {
    return 'the data begins outside the component';
  }
  if (offset % BigInt(sectorBytes) !== 0n) return 'the data does not begin at a sector';
  if (datasize === 0n || datasize > sizeBytes - offset) {
    return 'the component is smaller than the data';
  }
  if (
    extentsize < sectorBytes ||
    extentsize > LIMITS.extentBytesMax ||
    2 ** Math.floor(Math.log2(extentsize)) !== extentsize
  ) {
    return 'the extent size is no power of two from the sector size to 1 GiB';
  }
  if (keepdirty === 0 || keepdirty > 2 ** 31 - 1) {
    return 'keepdirty is not between 1 and 2147483647';
  }
  const extents = (datasize + BigInt(extentsize) - 1n) / BigInt(extentsize);
  const sectors = ((extents + 7n) / 8n + BigInt(sectorBytes) - 1n) / BigInt(sectorBytes);
  const mapBytes = sectors * BigInt(sectorBytes);
  if (mapBytes > BigInt(LIMITS.mapBytesMax)) return 'there are too many extents';
  if (mapBytes > offset - BigInt(LIMITS.metadataBytes)) {
    return 'there is no room for the map before the data';
  }
  return undefined;
}
