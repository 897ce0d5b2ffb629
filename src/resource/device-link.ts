/** The link of a provider in devdir: there as long as its device is. */
import { lstatSync, mkdirSync, readlinkSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { HastError } from '../error.ts';

function failure(link: string, why: string, cause?: unknown): HastError {
  return new HastError('DEVICE_LINK', { message: `${link}: ${why}`, cause });
}

/** A link of an earlier daemon is replaced at once; what is no link stays. @throws HastError */
export function makeLink(link: string, device: string): void {
  // The provider of another resource may have any name but one with a dot in front.
  const fresh = join(dirname(link), `.${basename(link)}.${process.pid}`);
  try {
    mkdirSync(dirname(link), { recursive: true, mode: 0o755 });
    const there = lstatSync(link, { throwIfNoEntry: false });
    if (there !== undefined && !there.isSymbolicLink()) {
      throw failure(link, 'something that is no link is in its place');
    }
    rmSync(fresh, { force: true });
    symlinkSync(device, fresh);
    renameSync(fresh, link);
  } catch (error) {
    if (error instanceof HastError) throw error;
    throw failure(link, (error as Error).message, error);
  }
}

/** Only while it leads to this device. */
export function removeLink(link: string, device: string): void {
  try {
    if (readlinkSync(link) === device) rmSync(link);
  } catch {
    // It is gone, or no link of ours.
  }
}
