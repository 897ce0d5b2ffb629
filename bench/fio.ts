/** One run of fio, and what we read from its answer. */
import * as v from 'valibot';
import type { Job } from './jobs.ts';
import { BenchError, run } from './process.ts';

export interface Timing {
  /** Requests each second, and those of the whole run. */
  readonly iops: number;
  readonly requests: number;
  /** Latency in microseconds. A write with a flush: the sum of both. */
  readonly p50: number;
  readonly p99: number;
}

const Percentiles = v.object({ '50.000000': v.number(), '99.000000': v.number() });
const Direction = v.object({
  iops: v.number(),
  total_ios: v.number(),
  clat_ns: v.object({ percentile: v.optional(Percentiles) }),
});
const Answer = v.object({
  jobs: v.tuple([
    v.object({
      error: v.number(),
      read: Direction,
      write: Direction,
      sync: v.object({ lat_ns: v.object({ percentile: v.optional(Percentiles) }) }),
    }),
  ]),
});

type Engine = readonly string[];

export function fileEngine(path: string, offset: number): Engine {
  return ['--ioengine=io_uring', '--direct=1', `--filename=${path}`, `--offset=${offset}`];
}

export function nbdEngine(socket: string, name: string): Engine {
  return ['--ioengine=nbd', `--uri=nbd+unix:///${name}?socket=${socket}`];
}

const COMMON = ['--time_based', '--norandommap', '--randrepeat=0', '--output-format=json'];

async function once(job: Job, engine: Engine, runtime: string, seconds: number): Promise<string> {
  const options = job.options.map(([name, value]) => `--${name}=${value}`);
  const args = [`--name=${job.name}`, ...engine, ...options, ...COMMON, `--runtime=${runtime}`];
  return run('fio', args, seconds + 60);
}

/** Writes a region once from end to end, so that every block of it is allocated. */
export async function fill(path: string, offset: number, bytes: number): Promise<void> {
  const place = [...fileEngine(path, offset), `--size=${bytes}`, '--allow_file_create=0'];
  await run('fio', ['--name=fill', ...place, '--rw=write', '--bs=1m', '--iodepth=4'], 1200);
}

export function readAnswer(job: Job, output: string): Timing {
  const json = output.slice(output.indexOf('{')); // notes may come first
  const [result] = v.parse(Answer, JSON.parse(json)).jobs;
  if (result.error !== 0) throw new BenchError(`fio met error ${result.error} in ${job.name}`);
  const { iops, total_ios, clat_ns } = job.write ? result.write : result.read;
  const parts = [clat_ns.percentile, ...(job.flush ? [result.sync.lat_ns.percentile] : [])];
  const sum = (key: keyof v.InferOutput<typeof Percentiles>) =>
    parts.reduce((total, part) => total + (part?.[key] ?? Number.NaN), 0) / 1000;
  return { iops, requests: total_ios, p50: sum('50.000000'), p99: sum('99.000000') };
}

/** Half a second to warm up, then the run that counts; `around` is called just before and after. */
export async function measure(
  job: Job,
  engine: Engine,
  seconds: number,
  around: () => void,
): Promise<Timing> {
  await once(job, engine, '500ms', 1);
  around();
  const output = await once(job, engine, String(seconds), seconds);
  around();
  return readAnswer(job, output);
}
