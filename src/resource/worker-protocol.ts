/**
 * What a supervisor and a worker say to each other: lines of JSON over the worker's UNIX socket.
 * Descriptors go ahead of `start` over a pair of sockets. See docs/decisions/0008 and 0009.
 */
import { readFileSync } from 'node:fs';
import type { EngineEvent, EngineSpec, EngineStats, EngineTuning } from '../native.ts';

/** Positions of descriptors in the worker's stdio; 0 to 2 are the usual ones. */
export const WORKER_FDS = { door: 3, gifts: 4 } as const;

/** To be raised with every change of a message. */
const WORDS = 2;

export const CHANNEL_LIMITS = {
  lineBytes: 1 << 20,
  /** What waits for a reader that does not read; log lines are left out from there on. */
  waitingBytes: 1 << 20,
} as const;

/** The engine's spec as the parent sends it: descriptors are filled in by the worker. */
export type WorkerSpec = Omit<
  EngineSpec,
  'diskFd' | 'exportFd' | 'kernelFds' | 'requestsFd' | 'repliesFd'
>;

export type ParentMessage =
  /** `debug`: as many -d as the supervisor has; what it would not log is not sent. */
  | { readonly kind: 'start'; readonly spec: WorkerSpec; readonly debug: number }
  /** To a worker that runs: whoever says it is its supervisor now. */
  | { readonly kind: 'adopt' }
  | { readonly kind: 'reconfigure'; readonly tuning: EngineTuning }
  | { readonly kind: 'kick' }
  | { readonly kind: 'stats'; readonly id: number }
  | { readonly kind: 'stop' };

const PARENT_KINDS = new Set(['start', 'adopt', 'reconfigure', 'kick', 'stats', 'stop']);

/** What a worker does, for a supervisor that has not started it. */
export interface WorkerRun {
  readonly role: 'primary' | 'secondary';
  readonly ready: boolean;
  readonly connected: boolean;
  /** It was told to end. */
  readonly stopping: boolean;
}

export type WorkerMessage =
  /** The first one on every connection; `kind` and `version` never change. Null: no `start` yet. */
  | {
      readonly kind: 'hello';
      readonly version: string;
      /** What the kernel refused when the worker confined itself. */
      readonly refused: readonly string[];
      readonly run: WorkerRun | null;
    }
  /** The answer to `adopt`; what was kept meanwhile follows. */
  | { readonly kind: 'adopted'; readonly run: WorkerRun | null }
  /** It has another supervisor, and goes on with that one. */
  | { readonly kind: 'busy' }
  | { readonly kind: 'engine'; readonly event: EngineEvent }
  | { readonly kind: 'stats'; readonly id: number; readonly stats: EngineStats };

/** As `pgrep -f` finds it. */
export function titleOf(resource: string, role: string): string {
  return `hastd: ${resource} (${role})`;
}

/** A supervisor adopts the workers of its own version only. */
export function programVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return `${(JSON.parse(text) as { version: string }).version}/${WORDS}`;
}

/** One line. A bigint becomes {bigint: TEXT}, bytes become what a Buffer's toJSON gives. */
export function encodeMessage(message: ParentMessage | WorkerMessage): string {
  const text = JSON.stringify(message, (_key, value: unknown) => {
    if (typeof value === 'bigint') return { bigint: String(value) };
    return value instanceof Uint8Array ? Buffer.from(value).toJSON() : value;
  });
  return `${text}\n`;
}

/** A supervisor's line; undefined when it is none. */
export function decodeParentMessage(line: string): ParentMessage | undefined {
  try {
    const message = JSON.parse(line, revive) as ParentMessage | null;
    return PARENT_KINDS.has(message?.kind ?? '') ? (message ?? undefined) : undefined;
  } catch {
    return undefined;
  }
}

function revive(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const { bigint, type, data } = value as Readonly<Record<string, unknown>>;
  if (typeof bigint === 'string') return BigInt(bigint);
  return type === 'Buffer' && Array.isArray(data) ? Buffer.from(data) : value;
}
