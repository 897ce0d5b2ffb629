// The arithmetic of the bench: medians, the floor, and the job files it reads.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseJob, readJobs } from '../../../bench/jobs.ts';
import { shareOfFloor, spreadOf } from '../../../bench/report.ts';
import type { Measurement } from '../../../bench/targets.ts';

const report = suite('bench report');

function job(depth: number, more = '') {
  return parseJob(`; a title\n[x]\nrw=randwrite\nbs=4k\niodepth=${depth}\nsize=100m\n${more}`);
}

function measured(iops: number, p50: number): Measurement {
  return { iops, requests: iops, p50, p99: p50, cpu: [] };
}

report('takes medians and does not count what is missing', () => {
  assert.equal(spreadOf([3, 1, 2]), { median: 2, min: 1, max: 3 });
  assert.equal(spreadOf([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4 });
  assert.equal(spreadOf([5, Number.NaN]), { median: 5, min: 5, max: 5 });
  assert.is(spreadOf([]), undefined);
});

report('adds the latencies of the parts for one request at a time', () => {
  const round = new Map([
    ['raw', measured(0, 50)],
    ['null', measured(0, 20)],
    ['tcp echo', measured(0, 15)],
    ['fullsync', measured(0, 170)],
    ['memsync', measured(0, 140)],
    ['async', measured(0, 70)],
  ]);
  assert.is(shareOfFloor(job(1), 'fullsync', round, true), (20 + 15 + 50) / 170);
  assert.is(shareOfFloor(job(1), 'memsync', round, true), (20 + 50) / 140);
  assert.is(shareOfFloor(job(1), 'async', round, true), 1);
  assert.is(shareOfFloor(job(1, 'fsync=1\n'), 'fullsync', round, true), (20 + 30 + 50) / 170);
});

report('takes the slowest part for many requests, and half a disk for two copies on one', () => {
  const round = new Map([
    ['raw', measured(50_000, 1)],
    ['null', measured(100_000, 1)],
    ['tcp echo', measured(90_000, 1)],
    ['alone', measured(50_000, 1)],
    ['fullsync', measured(20_000, 1)],
  ]);
  assert.is(shareOfFloor(job(32), 'alone', round, true), 1);
  assert.is(shareOfFloor(job(32), 'fullsync', round, true), 0.8);
  assert.is(shareOfFloor(job(32), 'fullsync', round, false), 0.4);
  round.delete('tcp echo');
  assert.is(shareOfFloor(job(32), 'fullsync', round, true), undefined);
});

report('reads every job file', () => {
  const jobs = readJobs();
  assert.ok(jobs.length >= 7);
  for (const { name, title, depth, blockBytes, spanBytes } of jobs) {
    assert.ok(title.length > 0 && depth >= 1 && spanBytes >= blockBytes, name);
  }
  assert.is(jobs[0]?.name, 'randwrite-4k-qd1');
  assert.ok(jobs.find(({ name }) => name === 'fsync-4k')?.flush);
  assert.not.ok(jobs.find(({ name }) => name === 'randread-4k-qd32')?.write);
});

report.run();
