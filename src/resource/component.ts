/**
 * The local component as the parent handles it: open with the lock, tried again while an ended
 * worker's ring still lets go of it; a look at its metadata; one owner of each device.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError } from '../error.ts';
import { LIMITS } from '../limits.ts';
import { type BlockFields, decodeBlock, misfit } from '../metadata.ts';
import { type ComponentInfo, errnoName, type HostFunctions } from '../native.ts';

export type ComponentHost = Pick<HostFunctions, 'openComponent' | 'closeFd' | 'readAt'>;

const RETRY_MS = 25;
const BUSY = new Set(['EAGAIN', 'EWOULDBLOCK', 'EBUSY']);

/** Which resource uses which device; shared by all resources of the daemon. */
export class DeviceClaims {
  readonly #owners = new Map<string, string>();

  /** @throws HastError DISK_TWICE when another resource has it */
  claim(device: string, resource: string): void {
    const owner = this.#owners.get(device);
    if (owner !== undefined && owner !== resource) {
      throw new HastError('DISK_TWICE', {
        message: `${resource} names the device that resource ${owner} uses`,
      });
    }
    this.release(resource);
    this.#owners.set(device, resource);
  }

  release(resource: string): void {
    for (const [device, owner] of this.#owners) {
      if (owner === resource) this.#owners.delete(device);
    }
  }
}

/**
 * Opens for writing with the exclusive lock.
 * @param patienceMs  how long a lock that is held is tried again
 * @throws HastError DISK_BUSY, DISK_OPEN, DISK_TWICE
 */
export async function openLocked(
  host: ComponentHost,
  claims: DeviceClaims,
  { name, local }: { readonly name: string; readonly local: string },
  patienceMs: number,
  signal?: AbortSignal,
): Promise<ComponentInfo> {
  const end = performance.now() + patienceMs;
  for (;;) {
    try {
      const info = host.openComponent(local, true, true);
      try {
        claims.claim(info.device, name);
      } catch (error) {
        host.closeFd(info.fd);
        throw error;
      }
      return info;
    } catch (error) {
      if (error instanceof HastError && error.code === 'DISK_TWICE') throw error;
      const busy = BUSY.has(errnoName(error) ?? '');
      if (!busy) {
        throw new HastError('DISK_OPEN', { message: (error as Error).message, cause: error });
      }
      if (performance.now() >= end || signal?.aborted === true) {
        throw new HastError('DISK_BUSY', {
          message: `${local}: the lock is held by another process`,
          cause: error,
        });
      }
    }
    await sleep(RETRY_MS);
  }
}

/** Whether the component can be used for the resource: opens, looks at the metadata, closes. */
export async function checkComponent(
  host: ComponentHost,
  claims: DeviceClaims,
  resource: { readonly name: string; readonly local: string },
  patienceMs: number,
): Promise<void> {
  const info = await openLocked(host, claims, resource, patienceMs);
  try {
    checkMetadata(host, info, resource);
  } finally {
    host.closeFd(info.fd);
  }
}

/**
 * Whether what was opened holds the metadata of the resource.
 * @returns them
 * @throws HastError META_INVALID, META_UNREADABLE
 */
export function checkMetadata(
  host: ComponentHost,
  info: ComponentInfo,
  { name, local }: { readonly name: string; readonly local: string },
): BlockFields {
  const fields = fieldsOf(readBlock(host, info.fd, local));
  if (fields?.resource !== name) {
    const what =
      fields === undefined ? 'no HAST metadata' : `the metadata of resource ${fields.resource}`;
    throw new HastError('META_INVALID', {
      message: `${local}: holds ${what}`,
      hint: `hastctl create ${name}`,
    });
  }
  const wrong = misfit(fields, info.sizeBytes, info.sectorBytes);
  if (wrong !== undefined) {
    throw new HastError('META_INVALID', {
      message: `${local}: holds metadata that does not fit: ${wrong}`,
      hint: `check local and its size; hastctl dump ${name} shows the metadata`,
    });
  }
  return fields;
}

function readBlock(host: ComponentHost, fd: number, local: string): Uint8Array {
  try {
    return host.readAt(fd, 0n, LIMITS.metadataBytes);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HastError('META_UNREADABLE', { message: `${local}: ${why}`, cause });
  }
}

/** As the worker will read them: a torn first sector counts as what our own records say. */
function fieldsOf(block: Uint8Array): BlockFields | undefined {
  try {
    return decodeBlock(block).fields;
  } catch {
    return undefined;
  }
}
