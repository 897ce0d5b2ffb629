/**
 * The kernel's NBD client on a pair of UNIX sockets: one end is the kernel's, the other one the
 * worker's, who serves the transmission phase on it. There is one connection, since then a request
 * that has no answer is sent again only over another connection, however long it takes (decision
 * 0010).
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError } from '../../error.ts';
import { LIMITS } from '../../limits.ts';
import { errnoName, type HostFunctions, type KernelFunctions } from '../../native.ts';
import type { Bridge, BridgeMaker, BridgeOffer, DeviceShape } from '../bridge.ts';
import { driverLacking } from './modprobe.ts';

export type NbdKernel = Pick<
  KernelFunctions,
  'nbdConnect' | 'nbdReconnect' | 'nbdDisconnect' | 'streamPair' | 'hungUp'
> &
  Pick<HostFunctions, 'closeFd'>;

/** Where the kernel tells and takes; for tests. */
export interface NbdPlaces {
  readonly sys: string;
  readonly dev: string;
}
const PLACES: NbdPlaces = { sys: '/sys', dev: '/dev' };

/** Longer than any pause between two workers of one role. */
const DEAD_SECONDS = 120;
/** In the folder of the device's queue; a kernel that has no such file does without. */
const QUEUE: Readonly<Record<string, string>> = {
  /** How soon after a reconnect the kernel repeats what had no answer. */
  io_timeout: '2000',
  /**
   * A READ of one slot has its error in front of its data. Of a longer one the data may have begun,
   * and then only the end of the connection tells that it has failed.
   */
  max_sectors_kb: String(LIMITS.requestBytesMax / 1024),
};
/** The sockets of a worker that was killed are open for a moment after its end. */
const RECONNECT_MS = 10_000;
const STEP_MS = 10;
const NODE = /^\/dev\/nbd(\d+)$/;

export class NbdBridge implements Bridge {
  readonly kind = 'nbd';
  readonly owner: string;
  /** What is offered to the kernel it has. */
  readonly waits = false;
  readonly #kernel: NbdKernel;
  readonly #places: NbdPlaces;
  #index: number | null = null;
  #shape: DeviceShape | undefined;
  /** Files of the kernel with what was in them before. */
  readonly #tuned: (readonly [file: string, before: string])[] = [];
  /** The kernel's end, until there is a device. */
  #waiting: number | null = null;

  constructor(kernel: NbdKernel, owner: string, places = PLACES, index: number | null = null) {
    this.#kernel = kernel;
    this.owner = owner;
    this.#places = places;
    this.#index = index;
  }

  get device(): string | null {
    return this.#index === null ? null : `/dev/nbd${this.#index}`;
  }

  async offer(shape: DeviceShape): Promise<BridgeOffer> {
    this.#shape = shape;
    this.#dropWaiting();
    const again = this.#index === null ? null : await this.#reconnect(this.#index);
    if (again !== null) return { kernelFds: [again] };
    const [ours, theirs] = this.#kernel.streamPair();
    this.#waiting = ours;
    return { kernelFds: [theirs] };
  }

  async open(): Promise<void> {
    if (this.#index !== null) return;
    const socket = this.#waiting;
    const shape = this.#shape;
    if (socket === null || shape === undefined) {
      throw failure('its worker was started without one; give the role again');
    }
    try {
      const settings = { ...shape, deadSeconds: DEAD_SECONDS, backend: this.owner };
      this.#index = this.#kernel.nbdConnect(settings, socket);
    } catch (error) {
      throw failure((error as Error).message, error);
    } finally {
      this.#dropWaiting();
    }
    this.#tune(this.#index);
    const node = `${this.#places.dev}/nbd${this.#index}`;
    if (!existsSync(node)) {
      await this.close();
      throw failure(`the kernel has made it, and there is no ${node}`);
    }
  }

  async close(): Promise<void> {
    this.#dropWaiting();
    const index = this.#index;
    this.#index = null;
    if (index === null) return;
    // Somebody may have disconnected it, and the index be another's by now.
    const now = ownerOf(index, this.#places);
    if (now !== undefined && now !== this.owner) return;
    try {
      this.#kernel.nbdDisconnect(index);
    } catch {
      // Somebody else has disconnected it, which is what was wanted.
    }
    // Whoever has the index next finds it as it was.
    for (const [file, before] of this.#tuned.splice(0)) write(file, before);
  }

  /**
   * The worker's end of a new connection of the device; null when there is no device any more.
   * @throws HastError DEVICE_BRIDGE
   */
  async #reconnect(index: number): Promise<number | null> {
    const kernel = this.#kernel;
    const end = performance.now() + RECONNECT_MS;
    while (performance.now() < end) {
      const [ours, theirs] = kernel.streamPair();
      try {
        kernel.nbdReconnect(index, this.owner, ours);
      } catch (error) {
        kernel.closeFd(theirs);
        if (errnoName(error) !== 'EINVAL') throw failure((error as Error).message, error);
        this.#index = null;
        return null;
      } finally {
        kernel.closeFd(ours);
      }
      if (!kernel.hungUp(theirs)) return theirs;
      // The kernel holds the one before for alive, and has not taken this one.
      kernel.closeFd(theirs);
      await sleep(STEP_MS);
    }
    throw failure(`/dev/nbd${index} does not lose the connection of its last worker`);
  }

  #tune(index: number): void {
    for (const [name, value] of Object.entries(QUEUE)) {
      const file = `${this.#places.sys}/block/nbd${index}/queue/${name}`;
      const before = read(file);
      if (before === undefined) continue;
      this.#tuned.push([file, before]);
      write(file, value);
    }
  }

  #dropWaiting(): void {
    if (this.#waiting !== null) this.#kernel.closeFd(this.#waiting);
    this.#waiting = null;
  }
}

function failure(why: string, cause?: unknown): HastError {
  return new HastError('DEVICE_BRIDGE', { message: `NBD device of the kernel: ${why}`, cause });
}

export function nbdMaker(kernel: NbdKernel, places = PLACES): BridgeMaker {
  return {
    kind: 'nbd',
    lacking: () => driverLacking('nbd', () => existsSync(`${places.sys}/module/nbd`)),
    make: (owner) => new NbdBridge(kernel, owner, places),
    find({ device, owner }) {
      const index = Number(NODE.exec(device)?.[1] ?? Number.NaN);
      if (Number.isNaN(index) || ownerOf(index, places) !== owner) return undefined;
      return new NbdBridge(kernel, owner, places, index);
    },
  };
}

function ownerOf(index: number, { sys }: NbdPlaces): string | undefined {
  return read(`${sys}/block/nbd${index}/backend`);
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function write(file: string, value: string): void {
  try {
    writeFileSync(file, value);
  } catch {
    // The kernel wants another value, and keeps its own.
  }
}
