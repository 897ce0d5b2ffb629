/** Times synchronous functions with benchmark.js. What waits for a disk or a peer is for fio. */
import Benchmark from 'benchmark';

export interface Micro {
  readonly name: string;
  /** What one call works through; 0 when that says nothing. */
  readonly bytes: number;
  readonly call: () => unknown;
}

export interface MicroResult {
  readonly name: string;
  readonly nanoseconds: number;
  /** Of the mean, in percent. */
  readonly error: number;
  readonly mibPerSecond: number | undefined;
}

/** @param seconds  for each function, without the warm-up */
export function runMicro({ name, bytes, call }: Micro, seconds: number): MicroResult {
  const bench = new Benchmark(name, call, { maxTime: seconds, minSamples: 5 });
  bench.run();
  if (bench.error !== undefined) throw bench.error;
  const { mean, rme } = bench.stats;
  return {
    name,
    nanoseconds: mean * 1e9,
    error: rme,
    mibPerSecond: bytes === 0 ? undefined : bytes / mean / 1024 ** 2,
  };
}
