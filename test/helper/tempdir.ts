import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A fresh folder; its path is short enough for UNIX sockets. The caller removes it. */
export function makeTempdir(): string {
  return mkdtempSync(join(tmpdir(), 'hastd-'));
}

/** Runs `body` in a fresh folder and removes the folder, whatever happens. */
export async function inTempdir<T>(body: (directory: string) => T | Promise<T>): Promise<T> {
  const directory = makeTempdir();
  try {
    return await body(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
