/**
 * Worker processes that wait for something to do. Starting one costs ten times what a role change
 * costs otherwise, and all of a failover changes its roles at once. See docs/decisions/0009.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { type Logger, withReason } from '../log.ts';
import type { HostFunctions } from '../native.ts';
import { Channel } from './channel.ts';
import { HEAP_FLAGS, nodeFlags, workerEnvironment } from './node-process.ts';
import type { WorkerFolder } from './worker-folder.ts';
import { WORKER_LIMITS, type WorkerLink } from './worker-link.ts';

/** How many there are at most. */
export const SPARES_MAX = 8;
/** They are replaced when it has been quiet for so long, one after the other. */
const QUIET_MS = 2000;
const PAUSE_MS = 300;
/** A resource may lose its worker without another one being taken. */
const CHECK_MS = 10_000;
/** After one that has ended by itself. */
const TROUBLE_MS = 60_000;

/** Room for the title in the argument area: a process title is cut to its first length. */
const TITLE_ROOM = 280;
/** Most other processes go first when memory is short: a worker stands under somebody's disk. */
const OOM_SCORE = -900;
const SPARE_TITLE = 'hastd: (spare)';
const DOOR_MODE = 0o600;
const AS_IS = -1;

type User = { readonly uid: number; readonly gid: number };

export interface SpareSettings {
  /** The worker's program, worker-main. */
  readonly entry: string;
  /** Whom a worker runs as that starts now; null: whoever runs hastd. */
  readonly user: () => User | null;
  readonly host: Pick<HostFunctions, 'setIoFlusher' | 'listenUnix' | 'closeFd' | 'socketPair'>;
  /** Where the workers' sockets are. */
  readonly folder: () => WorkerFolder;
  /** Says a thing once in the life of the daemon. */
  readonly once: (text: string) => void;
  readonly log: Logger;
}

/** A worker process that has no resource yet. */
export class Spare {
  readonly child: ChildProcess;
  /** Not read before it has a resource. */
  readonly channel: Channel;
  /** This end of what its descriptors go over; -1 when it is closed. */
  gifts: number;
  readonly socket: string;
  readonly #user: string;
  readonly #host: SpareSettings['host'];
  #link: WorkerLink | undefined;
  #problem: Error | undefined;
  #exited: readonly [number | null, NodeJS.Signals | null] | undefined;
  log: Logger;

  constructor(settings: SpareSettings, onEnd: () => void) {
    const { host, log } = settings;
    this.#host = host;
    this.log = log;
    const user = settings.user();
    this.#user = JSON.stringify(user);
    this.socket = settings.folder().spareSocket();
    const door = host.listenUnix(this.socket, DOOR_MODE, AS_IS, AS_IS);
    const [ours, theirs] = host.socketPair();
    this.gifts = ours;
    try {
      this.child = spawnWorker(settings, user, door, theirs);
    } finally {
      host.closeFd(door);
      host.closeFd(theirs);
    }
    if (this.child.pid !== undefined) protect(this.child.pid, settings);
    this.channel = new Channel(connect(this.socket));
    // It has a supervisor from now on; what it answers is read later.
    this.channel.send({ kind: 'adopt' });
    this.#watch(onEnd);
  }

  /** Whether it is still good for a worker that starts now. */
  fits(user: User | null): boolean {
    return this.#exited === undefined && this.#user === JSON.stringify(user);
  }

  /** The link is told of the end from now on. */
  bind(link: WorkerLink, log: Logger): void {
    this.#link = link;
    this.log = log;
    this.#tell();
  }

  closeGifts(): void {
    if (this.gifts >= 0) this.#host.closeFd(this.gifts);
    this.gifts = -1;
  }

  discard(): void {
    this.closeGifts();
    rmSync(this.socket, { force: true });
    this.channel.destroy(); // which ends it
    this.child.kill('SIGTERM');
  }

  #watch(onEnd: () => void): void {
    const { child } = this;
    child.on('error', (error) => {
      this.#problem = error;
      if (child.pid === undefined) this.#exited = [null, null];
      this.#tell();
      if (child.pid === undefined) onEnd();
    });
    child.on('exit', (code, signal) => {
      this.#exited = [code, signal];
      this.#tell();
      onEnd();
    });
    if (child.stderr === null) return;
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (line !== '') this.log.error(line.slice(0, WORKER_LIMITS.stderrLineChars));
    });
  }

  #tell(): void {
    if (this.#link === undefined) return;
    if (this.#problem !== undefined) {
      this.#link.trouble(this.#problem, this.child.pid !== undefined);
      this.#problem = undefined;
    }
    if (this.#exited !== undefined && this.child.pid !== undefined) {
      void this.#link.ended(...this.#exited);
    }
  }
}

function spawnWorker(
  settings: SpareSettings,
  user: User | null,
  door: number,
  gifts: number,
): ChildProcess {
  const { host, once, entry } = settings;
  const flusher = host.setIoFlusher(true);
  if (!flusher) once('The kernel refused PR_SET_IO_FLUSHER: memory pressure may stall I/O.');
  try {
    return spawn(process.execPath, [...HEAP_FLAGS, ...nodeFlags(), entry, SPARE_TITLE], {
      argv0: SPARE_TITLE.padEnd(TITLE_ROOM),
      stdio: ['ignore', 'ignore', 'pipe', door, gifts],
      env: workerEnvironment(),
      ...(user ?? {}),
    });
  } finally {
    if (flusher) host.setIoFlusher(false);
  }
}

function protect(pid: number, { once }: SpareSettings): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, `${OOM_SCORE}`);
  } catch (error) {
    once(withReason('The kernel refused oom_score_adj for workers', error));
  }
}

export class Spares {
  readonly #settings: SpareSettings;
  /** How many resources have no worker. */
  readonly #idle: () => number;
  readonly #all: Spare[] = [];
  #timer: NodeJS.Timeout | undefined;
  #open = false;

  constructor(settings: SpareSettings, idle: () => number) {
    this.#settings = settings;
    this.#idle = idle;
  }

  /** From now on there are some. */
  open(): void {
    this.#open = true;
    this.#later(PAUSE_MS);
  }

  /** One that waits, or a new one. */
  take(): Spare {
    if (this.#open) this.#later(QUIET_MS);
    for (let spare = this.#all.shift(); spare !== undefined; spare = this.#all.shift()) {
      if (spare.fits(this.#settings.user())) return spare;
      spare.discard();
    }
    return this.#make();
  }

  /** They were started with what has changed now. */
  renew(): void {
    for (const spare of this.#all.splice(0)) spare.discard();
    if (this.#open) this.#later(QUIET_MS);
  }

  close(): void {
    this.#open = false;
    clearTimeout(this.#timer);
    this.renew();
  }

  #later(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fill(), ms).unref();
  }

  #fill(): void {
    if (!this.#open) return;
    const wanted = Math.min(SPARES_MAX, this.#idle());
    for (const spare of this.#all.splice(wanted)) spare.discard();
    if (this.#all.length >= wanted) {
      this.#later(CHECK_MS);
      return;
    }
    try {
      this.#all.push(this.#make());
      this.#later(PAUSE_MS);
    } catch (error) {
      this.#settings.log.warning(withReason('No worker can be kept ready', error));
      this.#later(TROUBLE_MS);
    }
  }

  #make(): Spare {
    const spare: Spare = new Spare(this.#settings, () => this.#ended(spare));
    return spare;
  }

  #ended(spare: Spare): void {
    const at = this.#all.indexOf(spare);
    if (at < 0) return;
    this.#all.splice(at, 1);
    spare.discard();
    this.#settings.log.warning('A worker that was kept ready has ended by itself.');
    this.#later(TROUBLE_MS);
  }
}
