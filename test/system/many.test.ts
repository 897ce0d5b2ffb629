// One daemon with many resources.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { Many, timed } from '../helper/many.ts';
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

add(
  'eight switch their roles together in little more than the time of one',
  withDeadline(LIMIT_MS, () =>
    withMany(Many.make(9, { peer: false }), async (all) => {
      const times: Record<'one' | 'eight', number[]> = { one: [], eight: [] };
      for (let round = 0; round < 3; round += 1) {
        for (const [what, names] of [
          ['one', all.names.slice(0, 1)],
          ['eight', all.names.slice(1)],
        ] as const) {
          await all.ready();
          times[what].push(await timed(() => all.a.must('role', 'primary', ...names)));
          await all.take(all.a, 'init', names);
        }
      }
      // The least of each: what else the machine does takes time from all of them.
      const [one, eight] = [Math.min(...times.one), Math.min(...times.eight)];
      const said = `one ${one.toFixed(0)} ms, eight ${eight.toFixed(0)} ms`;
      process.stdout.write(`role primary: ${said}\n`);
      assert.ok(eight <= one * 1.5, said);
    }),
  ),
);

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
