// Two real hastd on loopback, each with a disk in a file, and everything a test does to them.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import * as v from 'valibot';
import type { Device } from '../../src/config/config.ts';
import {
  ResourceSchema,
  type ResourceStatus,
  type WorkerStatus,
} from '../../src/control/protocol.ts';
import { LIMITS } from '../../src/limits.ts';
import { decodeBlock } from '../../src/metadata.ts';
import type { MetadataFields } from '../../src/native.ts';
import { until, withDeadline } from './deadline.ts';
import { type Answer, ask } from './http.ts';
import { freePorts, inOrderOfLane } from './lane.ts';
import { NbdClient } from './nbd.ts';
import { Relay } from './relay.ts';
import { makeTempdir } from './tempdir.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const MIB = 1 << 20;
/** Longer where a processor is emulated and the files are read for the first time. */
const START_MS = process.env.VM === '1' ? 120_000 : 30_000;
/** Between two looks at a status. */
const PAUSE_MS = 25;

export type Mode = 'fullsync' | 'memsync' | 'async';
export const MODES: readonly Mode[] = ['fullsync', 'memsync', 'async'];

// ---- The programs -----------------------------------------------------------------------------

/** Whether the compiled program is there and nothing of its source is newer. */
export function isCompiled(): boolean {
  const stamp = join(ROOT, 'dist/.stamp');
  if (!existsSync(stamp)) return false;
  const built = statSync(stamp).mtimeMs;
  return readdirSync(join(ROOT, 'src'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !/^(grammar\..*|error-codes\.ts)$/.test(entry.name))
    .every((entry) => statSync(join(entry.parentPath, entry.name)).mtimeMs <= built);
}

const compiled = isCompiled();

/** Node's arguments for a program: as installed, or else from the source. */
export function program(name: 'hastd' | 'hastctl'): string[] {
  if (compiled) return [join(ROOT, `dist/bin/${name}.js`)];
  return ['--import', import.meta.resolve('tsx'), join(ROOT, `src/bin/${name}.ts`)];
}

/** Node's arguments for a command of hastctl to a node. */
export function hastctlArguments(
  { config, name }: Pick<Node, 'config' | 'name'>,
  verb: string,
  ...args: readonly string[]
): string[] {
  return [...program('hastctl'), verb, '-c', config, '-n', name, ...args];
}

// ---- The user of the workers ------------------------------------------------------------------

export interface TestUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

let foundUser: TestUser | undefined;

/** Of root's tests: a user who can read this installation. Undefined when not root. */
export function workerUser(): TestUser | undefined {
  if (process.getuid?.() === 0) foundUser ??= findUser();
  return foundUser;
}

/** Numbers of the users that have a process now. */
function usersAtWork(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid ?? []);
}

function findUser(): TestUser {
  const wanted = process.env.HASTD_TEST_USER;
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .map(([name = '', , uid, gid]) => ({ name, uid: Number(uid), gid: Number(gid) }));
  const known = ['hast', 'nobody', 'daemon', 'games', 'mail', 'news', 'bin'];
  // Locked memory is counted by user: other daemons' workers would take it away from ours.
  const busy = new Set(usersAtWork());
  const idle = users.filter(({ name, uid }) => known.includes(name) && !busy.has(uid));
  const best = inOrderOfLane(known.filter((name) => idle.some((one) => one.name === name)));
  const names = wanted === undefined ? [...best, ...known] : [wanted];
  const script = `require('node:fs').accessSync(${JSON.stringify(join(ROOT, 'package.json'))})`;
  for (const name of names) {
    const user = users.find((one) => one.name === name);
    if (user === undefined) continue;
    const { uid, gid } = user;
    const { status } = spawnSync(process.execPath, ['-e', script], { uid, gid, cwd: '/' });
    if (status === 0) return user;
  }
  throw new Error(`none of the users ${names.join(', ')} can read ${ROOT}`);
}

/** Why no pair can be started here; undefined when it can. */
export function noPair(): string | undefined {
  try {
    accessSync(join(ROOT, 'out/native/hastd.node'), constants.R_OK);
    workerUser();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

// ---- Processes --------------------------------------------------------------------------------

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. It is killed when the signal aborts. */
export function runProgram(
  file: string,
  args: readonly string[],
  signal?: AbortSignal,
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, PATH: `/usr/bin:${process.env.PATH ?? ''}` };
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    const child = spawn(file, args, { stdio: [...stdio], env, ...(signal ? { signal } : {}) });
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** The process's start time in ticks: with the id it names a process for ever. */
function startOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)?.split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Of a process, or of one of its threads by /proc/PID/task; Z when there is none. */
function stateOf(process: string): string {
  try {
    return readFileSync(`/proc/${process}/stat`, 'latin1').split(') ').at(-1)?.[0] ?? 'Z';
  } catch {
    return 'Z';
  }
}

function isZombie(pid: number): boolean {
  return stateOf(String(pid)) === 'Z';
}

/** A process of ours, which stays known after its id is given to another. */
export class Process {
  readonly pid: number;
  readonly #start: string | undefined;

  constructor(pid: number) {
    this.pid = pid;
    this.#start = startOf(pid);
  }

  get alive(): boolean {
    const start = startOf(this.pid);
    return start !== undefined && start === this.#start && !isZombie(this.pid);
  }

  signal(name: NodeJS.Signals): void {
    if (!this.alive) return;
    try {
      process.kill(this.pid, name);
    } catch {
      // It has just ended.
    }
  }

  /** SIGSTOP; when it has come to every thread. */
  async freeze(): Promise<void> {
    this.signal('SIGSTOP');
    const tasks = `${this.pid}/task`;
    await until(`process ${this.pid} stopped`, 10_000, () =>
      readdirSync(`/proc/${tasks}`).every((id) => stateOf(`${tasks}/${id}`) === 'T'),
    );
  }
}

// ---- Where the nodes are ----------------------------------------------------------------------

export type NodeName = 'a' | 'b';

export interface Network {
  /** The address of a node. */
  address(name: NodeName): string;
  /** What is put before a command so that it runs there; it must keep its process id. */
  enter(name: NodeName): readonly string[];
}

const LOOPBACK: Network = { address: () => '127.0.0.1', enter: () => [] };
export const LOOPBACK6: Network = { address: () => '::1', enter: () => [] };

/** As a configuration has it. */
function addressText(host: string, port: number): string {
  return isIPv6(host) ? `tcp6://[${host}]:${port}` : `tcp4://${host}:${port}`;
}

// ---- One node ---------------------------------------------------------------------------------

export class Node {
  readonly name: NodeName;
  readonly directory: string;
  readonly resource: string;
  readonly port: number;
  readonly #flags: readonly string[];
  readonly #network: Network;
  readonly #workers = new Map<number, Process>();
  #child: ChildProcess | undefined;
  #daemon: Process | undefined;
  /** What all daemons of this node have printed. */
  output = '';
  onOutput: ((text: string) => void) | undefined;
  /** More of the environment of its daemons. */
  env: Readonly<Record<string, string>> = {};
  /** More options of its daemons. */
  options: readonly string[] = [];

  constructor(
    name: NodeName,
    { directory, resource, port }: { directory: string; resource: string; port: number },
    flags: readonly string[],
    network: Network = LOOPBACK,
  ) {
    this.#network = network;
    this.name = name;
    this.directory = directory;
    this.resource = resource;
    this.port = port;
    this.#flags = flags;
  }

  get config(): string {
    return `${this.directory}/${this.name}.conf`;
  }
  /** The file of `secret`. */
  get secret(): string {
    return `${this.directory}/${this.name}.key`;
  }
  get disk(): string {
    return `${this.directory}/${this.name}.disk`;
  }
  get control(): string {
    return `${this.directory}/${this.name}.ctl`;
  }
  /** The export's socket. */
  get socket(): string {
    return `${this.directory}/${this.name}.run/nbd`;
  }
  /** Where the workers' own sockets are. */
  get workers(): string {
    return `${this.control}.workers`;
  }
  /** Where its device has a link, by `device`. */
  get devices(): string {
    return `${this.directory}/${this.name}.dev`;
  }
  get device(): string {
    return `${this.devices}/${this.resource}`;
  }
  get uri(): string {
    return `nbd+unix:///?socket=${this.socket}`;
  }
  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }
  get running(): boolean {
    return this.#daemon?.alive ?? false;
  }

  // ---- The daemon -----------------------------------------------------------------------------

  async start(): Promise<void> {
    const from = this.output.length;
    const own = ['-F', '-c', this.config, '-n', this.name, ...this.options];
    const args = [...this.#flags, ...program('hastd'), ...own];
    const [file = '', ...all] = [...this.#network.enter(this.name), process.execPath, ...args];
    const env = { ...process.env, ...this.env };
    const child = spawn(file, all, { stdio: ['ignore', 'pipe', 'pipe'], env });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
        this.onOutput?.(text);
      });
    }
    this.#child = child;
    this.#daemon = new Process(child.pid ?? 0);
    await until(`hastd ${this.name} started`, START_MS, () => {
      const said = this.output.slice(from);
      if (child.exitCode !== null) throw new Error(`hastd ${this.name} ended:\n${said}`);
      return said.includes('Listening on address');
    });
  }

  /** Runs hastd once more with this node's file, to its end. */
  daemon(...args: readonly string[]): Promise<Ended> {
    const all = [...program('hastd'), '-c', this.config, '-n', this.name, ...args];
    return runProgram(process.execPath, all, AbortSignal.timeout(60_000));
  }

  signal(name: NodeJS.Signals): void {
    this.#daemon?.signal(name);
  }

  /** Ends the daemon in order. @returns its exit code */
  async stop(): Promise<number | null> {
    const child = this.#child;
    if (child === undefined) return null;
    await this.#remember();
    this.#daemon?.signal('SIGTERM');
    await until(`hastd ${this.name} ended`, 60_000, () => {
      return child.exitCode !== null || child.signalCode !== null;
    });
    return child.exitCode;
  }

  /** SIGKILL to the daemon alone; its worker waits for the next one, see `ORPHANS_END`. */
  async killDaemon(): Promise<void> {
    await this.#remember();
    this.#daemon?.signal('SIGKILL');
    await until(`hastd ${this.name} killed`, 10_000, () => !this.running);
  }

  /** SIGKILL to the daemon and its worker, as when the machine dies. */
  async crash(): Promise<void> {
    await this.#remember();
    const workers = [...this.#workers.values()];
    this.#daemon?.signal('SIGKILL');
    for (const worker of workers) worker.signal('SIGKILL');
    await until(`node ${this.name} dead`, 10_000, () => {
      return !this.running && workers.every((worker) => !worker.alive);
    });
    rmSync(this.socket, { force: true });
  }

  /** The worker that runs now. */
  async worker(): Promise<Process> {
    await this.#remember();
    const alive = [...this.#workers.values()].filter((worker) => worker.alive);
    const one = alive.at(-1);
    if (one === undefined) throw new Error(`node ${this.name} has no worker`);
    return one;
  }

  /** Until no worker of an earlier daemon is left. */
  async workersEnded(ms = 20_000): Promise<void> {
    await until(`the workers of ${this.name} ended`, ms, () =>
      [...this.#workers.values()].every((worker) => !worker.alive),
    );
  }

  /** Kills at once all that is known. */
  abandon(): void {
    this.#daemon?.signal('SIGKILL');
    for (const worker of this.#workers.values()) worker.signal('SIGKILL');
  }

  /** Everything that is left is killed. Only processes that this object has started. */
  async close(): Promise<void> {
    await this.#remember().catch(() => {});
    for (const worker of this.#workers.values()) worker.signal('SIGCONT');
    this.#daemon?.signal('SIGCONT');
    this.#daemon?.signal('SIGTERM');
    await until('hastd ended', 15_000, () => !this.running).catch(() => {});
    this.#daemon?.signal('SIGKILL');
    await this.workersEnded(5000).catch(() => {});
    for (const worker of this.#workers.values()) worker.signal('SIGKILL');
    await this.workersEnded(5000).catch(() => {});
  }

  /** Children of the daemon, so that they can be found when it is gone. */
  async #remember(): Promise<void> {
    if (!this.running) return;
    const pids = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'latin1')
      .split(' ')
      .map(Number)
      .filter((pid) => pid > 0);
    for (const pid of pids) {
      const known = this.#workers.get(pid);
      if (known?.alive !== true) this.#workers.set(pid, new Process(pid));
    }
  }

  /** SIGKILL to the worker. @returns it, when it is gone */
  async killWorker(): Promise<Process> {
    const worker = await this.worker();
    worker.signal('SIGKILL');
    await until('the worker is gone', 10_000, () => !worker.alive);
    return worker;
  }

  // ---- hastctl --------------------------------------------------------------------------------

  hastctl(verb: string, ...args: readonly string[]): Promise<Ended> {
    const all = hastctlArguments(this, verb, ...args);
    return runProgram(process.execPath, all, AbortSignal.timeout(150_000));
  }

  /** @throws Error with what hastctl said, when it ends with anything else than 0 */
  async must(verb: string, ...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.hastctl(verb, ...args);
    if (code !== 0) {
      const command = `hastctl ${verb} ${args.join(' ')}`;
      throw new Error(`node ${this.name}: ${command}: exit ${code}\n${stdout}${stderr}`);
    }
    return stdout;
  }

  async role(role: 'init' | 'primary' | 'secondary', ...flags: string[]): Promise<void> {
    await this.must('role', ...flags, role, this.resource);
  }

  /** The nine fields and more of the local component. */
  async dump(): Promise<Record<string, unknown>> {
    const text = await this.must('dump', '--json', this.resource);
    const { resources } = JSON.parse(text) as { resources: Record<string, unknown>[] };
    return resources[0] ?? {};
  }

  async bytes(position: number, size: number): Promise<Buffer> {
    const file = await open(this.disk, 'r');
    try {
      return (await file.read(Buffer.alloc(size), { position })).buffer;
    } finally {
      await file.close();
    }
  }

  /** The nine fields, without a process for them. */
  async metadata(): Promise<MetadataFields> {
    return decodeBlock(await this.bytes(0, LIMITS.metadataBytes)).fields;
  }

  /** All data on the disk. */
  async data(): Promise<Buffer> {
    const { offset, datasize } = await this.metadata();
    return this.bytes(Number(offset), Number(datasize));
  }

  // ---- Status ---------------------------------------------------------------------------------

  /** Changes the role, without a process for it. */
  async take(role: 'init' | 'primary' | 'secondary'): Promise<void> {
    const { status, text } = await this.ask('POST', '/role', JSON.stringify({ role }));
    if (status !== 200) throw new Error(`node ${this.name}: role ${role}: ${text}`);
  }

  /** Reads the configuration again, as SIGHUP does. @throws Error when it is not taken */
  async reload(): Promise<void> {
    const signal = AbortSignal.timeout(60_000);
    const { status, text } = await ask(this.control, 'POST', '/v1/reload', '', signal);
    if (status !== 200) throw new Error(`node ${this.name}: reload: ${text}`);
  }

  /** What `hastctl status --json` prints, without a process for it: tests ask often. */
  async status(): Promise<ResourceStatus> {
    return v.parse(ResourceSchema, (await this.ask('GET')).json());
  }

  /** One request about the resource at the control socket. */
  ask(method: string, path = '', body?: string): Promise<Answer> {
    const signal = AbortSignal.timeout(60_000);
    return ask(this.control, method, `/v1/resources/${this.resource}${path}`, body, signal);
  }

  async stats(): Promise<WorkerStatus> {
    const { worker } = await this.status();
    if (worker === null) throw new Error(`node ${this.name} has no worker that answers`);
    return worker;
  }

  /** Waits until the status is as wanted. @returns it */
  async when(
    what: string,
    wanted: (status: ResourceStatus) => boolean,
    ms = 30_000,
  ): Promise<ResourceStatus> {
    let last: ResourceStatus | undefined;
    try {
      await until(`node ${this.name}: ${what}`, ms, async () => {
        // Asking costs both sides more than a moment of waiting.
        if (last !== undefined) await sleep(PAUSE_MS);
        last = await this.status();
        return wanted(last);
      });
    } catch (error) {
      const seen = JSON.stringify({ ...last, local: undefined }, undefined, 1);
      throw new Error(`${(error as Error).message}\n${seen}\n${this.output.slice(-3000)}`);
    }
    if (last === undefined) throw new Error('no status');
    return last;
  }

  /** Connected, and nothing left to copy. */
  inSync(ms = 60_000): Promise<ResourceStatus> {
    return this.when('in sync', ({ worker }) => worker?.state === 'in-sync', ms);
  }

  degraded(ms = 20_000): Promise<ResourceStatus> {
    return this.when('degraded', ({ worker }) => worker?.state === 'degraded', ms);
  }

  /** Takes over, as soon as it may: it refuses while it has just heard the primary. */
  async promote(): Promise<void> {
    let said = '';
    await until('promotion', 30_000, async () => {
      const { code, stderr } = await this.hastctl('role', 'primary', this.resource);
      said = stderr;
      if (code !== 0 && code !== 5) throw new Error(`role primary: exit ${code}\n${stderr}`);
      return code === 0;
    }).catch((error: Error) => {
      throw new Error(`${error.message}\n${said}`);
    });
  }

  connect(): Promise<NbdClient> {
    return NbdClient.connect(this.socket);
  }
}

/** Of the environment: a worker whose daemon is killed ends at once, in order. */
export const ORPHANS_END = { HASTD_ORPHAN: '0' } as const;

// ---- Two nodes --------------------------------------------------------------------------------

export interface PairOptions {
  readonly mode?: Mode;
  readonly compression?: 'none' | 'hole' | 'lzf';
  readonly checksum?: 'none' | 'crc32' | 'sha256';
  readonly timeoutSeconds?: number;
  readonly resource?: string;
  /** Size of both disks, metadata included; sparse files. */
  readonly diskBytes?: number;
  /** Kernel devices, each node with a folder of links; none unless it is given. */
  readonly device?: Device;
  /** More statements inside the resource. */
  readonly statements?: string;
  /** The resource has a secret: a file of each node, which the test has to write. */
  readonly secret?: boolean;
  /** Both directions of connecting lead through relays that can be cut. */
  readonly relay?: boolean;
  /** Loopback, unless it is given. */
  readonly network?: Network;
  /** Of `hastctl create`. */
  readonly create?: readonly string[];
  /** The other node is played by the test. */
  readonly only?: NodeName;
  /** Node's own flags for both daemons. */
  readonly flags?: readonly string[];
  /** More options of both daemons. */
  readonly hastd?: readonly string[];
  /** More of the environment of both daemons. */
  readonly env?: Readonly<Record<string, string>>;
}

const unclosed = new Set<Pair>();
let watching = false;

function watchForTheEnd(): void {
  if (watching) return;
  watching = true;
  process.on('exit', () => {
    for (const pair of unclosed) pair.abandon();
  });
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => process.exit(1));
}

export class Pair {
  readonly directory: string;
  readonly resource: string;
  readonly a: Node;
  readonly b: Node;
  readonly relays: readonly Relay[];
  readonly #options: PairOptions;

  private constructor(
    options: PairOptions,
    directory: string,
    ports: readonly [number, number],
    relays: readonly Relay[],
  ) {
    this.#options = options;
    this.directory = directory;
    this.resource = options.resource ?? 'data';
    this.relays = relays;
    watchForTheEnd();
    unclosed.add(this);
    const flags = options.flags ?? [];
    const common = { directory, resource: this.resource };
    const { network } = options;
    this.a = new Node('a', { ...common, port: ports[0] }, flags, network);
    this.b = new Node('b', { ...common, port: ports[1] }, flags, network);
    for (const node of [this.a, this.b]) {
      node.env = options.env ?? {};
      node.options = options.hastd ?? [];
    }
  }

  /** Both disks created, both daemons running, both roles init. */
  static async make(options: PairOptions = {}): Promise<Pair> {
    const directory = makeTempdir();
    chmodSync(directory, 0o755);
    const ports = await freePorts();
    const relays = options.relay === true ? await Promise.all(ports.map(Relay.make)) : [];
    const pair = new Pair(options, directory, ports, relays);
    try {
      pair.writeConfig();
      for (const node of [pair.a, pair.b]) {
        mkdirSync(`${directory}/${node.name}.run`, { mode: 0o700 });
        const disk = await open(node.disk, 'w');
        await disk.truncate(options.diskBytes ?? 34 * MIB);
        await disk.close();
      }
      const nodes = [pair.a, pair.b].filter(({ name }) => name === (options.only ?? name));
      await Promise.all(nodes.map((node) => pair.create(node)));
      await Promise.all(nodes.map((node) => node.start()));
      return pair;
    } catch (error) {
      await pair.close();
      throw error;
    }
  }

  /** The same, `a` primary, `b` secondary, in sync. */
  static async inSync(options: PairOptions = {}): Promise<Pair> {
    const pair = await Pair.make(options);
    try {
      await pair.b.role('secondary');
      await pair.a.role('primary');
      await pair.a.inSync();
      return pair;
    } catch (error) {
      await pair.close();
      throw error;
    }
  }

  async create(node: Node): Promise<void> {
    await node.must('create', ...(this.#options.create ?? []), this.resource);
  }

  writeConfig(changes: Partial<PairOptions> = {}): void {
    const { mode, compression, checksum, timeoutSeconds, device, statements, secret } = {
      ...this.#options,
      ...changes,
    };
    const { directory, resource, a, b, relays } = this;
    const user = workerUser();
    const network = this.#options.network ?? LOOPBACK;
    const own = (node: Node): string => `on ${node.name} {
	control ${node.control}
	pidfile ${directory}/${node.name}.pid
	devdir ${node.devices}
	listen ${addressText(network.address(node.name), node.port)}
}
`;
    const part = (node: Node, peerPort: number): string => `	on ${node.name} {
		local ${node.disk}
		remote ${addressText(network.address(this.other(node).name), peerPort)}
		export uds://${node.socket}
	}
`;
    const parts = `${part(a, relays[1]?.port ?? b.port)}${part(b, relays[0]?.port ?? a.port)}`;
    for (const node of [a, b]) {
      writeFileSync(
        node.config,
        `${user === undefined ? '' : `user ${user.name}\n`}${own(a)}${own(b)}resource ${resource} {
	replication ${mode ?? 'memsync'}
	compression ${compression ?? 'hole'}
	checksum ${checksum ?? 'none'}
	timeout ${timeoutSeconds ?? 20}
	device ${device ?? 'none'}
	${statements ?? ''}
	${secret === true ? `secret ${node.secret}` : ''}
${parts}}
`,
      );
    }
  }

  other(node: Node): Node {
    return node === this.a ? this.b : this.a;
  }

  cut(): void {
    for (const relay of this.relays) relay.cut();
  }
  silence(): void {
    for (const relay of this.relays) relay.silence();
  }
  heal(): void {
    for (const relay of this.relays) relay.heal();
  }

  /** Where the data areas of both disks differ first; undefined when nowhere. */
  async difference(): Promise<number | undefined> {
    const areas = await Promise.all([this.a, this.b].map(areaOf));
    const [first, second] = areas;
    if (first === undefined || second === undefined) throw new Error('no areas');
    if (first.bytes !== second.bytes) throw new Error('data areas of different sizes');
    const files = await Promise.all([open(this.a.disk), open(this.b.disk)]);
    try {
      const buffers = [Buffer.alloc(MIB), Buffer.alloc(MIB)] as const;
      for (let at = 0; at < first.bytes; at += MIB) {
        const length = Math.min(MIB, first.bytes - at);
        await files[0].read(buffers[0], 0, length, first.offset + at);
        await files[1].read(buffers[1], 0, length, second.offset + at);
        const [one, two] = buffers.map((buffer) => buffer.subarray(0, length));
        if (one?.equals(two ?? Buffer.alloc(0)) === true) continue;
        return at + (one?.findIndex((byte, i) => byte !== two?.[i]) ?? 0);
      }
      return undefined;
    } finally {
      for (const file of files) await file.close();
    }
  }

  /** @throws Error unless both data areas are equal, byte for byte */
  async mustBeEqual(): Promise<void> {
    const at = await this.difference();
    if (at !== undefined) throw new Error(`the data areas differ at byte ${at}`);
  }

  /** The same, as soon as the primary says that nothing is left to copy. */
  async mustBeClean(primary: Node): Promise<void> {
    await primary.when('nothing dirty', ({ worker }) => {
      return worker?.state === 'in-sync' && worker.dirtyBytes === 0 && worker.inFlight === 0;
    });
    await this.mustBeEqual();
  }

  /** What can still be done when the test's own process ends. */
  abandon(): void {
    this.a.abandon();
    this.b.abandon();
    rmSync(this.directory, { recursive: true, force: true });
  }

  async close(): Promise<void> {
    await Promise.all([this.a.close(), this.b.close()]);
    unclosed.delete(this);
    for (const relay of this.relays) relay.close();
    if (process.env.HASTD_TEST_KEEP !== undefined) {
      for (const { directory, name, output } of [this.a, this.b]) {
        writeFileSync(`${directory}/${name}.log`, output);
      }
      process.stderr.write(`kept ${this.directory}\n`);
      return;
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function areaOf(node: Node): Promise<{ offset: number; bytes: number }> {
  const { offset, datasize } = await node.metadata();
  return { offset: Number(offset), bytes: Number(datasize) };
}

/** Runs `body` with a pair and cleans up, whatever happens; a failure shows both logs. */
export async function withPair(
  make: Promise<Pair>,
  body: (pair: Pair) => Promise<void>,
): Promise<void> {
  const pair = await make;
  try {
    await body(pair);
  } catch (error) {
    process.stderr.write(`\n${error instanceof Error ? error.message : error}\n`);
    for (const { name, output } of [pair.a, pair.b]) {
      process.stderr.write(`--- hastd ${name} said last\n${output.slice(-4000)}`);
    }
    throw error;
  } finally {
    await pair.close();
  }
}

/** Of one test on two nodes. */
export const LIMIT_MS = 120_000;

/** A test on two nodes in sync, `a` primary. */
export function story(body: (pair: Pair) => Promise<void>, options: PairOptions = {}) {
  return withDeadline(LIMIT_MS, () => withPair(Pair.inSync(options), body));
}

/** A client of the export, as long as `body` runs. */
export async function withClient<T>(
  node: Node,
  body: (client: NbdClient) => Promise<T>,
): Promise<T> {
  const client = await node.connect();
  try {
    return await body(client);
  } finally {
    client.destroy();
  }
}
