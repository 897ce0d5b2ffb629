/**
 * One worker process as its parent sees it: spawn, messages, deadlines, end. No role is known here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { HastError } from '../error.ts';
import type { Logger } from '../log.ts';
import { withReason } from '../log.ts';
import type { EngineEvent, EngineStats, EngineTuning, HostFunctions } from '../native.ts';
import type { Role, WorkerEnd } from './role.ts';
import { endOf, spawnFailed } from './worker-end.ts';
import type { ParentMessage, WorkerMessage, WorkerSpec } from './worker-protocol.ts';

export const WORKER_LIMITS = {
  helloMs: 30_000,
  statsMs: 2000,
  /** After SIGTERM, and for the last messages of a worker that has ended. */
  killMs: 10_000,
  lastMessagesMs: 1000,
  stderrLineChars: 1000,
} as const;

/** Room for the title in the argument area: a process title is cut to its first length. */
const TITLE_ROOM = 280;
/** Most other processes go first when memory is short: a worker stands under somebody's disk. */
const OOM_SCORE = -900;
/** Instead of a title: load everything a worker needs, then end. */
const CHECK_WORD = '--check';
const HEAP_FLAGS = ['--max-semi-space-size=1', '--max-old-space-size=64'];

export interface WorkerSettings {
  /** The worker's program, worker-main. */
  readonly entry: string;
  /** Whom a worker runs as that starts now; null: whoever runs hastd. */
  readonly user: () => { readonly uid: number; readonly gid: number } | null;
  readonly host: Pick<HostFunctions, 'setIoFlusher'>;
  /** Says a thing once in the life of the daemon. */
  readonly once: (text: string) => void;
}

export interface WorkerLaunch {
  readonly resource: string;
  readonly role: Exclude<Role, 'init'>;
  readonly disk: number;
  /** The export's listening socket, or connection 1. */
  readonly first: number | Socket;
  /** Connection 2 of a secondary. */
  readonly second: Socket | null;
  readonly spec: WorkerSpec;
  readonly log: Logger;
}

export interface WorkerHandlers {
  readonly onEvent: (event: EngineEvent) => void;
  /** Once, after the last event. */
  readonly onEnd: (end: WorkerEnd) => void;
}

/** What the supervisor needs of a worker; a test may bring its own. */
export interface Worker {
  readonly pid: number;
  reconfigure(tuning: EngineTuning): void;
  kick(): void;
  stats(): Promise<EngineStats>;
  /** Asks, then insists: stop message, SIGTERM after `graceMs`, SIGKILL. */
  stop(graceMs: number): void;
}
export type LaunchWorker = (launch: WorkerLaunch, handlers: WorkerHandlers) => Worker;

export function titleOf(resource: string, role: string): string {
  return `hastd: ${resource} (${role})`;
}

/** The worker-main of this installation: compiled, or the source when run from there. */
export function workerEntry(): string {
  const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  return fileURLToPath(new URL(`./worker-main.${ending}`, import.meta.url));
}

/** Node's own flags that a child needs to read the same kind of sources, good in any folder. */
export function nodeFlags(): string[] {
  const flags: string[] = [];
  const given = process.execArgv;
  for (let i = 0; i < given.length; i += 1) {
    const flag = given[i] ?? '';
    const value = given[i + 1];
    if ((flag !== '--import' && flag !== '--require') || value === undefined) continue;
    flags.push(flag, flag === '--import' ? import.meta.resolve(value) : value);
    i += 1;
  }
  return flags;
}

function environment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => ['PATH', 'LANG', 'TZ', 'TMPDIR'].includes(name) || /^(HASTD|TSX)_/.test(name),
  );
  return Object.fromEntries(kept);
}

function spawnWorker(settings: WorkerSettings, launch: WorkerLaunch): ChildProcess {
  const { resource, role, disk, first, second } = launch;
  const title = titleOf(resource, role);
  const flusher = settings.host.setIoFlusher(true);
  if (!flusher)
    settings.once('The kernel refused PR_SET_IO_FLUSHER: memory pressure may stall I/O.');
  try {
    return spawn(process.execPath, [...HEAP_FLAGS, ...nodeFlags(), settings.entry, title], {
      argv0: title.padEnd(TITLE_ROOM),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc', disk, first, second ?? 'ignore'],
      serialization: 'advanced',
      env: environment(),
      ...(settings.user() ?? {}),
    });
  } finally {
    if (flusher) settings.host.setIoFlusher(false);
  }
}

class WorkerProcess implements Worker {
  readonly #child: ChildProcess;
  readonly #launch: WorkerLaunch;
  readonly #handlers: WorkerHandlers;
  readonly #once: (text: string) => void;
  readonly #asked = new Map<number, (stats: EngineStats | null) => void>();
  #nextId = 1;
  #last: Extract<EngineEvent, { type: 'end' }> | undefined;
  #problem: Error | undefined;
  #over = false;
  #stopping = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    child: ChildProcess,
    launch: WorkerLaunch,
    handlers: WorkerHandlers,
    once: (text: string) => void,
  ) {
    this.#child = child;
    this.#launch = launch;
    this.#handlers = handlers;
    this.#once = once;
    child.on('message', (message) => this.#receive(message as WorkerMessage));
    child.on('error', (error) => {
      if (child.pid === undefined) this.#end(spawnFailed(error));
      else this.#problem = error;
    });
    child.on('exit', (code, signal) => void this.#exited(code, signal));
    if (child.stderr !== null) {
      createInterface({ input: child.stderr }).on('line', (line) => {
        if (line !== '') launch.log.error(line.slice(0, WORKER_LIMITS.stderrLineChars));
      });
    }
    this.#timer = setTimeout(() => {
      launch.log.error('Worker does not answer after its start, killing it.');
      child.kill('SIGKILL');
    }, WORKER_LIMITS.helloMs);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  reconfigure(tuning: EngineTuning): void {
    this.#send({ kind: 'reconfigure', tuning });
  }

  kick(): void {
    this.#send({ kind: 'kick' });
  }

  stats(): Promise<EngineStats> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const silent = (): void =>
        reject(new HastError('WORKER_ENDED', { message: 'the worker does not answer' }));
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        silent();
      }, WORKER_LIMITS.statsMs);
      this.#asked.set(id, (stats) => {
        clearTimeout(timer);
        this.#asked.delete(id);
        if (stats === null) silent();
        else resolve(stats);
      });
      this.#send({ kind: 'stats', id });
    });
  }

  stop(graceMs: number): void {
    if (this.#over || this.#stopping) return;
    this.#stopping = true;
    this.#send({ kind: 'stop' });
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#launch.log.warning('Worker does not stop, sending SIGTERM.');
      this.#child.kill('SIGTERM');
      this.#timer = setTimeout(() => {
        this.#launch.log.error('Worker does not stop, killing it.');
        this.#child.kill('SIGKILL');
      }, WORKER_LIMITS.killMs);
    }, graceMs);
  }

  #send(message: ParentMessage): void {
    if (this.#over || !this.#child.connected) return;
    // A channel that broke is followed by the worker's end, which tells more.
    this.#child.send(message, () => {});
  }

  #receive(message: WorkerMessage): void {
    switch (message.kind) {
      case 'hello':
        if (!this.#stopping) clearTimeout(this.#timer);
        for (const what of message.refused) {
          this.#once(`The kernel refused ${what}: workers are confined by the rest only.`);
        }
        // A worker that was asked to stop before it began has nothing to end.
        if (this.#stopping) break;
        this.#send({ kind: 'start', spec: this.#launch.spec, debug: this.#launch.log.debug });
        break;
      case 'engine':
        if (message.event.type === 'end') this.#last = message.event;
        else if (!this.#over) this.#handlers.onEvent(message.event);
        break;
      case 'stats':
        this.#asked.get(message.id)?.(message.stats);
        break;
    }
  }

  /** The process is gone; what it said last may still be in the channel. */
  async #exited(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    if (this.#child.connected) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, WORKER_LIMITS.lastMessagesMs);
        this.#child.once('disconnect', () => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    this.#end(endOf(code, signal, this.#last, this.#problem));
  }

  #end(end: WorkerEnd): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    for (const answer of this.#asked.values()) answer(null);
    this.#handlers.onEnd(end);
  }
}

function protect(pid: number, settings: WorkerSettings): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, `${OOM_SCORE}`);
  } catch (error) {
    settings.once(withReason('The kernel refused oom_score_adj for workers', error));
  }
}

/** Spawns workers. The descriptors stay open here: closing the parent's copies is the caller's. */
export function workerLauncher(settings: WorkerSettings): LaunchWorker {
  return (launch, handlers) => {
    const child = spawnWorker(settings, launch);
    if (child.pid !== undefined) protect(child.pid, settings);
    return new WorkerProcess(child, launch, handlers, settings.once);
  };
}

const CHECK_MS = 30_000;

/**
 * Whether the workers' user can run this installation: tries it.
 * @throws HastError INSTALL_UNREADABLE
 */
export async function verifyInstallation(
  entry: string,
  name: string,
  user: { readonly uid: number; readonly gid: number },
): Promise<void> {
  const child = spawn(process.execPath, [...nodeFlags(), entry, CHECK_WORD], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: environment(),
    cwd: '/',
    timeout: CHECK_MS,
    killSignal: 'SIGKILL',
    ...user,
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < WORKER_LIMITS.stderrLineChars) said += text;
  });
  const problem = await new Promise<string | null>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => {
      if (code === 0) return resolve(null);
      const lines = said.split('\n');
      const telling = lines.find((line) => /Error|EACCES/.test(line)) ?? lines[0] ?? '';
      return resolve(telling === '' ? `ended with ${signal ?? code}` : telling.trim());
    });
  });
  if (problem !== null) {
    throw new HastError('INSTALL_UNREADABLE', {
      message: `user ${name} cannot run a worker of this installation: ${problem}`,
    });
  }
}
