/** The pid file: the lock on it says that a daemon runs, its text says which. */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { HastError } from './error.ts';
import type { HostFunctions } from './native.ts';

const MODE = 0o600;
const TRIES = 10;

export class Pidfile {
  readonly path: string;
  readonly #fd: number;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  /**
   * Opens and locks; nothing is written yet.
   * @throws HastError DAEMON_HELD when another process holds it; the system's errors as they come
   */
  static take(path: string, host: Pick<HostFunctions, 'flock'>): Pidfile {
    for (let i = 0; i < TRIES; i += 1) {
      const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, MODE);
      if (!host.flock(fd)) {
        closeSync(fd);
        throw held(path);
      }
      // One that just ended may have removed the file between our open and our lock.
      if (isAt(path, fd)) return new Pidfile(path, fd);
      closeSync(fd);
    }
    throw held(path);
  }

  /** Decimal, no newline. */
  write(pid: number): void {
    ftruncateSync(this.#fd, 0);
    writeSync(this.#fd, `${pid}`, 0);
  }

  remove(): void {
    if (isAt(this.path, this.#fd)) rmSync(this.path, { force: true });
    closeSync(this.#fd);
  }
}

function isAt(path: string, fd: number): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  const own = fstatSync(fd);
  return found !== undefined && found.ino === own.ino && found.dev === own.dev;
}

function held(path: string): HastError {
  let pid = '';
  try {
    pid = readFileSync(path, 'latin1').trim();
  } catch {
    // Only the number is missing then.
  }
  const who = /^\d+$/.test(pid) ? ` (pid ${pid})` : '';
  return new HastError('DAEMON_HELD', { message: `another hastd is running${who}: ${path}` });
}
