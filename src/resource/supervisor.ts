/**
 * One object per resource, in the parent: takes what happens to role.ts and does what it answers.
 */
import type { Socket } from 'node:net';
import { type Changes, changesOf } from '../config/changes.ts';
import type { Resource } from '../config/config.ts';
import type { ResourceStatus, RoleAnswer, RoleRequest, Why } from '../control/protocol.ts';
import { HastError, isErrorCode } from '../error.ts';
import { ERROR_CODES } from '../error-codes.ts';
import type { Logger } from '../log.ts';
import type {
  ComponentInfo,
  EngineEvent,
  EngineStats,
  EngineTuning,
  HostFunctions,
  NumericAddress,
  PeerHello,
} from '../native.ts';
import type { Adopted } from './adoption.ts';
import type { BridgeMaker, BridgeNote } from './bridge.ts';
import { checkComponent, checkMetadata, type DeviceClaims, openLocked } from './component.ts';
import { diskFacts } from './disk-facts.ts';
import { listenForExport, removeExport } from './export-socket.ts';
import { type Detail, History } from './history.ts';
import { HookQueue, type StartHook } from './hooks.ts';
import { KernelDevice } from './kernel-device.ts';
import { adviceFor, notesOf } from './notes.ts';
import type { LaunchWorker } from './process.ts';
import {
  type Phase,
  type Role,
  type RoleEffect,
  type RoleEvent,
  type RoleState,
  roleOf,
  step,
  type WorkerEnd,
} from './role.ts';
import { readSecret } from './secret.ts';
import { whyOf } from './why.ts';
import { ENDED_IN_ORDER, endOfError, saidOf } from './worker-end.ts';
import type { Worker, WorkerHandlers } from './worker-link.ts';
import type { WorkerRun, WorkerSpec } from './worker-protocol.ts';

export type SupervisorHost = Pick<
  HostFunctions,
  'openComponent' | 'closeFd' | 'readAt' | 'listenUnix' | 'listenTcp' | 'lookupUser'
>;

/** Numeric addresses of a resource's peer, as far as names can be resolved now. */
export interface PeerAddresses {
  readonly peers: readonly NumericAddress[];
  readonly source: NumericAddress | null;
}

/** A pair of connections whose second message was good, and which waits for a worker. */
export interface Newcomer {
  readonly requests: Socket;
  readonly replies: Socket;
  readonly hello: PeerHello;
  alive(): boolean;
  /** Tells the primary why not, then closes both. */
  refuse(text: string): void;
  /** Closes the parent's copies without shutting the connections down. */
  release(): void;
}

export interface SupervisorDeps {
  readonly host: SupervisorHost;
  readonly launch: LaunchWorker;
  readonly claims: DeviceClaims;
  /** Of the kernel's devices, in the order in which `device auto` takes them. */
  readonly bridges: readonly BridgeMaker[];
  readonly startHook: StartHook;
  readonly log: Logger;
  /** The role was given up, or must not have half-open connections any more. */
  readonly dropPeer: (resource: string) => void;
  /** Quick: what is known, or soon will be. */
  readonly resolve: (resource: Resource) => Promise<PeerAddresses>;
  /** Lets the peer know that there is a secondary now; never fails, waits for nobody. */
  readonly knock: (resource: Resource) => void;
  readonly emit: (resource: string, event: string, detail?: Detail) => void;
  /** How many workers there may be. */
  readonly workers: () => number;
  /** How long a start may take until `ready`; for tests. */
  readonly startMs?: number;
}
/** A reload of one resource, begun. */
export interface Reloading {
  readonly changes: Changes;
  /** @throws HastError when the former role was not taken again; the new configuration stays */
  finish(): Promise<void>;
}

const START_MS = 110_000;
const COMMAND_MS = 120_000;
const GRACE_MS = 10_000;
/** Two primaries hear of each other with every attempt: news is passed on this often at most. */
const KICK_MS = 1000;
/** How soon a primary without its peer takes a changed secret. */
const SECRET_MS = 5000;
/** A secondary connects to nobody. */
const NO_PEER: PeerAddresses = { peers: [], source: null };
const BY_RELOAD = 'a reload';
/** Phases in which there is a worker that serves the device, or one that comes. */
const SERVING: ReadonlySet<Phase> = new Set(['starting', 'primary', 'backoff', 'leaving']);
const BUSY_TEXT = 'The previous session of the resource has not ended yet.';

interface Waiting {
  readonly role: Role;
  /** Resolves when the command was answered, however. */
  readonly over: () => Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: HastError) => void;
}

export class Supervisor {
  #resource: Resource;
  readonly #deps: SupervisorDeps;
  readonly #hooks: HookQueue;
  readonly #device: KernelDevice;
  /** What the worker says while its device opens. */
  #held: EngineEvent[] | undefined;
  /** Why the device could not be had, which ends the worker. */
  #deviceFailure: WorkerEnd | undefined;
  readonly #history = new History(() => this.#stats());
  #state: RoleState = { phase: 'init' };
  #worker: Worker | undefined;
  /** Aborts the work that leads to a worker, as long as there is none. */
  #starting: AbortController | undefined;
  #waiting: Waiting[] = [];
  #newcomer: Newcomer | undefined;
  #newcomerTimer: NodeJS.Timeout | undefined;
  #restartTimer: NodeJS.Timeout | undefined;
  #startTimer: NodeJS.Timeout | undefined;
  #kickTimer: NodeJS.Timeout | undefined;
  #kicked = Number.NEGATIVE_INFINITY;
  #connected = false;
  #lastError: WorkerEnd | undefined;
  #checking: Promise<void> | undefined;
  /** Undefined: those of an adopted worker, which nobody has told yet. */
  #addresses: PeerAddresses | undefined;
  /** What the worker of a primary has. */
  #secret: Uint8Array | null = null;
  #secretTimer: NodeJS.Timeout | undefined;
  #secretProblem = '';
  #queue: RoleEvent[] = [];
  #stepping = false;
  #closed = false;

  constructor(resource: Resource, deps: SupervisorDeps) {
    this.#resource = resource;
    this.#deps = deps;
    this.#hooks = new HookQueue(resource.name, deps.startHook, () => this.#log());
    this.#device = new KernelDevice(deps.bridges, () => this.#log());
  }

  /**
   * A resource whose worker runs already, in the role that the worker has. Nobody is told of a
   * change, since there is none.
   * @throws HastError DISK_TWICE
   */
  static adopting(adopted: Adopted, deps: SupervisorDeps): Supervisor {
    const supervisor = new Supervisor(adopted.resource, deps);
    deps.claims.claim(adopted.device, adopted.resource.name);
    supervisor.#adopt(adopted);
    return supervisor;
  }

  #adopt({ run, pid, bridge, attach }: Adopted): void {
    this.#state = stateOf(run, performance.now());
    this.#device.adopt(bridge);
    this.#connected = run.connected;
    this.#worker = attach(this.#log(), this.#handlers(this.#log()));
    this.#history.add('adopted', { role: run.role, pid });
    if (run.role !== 'primary') return;
    if (!run.ready) this.#watchStart();
    this.#rereadSecret();
    this.#watchSecret();
  }

  /**
   * Its worker could not be adopted: what `status` says of it. A primary whose device waits goes on
   * as after a crash.
   */
  lost(end: WorkerEnd, bridge: BridgeNote | null): void {
    this.#lastError = end;
    this.#device.adopt(bridge);
    if (this.#device.note !== null) {
      this.#state = { phase: 'backoff', from: 'init', force: false, crashes: 1 };
    }
    this.#history.ended(this.role, end);
    this.#dispatch({ type: 'timer', now: performance.now() });
  }

  /** As it is configured now. */
  get resource(): Resource {
    return this.#resource;
  }

  get role(): Role {
    return roleOf(this.#state);
  }

  get state(): RoleState {
    return this.#state;
  }

  get workerPid(): number {
    return this.#worker?.pid ?? 0;
  }

  // ---- Commands -------------------------------------------------------------------------------

  /**
   * Changes the role; resolves when it is really taken.
   * @param by  who wants it, for the history
   * @throws HastError ROLE_REFUSED, ROLE_FAILED, with the reason in the text
   */
  async changeRole(request: RoleRequest, by = 'hastd'): Promise<RoleAnswer> {
    try {
      return await this.#changeRole(request, by);
    } catch (error) {
      this.#history.roleFailed(request.role, by, endOfError(error));
      throw error;
    }
  }

  async #changeRole({ role, force, ifUnused }: RoleRequest, by: string): Promise<RoleAnswer> {
    while (this.#checking !== undefined) await this.#checking;
    const previous = this.role;
    if (previous === 'primary' && role !== 'primary') await this.#refuseInUse(ifUnused, force);
    const done = this.#await(role);
    this.#history.asked(role, force ? `${by}, with -f` : by);
    this.#dispatch({ type: 'command', role, force, now: performance.now() });
    await done;
    const notices = role === 'primary' && previous !== role ? await this.#startNotices() : [];
    return { name: this.resource.name, previous, role, notices };
  }

  /** Ends the worker whatever the role is, for the end of the daemon. Resolves when it is gone. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#state.phase === 'init') return this.#device.ended;
    const request = { role: 'init', force: true, ifUnused: false } as const;
    await this.changeRole(request, 'the end of hastd').catch(() => {});
  }

  /**
   * First half of a reload: a resource that has to restart goes to init and frees its disk.
   * @throws HastError when it does not
   */
  async beginReload(after: Resource): Promise<Reloading> {
    await this.#settled();
    const { role } = this;
    const changes = changesOf(this.#resource, after, role);
    if (changes.way !== 'none') {
      const statements = changes.words.join(', ');
      this.#history.add('reload', { statements, way: changes.way });
    }
    if (changes.way !== 'restart') return { changes, finish: () => this.#takeInPlace(after) };
    this.#log().info(`Restarting with another ${changes.words.join(', ')}.`);
    await this.changeRole({ role: 'init', force: true, ifUnused: false }, BY_RELOAD);
    return { changes, finish: () => this.#takeRestarted(after, role) };
  }

  async #takeRestarted(after: Resource, role: Role): Promise<void> {
    this.#resource = after;
    await this.changeRole({ role, force: false, ifUnused: false }, BY_RELOAD);
  }

  /** No role is being taken any more. */
  async #settled(): Promise<void> {
    while (this.#checking !== undefined) await this.#checking;
    const pending = this.#waiting.map(({ over }) => over());
    if (pending.length === 0) return;
    await Promise.all(pending);
    await this.#settled();
  }

  async #takeInPlace(after: Resource): Promise<void> {
    this.#resource = after;
    this.#worker?.remember(after, this.#device.note);
    const addresses = await this.#deps.resolve(after);
    if (this.role !== 'primary') return;
    this.#takeAddresses(addresses);
    this.#takeSecret();
    this.#watchSecret();
    this.#reconfigure();
    await this.#stats(); // answered behind the change: it is in force
  }

  #await(role: Role): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.#waiting.push({ role, over: () => done.catch(() => {}), resolve, reject });
    });
    const entry = this.#waiting.at(-1);
    const timer = setTimeout(() => {
      this.#waiting = this.#waiting.filter((one) => one !== entry);
      const message = 'the role was not taken in time; hastd goes on trying';
      entry?.reject(new HastError('ROLE_FAILED', { message }));
    }, COMMAND_MS);
    return done.finally(() => clearTimeout(timer));
  }

  /** `--if-unused`, and `demotion refuse` unless forced. */
  async #refuseInUse(ifUnused: boolean, force: boolean): Promise<void> {
    if (!ifUnused && (this.resource.demotion !== 'refuse' || force)) return;
    const stats = await this.#stats();
    const users = [...this.#device.users(), ...(stats?.clients ?? [])];
    // Between two workers there is no client, but the device may be open.
    const silent = stats === null && this.#worker !== undefined;
    if (users.length === 0 && !silent) return;
    const message =
      users.length > 0
        ? `the provider is in use by ${users.join(', ')}`
        : 'the worker does not say whether the provider is open';
    const hint = ifUnused
      ? 'close the device first, or leave out --if-unused'
      : 'close the device first, or use -f';
    throw new HastError('ROLE_REFUSED', { message, hint });
  }

  async #startNotices(): Promise<string[]> {
    const stats = await this.#stats();
    if (stats === null || stats.reason === '') return [];
    return [stats.reason, ...adviceFor(this.resource.name, stats.reason)];
  }

  // ---- From the peer --------------------------------------------------------------------------

  /** Takes over: the old worker drains and ends, then one starts for these connections. */
  admit(newcomer: Newcomer): void {
    this.#newcomer?.refuse(BUSY_TEXT);
    this.#newcomer = newcomer;
    clearTimeout(this.#newcomerTimer);
    this.#newcomerTimer = setTimeout(
      () => this.#dispatch({ type: 'newcomer-late' }),
      (this.resource.timeoutSeconds * 1000) / 2,
    );
    this.#dispatch({ type: 'newcomer' });
  }

  /** The peer was heard of: a primary that waits to connect need not wait any longer. */
  contact(): void {
    if (this.role !== 'primary' || this.#connected || this.#kickTimer !== undefined) return;
    const now = performance.now();
    const wait = this.#kicked + KICK_MS - now;
    if (wait <= 0) {
      this.#kicked = now;
      this.#rereadSecret();
      this.#worker?.kick();
      return;
    }
    this.#kickTimer = setTimeout(() => {
      this.#kickTimer = undefined;
      this.contact();
    }, wait).unref();
  }

  /**
   * Reads the file of a primary. A primary that has a secret already keeps it when that fails: it
   * must not stop serving over this.
   * @returns whether it is another one than before
   * @throws HastError SECRET_FILE
   */
  #takeSecret(): boolean {
    const before = this.#secret;
    try {
      this.#secret = readSecret(this.resource);
      this.#secretProblem = '';
    } catch (error) {
      if (before === null) throw error;
      const { text } = endOfError(error);
      if (text !== this.#secretProblem) this.#log().warning(`The old secret is kept: ${text}.`);
      this.#secretProblem = text;
    }
    const now = this.#secret;
    return now !== before && (now === null || before === null || Buffer.compare(now, before) !== 0);
  }

  #watchSecret(): void {
    clearInterval(this.#secretTimer);
    if (this.#resource.secret === null) return;
    this.#secretTimer = setInterval(() => this.#rereadSecret(), SECRET_MS).unref();
  }

  /** A file that was changed counts from the next attempt to connect on. */
  #rereadSecret(): void {
    const known = this.#secret !== null;
    if (this.#resource.secret === null || this.role !== 'primary') return;
    if (known && this.#connected) return;
    try {
      if (this.#takeSecret()) this.#reconfigure();
    } catch (error) {
      // Of an adopted worker, which has one: it keeps that.
      this.#log().warning(`The old secret is kept: ${endOfError(error).text}.`);
    }
  }

  /** Never without the secret that there has to be. */
  #reconfigure(): void {
    if (this.#resource.secret !== null && this.#secret === null) return;
    if (this.#addresses !== undefined) this.#worker?.reconfigure(this.#tuning(this.#addresses));
  }

  /** New numbers behind the names of `remote` and `source`. */
  readdress(addresses: PeerAddresses): void {
    if (JSON.stringify(addresses) === JSON.stringify(this.#addresses)) return;
    if (this.#takeAddresses(addresses) && this.role === 'primary') this.#reconfigure();
  }

  /** An adopted worker keeps what it has while names cannot be resolved. */
  #takeAddresses(addresses: PeerAddresses): boolean {
    const known = addresses.peers.length > 0 || this.#resource.remote === 'none';
    if (this.#addresses === undefined && !known && this.#worker !== undefined) return false;
    this.#addresses = addresses;
    return true;
  }

  // ---- Status ---------------------------------------------------------------------------------

  async status(): Promise<ResourceStatus> {
    const { resource } = this;
    const stats = await this.#stats();
    const pid = this.workerPid;
    const end = this.#lastError;
    const lastError =
      end === undefined
        ? null
        : { code: end.code, message: saidOf(end), exit: end.exit ?? ERROR_CODES.WORKER_ENDED.exit };
    const { remote, source } = resource;
    return {
      name: resource.name,
      provname: resource.provname,
      role: this.role,
      local: resource.local,
      remote: remote === 'none' ? 'none' : remote.text,
      source: source === null ? null : source.text,
      export: resource.export.text,
      device: this.#device.path,
      replication: resource.replication,
      checksum: resource.checksum,
      compression: resource.compression,
      notes: [
        ...notesOf(resource.name, this.#state, stats, end, pid !== 0),
        ...this.#hooks.notes(),
      ],
      lastError,
      hooks: this.#hooks.report(),
      worker: stats === null || pid === 0 ? null : { pid, ...stats, clients: [...stats.clients] },
    };
  }

  async why(): Promise<Why> {
    const { name, node, remote, local, replication } = this.resource;
    const [stats, disk] = await Promise.all([this.#stats(), diskFacts(local, name)]);
    return whyOf({
      name,
      node,
      remote: remote === 'none' ? 'none' : remote.text,
      replication,
      state: this.#state,
      hasWorker: this.workerPid !== 0,
      stats,
      last: this.#lastError,
      disk,
      history: this.#history.entries(),
      beside: this.#hooks.notes(),
    });
  }

  async #stats(): Promise<EngineStats | null> {
    try {
      return (await this.#worker?.stats()) ?? null;
    } catch {
      return null; // slow or just ended: the rest of the status is still worth telling
    }
  }

  // ---- The machine ----------------------------------------------------------------------------

  /** Events that effects cause wait until all effects of the one before are done. */
  #dispatch(event: RoleEvent): void {
    this.#queue.push(event);
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const before = this.role;
        const { state, effects } = step(this.#state, next);
        this.#state = state;
        if (!SERVING.has(state.phase)) void this.#device.close();
        for (const effect of effects) this.#carryOut(effect);
        this.#entered(before);
      }
    } finally {
      this.#stepping = false;
    }
  }

  #entered(before: Role): void {
    const { phase } = this.#state;
    if (phase === 'init') this.#deps.claims.release(this.resource.name);
    if (phase !== 'starting' && phase !== 'backoff') {
      clearTimeout(this.#startTimer);
      this.#startTimer = undefined;
    }
    if (this.role !== before) {
      this.#log().info(`Role changed from ${before} to ${this.role}.`);
      this.#deps.emit(this.resource.name, 'role', { from: before, to: this.role });
      this.#history.tookRole(before, this.role, this.#lastError);
      if (this.role !== 'primary') this.#secret = null;
      if (this.role === 'secondary') this.#deps.knock(this.resource);
    }
  }

  #carryOut(effect: RoleEffect): void {
    const { name, exec } = this.resource;
    switch (effect.type) {
      case 'check':
        this.#checking = this.#check();
        break;
      case 'start':
        this.#watchStart();
        void this.#begin((signal) => this.#startPrimary(effect.force, signal));
        break;
      case 'admit':
        void this.#begin((signal) => this.#startSecondary(signal));
        break;
      case 'refuse-newcomer':
        this.#dropNewcomer(BUSY_TEXT);
        break;
      case 'stop':
        if (this.#worker !== undefined) this.#worker.stop(this.#patienceMs() * 2 + GRACE_MS);
        else this.#starting?.abort();
        break;
      case 'wait':
        this.#restartTimer = setTimeout(
          () => this.#dispatch({ type: 'timer', now: performance.now() }),
          effect.ms,
        );
        break;
      case 'cancel-wait':
        clearTimeout(this.#restartTimer);
        break;
      case 'drop-peer':
        this.#deps.dropPeer(name);
        break;
      case 'hook':
        if (!this.#closed) this.#hooks.run(exec, 'role', effect.from, effect.to);
        break;
      case 'settle':
        this.#settle((one) => one.role === effect.role, null);
        this.#settle(() => true, superseded(name));
        break;
      case 'fail':
        this.#settle(() => true, failureOf(effect.end));
        break;
      case 'supersede':
        this.#settle((one) => one.role !== effect.role, superseded(name));
        break;
      case 'keep':
        this.#lastError = effect.end;
        break;
      case 'forget':
        this.#lastError = undefined;
        break;
      case 'log':
        this.#log().log(effect.level, effect.text);
        break;
    }
  }

  #watchStart(): void {
    this.#startTimer ??= setTimeout(
      () => this.#dispatch({ type: 'late' }),
      this.#deps.startMs ?? START_MS,
    );
  }

  #settle(which: (one: Waiting) => boolean, error: HastError | null): void {
    const chosen = this.#waiting.filter(which);
    this.#waiting = this.#waiting.filter((one) => !chosen.includes(one));
    for (const one of chosen) {
      // A role that has no device is told when that is gone.
      if (error === null) void this.#device.ended.then(one.resolve);
      else one.reject(error);
    }
  }

  #dropNewcomer(text: string): void {
    clearTimeout(this.#newcomerTimer);
    this.#newcomer?.refuse(text);
    this.#newcomer = undefined;
  }

  #log(): Logger {
    return this.#deps.log.child(this.resource.name, this.role);
  }

  #patienceMs(): number {
    return (this.resource.timeoutSeconds * 1000) / 2;
  }

  // ---- Starting a worker ----------------------------------------------------------------------

  async #check(): Promise<void> {
    const { host, claims } = this.#deps;
    let problem: WorkerEnd | null = null;
    try {
      await checkComponent(host, claims, this.resource, this.#patienceMs());
      readSecret(this.resource);
    } catch (error) {
      problem = endOfError(error);
    }
    this.#checking = undefined;
    this.#dispatch({ type: 'checked', problem });
  }

  /** Runs what leads to a worker; whatever stops it on the way counts as the worker's end. */
  async #begin(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const abort = new AbortController();
    this.#starting = abort;
    try {
      await work(abort.signal);
    } catch (error) {
      const end = abort.signal.aborted ? ENDED_IN_ORDER : endOfError(error);
      this.#ended(end);
    } finally {
      if (this.#starting === abort) this.#starting = undefined;
    }
  }

  async #startPrimary(force: boolean, signal: AbortSignal): Promise<void> {
    const { host, claims } = this.#deps;
    const disk = await openLocked(host, claims, this.resource, this.#patienceMs(), signal);
    let listening = -1;
    let kernelFds: readonly number[] = [];
    try {
      signal.throwIfAborted();
      // The worker would find it too; said here, both roles say the same.
      const { datasize } = checkMetadata(host, disk, this.resource);
      this.#takeSecret();
      listening = listenForExport(host, this.resource);
      const blockBytes = this.resource.sectorSize ?? disk.sectorBytes;
      const sizeBytes = datasize - (datasize % BigInt(blockBytes));
      kernelFds = await this.#device.offer(this.resource, { sizeBytes, blockBytes });
      const addresses = await this.#deps.resolve(this.resource);
      this.#addresses = addresses;
      signal.throwIfAborted();
      const spec = this.#spec('primary', force, null, addresses);
      this.#spawn('primary', disk, [listening, ...kernelFds], spec);
      this.#watchSecret();
      this.#dispatch({ type: 'forked' });
    } catch (error) {
      if (listening >= 0) removeExport(this.resource);
      throw error;
    } finally {
      // The worker has its own copies; closing ours shuts nothing down.
      for (const fd of [disk.fd, listening, ...kernelFds]) if (fd >= 0) host.closeFd(fd);
    }
  }

  /** The worker serves; what it says meanwhile comes behind that it is ready. */
  async #openDevice(worker: Worker, log: Logger): Promise<void> {
    const held: EngineEvent[] = [];
    this.#held = held;
    try {
      await this.#device.open(() => this.#worker === worker);
    } catch (error) {
      this.#deviceFailure = endOfError(error);
      worker.stop(this.#patienceMs());
    }
    if (this.#worker !== worker) return; // it has ended meanwhile
    this.#held = undefined;
    worker.remember(this.#resource, this.#device.note);
    if (this.#deviceFailure === undefined) this.#ready();
    for (const event of held) this.#onEngine(event, log);
  }

  async #startSecondary(signal: AbortSignal): Promise<void> {
    const { host, claims } = this.#deps;
    const newcomer = this.#newcomer;
    try {
      const disk = await openLocked(host, claims, this.resource, this.#patienceMs(), signal);
      try {
        signal.throwIfAborted();
        if (newcomer === undefined || !newcomer.alive()) throw new HastError('PEER_GONE');
        const { requests, replies, hello } = newcomer;
        const spec = this.#spec('secondary', false, hello, NO_PEER);
        this.#spawn('secondary', disk, [requests, replies], spec);
        // In the same turn as the spawn: not a byte for the worker is read here.
        newcomer.release();
        this.#newcomer = undefined;
        clearTimeout(this.#newcomerTimer);
      } finally {
        host.closeFd(disk.fd);
      }
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      // A newer one may wait already: it has its turn when this end is told.
      if (this.#newcomer === newcomer) this.#dropNewcomer(`The resource cannot be used: ${text}.`);
      throw error;
    }
  }

  #spawn(
    role: WorkerRun['role'],
    { fd: disk, device }: ComponentInfo,
    [first, ...rest]: readonly [number | Socket, ...(number | Socket)[]],
    spec: WorkerSpec,
  ): void {
    const log = this.#deps.log.child(this.resource.name, role);
    const { resource } = this;
    const bridge = this.#device.note;
    const launch = { resource, role, disk, device, bridge, first, rest, spec, log };
    this.#worker = this.#deps.launch(launch, this.#handlers(log));
    log.debug1(`Worker started (pid ${this.#worker.pid}).`);
  }

  #handlers(log: Logger): WorkerHandlers {
    return {
      onEvent: (event) => this.#onEngine(event, log),
      onEnd: (end) => {
        this.#worker = undefined;
        this.#held = undefined;
        this.#connected = false;
        clearInterval(this.#secretTimer);
        const failed = this.#deviceFailure;
        this.#deviceFailure = undefined;
        this.#ended(failed ?? end);
      },
    };
  }

  #ended(end: WorkerEnd): void {
    if (this.role === 'primary') removeExport(this.resource);
    this.#history.ended(this.role, end);
    this.#deps.emit(this.resource.name, 'worker-end', {
      exit: end.exit ?? 0,
      signal: end.signal ?? '',
      code: end.code,
      text: end.text,
    });
    this.#dispatch({ type: 'ended', end, now: performance.now() });
  }

  #onEngine(event: EngineEvent, log: Logger): void {
    if (this.#held !== undefined) {
      this.#held.push(event);
      return;
    }
    const { name, exec } = this.resource;
    switch (event.type) {
      case 'log':
        log.log(event.level, event.text);
        break;
      case 'ready':
        if (this.#worker !== undefined && this.#device.opens) {
          void this.#openDevice(this.#worker, log);
        } else {
          this.#ready();
        }
        break;
      case 'event':
        if (event.name === 'connect') this.#connected = true;
        if (event.name === 'disconnect') {
          this.#connected = false;
          this.#dispatch({ type: 'disconnected' });
        }
        this.#deps.emit(name, event.name);
        // Whoever gives up a role has not lost the peer.
        if (event.name === 'disconnect' && this.#state.phase === 'leaving') break;
        this.#history.happened(event.name, this.role);
        this.#hooks.run(exec, event.name);
        break;
      case 'end':
        break; // told with the process's end
    }
  }

  #ready(): void {
    const { name, exec, events } = this.resource;
    this.#deps.emit(name, 'ready', { role: this.role });
    if (this.role === 'primary') this.#history.add('ready');
    if (events === 'extended') this.#hooks.run(exec, 'ready');
    this.#dispatch({ type: 'ready' });
  }

  #tuning(addresses: PeerAddresses): EngineTuning {
    const { replication, checksum, compression, timeoutSeconds, metaflush } = this.resource;
    const settings = { replication, checksum, compression, timeoutSeconds, metaflush };
    return { ...settings, ...addresses, secret: this.#secret };
  }

  #spec(
    role: WorkerRun['role'],
    force: boolean,
    hello: PeerHello | null,
    addresses: PeerAddresses,
  ): WorkerSpec {
    const { name, provname, sectorSize } = this.resource;
    return {
      ...this.#tuning(addresses),
      resource: name,
      provider: provname,
      role,
      force,
      hello,
      sharers: this.#deps.workers(),
      sectorBytes: sectorSize ?? 0,
    };
  }
}

/** Where a resource is whose worker runs. */
function stateOf({ role, ready, connected }: WorkerRun, since: number): RoleState {
  if (role === 'secondary') {
    // It tells of its connection when it becomes ready.
    return { phase: 'session', open: connected || !ready, stopping: false };
  }
  if (ready) return { phase: 'primary', crashes: 0, since };
  return { phase: 'starting', from: 'init', force: false, forked: true, crashes: 0, since };
}

function superseded(name: string): HastError {
  return new HastError('ROLE_FAILED', {
    message: 'another role was asked for meanwhile',
    hint: `hastctl status ${name}`,
  });
}

/** What a command is answered when its role was not taken. */
function failureOf(end: WorkerEnd): HastError {
  const message = end.text === '' ? 'the worker ended' : end.text;
  const cause = isErrorCode(end.code) ? ERROR_CODES[end.code] : undefined;
  const hint = end.hint ?? (cause === undefined || cause.hint === '' ? undefined : cause.hint);
  return new HastError(end.refused ? 'ROLE_REFUSED' : 'ROLE_FAILED', { message, hint });
}
