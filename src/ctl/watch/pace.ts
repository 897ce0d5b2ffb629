/** How fast a synchronisation goes, and how long it takes yet: pure. */
import type { WorkerStatus } from '../../control/protocol.ts';

/** What is remembered of one worker from one look to the next. */
export interface Pace {
  readonly pid: number;
  readonly doneBytes: number;
  readonly leftBytes: number;
  readonly atMs: number;
  /** Bytes per second, smoothed; null: not known yet. */
  readonly rate: number | null;
}

/** A change of speed counts for two thirds after this time. */
const SMOOTH_SECONDS = 8;
/** What takes longer than this is as good as unknown. */
const LONGEST_SECONDS = 99 * 86_400;

/** Undefined while nothing is synchronised: the next pass begins anew. */
export function nextPace(
  before: Pace | undefined,
  worker: WorkerStatus | null,
  atMs: number,
): Pace | undefined {
  if (worker === null || worker.state !== 'syncing') return undefined;
  const { pid, syncBytesDone: doneBytes, syncBytesLeft: leftBytes, syncBytesPerSecond } = worker;
  const now = { pid, doneBytes, leftBytes, atMs };
  if (before === undefined || before.pid !== pid || doneBytes < before.doneBytes) {
    return { ...now, rate: syncBytesPerSecond > 0 ? syncBytesPerSecond : null };
  }
  const seconds = (atMs - before.atMs) / 1000;
  if (seconds <= 0) return before;
  const seen = (doneBytes - before.doneBytes) / seconds;
  const weight = 1 - Math.exp(-seconds / SMOOTH_SECONDS);
  return {
    ...now,
    rate: before.rate === null ? seen : before.rate + weight * (seen - before.rate),
  };
}

/** Null when nobody can know. */
export function secondsLeft(pace: Pace | undefined): number | null {
  if (pace === undefined) return null;
  if (pace.leftBytes === 0) return 0;
  if (pace.rate === null || pace.rate < 1) return null;
  const seconds = Math.ceil(pace.leftBytes / pace.rate);
  return seconds > LONGEST_SECONDS ? null : seconds;
}

/** From 0 to 1, and 1 only when nothing is left. Null without a synchronisation. */
export function progressOf(pace: Pace | undefined): number | null {
  if (pace === undefined) return null;
  const { doneBytes, leftBytes } = pace;
  return leftBytes === 0 ? 1 : doneBytes / (doneBytes + leftBytes);
}
