/**
 * What makes a block device of the kernel out of a worker: one interface for all kinds of them. The
 * parent has what needs root (making the device, giving it to another worker, ending it); the
 * worker serves it. See docs/decisions/0010.
 */
import type { Device } from '../config/config.ts';

export type BridgeKind = Exclude<Device, 'auto' | 'none'>;

/** What the provider looks like to the kernel. */
export interface DeviceShape {
  readonly sizeBytes: bigint;
  readonly blockBytes: number;
}

/** What a worker is given for its device. The descriptors are the caller's to close. */
export interface BridgeOffer {
  /** Over which the kernel asks; the worker's engine gets them as `kernelFds`. */
  readonly kernelFds: readonly number[];
}

/** A device as a later supervisor finds it again. */
export interface BridgeNote {
  readonly kind: BridgeKind;
  /** Its node, such as /dev/nbd3. */
  readonly device: string;
  /** What the kernel shows of its owner: a number may be somebody else's by then. */
  readonly owner: string;
  /** The link that leads to it, in devdir. */
  readonly link: string;
}

/**
 * The device of one resource, from the first worker that serves it to the last. The calls follow
 * each other: `offer` before a worker starts, `open` when it serves, and again after it has
 * crashed; `close` at any time, for good.
 */
export interface Bridge {
  readonly kind: BridgeKind;
  /** The node, while there is a device. */
  readonly device: string | null;
  readonly owner: string;
  /** Whether its worker is gone, and no other one has been given to it yet. */
  readonly waits: boolean;
  /**
   * For a worker that is about to start. If there is a device it gets this worker in place of the
   * one that is gone, and requests that are under way wait for it.
   * @throws HastError DEVICE_BRIDGE
   */
  offer(shape: DeviceShape): Promise<BridgeOffer>;
  /** There is a device when this resolves. @throws HastError DEVICE_BRIDGE */
  open(): Promise<void>;
  /** Requests fail from now on, those under way too, whoever has the device open. Never fails. */
  close(): Promise<void>;
}

/** One kind of bridge, on this machine. */
export interface BridgeMaker {
  readonly kind: BridgeKind;
  /** Loads what can be loaded. @returns why there can be no device; undefined when there can */
  lacking(): Promise<string | undefined>;
  /** @param owner  names the resource and the node, for all to see */
  make(owner: string): Bridge;
  /** A device of an earlier supervisor; undefined when it is gone, or another's now. */
  find(note: BridgeNote): Bridge | undefined;
}

/**
 * The best one of those that are asked for; `auto` takes them in the order in which they are given.
 * @returns a maker, or why there is none
 */
export async function chooseBridge(
  makers: readonly BridgeMaker[],
  device: Device,
): Promise<BridgeMaker | string> {
  const wanted = makers.filter(({ kind }) => device === 'auto' || device === kind);
  const reasons: string[] = [];
  for (const maker of wanted) {
    const why = await maker.lacking();
    if (why === undefined) return maker;
    reasons.push(`${maker.kind}: ${why}`);
  }
  return reasons.join('; ');
}
