/**
 * What parent and worker say to each other over Node's IPC channel (serialization 'advanced', so
 * that bigint passes). Descriptors travel only at spawn, in `stdio`.
 */
import type { EngineEvent, EngineSpec, EngineStats, EngineTuning } from '../native.ts';

/**
 * Positions of descriptors in the worker's stdio. 0 to 2 are the usual ones, 3 is the IPC channel.
 */
export const WORKER_FDS = { ipc: 3, disk: 4, first: 5, second: 6 } as const;

/**
 * The engine's spec as the parent sends it: descriptors are filled in by the worker from
 * WORKER_FDS.
 */
export type WorkerSpec = Omit<EngineSpec, 'diskFd' | 'exportFd' | 'requestsFd' | 'repliesFd'>;

export type ParentMessage =
  | { readonly kind: 'start'; readonly spec: WorkerSpec; readonly debug: number }
  | { readonly kind: 'reconfigure'; readonly tuning: EngineTuning }
  | { readonly kind: 'kick' }
  | { readonly kind: 'stats'; readonly id: number }
  | { readonly kind: 'stop' };

export type WorkerMessage =
  /** The worker has confined itself and waits for `start`. */
  | { readonly kind: 'hello'; readonly refused: readonly string[] }
  | { readonly kind: 'engine'; readonly event: EngineEvent }
  | { readonly kind: 'stats'; readonly id: number; readonly stats: EngineStats };
