/**
 * The kernel's ublk driver: a node /dev/ublkcN at which the worker's ring takes requests, and a
 * block device /dev/ublkbN. What a worker leaves behind when it is gone, answered or not, the next
 * one gets (user recovery with reissue).
 */
import { createHash } from 'node:crypto';
import { existsSync, openSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { HastError } from '../../error.ts';
import { errnoName, type KernelFunctions } from '../../native.ts';
import type { Bridge, BridgeMaker, BridgeOffer, DeviceShape } from '../bridge.ts';
import { driverLacking } from './modprobe.ts';

export type UblkKernel = Pick<
  KernelFunctions,
  | 'ublkProbe'
  | 'ublkAdd'
  | 'ublkStart'
  | 'ublkStartRecovery'
  | 'ublkEndRecovery'
  | 'ublkStop'
  | 'ublkRemove'
  | 'ublkInfo'
>;

/** Where the kernel shows its devices; for tests. */
export interface UblkPlaces {
  readonly sys: string;
  readonly dev: string;
}
const PLACES: UblkPlaces = { sys: '/sys', dev: '/dev' };

/** A worker that says it serves has asked the driver for requests. */
const START_MS = 10_000;
/** The driver lets go of a worker that was killed a moment after its end. */
const RECOVERY_MS = 10_000;
const STEP_MS = 10;
/** What was written and not flushed is tried once more, and fails. */
const STOP_MS = 10_000;
/** It is forgotten without us when its last user has closed it. */
const REMOVE_MS = 200;
const NODE = /^\/dev\/ublkb(\d+)$/;

/** `new`: nobody has served it yet. `waiting`: its worker is gone. */
type State = 'none' | 'new' | 'served' | 'waiting';

export class UblkBridge implements Bridge {
  readonly kind = 'ublk';
  readonly owner: string;
  readonly #kernel: UblkKernel;
  readonly #places: UblkPlaces;
  #index = -1;
  #state: State = 'none';
  #opening: Promise<void> = Promise.resolve();

  constructor(kernel: UblkKernel, owner: string, places = PLACES) {
    this.#kernel = kernel;
    this.owner = owner;
    this.#places = places;
  }

  /** One that is there already. */
  static existing(kernel: UblkKernel, owner: string, index: number, served: boolean): UblkBridge {
    const bridge = new UblkBridge(kernel, owner);
    bridge.#index = index;
    bridge.#state = served ? 'served' : 'waiting';
    return bridge;
  }

  get device(): string | null {
    return this.started ? `/dev/ublkb${this.#index}` : null;
  }

  get waits(): boolean {
    return this.#state === 'waiting';
  }

  get started(): boolean {
    return this.#state === 'served' || this.#state === 'waiting';
  }

  async offer(shape: DeviceShape): Promise<BridgeOffer> {
    // Two workers at a time are too many for the driver.
    await this.#opening.catch(() => {});
    // What no worker has served by now, none will.
    if (this.#state === 'new') await this.close();
    try {
      if (!this.started || !(await this.#recover())) await this.#add(shape);
      return { kernelFds: [openSync(`${this.#places.dev}/ublkc${this.#index}`, 'r+')] };
    } catch (error) {
      throw failure(error);
    }
  }

  open(): Promise<void> {
    this.#opening = this.#open();
    return this.#opening;
  }

  async #open(): Promise<void> {
    const index = this.#index;
    const state = this.#state;
    try {
      if (state === 'new') await this.#kernel.ublkStart(index, START_MS);
      if (state === 'waiting') await this.#kernel.ublkEndRecovery(index, START_MS);
    } catch (error) {
      throw failure(error);
    }
    // `close` does not wait for it.
    if (this.#state === 'none') throw failure(new Error('it was ended while it began'));
    this.#state = 'served';
  }

  async close(): Promise<void> {
    const index = this.#index;
    const state = this.#state;
    this.#state = 'none';
    if (state === 'none') return;
    try {
      if (state !== 'new') await this.#kernel.ublkStop(index, STOP_MS);
    } catch {
      // Removing it stops it too.
    }
    await remove(this.#kernel, index);
  }

  async #add({ sizeBytes, blockBytes }: DeviceShape): Promise<void> {
    const owner = markOf(this.owner);
    await removeUnused(this.#kernel, this.#places, owner);
    this.#index = await this.#kernel.ublkAdd({ sizeBytes, blockBytes, owner });
    this.#state = 'new';
  }

  /** @returns whether another worker may serve it; false: there is no device any more */
  async #recover(): Promise<boolean> {
    const found = infoOf(this.#kernel, this.#index);
    if (found?.owner !== markOf(this.owner) || !found.started) {
      // Somebody else has ended it. What is left of it goes as an unused one.
      this.#state = 'none';
      return false;
    }
    const end = performance.now() + RECOVERY_MS;
    this.#state = 'waiting';
    for (;;) {
      try {
        await this.#kernel.ublkStartRecovery(this.#index);
        return true;
      } catch (error) {
        // The driver still holds the last one for alive.
        if (errnoName(error) !== 'EBUSY' || performance.now() > end) throw error;
      }
      await sleep(STEP_MS);
    }
  }
}

function failure(cause: unknown): HastError {
  if (cause instanceof HastError && cause.code === 'DEVICE_BRIDGE') return cause;
  const message = `ublk device of the kernel: ${(cause as Error).message}`;
  return new HastError('DEVICE_BRIDGE', { message, cause });
}

/** An owner in the 64 bits that the driver keeps for us. */
function markOf(owner: string): bigint {
  return createHash('sha256').update(owner).digest().readBigUInt64LE();
}

async function remove(kernel: UblkKernel, index: number): Promise<void> {
  try {
    await kernel.ublkRemove(index, REMOVE_MS);
  } catch {
    // It is gone, or goes with its last user.
  }
}

/** Those that an earlier supervisor had made and no worker has served. */
async function removeUnused(kernel: UblkKernel, places: UblkPlaces, owner: bigint): Promise<void> {
  const folder = `${places.sys}/class/ublk-char`;
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const index = Number(name.slice('ublkc'.length));
    const found = infoOf(kernel, index);
    if (found !== undefined && !found.started && found.owner === owner) {
      await remove(kernel, index);
    }
  }
}

function infoOf(kernel: UblkKernel, index: number): ReturnType<UblkKernel['ublkInfo']> | undefined {
  try {
    return kernel.ublkInfo(index);
  } catch {
    return undefined;
  }
}

/** @returns what the driver lacks; undefined when it does all that is needed */
async function probe(kernel: UblkKernel): Promise<string | undefined> {
  try {
    await kernel.ublkProbe();
    return undefined;
  } catch (error) {
    return errnoName(error) === 'ENOTSUP'
      ? 'the driver is too old (Linux 6.5 has what is needed)'
      : (error as Error).message;
  }
}

export function ublkMaker(kernel: UblkKernel, places = PLACES): BridgeMaker {
  const isThere = (): boolean => existsSync(`${places.dev}/ublk-control`);
  return {
    kind: 'ublk',
    lacking: async () => (await driverLacking('ublk_drv', isThere)) ?? probe(kernel),
    make: (owner) => new UblkBridge(kernel, owner, places),
    find({ device, owner }) {
      const index = Number(NODE.exec(device)?.[1] ?? Number.NaN);
      const found = Number.isNaN(index) ? undefined : infoOf(kernel, index);
      if (found?.owner !== markOf(owner) || !found.started) return undefined;
      return UblkBridge.existing(kernel, owner, index, found.served);
    },
  };
}
