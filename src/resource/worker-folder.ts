/**
 * Where a worker's socket is, and beside it what a supervisor notes for the one that comes after
 * it. The folder is ours alone: what is read here is our own word, never a worker's.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import * as v from 'valibot';
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import type { BridgeNote } from './bridge.ts';
import type { WorkerRun } from './worker-protocol.ts';

export interface WorkerNote {
  /** Of the supervisor that has written it. */
  readonly version: string;
  readonly role: WorkerRun['role'];
  /** Identity of the disk that the worker has opened. */
  readonly device: string;
  readonly bridge: BridgeNote | null;
  /** As it was configured for the worker. */
  readonly resource: Resource;
}

/** A note of this or another version. `note` is null when it cannot be used. */
export interface FoundNote {
  readonly key: string;
  readonly socket: string;
  readonly name: string | null;
  readonly note: WorkerNote | null;
  /** The kernel's device, also of another version's note. */
  readonly bridge: BridgeNote | null;
}

const BridgeSchema = v.object({
  kind: v.picklist(['ublk', 'nbd', 'ggate']),
  device: v.string(),
  owner: v.string(),
  link: v.string(),
});

const FOLDER_MODE = 0o700;
const NOTE_MODE = 0o600;
const KEY_CHARS = 32;
const SPARE = 'spare-';
const NOTE = /^([0-9a-f]{32})\.json$/;

/** A resource's name is longer than a socket's path may be. */
function keyOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, KEY_CHARS);
}

export class WorkerFolder {
  #path: string;
  readonly #fd: number;
  readonly #version: string;
  #spares = 0;

  private constructor(path: string, fd: number, version: string) {
    this.#path = path;
    this.#fd = fd;
    this.#version = version;
  }

  static pathFor(control: string): string {
    return `${control}.workers`;
  }

  /**
   * Makes it where there is none.
   * @throws HastError DAEMON_FOLDER when it is not ours alone
   */
  static open(path: string, version: string): WorkerFolder {
    let fd = -1;
    try {
      makeFolder(path);
      fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
      const { uid, mode } = fstatSync(fd);
      if (uid !== process.getuid?.() || (mode & 0o077) !== 0) {
        throw new Error('it belongs to another user, or others may use it');
      }
      const folder = new WorkerFolder(path, fd, version);
      folder.#removeSpares();
      return folder;
    } catch (cause) {
      if (fd >= 0) closeSync(fd);
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new HastError('DAEMON_FOLDER', { message: `${path}: ${why}`, cause });
    }
  }

  get version(): string {
    return this.#version;
  }

  /** Short whatever the folder's path is, and good after it was moved. */
  socketOf(name: string): string {
    return this.#at(keyOf(name));
  }

  /** For a worker that has no resource yet. */
  spareSocket(): string {
    this.#spares += 1;
    return this.#at(`${SPARE}${this.#spares}`);
  }

  /** Gives a spare's socket the place of the resource's. */
  name(socket: string, name: string): void {
    renameSync(socket, this.socketOf(name));
  }

  write(note: Omit<WorkerNote, 'version'>): void {
    const at = this.#at(`${keyOf(note.resource.name)}.json`);
    const text = JSON.stringify({ version: this.#version, ...note } satisfies WorkerNote);
    writeFileSync(`${at}.new`, text, { mode: NOTE_MODE });
    renameSync(`${at}.new`, at);
  }

  /** The worker has ended, or is nobody's concern any more. */
  forget(name: string): void {
    this.forgetKey(keyOf(name));
  }

  forgetKey(key: string): void {
    // In this order: a socket without a note would stay for ever.
    for (const file of [key, `${key}.json`]) rmSync(this.#at(file), { force: true });
  }

  notes(): readonly FoundNote[] {
    return readdirSync(this.#at('.')).flatMap((file) => {
      const key = NOTE.exec(file)?.[1];
      return key === undefined ? [] : [this.#read(key)];
    });
  }

  /** To beside another control socket. @throws the system's errors as they come */
  move(path: string): void {
    if (path === this.#path) return;
    renameSync(this.#path, path);
    this.#path = path;
  }

  /** Those of a hastd that was killed have ended with it. */
  #removeSpares(): void {
    for (const file of readdirSync(this.#at('.'))) {
      if (file.startsWith(SPARE)) rmSync(this.#at(file), { force: true });
    }
  }

  /** At the end; with a worker that has not ended it stays. */
  remove(): void {
    try {
      rmdirSync(this.#path);
    } catch {
      // There is something in it.
    }
  }

  #read(key: string): FoundNote {
    const socket = this.#at(key);
    try {
      const text = readFileSync(this.#at(`${key}.json`), 'utf8');
      const note = JSON.parse(text) as Partial<WorkerNote> | null;
      const name = typeof note?.resource?.name === 'string' ? note.resource.name : null;
      const good = name !== null && keyOf(name) === key && note?.version === this.#version;
      const { success, output } = v.safeParse(BridgeSchema, note?.bridge);
      const bridge = success ? output : null;
      return { key, socket, name, note: good ? (note as WorkerNote) : null, bridge };
    } catch {
      return { key, socket, name: null, note: null, bridge: null };
    }
  }

  #at(file: string): string {
    return `/proc/self/fd/${this.#fd}/${file}`;
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: FOLDER_MODE });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
