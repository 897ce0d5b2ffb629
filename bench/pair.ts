/** Ours: two nodes on this machine, or one without a peer, started anew for each measurement. */
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { ControlClient } from '../src/control/client.ts';
import type { Role, WorkerStatus } from '../src/control/protocol.ts';
import { HastError } from '../src/error.ts';
import { BenchError, run, Server, until } from './process.ts';
import { measureServed, type Served, type Target } from './targets.ts';

export const MODES = ['fullsync', 'memsync', 'async'] as const;
export type Mode = (typeof MODES)[number];

/** Who the workers are, when hastd is root. */
export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

export interface Setting {
  readonly directory: string;
  readonly user: User | undefined;
  readonly componentBytes: number;
  /** Says what takes long. */
  readonly progress: (text: string) => void;
}

const ROOT = new URL('..', import.meta.url).pathname;
const RESOURCE = 'data';
const SYNC_SECONDS = 600;

/**
 * Copies what has been built, so that a build during the run changes nothing; the workers can read
 * it even when they are not who started the bench.
 */
export function copyBuild(directory: string): void {
  const addon = 'out/native/hastd.node';
  for (const path of ['dist', addon, 'package.json']) {
    if (!existsSync(join(ROOT, path))) {
      throw new BenchError(`${path} is missing: npm run build && npm run build:native`);
    }
    cpSync(join(ROOT, path), join(directory, path), { recursive: true });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' ? (address?.port ?? 0) : 0));
    });
  });
}

interface NodePlan {
  readonly name: string;
  readonly local: string;
  readonly port: number;
  /** 0: none. */
  readonly remotePort: number;
}

/** A running daemon and the one resource it has. */
class Node {
  readonly #server: Server;
  readonly #client: ControlClient;
  readonly socket: string;

  constructor(directory: string, config: string, name: string) {
    const program = join(directory, 'dist/bin/hastd.js');
    const pidfile = join(directory, `${name}.pid`);
    const args = [program, '-F', '-c', config, '-n', name, '-P', pidfile];
    this.socket = join(directory, name, 'data.nbd');
    this.#server = new Server(process.execPath, args, join(directory, `${name}.log`));
    this.#client = new ControlClient(join(directory, `${name}.ctl`));
  }

  async #answers(): Promise<boolean> {
    this.#server.expectAlive();
    try {
      await this.#client.resource(RESOURCE);
      return true;
    } catch (error) {
      if (error instanceof HastError && error.code === 'CTL_CONNECT') return false;
      throw error;
    }
  }

  async take(role: Role): Promise<void> {
    await until('hastd answers', 20, () => this.#answers());
    try {
      await this.#client.setRole(RESOURCE, { role, force: false, ifUnused: false });
    } catch (error) {
      const { message } = error as Error;
      // It is counted for each user, and other workers of the same one take from it.
      const hint = message.includes('locked memory') ? '\n--user NAME may help (of root)' : '';
      throw new BenchError(`${role}: ${message}${hint}\n${this.#server.output()}`);
    }
  }

  async worker(): Promise<WorkerStatus | undefined> {
    this.#server.expectAlive();
    return (await this.#client.resource(RESOURCE)).worker ?? undefined;
  }

  async waitForSync(): Promise<void> {
    await until('both copies are the same', SYNC_SECONDS, async () => {
      const worker = await this.worker();
      return worker?.state === 'in-sync' && worker.syncBytesLeft === 0;
    });
  }

  output(): string {
    return this.#server.output();
  }

  stop(): Promise<void> {
    return this.#server.stop();
  }
}

function configText({ directory, user }: Setting, mode: Mode, nodes: readonly NodePlan[]): string {
  const daemon = ({ name, port }: NodePlan) => `on ${name} {
  control uds://${directory}/${name}.ctl
  listen 127.0.0.1:${port}
}`;
  const component = ({ name, local, remotePort }: NodePlan) => `  on ${name} {
    local ${local}
    remote ${remotePort === 0 ? 'none' : `127.0.0.1:${remotePort}`}
    export uds://${directory}/${name}/data.nbd
  }`;
  return `${user === undefined ? '' : `user ${user.name}\n`}replication ${mode}
statedir ${directory}/state
device none
${nodes.map(daemon).join('\n')}
resource ${RESOURCE} {
${nodes.map(component).join('\n')}
}
`;
}

/** A folder that the workers' user may write in and nobody else. */
function workerFolder(path: string, user: User | undefined): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o700);
  if (user !== undefined) chownSync(path, user.uid, user.gid);
}

async function makeConfig(setting: Setting, mode: Mode, locals: readonly string[]) {
  const { directory, user } = setting;
  const ports = await Promise.all(locals.map(freePort));
  const names = locals.length === 1 ? ['alone'] : ['a', 'b'];
  const nodes = locals.map((local, i) => {
    const remotePort = ports.length === 1 ? 0 : (ports[1 - i] ?? 0);
    return { name: names[i] ?? '', local, port: ports[i] ?? 0, remotePort };
  });
  const config = join(directory, `${names[0]}-${mode}.conf`);
  writeFileSync(config, configText(setting, mode, nodes));
  for (const name of [...names, 'state']) workerFolder(join(directory, name), user);
  return { config, names };
}

async function create(setting: Setting, config: string, names: readonly string[]): Promise<void> {
  const program = join(setting.directory, 'dist/bin/hastctl.js');
  for (const name of names) {
    const size = ['-m', String(setting.componentBytes)];
    await run(process.execPath, [program, 'create', '-c', config, '-n', name, ...size, 'data'], 60);
  }
}

async function startNodes(setting: Setting, config: string, names: readonly string[]) {
  for (const name of names) rmSync(join(setting.directory, `${name}.ctl`), { force: true });
  const [primary, secondary] = names.map((name) => new Node(setting.directory, config, name));
  if (primary === undefined) throw new BenchError('a cluster has a node');
  const stop = async () => {
    await Promise.all([primary.stop(), secondary?.stop()]);
  };
  try {
    await secondary?.take('secondary');
    await primary.take('primary');
    if (secondary !== undefined) await primary.waitForSync();
    const workers = [await primary.worker(), await secondary?.worker()];
    const pids = workers.flatMap((worker) => (worker === undefined ? [] : [worker.pid]));
    const output = () => [primary.output(), secondary?.output() ?? ''].join('\n');
    return { socket: primary.socket, name: RESOURCE, pids, stop, output } satisfies Served;
  } catch (error) {
    await stop();
    throw error;
  }
}

/** @param locals  the component of a node without a peer, or those of primary and secondary */
export async function ourTarget(
  setting: Setting,
  mode: Mode,
  locals: readonly string[],
  fresh: boolean,
): Promise<Target> {
  const { config, names } = await makeConfig(setting, mode, locals);
  const start = () => startNodes(setting, config, names);
  if (fresh) {
    await create(setting, config, names);
    setting.progress(`hastd on ${locals.join(' and ')}: the first synchronisation`);
    await (await start()).stop();
  }
  return {
    name: locals.length === 1 ? 'alone' : mode,
    what: locals.length === 1 ? 'hastd, remote none' : `hastd with a peer, replication ${mode}`,
    fits: () => true,
    measure: (job, seconds) => measureServed(start, job, seconds),
  };
}
