// One daemon with many resources.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { Many } from '../helper/many.ts';
import { noPair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';

const many = suite('many resources');
const add = unless(many, noPair());

const LIMIT_MS = 120_000;

async function withMany(make: Promise<Many>, body: (all: Many) => Promise<void>): Promise<void> {
  const all = await make;
  try {
    await body(all);
  } catch (error) {
    process.stderr.write(`\n${all.a.output.slice(-4000)}`);
    throw error;
  } finally {
    await all.close();
  }
}

add(
  'fifty are primary at a time, whatever the limit on locked memory is, and are adopted together',
  withDeadline(LIMIT_MS, () =>
    withMany(Many.make(50, { peer: false }), async (all) => {
      const { a, names } = all;
      await all.take(a, 'primary', names);
      const workers = await all.workers(a);
      assert.is(workers.length, 50, 'all answer status');
      assert.not.match(a.output, 'Worker crashed');
      await a.killDaemon();
      await a.start();
      const pids = ({ pid }: { pid: number }) => pid;
      assert.equal((await all.workers(a)).map(pids), workers.map(pids));
      await all.stop();
      await until('all workers ended', 10_000, () => workers.every(({ pid }) => !isAlive(pid)));
    }),
  ),
);

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

// How long it takes is measured by `npm run bench:many`: beside other suites a time says nothing.
add(
  'eight that switch their roles at once need no new process, and leave as many waiting again',
  withDeadline(LIMIT_MS, () =>
    withMany(Many.make(16, { peer: false }), async (all) => {
      const waiting = await all.ready();
      assert.is(waiting.length, 8);
      await all.a.must('role', 'primary', ...all.names.slice(0, 8));
      const workers = (await all.workers(all.a)).map(({ pid }) => pid);
      assert.equal(sorted(workers), sorted(waiting));
      const next = await all.ready();
      assert.not(next.some((pid) => workers.includes(pid)));
      await all.stop();
      const ended = () => [...workers, ...next].every((pid) => !isAlive(pid));
      await until('all of them ended', 10_000, ended);
    }),
  ),
);

function sorted(pids: readonly number[]): readonly number[] {
  return [...pids].sort((a, b) => a - b);
}

add(
  'eight pairs come in sync beside each other',
  withDeadline(LIMIT_MS, () =>
    withMany(Many.make(8, { peer: true }), async (all) => {
      await all.take(all.b, 'secondary', all.names);
      await all.take(all.a, 'primary', all.names);
      await all.inSync(8);
    }),
  ),
);

many.run();
