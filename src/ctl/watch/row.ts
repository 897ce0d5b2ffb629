/** What the live view says of one resource, before anybody lays it out: pure. */
import type { ResourceReport } from '../../control/client.ts';
import { isRefusal, isSplitBrain, type ResourceStatus } from '../../control/protocol.ts';
import { type Pace, progressOf, secondsLeft } from './pace.ts';

export type Mood = 'good' | 'busy' | 'bad';

/** Numbers are bytes, bytes per second, seconds and requests; null: there is none. */
export interface Row {
  readonly name: string;
  readonly role: string;
  /** At most nine characters. */
  readonly peer: string;
  readonly mode: string;
  readonly dirty: number | null;
  readonly left: number | null;
  readonly progress: number | null;
  readonly rate: number | null;
  readonly seconds: number | null;
  readonly queue: number | null;
  /** The first of what there is to say; '' when all is well. */
  readonly reason: string;
  readonly mood: Mood;
  /** The higher, the sooner somebody should look. */
  readonly weight: number;
}

type Verdict = Pick<Row, 'peer' | 'mood' | 'weight'>;

function verdictOf({ role, lastError, worker }: ResourceStatus): Verdict {
  const said = worker?.reason || (lastError?.message ?? '');
  if (isSplitBrain(said) && worker?.status !== 'complete') {
    return { peer: 'split', mood: 'bad', weight: 9 };
  }
  if (role === 'init') {
    const failed = lastError !== null;
    return { peer: '-', mood: failed ? 'bad' : 'busy', weight: failed ? 7 : 2 };
  }
  if (worker === null && role === 'secondary') {
    return { peer: 'waiting', mood: 'busy', weight: lastError === null ? 4 : 5 };
  }
  if (worker === null) return { peer: '-', mood: 'bad', weight: 8 };
  if (worker.localStale) return { peer: worker.state === 'degraded' ? 'away' : 'disk', ...STALE };
  switch (worker.state) {
    case 'in-sync':
      return { peer: 'in sync', mood: 'good', weight: 0 };
    case 'secondary':
      return { peer: 'connected', mood: 'good', weight: 0 };
    case 'syncing':
      return { peer: 'syncing', mood: 'busy', weight: 3 };
    case 'degraded':
      return { peer: isRefusal(said) ? 'refused' : 'away', mood: 'bad', weight: 6 };
    case 'connecting':
      return { peer: 'starting', mood: 'busy', weight: 4 };
    case 'stopping':
      return { peer: 'ending', mood: 'busy', weight: 4 };
  }
}

const STALE = { mood: 'bad', weight: 8 } as const;
const NOTHING = {
  dirty: null,
  left: null,
  progress: null,
  rate: null,
  seconds: null,
  queue: null,
} as const;

export function rowOf(report: ResourceReport, pace: Pace | undefined): Row {
  const { name } = report;
  if ('error' in report) {
    const { message: reason } = report.error;
    return { name, role: '?', peer: '-', mode: '-', ...NOTHING, reason, mood: 'bad', weight: 9 };
  }
  const { role, replication, worker, notes, lastError } = report.status;
  const verdict = verdictOf(report.status);
  const calm = verdict.mood === 'good' || worker?.state === 'syncing';
  const reason = calm ? '' : (notes[0] ?? lastError?.message ?? '');
  return {
    name,
    role,
    mode: worker?.replication ?? replication,
    ...(worker === null ? NOTHING : figuresOf(worker, pace)),
    reason: worker?.localStale === true ? STALE_TEXT : reason,
    ...verdict,
  };
}

const STALE_TEXT = 'the local disk is stale: the data of the peer is the newer one';

function figuresOf(
  worker: NonNullable<ResourceStatus['worker']>,
  pace: Pace | undefined,
): Pick<Row, keyof typeof NOTHING> {
  // A secondary counts nothing of this; 0 would be a promise.
  const counts = worker.state !== 'secondary';
  return {
    dirty: counts ? worker.dirtyBytes : null,
    left: counts ? worker.syncBytesLeft : null,
    progress: progressOf(pace),
    rate: pace?.rate ?? null,
    seconds: secondsLeft(pace),
    queue: worker.inFlight,
  };
}
