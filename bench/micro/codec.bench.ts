/** The core's synchronous functions, through the door; `limits` is the door and little else. */
import { randomBytes } from 'node:crypto';
import { native } from '../../src/native.ts';
import type { Micro } from './micro.ts';

const KIB = 1024;
const SIZES = [4 * KIB, 64 * KIB, 128 * KIB];
const EXTENT_BYTES = 2 * KIB * KIB;
const KEEPDIRTY = 64;

function ofSize(bytes: number): readonly Micro[] {
  const { codec } = native;
  const noise = randomBytes(bytes);
  const zeros = Buffer.alloc(bytes);
  const size = `${bytes / KIB} KiB`;
  return [
    { name: `crc32 ${size}`, bytes, call: () => codec.crc32(noise) },
    { name: `isZero ${size} of zeros`, bytes, call: () => codec.isZero(zeros) },
    { name: `isZero ${size} of noise`, bytes: 0, call: () => codec.isZero(noise) },
  ];
}

export function codecBenches(): readonly Micro[] {
  const { codec } = native;
  const request = {
    mediaBytes: 1n << 40n,
    sectorBytes: 4096,
    extentBytes: EXTENT_BYTES,
    keepdirty: KEEPDIRTY,
    layout: 'aligned',
  } as const;
  const { dataBytes, offset } = codec.layout(request);
  const fields = {
    resource: 'data',
    datasize: dataBytes,
    extentsize: EXTENT_BYTES,
    keepdirty: KEEPDIRTY,
    offset,
    resuid: 1n,
    localcnt: 1n,
    remotecnt: 1n,
    prevrole: 'primary',
  } as const;
  return [
    ...SIZES.flatMap(ofSize),
    { name: 'layout of 1 TiB', bytes: 0, call: () => codec.layout(request) },
    { name: 'metadataBlock', bytes: 0, call: () => codec.metadataBlock(fields, false) },
    { name: 'limits', bytes: 0, call: () => codec.limits() },
  ];
}
