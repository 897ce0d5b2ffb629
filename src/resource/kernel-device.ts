/** The kernel's device of one resource, with its link, from worker to worker. */
import { join } from 'node:path';
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import type { Logger } from '../log.ts';
import {
  type Bridge,
  type BridgeMaker,
  type BridgeNote,
  chooseBridge,
  type DeviceShape,
} from './bridge.ts';
import { makeLink, removeLink } from './device-link.ts';
import { usersOf } from './device-users.ts';

export class KernelDevice {
  /** In the order in which `auto` takes them. */
  readonly #makers: readonly BridgeMaker[];
  readonly #log: () => Logger;
  #bridge: Bridge | undefined;
  #link = '';
  /** An explicit kind must be had; `auto` does without. */
  #must = false;
  #ended: Promise<void> = Promise.resolve();

  constructor(makers: readonly BridgeMaker[], log: () => Logger) {
    this.#makers = makers;
    this.#log = log;
  }

  /** The path for people and scripts; null while there is no device. */
  get path(): string | null {
    return this.note === null ? null : this.#link;
  }

  get note(): BridgeNote | null {
    const bridge = this.#bridge;
    if (bridge === undefined || bridge.device === null) return null;
    return { kind: bridge.kind, device: bridge.device, owner: bridge.owner, link: this.#link };
  }

  /** Resolves when the last device that was closed is gone. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Whether there is something to open when the worker serves. */
  get opens(): boolean {
    return this.#bridge !== undefined;
  }

  /** Of an earlier supervisor, whose worker goes on serving it. */
  adopt(note: BridgeNote | null): void {
    if (note === null) return;
    this.#bridge = find(this.#makers, note);
    this.#link = note.link;
    if (this.#bridge === undefined) {
      this.#log().warning(`${note.device} is not ours any more: there is the NBD export only.`);
    }
  }

  /**
   * For a worker that is about to start.
   * @returns descriptors for it, which are the caller's to close
   * @throws HastError DEVICE_BRIDGE
   */
  async offer(resource: Resource, shape: DeviceShape): Promise<readonly number[]> {
    const { device } = resource;
    // The device of an adopted worker may be of a kind that is not asked for any more.
    const kind = this.#bridge?.kind;
    if (kind !== undefined && device !== 'auto' && device !== kind) await this.close();
    if (device === 'none') return [];
    this.#must = device !== 'auto';
    if (this.#bridge === undefined) {
      const chosen = await chooseBridge(this.#makers, device);
      if (typeof chosen === 'string') {
        this.#without(chosen);
        return [];
      }
      this.#link = join(resource.devdir, resource.provname);
      this.#bridge = chosen.make(`hastd ${resource.name} on ${resource.node}`);
    }
    return (await this.#bridge.offer(shape)).kernelFds;
  }

  /**
   * The worker serves.
   * @param alive  whether it still does: what fails without it is the next one's to try
   * @throws HastError DEVICE_BRIDGE, DEVICE_LINK
   */
  async open(alive: () => boolean): Promise<void> {
    const bridge = this.#bridge;
    if (bridge === undefined) return;
    try {
      await bridge.open();
      if (bridge.device !== null) makeLink(this.#link, bridge.device);
    } catch (error) {
      if (!alive()) return;
      await this.close();
      if (this.#must) throw error;
      this.#without((error as Error).message);
    }
  }

  /** Whoever has the device open gets errors when this resolves, however often it is asked for. */
  close(): Promise<void> {
    const bridge = this.#bridge;
    this.#bridge = undefined;
    if (bridge === undefined) return this.#ended;
    if (bridge.device !== null) removeLink(this.#link, bridge.device);
    this.#ended = bridge.close();
    return this.#ended;
  }

  /** Who has it open, mounted or in use otherwise. */
  users(): readonly string[] {
    const { note } = this;
    return note === null ? [] : usersOf(note.device);
  }

  /** @throws HastError DEVICE_BRIDGE when the configuration asks for a device */
  #without(why: string): void {
    if (this.#must) throw new HastError('DEVICE_BRIDGE', { message: why });
    this.#log().info(`No device of the kernel (${why}): there is the NBD export only.`);
  }
}

function find(makers: readonly BridgeMaker[], note: BridgeNote): Bridge | undefined {
  return makers.find(({ kind }) => kind === note.kind)?.find(note);
}

/** Whether the last supervisor had no time to give it to its new worker. */
export function deviceWaits(makers: readonly BridgeMaker[], note: BridgeNote): boolean {
  return find(makers, note)?.waits === true;
}

/** Ends a device that was left over by a worker that is gone. */
export async function closeLeftOver(
  makers: readonly BridgeMaker[],
  note: BridgeNote | null,
): Promise<void> {
  if (note === null) return;
  removeLink(note.link, note.device);
  await find(makers, note)?.close();
}
