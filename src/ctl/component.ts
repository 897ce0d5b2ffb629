import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import { LIMITS } from '../limits.ts';
import { type ComponentInfo, errnoName, native } from '../native.ts';

/** The resource of that name in the file. @throws HastError RESOURCE_UNKNOWN, exit 65 */
export function findResource(resources: readonly Resource[], name: string): Resource {
  const found = resources.find((resource) => resource.name === name);
  if (found !== undefined) return found;
  throw new HastError('RESOURCE_UNKNOWN', {
    message: 'hast.conf names no such resource',
    hint: `it names ${resources.map((each) => each.name).join(', ') || 'none'}`,
  });
}

/** Runs `body` with a component open, and closes it whatever happens. */
export async function withComponent<T>(
  open: () => ComponentInfo | Promise<ComponentInfo>,
  body: (component: ComponentInfo) => T | Promise<T>,
): Promise<T> {
  const component = await open();
  try {
    return await body(component);
  } finally {
    native.host.closeFd(component.fd);
  }
}

/** Whether the system refused something, and not the program. */
export function isSystemError(error: unknown): error is HastError {
  return error instanceof HastError && error.code === 'SYSTEM';
}

/** What cannot be opened, as the command's own failure; anything else as it is. */
export function cannotOpen(path: string, error: unknown): unknown {
  if (!isSystemError(error)) return error;
  const why = errnoName(error);
  return new HastError('DISK_OPEN', {
    message: `the local component cannot be opened: ${error.message}`,
    hint:
      why === 'EINVAL' || why === 'EISDIR'
        ? `${path} must be a block device or a regular file`
        : undefined,
    cause: error,
  });
}

/** What cannot be written, as the command's own failure; anything else as it is. */
export function cannotWrite(path: string, error: unknown): unknown {
  if (!isSystemError(error)) return error;
  return new HastError('META_WRITE', {
    message: `${path} cannot be written: ${error.message}`,
    cause: error,
  });
}

/**
 * Reads `length` bytes at `offset`, widened to what direct I/O asks for and cut to what is there.
 * @returns fewer bytes, or none, where the component ends
 */
export function readArea(component: ComponentInfo, offset: number, length: number): Buffer {
  const granule = component.granuleBytes;
  const start = Math.floor(offset / granule) * granule;
  const wholeEnd = Math.ceil((offset + length) / granule) * granule;
  const last = Number(component.sizeBytes) - (Number(component.sizeBytes) % granule);
  const end = Math.min(wholeEnd, last);
  if (offset < 0 || end <= offset) return Buffer.alloc(0);
  const bytes = native.host.readAt(component.fd, BigInt(start), end - start);
  return bytes.subarray(offset - start, Math.min(offset - start + length, bytes.length));
}

/** The first 4096 bytes. @throws HastError META_INVALID when the component is shorter */
export function readBlock(component: ComponentInfo): Buffer {
  const block = readArea(component, 0, LIMITS.metadataBytes);
  if (block.length === LIMITS.metadataBytes) return block;
  throw new HastError('META_INVALID', {
    message: `the component has ${component.sizeBytes} bytes: too few for metadata`,
  });
}
