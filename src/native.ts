/**
 * The one door to the C++ addon: its loader and its whole declared surface, in three groups.
 * The supervisor uses `host` and nothing else; `create` uses `host` and `codec`; a worker uses
 * `engine`.
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { getSystemErrorName } from 'node:util';
import { HastError, isErrorCode } from './error.ts';

/** What is known of an opened local component. Sizes in bytes. */
export interface ComponentInfo {
  readonly fd: number;
  readonly sizeBytes: bigint;
  readonly sectorBytes: number;
  /** Alignment that direct I/O asks for; smaller I/O is read-modify-write in the core. */
  readonly granuleBytes: number;
  readonly blockDevice: boolean;
  /** False when the file system refused O_DIRECT and the file was opened buffered. */
  readonly direct: boolean;
  /** Identity of the device behind the path: two resources may not name one. */
  readonly device: string;
}

/**
 * System calls that Node lacks. Each is one function without state; see `errnoName` for failures.
 */
export interface HostFunctions {
  /**
   * Opens a block device or regular file (O_DIRECT where possible, CLOEXEC). `lock`: exclusive, on
   * this very open file; EWOULDBLOCK/EBUSY is reported with that errno and tried again by the
   * caller (rule 18).
   */
  openComponent(path: string, write: boolean, lock: boolean): ComponentInfo;
  closeFd(fd: number): void;
  /** Aligned reads and writes of the small metadata area; whole length or an error. */
  readAt(fd: number, offset: bigint, length: number): Buffer;
  writeAt(fd: number, offset: bigint, data: Buffer): void;
  flush(fd: number): void;
  /**
   * Listening UNIX socket as a plain CLOEXEC descriptor; an existing socket file nobody answers on
   * is replaced.
   */
  listenUnix(path: string, mode: number, uid: number, gid: number): number;
  listenTcp(host: string, port: number): number;
  /** Peer credentials of a connected UNIX socket. */
  peerCredentials(fd: number): { readonly pid: number; readonly uid: number; readonly gid: number };
  flock(fd: number): boolean;
  /** Two ends that descriptors can be sent over, close-on-exec. */
  socketPair(): readonly [number, number];
  /** One message with 1 to 4 of them; the other process gets copies. */
  sendDescriptors(fd: number, fds: readonly number[]): void;
  /** Those of the next message, close-on-exec; EAGAIN when there is none. Never waits. */
  receiveDescriptors(fd: number): readonly number[];
  /** A close-on-exec descriptor that means this process for ever; ESRCH when there is none. */
  pidfdOpen(pid: number): number;
  /** False when the process has ended. */
  pidfdSignal(fd: number, signal: number): boolean;
  setTitle(title: string): void;
  syslogOpen(ident: string): void;
  syslog(priority: number, text: string): void;
  /** PR_SET_IO_FLUSHER; false when the kernel refused. */
  setIoFlusher(on: boolean): boolean;
  /** RLIMIT_MEMLOCK of this process (inherited); false when refused. */
  setMemlockLimit(bytes: bigint): boolean;
  /**
   * Takes from this process what a worker never needs again, for good: no_new_privs, no core dump
   * of other people's data, landlock (no path for this thread and those it starts), seccomp (no
   * program, no path, no other process for all threads). Returns what was refused.
   */
  confine(): readonly string[];
  /** uid, gid of a user name; null when there is none. */
  lookupUser(name: string): { readonly uid: number; readonly gid: number } | null;
}

/** Control of the kernel's block drivers; errors carry the errno with which it refuses. */
export interface KernelFunctions {
  /**
   * Makes a free NBD device of a connected stream socket; the caller closes its own.
   * Requests wait `deadSeconds` for another connection when none is left. Returns its index.
   */
  nbdConnect(
    device: {
      readonly sizeBytes: bigint;
      readonly blockBytes: number;
      readonly deadSeconds: number;
      readonly backend: string;
    },
    socket: number,
  ): number;
  /**
   * Gives a device a connection in place of a dead one; where none is dead it is not taken, and its
   * other end hangs up once the caller's is closed. EINVAL: there is no such device.
   */
  nbdReconnect(index: number, backend: string, socket: number): void;
  nbdDisconnect(index: number): void;
  /**
   * What follows waits in the kernel, on a thread of its own, for at most `limitMs`: then it is
   * ETIMEDOUT. ENODEV: there is no such device.
   * @throws HastError ENOTSUP: the ublk driver has not all that is needed
   */
  ublkProbe(): Promise<void>;
  /** Makes /dev/ublkcN of a free number N. `owner` is what `ublkInfo` gives back. */
  ublkAdd(device: {
    readonly sizeBytes: bigint;
    readonly blockBytes: number;
    readonly owner: bigint;
  }): Promise<number>;
  /** Makes /dev/ublkbN as soon as requests are taken at /dev/ublkcN, which this process opened. */
  ublkStart(index: number, limitMs: number): Promise<void>;
  /** Another process may open /dev/ublkcN; EBUSY: the last one is not gone yet. */
  ublkStartRecovery(index: number): Promise<void>;
  /** What waits is given out as soon as requests are taken at /dev/ublkcN, opened by us again. */
  ublkEndRecovery(index: number, limitMs: number): Promise<void>;
  /** /dev/ublkbN goes; for whoever has it open, all requests fail. */
  ublkStop(index: number, limitMs: number): Promise<void>;
  /** Waits for the last user to close it; what comes too late for that happens without us. */
  ublkRemove(index: number, limitMs: number): Promise<void>;
  /** Answered at once. `started`: there is a /dev/ublkbN; `served`: by somebody who is alive. */
  ublkInfo(index: number): {
    readonly started: boolean;
    readonly served: boolean;
    readonly owner: bigint;
  };
  /** Two ends of a stream, close-on-exec. */
  streamPair(): readonly [number, number];
  /** Whether the other end of a stream is closed. */
  hungUp(fd: number): boolean;
  /** Whether no mount, device or target has claimed a block device for itself. */
  isUnclaimed(path: string): boolean;
}

/** Layout of a new component, computed by the core (`codec/layout`). */
export interface LayoutRequest {
  readonly mediaBytes: bigint;
  readonly sectorBytes: number;
  readonly extentBytes: number;
  readonly keepdirty: number;
  readonly layout: 'aligned' | 'hast';
}
export interface Layout {
  readonly offset: bigint;
  readonly dataBytes: bigint;
  readonly mapBytes: number;
}
/** The nine HAST fields; u64 as bigint. */
export interface MetadataFields {
  readonly resource: string;
  readonly datasize: bigint;
  readonly extentsize: number;
  readonly keepdirty: number;
  readonly offset: bigint;
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly prevrole: 'init' | 'primary' | 'secondary';
}
export interface CodecFunctions {
  layout(request: LayoutRequest): Layout;
  /**
   * The 4096-byte metadata block of a fresh resource; `contentsEqual` leaves our own record behind
   * it.
   */
  metadataBlock(fields: MetadataFields, contentsEqual: boolean): Buffer;
  /**
   * The writes that note `hastctl discard` in a 4096-byte metadata block, in order; flush after
   * each. `sectorBytes` is the least that can be written.
   * @throws HastError META_INVALID
   */
  discardSteps(block: Buffer, sectorBytes: number): readonly { offset: number; bytes: Buffer }[];
  /** Bounds and error table of the core, for the check at load. */
  limits(): Readonly<Record<string, number>>;
  // Synchronous codec calls for the benches (buffers only ever made by the bench itself).
  crc32(data: Buffer): number;
  isZero(data: Buffer): boolean;
}

/** A numeric address a worker may connect to. */
export interface NumericAddress {
  readonly host: string;
  readonly port: number;
  readonly family: 4 | 6;
}

/**
 * What the second message of a primary said; read by the parent, used by the secondary's engine.
 * u64 as bigint.
 */
export interface PeerHello {
  readonly version: number;
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly virgin: boolean;
  /** Both sides announced and the primary confirmed our extensions. */
  readonly extended: boolean;
  /** A virgin that was created with `--contents-equal`. */
  readonly contentsEqual: boolean;
  /** Its machine went down since it last took writes. */
  readonly lostCache: boolean;
  /** Its own copy is stale or half written. */
  readonly incomplete: boolean;
  /** With `lostCache`: it was the primary when its machine went down. */
  readonly led: boolean;
  readonly epoch: bigint;
  readonly bootid: bigint;
  /** Which data the primary has, and which ones the peer may have; 0: unknown. */
  readonly generation: bigint;
  readonly generationShared: bigint;
  readonly generationOffered: bigint;
  /** What its message was proven with, and the answer is signed with; null: no secret here. */
  readonly auth: PeerAuth | null;
}

/** What the second messages of one pair of connections are signed with. Never to be logged. */
export interface PeerAuth {
  /** 1 to 1024 bytes. */
  readonly secret: Uint8Array;
  /** 16 bytes each. */
  readonly noncePrimary: Uint8Array;
  readonly nonceSecondary: Uint8Array;
}

/** Settings that may change while a worker runs. */
export interface EngineTuning {
  readonly replication: 'fullsync' | 'memsync' | 'async';
  readonly checksum: 'none' | 'crc32' | 'sha256';
  readonly compression: 'none' | 'hole' | 'lzf';
  readonly timeoutSeconds: number;
  readonly metaflush: boolean;
  /** Empty: `remote none`, never connects. */
  readonly peers: readonly NumericAddress[];
  readonly source: NumericAddress | null;
  /** What a primary proves and asks for: 1 to 1024 bytes; null: nothing. Never to be logged. */
  readonly secret: Uint8Array | null;
}

export interface EngineSpec extends EngineTuning {
  readonly resource: string;
  readonly provider: string;
  readonly role: 'primary' | 'secondary';
  /** `role -f`: skip the refusals of rules 16 and 21. */
  readonly force: boolean;
  /** The opened and locked component; the engine owns the descriptor from here. */
  readonly diskFd: number;
  /** Listening socket of the NBD export (primary), or -1. */
  readonly exportFd: number;
  /** Connections of the kernel's NBD client, or a node of its ublk driver (primary). */
  readonly kernelFds: readonly number[];
  /** Connections 1 and 2 as the peer opened them (secondary), or -1. */
  readonly requestsFd: number;
  readonly repliesFd: number;
  readonly hello: PeerHello | null;
  /** Workers that the limit on locked memory is for, this one included. */
  readonly sharers: number;
  /** Sector size of the exported device; 0: the disk's. */
  readonly sectorBytes: number;
}

export type EngineEventName =
  | 'connect'
  | 'disconnect'
  | 'syncstart'
  | 'syncdone'
  | 'syncintr'
  | 'split-brain';

/** What an engine tells its worker, in order. */
export type EngineEvent =
  | { readonly type: 'log'; readonly level: LogLevel; readonly text: string }
  /**
   * Primary: routing is decided and the export accepts I/O. Secondary: ready for the peer's
   * requests.
   */
  | { readonly type: 'ready' }
  | { readonly type: 'event'; readonly name: EngineEventName }
  /** The last event of an engine. exit: sysexits code, 0 after an orderly stop. */
  | { readonly type: 'end'; readonly exit: number; readonly code: string; readonly text: string };
export type LogLevel =
  | 'emerg'
  | 'alert'
  | 'crit'
  | 'error'
  | 'warning'
  | 'notice'
  | 'info'
  | 'debug1'
  | 'debug2';

/** A snapshot; counters are since the engine's start, bytes and counts as numbers below 2^53. */
export interface EngineStats {
  readonly status: 'complete' | 'degraded';
  /** Finer than status: what `hastctl list` and `why` explain. */
  readonly state: 'connecting' | 'degraded' | 'syncing' | 'in-sync' | 'secondary' | 'stopping';
  readonly reason: string;
  readonly peerKind: 'none' | 'ours' | 'original';
  readonly protocolVersion: number;
  readonly replication: 'fullsync' | 'memsync' | 'async';
  readonly syncSource: 'none' | 'local' | 'remote';
  readonly extentBytes: number;
  readonly keepdirty: number;
  readonly dirtyBytes: number;
  readonly syncBytesLeft: number;
  readonly syncBytesDone: number;
  readonly syncBytesPerSecond: number;
  readonly localStale: boolean;
  readonly clients: readonly string[];
  readonly inFlight: number;
  readonly reads: number;
  readonly writes: number;
  readonly deletes: number;
  readonly flushes: number;
  readonly activemapUpdates: number;
  readonly readErrors: number;
  readonly writeErrors: number;
  readonly deleteErrors: number;
  readonly flushErrors: number;
  readonly queueLocal: number;
  readonly queueSend: number;
  readonly queueRecv: number;
  readonly queueDone: number;
  readonly queueIdle: number;
}

export interface EngineHandle {
  readonly __engine: unique symbol;
}
export interface EngineFunctions {
  /** Starts the engine's thread. `onEvent` is called on the JS thread; `end` is the last call. */
  start(spec: EngineSpec, onEvent: (event: EngineEvent) => void): EngineHandle;
  /**
   * Drain, flush, end. A primary stops admission first (rule 22). Idempotent; the end comes as an
   * event.
   */
  stop(handle: EngineHandle): void;
  reconfigure(handle: EngineHandle, tuning: EngineTuning): void;
  /** The peer was heard of: end the wait before the next attempt to connect. */
  kick(handle: EngineHandle): void;
  stats(handle: EngineHandle): Promise<EngineStats>;
}

export interface NativeModule {
  readonly host: HostFunctions;
  readonly codec: CodecFunctions;
  readonly engine: EngineFunctions;
  readonly kernel: KernelFunctions;
}

/** The version of the interface above; an addon of another one is refused. */
const INTERFACE_VERSION = 5;

type Group = Readonly<Record<string, (...args: never[]) => unknown>>;
type Addon = NativeModule & { readonly version: () => number };

/**
 * What the addon throws: `code` is a word of the error table, the rest is there for system calls.
 */
interface NativeFailure extends Error {
  readonly code?: unknown;
  readonly errno?: number;
  readonly syscall?: string;
}

/** The addon's errors as HastError, with itself as cause; a TypeError of its own stays one. */
function asHastError(thrown: unknown): unknown {
  const failure = thrown as NativeFailure;
  const { code } = failure;
  if (typeof code !== 'string' || !isErrorCode(code)) return thrown;
  return new HastError(code, { message: failure.message, cause: failure });
}

/** The name of the system's error behind a failure (EAGAIN, ENOENT ...), where there is one. */
export function errnoName(error: unknown): string | undefined {
  if (!(error instanceof HastError)) return undefined;
  const errno = (error.cause as NativeFailure | undefined)?.errno;
  return errno === undefined ? undefined : getSystemErrorName(-errno);
}

/** What host functions take of a socket. Node keeps it to itself; undefined when it is closed. */
export function fdOf(socket: Socket): number | undefined {
  const { fd } = (socket as unknown as { _handle?: { fd?: number } })._handle ?? {};
  return fd === undefined || fd < 0 ? undefined : fd;
}

function rethrow(error: unknown): never {
  throw asHastError(error);
}

function guarded<T extends object>(group: T | undefined): T {
  const result: Record<string, unknown> = {};
  for (const [name, call] of Object.entries((group ?? {}) as unknown as Group)) {
    result[name] = (...args: never[]) => {
      try {
        const value = call(...args);
        return value instanceof Promise ? value.catch(rethrow) : value;
      } catch (error) {
        throw asHastError(error);
      }
    };
  }
  return Object.freeze(result) as T;
}

/** Tries the override, the developer build, then a prebuild; the error names all that was tried. */
function load(): NativeModule {
  const require = createRequire(import.meta.url);
  const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
  const override = process.env.HASTD_NATIVE;
  const places: (readonly [name: string, open: () => Addon])[] =
    override === undefined
      ? [
          [`${root}/out/native/hastd.node`, () => require(`${root}/out/native/hastd.node`)],
          ['node-gyp-build', () => require('node-gyp-build')(root)],
        ]
      : [[override, () => require(resolve(override))]];
  const tried: string[] = [];
  for (const [name, open] of places) {
    try {
      const addon = open();
      const version = addon.version();
      if (version === INTERFACE_VERSION) {
        return {
          host: guarded(addon.host),
          codec: guarded(addon.codec),
          engine: guarded(addon.engine),
          kernel: guarded(addon.kernel),
        };
      }
      tried.push(`${name}: is of interface ${version}, not ${INTERFACE_VERSION}`);
    } catch (error) {
      tried.push(`${name}: ${(error as Error).message.split('\n', 1)[0]}`);
    }
  }
  throw new HastError('NATIVE_MISSING', {
    message: `the native addon cannot be loaded: ${tried.join('; ')}`,
  });
}

let loaded: NativeModule | undefined;

function group<K extends keyof NativeModule>(name: K): NativeModule[K] {
  loaded ??= load();
  return loaded[name];
}

/** Loaded at the first use of a group: most commands of hastctl need none. */
export const native: NativeModule = {
  get host() {
    return group('host');
  },
  get codec() {
    return group('codec');
  },
  get engine() {
    return group('engine');
  },
  get kernel() {
    return group('kernel');
  },
};
