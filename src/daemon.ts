/** Joins everything into the running hastd: start, signals, stop. */

import { rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { partlyAvailable, refuseUnavailable } from './config/available.ts';
import { globalsThatDiffer } from './config/changes.ts';
import type { Config, Resource } from './config/config.ts';
import { hostNames, readConfig } from './config/read.ts';
import type { ReloadAnswer } from './control/protocol.ts';
import { type ControlBackend, ControlServer } from './control/server.ts';
import { HastError } from './error.ts';
import { type Logger, withReason } from './log.ts';
import { fdOf, type HostFunctions, native } from './native.ts';
import { knock } from './peer/knock.ts';
import { PeerListener, type PeerTable, type Relistening } from './peer/listener.ts';
import { isAmong, Resolver, systemLookup } from './peer/resolver.ts';
import { Pidfile } from './pidfile.ts';
import { reloadAnswer, tellReload } from './reload.ts';
import { adoptWorkers } from './resource/adoption.ts';
import type { BridgeMaker, BridgeNote } from './resource/bridge.ts';
import { nbdMaker } from './resource/bridges/nbd.ts';
import { ublkMaker } from './resource/bridges/ublk.ts';
import { DeviceClaims } from './resource/component.ts';
import { hookStarter } from './resource/hooks.ts';
import { closeLeftOver, deviceWaits } from './resource/kernel-device.ts';
import { workerEntry } from './resource/node-process.ts';
import { verifyInstallation, workerLauncher } from './resource/process.ts';
import { readSecret } from './resource/secret.ts';
import { ResourceSet } from './resource/set.ts';
import { Spares } from './resource/spares.ts';
import type { PeerAddresses, Supervisor } from './resource/supervisor.ts';
import { WorkerFolder } from './resource/worker-folder.ts';
import { programVersion } from './resource/worker-protocol.ts';

export interface DaemonOptions {
  readonly config: string;
  /** `-P`; null: as configured, and none in the foreground. */
  readonly pidfile: string | null;
  /** `-n`; null: this host's own names. */
  readonly node: string | null;
  readonly foreground: boolean;
}

const CONTROL_MODE = 0o600;
const AS_IS = -1;
/** Locked memory of one worker: slots, maps, ring. It is counted per user. */
const MEMLOCK_BYTES = 192n * 1024n * 1024n;
const RESOLVE_MS = 2000;
const REFRESH_MS = 10_000;
const STOP_MS = 60_000;
const PROTOCOL = 2;

type User = { readonly uid: number; readonly gid: number };

export async function readDaemonConfig(options: DaemonOptions): Promise<Config> {
  const { config: path, node, pidfile } = options;
  const names = node === null ? hostNames() : [node];
  const config = await readConfig(path, names, { pidfile: pidfile ?? undefined });
  refuseUnavailable(config);
  return config;
}

/** A new configuration and the doors that it opens. */
interface Prepared {
  readonly config: Config;
  readonly user: User | null;
  readonly relisten: Relistening;
  /** The listening socket at the new place of `control`; null: it stays where it is. */
  readonly control: number | null;
}

export class Daemon {
  readonly #options: DaemonOptions;
  readonly #log: Logger;
  readonly #host: HostFunctions;
  #config: Config;
  #user: User | null;
  readonly #resources: ResourceSet;
  readonly #resolver: Resolver;
  readonly #listener: PeerListener;
  readonly #control: ControlServer;
  readonly #spares: Spares;
  readonly #said = new Set<string>();
  readonly #bridges: readonly BridgeMaker[];
  #pidfile: Pidfile | undefined;
  #controlMade = false;
  #folder: WorkerFolder | undefined;
  /** Some resources run as another hastd had been told to. */
  #adopted = false;
  #refreshing: NodeJS.Timeout | undefined;
  #stopping: Promise<void> | undefined;
  /** Reloads are carried out one after the other. */
  #reloading: Promise<unknown> = Promise.resolve();

  private constructor(options: DaemonOptions, config: Config, log: Logger, user: User | null) {
    this.#options = options;
    this.#config = config;
    this.#user = user;
    this.#log = log;
    this.#host = native.host;
    this.#bridges = [ublkMaker(native.kernel), nbdMaker({ ...native.host, ...native.kernel })];
    this.#resolver = new Resolver(systemLookup, (host, error) =>
      log.warning(withReason(`Cannot resolve ${host}`, error)),
    );
    this.#listener = new PeerListener(this.#table(), log);
    this.#control = new ControlServer({
      backend: this.#backend(),
      admits: (socket) => this.#admitsClient(socket),
      nameOf: (socket) => this.#nameOf(socket),
      onProblem: (text) => log.error(text),
      onAnswer: (text) => log.debug2(text),
    });
    const common = {
      host: this.#host,
      folder: () => this.#workerFolder(),
      once: (text: string) => this.#once(text),
    };
    const idle = () => this.#resources.supervisors.filter((one) => one.workerPid === 0).length;
    const spare = { ...common, entry: workerEntry(), user: () => this.#user, log };
    this.#spares = new Spares(spare, idle);
    const deps = {
      host: this.#host,
      claims: new DeviceClaims(),
      bridges: this.#bridges,
      startHook: hookStarter(options.foreground),
      log,
      launch: workerLauncher({ ...common, spares: this.#spares }),
      workers: () => this.#resources.size,
      dropPeer: (name: string) => this.#listener.drop(name),
      resolve: (resource: Resource) => this.#addresses(resource),
      knock: (resource: Resource) => void this.#knock(resource),
      emit: (resource: string, event: string, detail?: Record<string, string | number>) =>
        this.#control.emit({
          time: new Date().toISOString(),
          resource,
          event,
          ...(detail === undefined ? {} : { detail }),
        }),
    };
    this.#resources = new ResourceSet(config.resources, deps);
  }

  /**
   * Everything up to the moment at which peers and hastctl are answered.
   * @throws HastError with the exit code of the command; nothing is left behind
   */
  static async start(options: DaemonOptions, log: Logger): Promise<Daemon> {
    const config = await readDaemonConfig(options);
    for (const text of warningsOf(config)) log.warning(text);
    const pidfile = takePidfile(options, config, log);
    try {
      const user = await workerUser(config);
      const daemon = new Daemon(options, config, log, user);
      daemon.#pidfile = pidfile;
      try {
        await daemon.#open();
      } catch (error) {
        daemon.#closeDoors();
        throw error;
      }
      return daemon;
    } catch (error) {
      pidfile?.remove();
      throw error;
    }
  }

  async #open(): Promise<void> {
    const { control, listen } = this.#config;
    this.#raiseMemlock();
    // From here on there is no second hastd; nobody is answered before the roles are known.
    const listening = this.#listenControl(control.path);
    this.#controlMade = true;
    this.#folder = WorkerFolder.open(WorkerFolder.pathFor(control.path), programVersion());
    await this.#adopt(this.#folder);
    for (const address of listen) await this.#listener.listen(address);
    await this.#control.listen(listening);
    this.#pidfile?.write(process.pid);
  }

  async #adopt(folder: WorkerFolder): Promise<void> {
    const once = (text: string) => this.#once(text);
    const leaveDevice = (note: BridgeNote | null) => closeLeftOver(this.#bridges, note);
    const waits = (note: BridgeNote) => deviceWaits(this.#bridges, note);
    const settings = { host: this.#host, folder, log: this.#log, once, leaveDevice, waits };
    const found = await adoptWorkers(settings);
    this.#resources.adopt(found);
    this.#adopted = found.adopted.length > 0;
  }

  /** What an adopted worker was not started with, and resources that are gone, as by a reload. */
  async #catchUp(): Promise<void> {
    const changes = await this.#resources.reload(this.#config.resources);
    if (changes.length > 0) tellReload(this.#log, (name) => this.#about(name), [], changes);
  }

  #workerFolder(): WorkerFolder {
    if (this.#folder === undefined) throw new HastError('DAEMON_FOLDER');
    return this.#folder;
  }

  /** To be called once the log goes where it stays. */
  begin(): void {
    const { listen, resources } = this.#config;
    this.#log.info(`Started successfully, running protocol version ${PROTOCOL}.`);
    for (const { text } of listen) this.#log.info(`Listening on address ${text}.`);
    this.#refreshing = setInterval(() => void this.#refresh(), REFRESH_MS).unref();
    void this.#refresh();
    for (const { name, start } of resources) {
      const idle = this.#resources.get(name)?.role === 'init';
      if (start !== 'init' && idle) void this.#startRole(name, start);
    }
    this.#spares.open();
    if (this.#adopted) this.#reloading = this.#catchUp();
  }

  /** Ends all workers in order, within a deadline, and leaves no file behind. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    this.#log.info('Ending.');
    clearInterval(this.#refreshing);
    this.#spares.close();
    this.#listener.close();
    if (!(await within(STOP_MS, this.#resources.close()))) {
      this.#log.error('Some workers have not ended in time; they end by themselves.');
    }
    this.#closeDoors();
    this.#pidfile?.remove();
  }

  /**
   * Reads the file again and takes it over, or leaves all as it is.
   * @throws HastError why it was not taken
   */
  reload(): Promise<ReloadAnswer> {
    const done = this.#reloading.then(() => this.#reload());
    this.#reloading = done.catch(() => {});
    return done;
  }

  /** SIGHUP: nobody but the log hears how it went. */
  async reloadQuietly(): Promise<void> {
    await this.reload().catch(() => {});
  }

  async #reload(): Promise<ReloadAnswer> {
    const log = this.#log;
    let prepared: Prepared;
    try {
      prepared = await this.#prepareReload();
    } catch (error) {
      log.warning(withReason('Reload: the configuration stays as it was', error));
      throw error;
    }
    const { config } = prepared;
    const statements = globalsThatDiffer(this.#config, config);
    const problems = await this.#move(prepared);
    const changes = await this.#resources.reload(config.resources);
    void this.#refresh();
    for (const { name, change } of changes) {
      const start = config.resources.find((one) => one.name === name)?.start ?? 'init';
      if (change === 'added' && start !== 'init') void this.#startRole(name, start);
    }
    const warnings = [...warningsOf(config), ...problems];
    for (const text of warnings) log.warning(text);
    tellReload(log, (name) => this.#about(name), statements, changes);
    return reloadAnswer(statements, changes, warnings);
  }

  /** All that can fail; nothing is different afterwards. */
  async #prepareReload(): Promise<Prepared> {
    if (this.#stopping !== undefined) {
      throw new HastError('RELOAD_REFUSED', { message: 'hastd is ending' });
    }
    const config = await readDaemonConfig(this.#options);
    this.#refuseToLoseAll(config);
    for (const resource of config.resources) {
      const before = this.#resources.get(resource.name)?.resource.secret;
      if (resource.secret !== before) readSecret(resource);
    }
    const user = config.user === this.#config.user ? this.#user : await workerUser(config);
    const relisten = await this.#listener.begin(config.listen);
    const moved = config.control.path !== this.#config.control.path;
    try {
      const control = moved ? this.#listenControl(config.control.path) : null;
      return { config, user, relisten, control };
    } catch (error) {
      relisten.undo();
      throw error;
    }
  }

  /** A file that was just being written has no resource, or none of this node. */
  #refuseToLoseAll({ resources }: Config): void {
    if (resources.length > 0) return;
    if (this.#resources.supervisors.every(({ role }) => role === 'init')) return;
    throw new HastError('RELOAD_REFUSED', {
      message: 'the file has no resource of this node any more, and some here have a role',
      hint: 'hastctl role init all, then reload again',
    });
  }

  /** Cannot fail: the new doors are open. @returns what could not be done all the same */
  async #move({ config, user, relisten, control }: Prepared): Promise<readonly string[]> {
    const before = this.#config;
    this.#config = config;
    this.#user = user;
    this.#raiseMemlock();
    this.#spares.renew();
    if (control !== null) {
      await this.#control.listen(control);
      rmSync(before.control.path, { force: true });
    }
    const problems = (await relisten.commit()).map((error) => withReason('Reload', error));
    return [...problems, ...this.#moveFolder(), ...this.#movePidfile(before.pidfile)];
  }

  #moveFolder(): readonly string[] {
    const path = WorkerFolder.pathFor(this.#config.control.path);
    try {
      this.#folder?.move(path);
      return [];
    } catch (error) {
      return [withReason(`Workers are not found by a later hastd in ${path}`, error)];
    }
  }

  /** Only in the background and without -P. */
  #movePidfile(before: string): readonly string[] {
    const { foreground, pidfile } = this.#options;
    const { pidfile: after } = this.#config;
    if (foreground || pidfile !== null || after === before) return [];
    try {
      const taken = Pidfile.take(after, this.#host);
      taken.write(process.pid);
      this.#pidfile?.remove();
      this.#pidfile = taken;
      return [];
    } catch (error) {
      return [withReason(`Cannot use the pid file ${after}`, error)];
    }
  }

  #raiseMemlock(): void {
    const workers = BigInt(this.#config.resources.length + 1);
    if (!this.#host.setMemlockLimit(MEMLOCK_BYTES * workers)) {
      this.#once('The limit on locked memory cannot be raised: workers may run with less of it.');
    }
  }

  #closeDoors(): void {
    this.#listener.close();
    this.#control.close();
    if (this.#controlMade) rmSync(this.#config.control.path, { force: true });
    this.#folder?.remove();
  }

  /** Says a thing once, however many workers meet it. */
  #once(text: string): void {
    if (this.#said.has(text)) return;
    this.#said.add(text);
    this.#log.info(text);
  }

  #about(resource: string): Logger {
    return this.#log.child(resource, this.#resources.get(resource)?.role);
  }

  async #startRole(name: string, start: Resource['start']): Promise<void> {
    const log = this.#about(name);
    if (start === 'last') {
      log.warning('start last: a primary is never chosen by itself yet, the role is secondary.');
    }
    try {
      const request = { role: 'secondary', force: false, ifUnused: false } as const;
      await this.#resources.get(name)?.changeRole(request, 'start in hast.conf');
    } catch (error) {
      log.error(withReason('The role of start was not taken', error));
    }
  }

  // ---- Names and numbers ----------------------------------------------------------------------

  async #addresses({ remote, source }: Resource): Promise<PeerAddresses> {
    const wanted = [remote === 'none' ? null : remote, source];
    const asked = wanted.map((one) => (one === null ? [] : this.#resolver.refresh(one)));
    await within(RESOLVE_MS, Promise.all(asked));
    return this.#known({ remote, source });
  }

  async #knock(resource: Resource): Promise<void> {
    const { peers, source } = await this.#addresses(resource);
    await knock(peers, source, this.#about(resource.name));
  }

  #known({ remote, source }: Pick<Resource, 'remote' | 'source'>): PeerAddresses {
    const peers = remote === 'none' ? [] : this.#resolver.current(remote);
    const sources = source === null ? [] : this.#resolver.current(source);
    return { peers, source: sources[0] ?? null };
  }

  async #refresh(): Promise<void> {
    const all = this.#resources.supervisors.map(async (supervisor) => {
      supervisor.readdress(await this.#addresses(supervisor.resource));
    });
    await Promise.all(all);
  }

  // ---- What peers and clients see -------------------------------------------------------------

  #table(): PeerTable {
    // Made before the resources are.
    const resources = () => this.#resources;
    const admits = ({ remote }: Resource, ip: string): boolean =>
      remote !== 'none' && isAmong(ip, this.#resolver.current(remote));
    return {
      get count() {
        return resources().size;
      },
      admitsAny: (ip) => resources().supervisors.some(({ resource }) => admits(resource, ip)),
      find: (name) => {
        const supervisor = resources().get(name);
        if (supervisor === undefined) return undefined;
        const { role, resource } = supervisor;
        return { role, admits: (ip) => admits(resource, ip), secret: () => readSecret(resource) };
      },
      admit: (name, pair) => resources().get(name)?.admit(pair),
      contact: (name) => resources().get(name)?.contact(),
      knocked: (ip) => {
        for (const supervisor of resources().supervisors) {
          if (admits(supervisor.resource, ip)) supervisor.contact();
        }
      },
      unknown: () => void this.#refresh(),
    };
  }

  #backend(): ControlBackend {
    const find = (name: string): Supervisor => {
      const supervisor = this.#resources.get(name);
      if (supervisor === undefined) throw new HastError('RESOURCE_UNKNOWN');
      return supervisor;
    };
    return {
      names: () => this.#resources.names,
      status: (name) => find(name).status(),
      why: (name) => find(name).why(),
      changeRole: (name, request, by) => {
        if (this.#stopping !== undefined) {
          throw new HastError('ROLE_FAILED', { message: 'hastd is ending', hint: '' });
        }
        return find(name).changeRole(request, by);
      },
      reload: () => this.reload(),
    };
  }

  #listenControl(path: string): number {
    try {
      return this.#host.listenUnix(path, CONTROL_MODE, AS_IS, AS_IS);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new HastError('DAEMON_CONTROL', { message: `control ${why}`, cause });
    }
  }

  #admitsClient(socket: Socket): boolean {
    const fd = fdOf(socket);
    if (fd === undefined) return true; // the socket's mode has let them in
    const { uid } = this.#host.peerCredentials(fd);
    return uid === 0 || uid === process.getuid?.();
  }

  #nameOf(socket: Socket): string {
    const fd = fdOf(socket);
    if (fd === undefined) return 'unknown';
    const { uid, pid } = this.#host.peerCredentials(fd);
    return `${uid === 0 ? 'root' : `uid ${uid}`}, pid ${pid}`;
  }
}

function warningsOf(config: Config): readonly string[] {
  const all = [...config.warnings, ...partlyAvailable(config)];
  return all.map(({ at, text }) => `${at.file}:${at.line}:${at.column}: ${text}`);
}

/** Whether the work was done within the time; it goes on otherwise. */
async function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** In the foreground there is none unless asked for; what is wrong with it is only a warning. */
function takePidfile(options: DaemonOptions, config: Config, log: Logger): Pidfile | undefined {
  if (options.foreground && options.pidfile === null) return undefined;
  const path = config.pidfile;
  try {
    return Pidfile.take(path, native.host);
  } catch (error) {
    if (error instanceof HastError && error.code === 'DAEMON_HELD') throw error;
    log.warning(withReason(`Cannot use the pid file ${path}`, error));
    return undefined;
  }
}

/** Whom workers run as. @throws HastError USER_MISSING, INSTALL_UNREADABLE */
async function workerUser({ user }: Config): Promise<User | null> {
  if (process.getuid?.() !== 0) return null;
  const found = native.host.lookupUser(user);
  if (found === null) {
    throw new HastError('USER_MISSING', { message: `there is no user ${user} for the workers` });
  }
  if (found.uid === 0) {
    throw new HastError('USER_MISSING', { message: `user ${user}: a worker is never root` });
  }
  await verifyInstallation(workerEntry(), user, found);
  return found;
}
