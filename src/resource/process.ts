/** Starts worker processes. No role is known here. */
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import type { Logger } from '../log.ts';
import { withReason } from '../log.ts';
import type { HostFunctions } from '../native.ts';
import { Channel } from './channel.ts';
import { spawnFailed } from './worker-end.ts';
import type { WorkerFolder } from './worker-folder.ts';
import { WORKER_LIMITS, type Worker, type WorkerHandlers, WorkerLink } from './worker-link.ts';
import type { WorkerRun, WorkerSpec } from './worker-protocol.ts';

const DOOR_MODE = 0o600;
const AS_IS = -1;
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
  readonly host: Pick<HostFunctions, 'setIoFlusher' | 'listenUnix' | 'closeFd'>;
  /** Where the workers' sockets are. */
  readonly folder: () => WorkerFolder;
  /** Says a thing once in the life of the daemon. */
  readonly once: (text: string) => void;
}

export interface WorkerLaunch {
  readonly resource: Resource;
  readonly role: WorkerRun['role'];
  readonly disk: number;
  /** Its identity. */
  readonly device: string;
  /** The export's listening socket, or connection 1. */
  readonly first: number | Socket;
  /** Connection 2 of a secondary. */
  readonly second: Socket | null;
  readonly spec: WorkerSpec;
  readonly log: Logger;
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

function spawnWorker(
  settings: WorkerSettings,
  { resource, role, disk, first, second }: WorkerLaunch,
  door: number,
): ChildProcess {
  const title = titleOf(resource.name, role);
  const flusher = settings.host.setIoFlusher(true);
  if (!flusher)
    settings.once('The kernel refused PR_SET_IO_FLUSHER: memory pressure may stall I/O.');
  try {
    return spawn(process.execPath, [...HEAP_FLAGS, ...nodeFlags(), settings.entry, title], {
      argv0: title.padEnd(TITLE_ROOM),
      stdio: ['ignore', 'ignore', 'pipe', door, disk, first, second ?? 'ignore'],
      env: environment(),
      ...(settings.user() ?? {}),
    });
  } finally {
    if (flusher) settings.host.setIoFlusher(false);
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
    const { resource, role, device, spec, log } = launch;
    const folder = settings.folder();
    // The note first: a socket without one is found by nobody.
    const remember = (as: Resource): void => folder.write({ role, device, resource: as });
    remember(resource);
    const path = folder.socketOf(resource.name);
    const door = settings.host.listenUnix(path, DOOR_MODE, AS_IS, AS_IS);
    let child: ChildProcess;
    try {
      child = spawnWorker(settings, launch, door);
    } finally {
      settings.host.closeFd(door);
    }
    if (child.pid !== undefined) protect(child.pid, settings);
    const running = {
      pid: child.pid ?? 0,
      child: true,
      kill: (signal: NodeJS.Signals) => void child.kill(signal),
    };
    const channel = new Channel(connect(path));
    const link = new WorkerLink(running, channel, {
      log,
      handlers,
      once: settings.once,
      start: { kind: 'start', spec },
      remember,
      forget: () => folder.forget(resource.name),
    });
    watch(child, link, log);
    channel.resume();
    return link;
  };
}

function watch(child: ChildProcess, link: WorkerLink, log: Logger): void {
  child.on('error', (error) => {
    if (child.pid === undefined) link.end(spawnFailed(error));
    else link.trouble(error);
  });
  child.on('exit', (code, signal) => void link.ended(code, signal));
  if (child.stderr === null) return;
  createInterface({ input: child.stderr }).on('line', (line) => {
    if (line !== '') log.error(line.slice(0, WORKER_LIMITS.stderrLineChars));
  });
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
