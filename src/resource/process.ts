/** Gives worker processes their resources. No role is known here. */
import { spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import type { Logger } from '../log.ts';
import { fdOf, type HostFunctions } from '../native.ts';
import type { BridgeNote } from './bridge.ts';
import { nodeFlags, workerEnvironment } from './node-process.ts';
import type { Spares } from './spares.ts';
import type { WorkerFolder } from './worker-folder.ts';
import { WORKER_LIMITS, type Worker, type WorkerHandlers, WorkerLink } from './worker-link.ts';
import type { WorkerRun, WorkerSpec } from './worker-protocol.ts';

/** Instead of a title: load everything a worker needs, then end. */
const CHECK_WORD = '--check';

export interface WorkerSettings {
  readonly host: Pick<HostFunctions, 'sendDescriptors'>;
  readonly spares: Pick<Spares, 'take'>;
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
  /** The kernel's connections, or connection 2. */
  readonly rest: readonly (number | Socket)[];
  readonly bridge: BridgeNote | null;
  readonly spec: WorkerSpec;
  readonly log: Logger;
}

export type LaunchWorker = (launch: WorkerLaunch, handlers: WorkerHandlers) => Worker;

/** Starts workers. The descriptors stay open here: closing the parent's copies is the caller's. */
export function workerLauncher(settings: WorkerSettings): LaunchWorker {
  return (launch, handlers) => {
    const { resource, role, device, bridge, spec, log } = launch;
    const { host, spares, once } = settings;
    const folder = settings.folder();
    const remember = (as: Resource, has: BridgeNote | null): void =>
      folder.write({ role, device, bridge: has, resource: as });
    const spare = spares.take();
    try {
      // The note first: a socket without one is found by nobody.
      remember(resource, bridge);
      folder.name(spare.socket, resource.name);
      host.sendDescriptors(spare.gifts, descriptorsOf(launch));
    } catch (error) {
      folder.forget(resource.name);
      spare.discard();
      throw error;
    } finally {
      spare.closeGifts();
    }
    const { child, channel } = spare;
    const running = {
      pid: child.pid ?? 0,
      child: true,
      kill: (signal: NodeJS.Signals) => void child.kill(signal),
    };
    const link = new WorkerLink(running, channel, {
      log,
      handlers,
      once,
      start: { kind: 'start', spec, debug: log.debug },
      remember,
      forget: () => folder.forget(resource.name),
    });
    channel.resume();
    // Not in this turn: the caller has no worker yet.
    setImmediate(() => spare.bind(link, log));
    return link;
  };
}

function descriptorsOf({ disk, first, rest }: WorkerLaunch): readonly number[] {
  return [disk, first, ...rest].map((one) => {
    const fd = typeof one === 'number' ? one : fdOf(one);
    if (fd === undefined) throw new HastError('PEER_GONE');
    return fd;
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
    env: workerEnvironment(),
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
