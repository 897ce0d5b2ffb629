/** Whether a disk may be overwritten. When in doubt it may not. */
import {
  closeSync,
  constants,
  openSync,
  readSync,
  realpathSync,
  statSync,
  writeSync,
} from 'node:fs';
import { BenchError, run } from './process.ts';

export interface DiskFacts {
  readonly path: string;
  readonly bytes: number;
  /** Empty when the disk has none. */
  readonly serial: string;
  /** A mount, swap, volume or anything else that holds it. */
  readonly inUse: boolean;
  /** What is on it; empty for a disk that begins with zeros and bears no signature. */
  readonly contents: string;
}

const HEAD_BYTES = 4 * 1024 * 1024;

async function lsblk(path: string, column: string): Promise<string> {
  return (await run('lsblk', ['-dbno', column, path], 20)).trim();
}

/** The kernel's own answer: it lets nobody else in where something holds the disk. */
function isHeld(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_RDWR | constants.O_EXCL));
    return false;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EBUSY') return true;
    throw new BenchError(`${path} cannot be opened: ${message}`);
  }
}

function headOf(path: string): string {
  const head = Buffer.alloc(HEAD_BYTES);
  const fd = openSync(path, 'r');
  const size = readSync(fd, head, 0, HEAD_BYTES, 0);
  closeSync(fd);
  if (head.subarray(0, size).every((byte) => byte === 0)) return '';
  return head.includes('resource') && head.includes('extentsize') ? 'HAST metadata' : 'data';
}

export async function inspect(name: string): Promise<DiskFacts> {
  let path: string;
  try {
    path = realpathSync(name);
    if (!statSync(path).isBlockDevice()) throw new BenchError(`${name} is not a block device`);
  } catch (error) {
    if (error instanceof BenchError) throw error;
    throw new BenchError(`${name}: ${(error as Error).message}`);
  }
  const inUse = isHeld(path); // nobody looks at what is on a disk that is not to be had anyway
  const probe = ['--no-act', '-iO', 'TYPE', path];
  const signatures = inUse ? 'unknown' : await run('wipefs', probe, 20);
  const types = signatures.split('\n').filter((line) => line.trim() !== '');
  return {
    path,
    bytes: Number(await lsblk(path, 'SIZE')),
    serial: await lsblk(path, 'SERIAL'),
    inUse,
    contents: types.length > 0 ? types.join(', ') : headOf(path),
  };
}

/**
 * Why the disk is not used; nothing when it may be overwritten.
 * @param destroy  serial numbers that the operator gave up by name
 */
export function refusal(
  disk: DiskFacts,
  bytes: number,
  destroy: readonly string[],
): string | undefined {
  const { path, serial, contents } = disk;
  if (disk.inUse) {
    return `${path} is in use: unmount it, or stop what holds it (lsblk ${path})`;
  }
  if (contents !== '' && (serial === '' || !destroy.includes(serial))) {
    const way =
      serial === ''
        ? 'it has no serial number to name: clear it yourself (wipefs, blkdiscard -z)'
        : `if all of it may be lost: --destroy ${serial}`;
    return `${path} is not empty (${contents}): ${way}`;
  }
  if (disk.bytes < bytes) return `${path} has ${disk.bytes} bytes, ${bytes} are needed`;
  return undefined;
}

/** Takes away what would make the next run refuse the disk. */
export function clearHead(path: string): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
  closeSync(fd);
}
