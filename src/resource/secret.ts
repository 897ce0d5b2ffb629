/** The file of `secret`: read anew for every use, so that a changed one counts at the next. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';

const SECRET_BYTES_MAX = 1024;
const OTHERS = 0o077;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

function bad(path: string, what: string, hint?: string): HastError {
  const message = `the secret ${path} ${what}`;
  return new HastError('SECRET_FILE', hint === undefined ? { message } : { message, hint });
}

function contentsOf(fd: number, path: string): Uint8Array {
  const { mode } = fstatSync(fd);
  if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw bad(path, 'is not a file');
  if ((mode & OTHERS) !== 0) {
    throw bad(path, 'is open to group or others', `chmod 600 ${path}`);
  }
  // Room for the newlines, and for seeing that there is more.
  const buffer = Buffer.alloc(SECRET_BYTES_MAX + 16);
  let size = readSync(fd, buffer, 0, buffer.length, 0);
  while (size > 0 && [NEWLINE, RETURN].includes(buffer[size - 1] ?? 0)) size -= 1;
  const remedy = `put 1 to ${SECRET_BYTES_MAX} bytes into it, the same on both nodes`;
  if (size === 0) throw bad(path, 'is empty', remedy);
  if (size > SECRET_BYTES_MAX) throw bad(path, 'is too long', remedy);
  return Uint8Array.from(buffer.subarray(0, size));
}

/**
 * @returns the bytes without newlines at their end, 1 to 1024; null without `secret`
 * @throws HastError SECRET_FILE that names the file and what to do
 */
export function readSecret({ secret }: Pick<Resource, 'secret'>): Uint8Array | null {
  if (secret === null) return null;
  let fd = -1;
  try {
    // A FIFO must not hold the daemon up.
    fd = openSync(secret, constants.O_RDONLY | constants.O_NONBLOCK);
    return contentsOf(fd, secret);
  } catch (error) {
    if (error instanceof HastError) throw error;
    throw bad(secret, `cannot be read: ${error instanceof Error ? error.message : error}`);
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}
