/** The TypeScript codec of the handshake and of the metadata block. */

import { decodeBlock } from '../../src/metadata.ts';
import { native } from '../../src/native.ts';
import {
  decodeMessageHead,
  decodeNv,
  encodeMessage,
  encodeNv,
  type NvEntry,
} from '../../src/nv.ts';
import type { Micro } from './micro.ts';

/** Like the second message of a primary. */
const HANDSHAKE: readonly NvEntry[] = [
  { name: 'resource', type: 'string', value: 'data' },
  { name: 'token', type: 'uint8_array', value: Buffer.alloc(16, 7) },
  { name: 'resuid', type: 'uint64', value: 0x1234_5678_9abc_def0n },
  { name: 'localcnt', type: 'uint64', value: 3n },
  { name: 'remotecnt', type: 'uint64', value: 2n },
  { name: 'version', type: 'uint8', value: 2 },
];

export function nvBenches(): readonly Micro[] {
  const area = encodeNv(HANDSHAKE);
  const message = encodeMessage(2, HANDSHAKE);
  const block = native.codec.metadataBlock(
    {
      resource: 'data',
      datasize: 1n << 30n,
      extentsize: 2 * 1024 * 1024,
      keepdirty: 64,
      offset: 1n << 20n,
      resuid: 1n,
      localcnt: 1n,
      remotecnt: 1n,
      prevrole: 'primary',
    },
    false,
  );
  return [
    { name: 'nv encode handshake', bytes: 0, call: () => encodeNv(HANDSHAKE) },
    { name: 'nv decode handshake', bytes: 0, call: () => decodeNv(area) },
    { name: 'nv message head', bytes: 0, call: () => decodeMessageHead(message) },
    { name: 'metadata block decode', bytes: 0, call: () => decodeBlock(block) },
  ];
}
