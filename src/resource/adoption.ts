/**
 * What a supervisor does with the workers of the one before it: those that run as this version
 * would run them it adopts, the others it ends. See docs/decisions/0008.
 */
import { closeSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { constants } from 'node:os';
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import { type Logger, withReason } from '../log.ts';
import { fdOf, type HostFunctions } from '../native.ts';
import type { BridgeNote } from './bridge.ts';
import { Channel } from './channel.ts';
import { removeExport } from './export-socket.ts';
import type { WorkerEnd } from './role.ts';
import { endOfError } from './worker-end.ts';
import type { FoundNote, WorkerFolder } from './worker-folder.ts';
import {
  type LinkSettings,
  type Running,
  type Worker,
  type WorkerHandlers,
  WorkerLink,
} from './worker-link.ts';
import { parseVersion, parseWorkerMessage } from './worker-messages.ts';
import type { WorkerRun } from './worker-protocol.ts';

export type AdoptionHost = Pick<HostFunctions, 'peerCredentials' | 'pidfdOpen' | 'pidfdSignal'>;

export interface AdoptionSettings {
  readonly host: AdoptionHost;
  readonly folder: WorkerFolder;
  readonly log: Logger;
  readonly once: LinkSettings['once'];
  /** Ends the device of a worker that is gone. */
  readonly leaveDevice: (note: BridgeNote | null) => Promise<void>;
  /** Whether a device has not been given to its new worker yet. */
  readonly waits: (note: BridgeNote) => boolean;
  /** How long all of it may take; for tests. */
  readonly ms?: number;
}

/** A worker that runs and has this process as its supervisor now. */
export interface Adopted {
  readonly pid: number;
  readonly resource: Resource;
  readonly device: string;
  readonly bridge: BridgeNote | null;
  readonly run: WorkerRun;
  /** To be called once: what the worker has kept is told from then on. */
  attach(log: Logger, handlers: WorkerHandlers): Worker;
}

/** A resource whose worker was ended, with the reason. */
export interface Lost {
  readonly name: string;
  readonly end: WorkerEnd;
  /** A device that waits for another worker, so that nobody above it notices; null: none does. */
  readonly bridge: BridgeNote | null;
}

export interface Found {
  readonly adopted: readonly Adopted[];
  readonly lost: readonly Lost[];
}

/** One worker that does not answer holds up the start for so long. */
const ADOPT_MS = 10_000;

/** Never fails. */
export async function adoptWorkers(settings: AdoptionSettings): Promise<Found> {
  const all = settings.folder.notes().map((found) => adoptOne(settings, found));
  const results = await Promise.all(all);
  return {
    adopted: results.filter((one): one is Adopted => one !== null && 'attach' in one),
    lost: results.filter((one): one is Lost => one !== null && 'end' in one),
  };
}

async function adoptOne(
  settings: AdoptionSettings,
  found: FoundNote,
): Promise<Adopted | Lost | null> {
  const { name, note, key } = found;
  const log = settings.log.child(name ?? `worker ${key}`, note?.role);
  let call: Call | undefined;
  try {
    call = await Call.open(settings, found);
    return await call.adopt(log);
  } catch (error) {
    settings.folder.forgetKey(key);
    if (error instanceof NotAdopted && error.fate === 'replace' && name !== null) {
      error.act(call);
      log.info(withReason('The running worker is replaced under its device', error));
      return { name, end: error.told, bridge: found.bridge };
    }
    // The role is init: as in every other case, whoever has the device open hears of it now.
    const left = error instanceof NotAdopted && error.fate === 'leave';
    if (!left) await settings.leaveDevice(found.bridge);
    if (!(error instanceof NotAdopted)) {
      log.info('The worker of the hastd before has ended; the role is init.');
      if (note?.role === 'primary') removeExport(note.resource);
      return null;
    }
    error.act(call);
    log.error(`${withReason('The running worker is not adopted', error)} The role is init.`);
    return name === null ? null : { name, end: error.told, bridge: null };
  }
}

/** `replace`: a crash, after which another one serves the same device in the same role. */
type Fate = 'stop' | 'kill' | 'replace' | 'leave';

class NotAdopted extends Error {
  readonly fate: Fate;

  constructor(message: string, fate: Fate) {
    super(message);
    this.fate = fate;
  }

  get told(): WorkerEnd {
    const message = `the worker of the hastd before was not adopted: ${this.message}`;
    return endOfError(new HastError('WORKER_ENDED', { message }));
  }

  act(call: Call | undefined): void {
    if (this.fate === 'kill' || this.fate === 'replace') call?.kill();
    else if (this.fate === 'stop') call?.stop();
    call?.end();
  }
}

/** One connection to a worker, up to the moment at which it is adopted or given up. */
class Call {
  readonly #settings: AdoptionSettings;
  readonly #found: FoundNote;
  readonly #channel: Channel;
  readonly #process: Adoptee | null;
  readonly #pid: number;
  readonly #lines: string[] = [];
  #wake: () => void = () => {};

  private constructor(
    settings: AdoptionSettings,
    found: FoundNote,
    socket: Socket,
    { pid, adoptee }: { readonly pid: number; readonly adoptee: Adoptee | null },
  ) {
    this.#settings = settings;
    this.#found = found;
    this.#pid = pid;
    this.#process = adoptee;
    this.#channel = new Channel(socket);
    this.#channel.onLine = (line) => {
      this.#lines.push(line);
      this.#wake();
    };
    this.#channel.onClose = () => this.#wake();
    this.#channel.resume();
  }

  /** @throws NotAdopted, or the system's error when nobody listens */
  static async open(settings: AdoptionSettings, found: FoundNote): Promise<Call> {
    const socket = connect(found.socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve).once('error', (error: NodeJS.ErrnoException) => {
        const gone = error.code === 'ENOENT' || error.code === 'ECONNREFUSED';
        reject(gone ? error : new NotAdopted(error.message, 'leave'));
      });
    });
    const { host } = settings;
    const { pid } = host.peerCredentials(fdOf(socket) ?? -1);
    return new Call(settings, found, socket, { pid, adoptee: Adoptee.of(host, pid) });
  }

  /** @throws NotAdopted */
  async adopt(log: Logger): Promise<Adopted> {
    const { folder, ms = ADOPT_MS } = this.#settings;
    const { note } = this.#found;
    const end = performance.now() + ms;
    const version = parseVersion(await this.#line(end));
    if (version === undefined) throw new NotAdopted('it says what is no message', 'kill');
    if (version !== folder.version || note === null) {
      const text = `it or its hastd was of another version than this one, ${folder.version}`;
      // Told to stop, it would answer what comes meanwhile with errors.
      throw new NotAdopted(text, this.#found.bridge === null ? 'stop' : 'replace');
    }
    this.#channel.send({ kind: 'adopt' });
    const message = parseWorkerMessage(await this.#line(end));
    if (message?.kind === 'busy') throw new NotAdopted('another hastd has it', 'leave');
    if (message?.kind !== 'adopted') throw new NotAdopted('it says what is no message', 'kill');
    const { run } = message;
    if (run === null || run.stopping) throw new NotAdopted('it was ending already', 'stop');
    if (run.role !== note.role || this.#process === null) {
      throw new NotAdopted('it is not what was noted of it', 'kill');
    }
    if (note.bridge !== null && this.#settings.waits(note.bridge)) {
      throw new NotAdopted('its device was not given to it yet', 'replace');
    }
    this.#channel.pause();
    log.info(`Adopted the running worker (pid ${this.#pid}).`);
    const { resource, device, bridge } = note;
    const running = this.#process;
    return {
      pid: this.#pid,
      resource,
      device,
      bridge,
      run,
      attach: (as, handlers) => this.#attach(running, as, handlers),
    };
  }

  kill(): void {
    this.#process?.kill('SIGKILL');
  }

  stop(): void {
    this.#channel.send({ kind: 'stop' });
  }

  end(): void {
    this.#channel.end();
    this.#process?.close();
  }

  #attach(running: Adoptee, log: Logger, handlers: WorkerHandlers): Worker {
    const { folder, once } = this.#settings;
    const { note } = this.#found;
    const link = new WorkerLink(running, this.#channel, {
      log,
      handlers,
      once,
      start: null,
      remember: (resource, bridge) => {
        if (note !== null) folder.write({ ...note, resource, bridge });
      },
      forget: () => {
        running.close();
        folder.forgetKey(this.#found.key);
      },
    });
    // Not in this turn: the caller has no worker yet.
    setImmediate(() => {
      for (const line of this.#lines) this.#channel.onLine(line);
      this.#channel.resume();
    });
    return link;
  }

  /** The next line. @throws NotAdopted */
  async #line(end: number): Promise<string> {
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined) return line;
      if (!this.#channel.open) throw new NotAdopted('it closed the connection', 'kill');
      const ms = end - performance.now();
      if (ms <= 0) throw new NotAdopted('it does not answer, and is killed', 'kill');
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

/** A worker that is no child of ours, known by a descriptor that means it for ever. */
class Adoptee implements Running {
  readonly pid: number;
  readonly child = false;
  readonly #host: AdoptionHost;
  readonly #fd: number;
  #closed = false;

  private constructor(host: AdoptionHost, pid: number, fd: number) {
    this.#host = host;
    this.pid = pid;
    this.#fd = fd;
  }

  /** Null when that is no worker: who listens at last may have died, and its id have another. */
  static of(host: AdoptionHost, pid: number): Adoptee | null {
    try {
      const fd = host.pidfdOpen(pid);
      const adoptee = new Adoptee(host, pid, fd);
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('hastd: ')) return adoptee;
      adoptee.close();
      return null;
    } catch {
      return null;
    }
  }

  kill(signal: 'SIGTERM' | 'SIGKILL'): void {
    if (!this.#closed) this.#host.pidfdSignal(this.#fd, constants.signals[signal]);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}
