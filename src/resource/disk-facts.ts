/** What the local component says of itself, without a lock and without waiting for a sick disk. */
import { open } from 'node:fs/promises';
import { LIMITS } from '../limits.ts';
import { decodeBlock } from '../metadata.ts';

export interface DiskFacts {
  /** A synchronisation writes here, or one was never finished. */
  readonly syncTarget: boolean;
  /** What was written here alone is given up (`hastctl discard`). */
  readonly discarded: boolean;
  /** The peer's data is newer. */
  readonly stale: boolean;
  /** Nothing was ever written to the pair. */
  readonly fresh: boolean;
}

const PATIENCE_MS = 2000;
/** A disk that does not answer keeps one of few threads: never more than one. */
let reading: Promise<unknown> | undefined;

async function read(path: string, name: string): Promise<DiskFacts> {
  const file = await open(path, 'r');
  try {
    const block = Buffer.alloc(LIMITS.metadataBytes);
    await file.read(block, 0, block.length, 0);
    const { fields, facts } = decodeBlock(block);
    if (fields.resource !== name) {
      throw new Error(`the metadata is that of resource ${fields.resource}`);
    }
    return {
      syncTarget: facts?.syncTarget === true,
      discarded: facts?.discarded === true,
      stale: facts?.localStale === true,
      fresh: fields.resuid === 0n && fields.localcnt === 0n,
    };
  } finally {
    await file.close();
  }
}

/** @returns the facts, or why they are not known */
export async function diskFacts(path: string, name: string): Promise<DiskFacts | string> {
  const end = performance.now() + PATIENCE_MS;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), PATIENCE_MS);
  });
  try {
    while (reading !== undefined && performance.now() < end) {
      if ((await Promise.race([reading, late])) === 'late') break;
    }
    if (reading !== undefined) return 'the disk does not answer';
    const work = read(path, name);
    reading = work
      .catch(() => {})
      .finally(() => {
        reading = undefined;
      });
    const facts = await Promise.race([work, late]);
    return facts === 'late' ? 'the disk does not answer' : facts;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    clearTimeout(timer);
  }
}
