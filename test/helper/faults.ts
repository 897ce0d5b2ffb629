// Accidents under load on two real nodes, and what must be true after each of them.
import { until } from './deadline.ts';
import { type Mode, type Node, Pair, runProgram, withPair } from './pair.ts';
import { StampedWriter } from './writer.ts';

const MIB = 1 << 20;
const DEPTH = 32;
/** A fault that meets less than this proves little. */
export const IN_FLIGHT_LEAST = 16;

export interface FaultPlan {
  readonly mode: Mode;
  readonly cycles: number;
  /** Goes on with more cycles until this much time has passed. */
  readonly seconds: number;
  /** Which of the accidents of the secondary comes first. */
  readonly first?: number;
  /** What is written to, in MiB. */
  readonly mib: number;
  readonly signal: AbortSignal;
  /** Told after every cycle. */
  readonly say?: (text: string) => void;
}

export interface FaultReport {
  readonly mode: Mode;
  readonly cycles: number;
  readonly seconds: number;
  /** The smallest number of writes that a fault met. */
  readonly inFlight: number;
  readonly writes: number;
  readonly iops: number;
  /** From the end of the accident until both nodes are in sync, in milliseconds. */
  readonly resyncMs: readonly number[];
  /** From the death of the primary until the other one serves. */
  readonly promotionMs: readonly number[];
  /** Stored although never answered; answered, not flushed, and gone (async only). */
  readonly unanswered: number;
  readonly lost: number;
}

function since(began: number): number {
  return performance.now() - began;
}

/** Waits for a moment with enough writes in flight. @returns how many there are */
async function loaded(node: Node): Promise<number> {
  let last = await node.stats();
  let inFlight = 0;
  await until('enough writes in flight', 60_000, async () => {
    const now = await node.stats();
    const writing = now.pid === last.pid && now.writes > last.writes && now.reads === last.reads;
    last = now;
    inFlight = now.inFlight;
    return writing && inFlight >= IN_FLIGHT_LEAST;
  });
  return inFlight;
}

/** Waits until the node has answered so many more writes. */
async function writesOn(node: Node, count: number): Promise<void> {
  const { writes } = await node.stats();
  await node.when(`${count} writes`, ({ worker }) => (worker?.writes ?? 0) >= writes + count);
}

// ---- Accidents of the secondary and of the link -----------------------------------------------

/** Each brings an accident about and ends it. @returns when it ended */
const ACCIDENTS: readonly (readonly [string, (pair: Pair) => Promise<number>])[] = [
  [
    'worker killed',
    async ({ a, b }) => {
      const worker = await b.worker();
      worker.signal('SIGKILL');
      const began = performance.now();
      await until('the worker is gone', 10_000, () => !worker.alive);
      await a.when('the loss is seen', ({ worker: now }) => now?.state !== 'in-sync', 10_000);
      return began;
    },
  ],
  [
    'link cut',
    async (pair) => {
      pair.cut();
      await pair.a.degraded();
      await writesOn(pair.a, 500);
      pair.heal();
      return performance.now();
    },
  ],
  [
    'node killed',
    async ({ a, b }) => {
      await b.crash();
      await a.degraded();
      await b.start();
      await b.role('secondary');
      return performance.now();
    },
  ],
  [
    'link silent',
    async (pair) => {
      pair.silence();
      await pair.a.degraded();
      await writesOn(pair.a, 500);
      pair.heal();
      return performance.now();
    },
  ],
];

interface FioTotals {
  writes: number;
  milliseconds: number;
}

/** One pass of fio over the whole area, then its own verification. @throws Error on any error */
async function fioRound(node: Node, plan: FaultPlan, seed: number, totals: FioTotals) {
  const job = ['--name=faults', '--ioengine=nbd', `--uri=${node.uri}`, '--rw=randwrite'];
  const shape = ['--bs=4k', `--iodepth=${DEPTH}`, `--size=${plan.mib}m`, `--randseed=${seed}`];
  const verify = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_state_save=0'];
  const args = [...job, ...shape, ...verify, '--output-format=json'];
  const { code, stdout, stderr } = await runProgram('fio', args, plan.signal);
  if (code !== 0)
    throw new Error(`fio saw an error, exit ${code}: ${stderr}${stdout.slice(0, 500)}`);
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{')));
  if (jobs[0].error !== 0) throw new Error(`fio saw error ${jobs[0].error}`);
  totals.writes += jobs[0].write.total_ios;
  totals.milliseconds += jobs[0].write.runtime;
}

/** fio writes and verifies without a pause while the secondary and the link have accidents. */
export async function secondaryFaults(plan: FaultPlan): Promise<FaultReport> {
  const resyncMs: number[] = [];
  const totals: FioTotals = { writes: 0, milliseconds: 0 };
  let least = Number.POSITIVE_INFINITY;
  const began = performance.now();
  const { mode } = plan;
  const options = { mode, relay: true, timeoutSeconds: 5, diskBytes: (plan.mib + 2) * MIB };
  await withPair(Pair.inSync(options), async (pair) => {
    const { a } = pair;
    let over = false;
    const load = (async () => {
      for (let seed = 1; !over; ++seed) await fioRound(a, plan, seed, totals);
    })();
    const faults = (async () => {
      for (let i = 0; i < plan.cycles || since(began) < plan.seconds * 1000; ++i) {
        const [name, accident] = ACCIDENTS[((plan.first ?? 0) + i) % ACCIDENTS.length] ?? [];
        if (name === undefined || accident === undefined) throw new Error('no accidents');
        const inFlight = await loaded(a);
        const ended = await accident(pair);
        await a.inSync();
        least = Math.min(least, inFlight);
        resyncMs.push(since(ended));
        plan.say?.(`${name}, ${inFlight} in flight, in sync after ${since(ended).toFixed(0)} ms`);
      }
    })();
    try {
      await Promise.race([faults, load.then(() => faults)]);
    } finally {
      over = true;
    }
    await load;
    await pair.mustBeClean(a);
  });
  return {
    mode,
    cycles: resyncMs.length,
    seconds: since(began) / 1000,
    inFlight: least,
    writes: totals.writes,
    iops: totals.writes / (totals.milliseconds / 1000),
    resyncMs,
    promotionMs: [],
    unanswered: 0,
    lost: 0,
  };
}

// ---- Death of the primary ---------------------------------------------------------------------

/**
 * The primary dies under load, the secondary takes over and is read; the dead one comes back. Then
 * they have changed places, and it happens again.
 */
export async function primaryFaults(plan: FaultPlan): Promise<FaultReport> {
  const resyncMs: number[] = [];
  const promotionMs: number[] = [];
  const { mode } = plan;
  const began = performance.now();
  let [least, unanswered, lost] = [Number.POSITIVE_INFINITY, 0, 0];
  const load = { writes: 0, ms: 0 };
  const bytes = plan.mib * MIB;
  const writer = new StampedWriter(bytes, mode === 'async' ? 'flushed' : 'answered');
  const options = { mode, timeoutSeconds: 5, diskBytes: bytes + 2 * MIB };
  await withPair(Pair.inSync(options), async (pair) => {
    let primary = pair.a;
    let client = await primary.connect();
    for (let i = 0; i < plan.cycles || since(began) < plan.seconds * 1000; ++i) {
      const heir = pair.other(primary);
      const writing = performance.now();
      const answered = writer.answered;
      writer.start(client, DEPTH, 300);
      await until('writes', 60_000, () => writer.answered > answered + 1000);
      const inFlight = await loaded(primary);
      load.ms += since(writing);
      load.writes += writer.answered - answered;
      const died = performance.now();
      await primary.crash();
      await client.closed;
      await writer.stop();
      await heir.promote();
      client = await heir.connect();
      promotionMs.push(since(died));
      const found = await writer.verify(client);
      if (mode !== 'async' && found.lost > 0) throw new Error(`${found.lost} writes are lost`);
      // Every second time nothing is written before the dead one is back.
      const alone = i % 2 === 0;
      if (alone) writer.start(client, DEPTH, 300);
      await primary.start();
      await primary.role('secondary');
      const back = performance.now();
      await heir.inSync();
      resyncMs.push(since(back));
      await writer.stop();
      await writer.flush(client);
      await pair.mustBeClean(heir);
      least = Math.min(least, inFlight);
      unanswered += found.unanswered;
      lost += found.lost;
      plan.say?.(
        `primary killed, ${inFlight} in flight, the other one served after ` +
          `${promotionMs.at(-1)?.toFixed(0)} ms, in sync ${resyncMs.at(-1)?.toFixed(0)} ms after ` +
          `its return; ${found.unanswered} blocks newer than answered, ${found.lost} older`,
      );
      primary = heir;
    }
    client.destroy();
  });
  return {
    mode,
    cycles: resyncMs.length,
    seconds: since(began) / 1000,
    inFlight: least,
    writes: writer.answered,
    iops: load.writes / (load.ms / 1000),
    resyncMs,
    promotionMs,
    unanswered,
    lost,
  };
}

// ---- The table --------------------------------------------------------------------------------

function range(values: readonly number[]): string {
  if (values.length === 0) return '-';
  const sorted = [...values].sort((x, y) => x - y);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return [sorted[0] ?? 0, median, sorted.at(-1) ?? 0].map((ms) => ms.toFixed(0)).join(' / ');
}

/** As Markdown, for the documents. */
export function tableOf(title: string, reports: readonly FaultReport[]): string {
  const head = [
    `| ${title} | accidents | least in flight | writes | writes/s | promotion ms | resync ms |`,
    '|---|---|---|---|---|---|---|',
  ];
  const rows = reports.map((one) => {
    const { mode, cycles, inFlight, writes, iops, promotionMs, resyncMs } = one;
    const times = `${range(promotionMs)} | ${range(resyncMs)}`;
    return `| ${mode} | ${cycles} | ${inFlight} | ${writes} | ${iops.toFixed(0)} | ${times} |`;
  });
  return `${[...head, ...rows].join('\n')}\n`;
}
