/** Numbers to text: medians, spreads, ratios, the floor. Pure. */
import type { Job } from './jobs.ts';
import type { Machine } from './machine.ts';
import type { Measurement } from './targets.ts';

export interface Sample extends Measurement {
  readonly job: string;
  readonly target: string;
  readonly round: number;
}

export interface Result {
  readonly machine: Machine;
  readonly loadAfter: string;
  readonly rounds: number;
  readonly seconds: number;
  /** Primary and secondary write to the same disk. */
  readonly oneDisk: boolean;
  readonly targets: readonly { readonly name: string; readonly what: string }[];
  readonly notes: readonly string[];
  readonly jobs: readonly Job[];
  readonly samples: readonly Sample[];
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function spreadOf(values: readonly number[]): Spread | undefined {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const [min] = sorted;
  const max = sorted.at(-1);
  if (min === undefined || max === undefined) return undefined;
  const half = (sorted.length - 1) / 2;
  const low = sorted[Math.floor(half)] ?? min;
  const high = sorted[Math.ceil(half)] ?? max;
  return { median: (low + high) / 2, min, max };
}

/** What was measured for one job in one round. */
export type Round = ReadonlyMap<string, Measurement>;

/** The targets that have a floor; the others are it. */
export const OURS = ['alone', 'fullsync', 'memsync', 'async'];

/**
 * How much of the floor a target of ours reaches: 1 is all of it.
 *
 * One request at a time: the latency that the parts add up to, by its own latency.
 * Many: its rate, by the rate that the slowest part allows. Two copies on one disk halve the disk.
 */
export function shareOfFloor(
  job: Job,
  name: string,
  round: Round,
  oneDisk: boolean,
): number | undefined {
  const ours = round.get(name);
  const [raw, none, echo] = [round.get('raw'), round.get('null'), round.get('tcp echo')];
  if (ours === undefined || raw === undefined || none === undefined) return undefined;
  const remote = round.get('raw b') ?? raw;
  const replicated = job.write && name !== 'alone';
  if (replicated && echo === undefined) return undefined;
  if (job.depth === 1) {
    // With a flush the latencies are those of two requests, and the peer has to flush as well.
    const trip = (echo?.p50 ?? 0) * (job.flush ? 2 : 1);
    const received = job.flush ? trip + remote.p50 : trip;
    const peer = { fullsync: trip + remote.p50, memsync: received }[name] ?? 0;
    return (none.p50 + Math.max(raw.p50, job.write ? peer : 0)) / ours.p50;
  }
  const copies = replicated && oneDisk ? 2 : 1;
  const rates = [none.iops, raw.iops / copies];
  if (replicated) rates.push(remote.iops / copies, echo?.iops ?? 0);
  return ours.iops / Math.min(...rates);
}

export function roundsOf(result: Result, job: Job): readonly Round[] {
  return Array.from({ length: result.rounds }, (_, round) => {
    const samples = result.samples.filter((s) => s.job === job.name && s.round === round);
    return new Map(samples.map((sample) => [sample.target, sample]));
  });
}

// ---- Text ----------------------------------------------------------------------------------

function digits(value: number): string {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}

function show(spread: Spread | undefined, text: (value: number) => string = digits): string {
  if (spread === undefined) return '-';
  const { median, min, max } = spread;
  return min === max ? text(median) : `${text(median)} (${text(min)}-${text(max)})`;
}

function cpuText(samples: readonly Measurement[]): string {
  const count = samples[0]?.cpu.length ?? 0;
  if (count === 0) return '-';
  const parts = Array.from({ length: count }, (_, i) => {
    return digits(spreadOf(samples.map(({ cpu }) => cpu[i] ?? Number.NaN))?.median ?? Number.NaN);
  });
  const sums = samples.map(({ cpu }) => cpu.reduce((a, b) => a + b, 0));
  return count === 1 ? show(spreadOf(sums)) : `${parts.join(' + ')} = ${show(spreadOf(sums))}`;
}

const HEAD = [
  'target',
  'IOPS',
  'MiB/s',
  'p50 us',
  'p99 us',
  'CPU us/request',
  'x qemu-nbd',
  'of floor',
];

function rowOf(result: Result, job: Job, name: string): readonly string[] | undefined {
  const rounds = roundsOf(result, job);
  const samples = rounds.flatMap((round) => round.get(name) ?? []);
  if (samples.length === 0) return undefined;
  const each = (value: (sample: Measurement) => number) => spreadOf(samples.map(value));
  const ratio = (value: (round: Round) => number | undefined) => {
    return spreadOf(rounds.map((round) => value(round) ?? Number.NaN));
  };
  const against = (round: Round) => {
    const [own, other] = [round.get(name), round.get('qemu-nbd')];
    return own === undefined || other === undefined ? undefined : own.iops / other.iops;
  };
  const isOurs = OURS.includes(name);
  const floor = (round: Round) => shareOfFloor(job, name, round, result.oneDisk);
  return [
    name,
    show(
      each(({ iops }) => iops),
      (value) => value.toFixed(0),
    ),
    digits((each(({ iops }) => iops)?.median ?? 0) * (job.blockBytes / 1024 ** 2)),
    show(
      each(({ p50 }) => p50),
      (value) => value.toFixed(0),
    ),
    (each(({ p99 }) => p99)?.median ?? 0).toFixed(0),
    cpuText(samples),
    isOurs ? show(ratio(against), (value) => value.toFixed(2)) : '-',
    isOurs ? show(ratio(floor), (value) => value.toFixed(2)) : '-',
  ];
}

/** Columns of one width; the first to the left, the others to the right. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => {
    return Math.max(...rows.map((row) => row[i]?.length ?? 0));
  });
  const line = (row: readonly string[]) =>
    row.map((text, i) => (i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)));
  return rows.map((row) => `  ${line(row).join('  ')}\n`).join('');
}

export function headerText({ machine, loadAfter, rounds, seconds, oneDisk }: Result): string {
  const { cpu, cores, memoryGib, kernel, storage, compiler, node, fio, qemu } = machine;
  return `${machine.date}, commit ${machine.commit}
${cpu}, ${cores} cores, ${memoryGib} GiB, Linux ${kernel}, ${storage}
${compiler}, node ${node}, ${fio}, ${qemu}
load ${machine.load} before, ${loadAfter} after; ${rounds} x ${seconds} s: median (min-max)
client and servers share the cores${oneDisk ? ', both copies one disk' : ''}
`;
}

export function reportText(result: Result): string {
  const tables = result.jobs.map((job) => {
    const rows = result.targets.flatMap(({ name }) => {
      const row = rowOf(result, job, name);
      return row === undefined ? [] : [row];
    });
    return `\n${job.name}: ${job.title}\n${columns([HEAD, ...rows])}`;
  });
  const legend = result.targets.map(({ name, what }) => `  ${name.padEnd(8)}  ${what}\n`).join('');
  const notes = result.notes.map((note) => `note: ${note}\n`).join('');
  return `${headerText(result)}${notes}${tables.join('')}\n${legend}`;
}
