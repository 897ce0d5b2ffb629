// Worker processes that are kept ready, with a worker that has no engine.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Logger } from '../../../src/log.ts';
import { native } from '../../../src/native.ts';
import { type Spare, Spares } from '../../../src/resource/spares.ts';
import { WorkerFolder } from '../../../src/resource/worker-folder.ts';
import { until, withDeadline } from '../../helper/deadline.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const spares = suite('spares');
const ENTRY = fileURLToPath(new URL('../../helper/fake-worker.ts', import.meta.url));

interface Bench {
  readonly subject: Spares;
  readonly folder: WorkerFolder;
  readonly lines: string[];
  /** Children of this process that wait. */
  waiting(): readonly number[];
  taken(): Spare;
}

function bench(idle: () => number, body: (bench: Bench) => Promise<void>): () => Promise<void> {
  return withDeadline(30_000, () =>
    inTempdir(async (directory) => {
      process.env.HASTD_FAKE = '';
      const lines: string[] = [];
      const folder = WorkerFolder.open(`${directory}/workers`, 'x');
      const log = Logger.root(({ level, text }) => lines.push(`${level} ${text}`), 0);
      const host = { ...native.host, setIoFlusher: () => true };
      const settings = { entry: ENTRY, user: () => null, host, folder: () => folder, log };
      const subject = new Spares({ ...settings, once: () => {} }, idle);
      const all: Spare[] = [];
      const waiting = () =>
        readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'latin1')
          .split(' ')
          .map(Number)
          .filter((pid) => pid > 0 && titleOf(pid).startsWith('hastd: (spare)'));
      try {
        await body({
          subject,
          folder,
          lines,
          waiting,
          taken: () => {
            const spare = subject.take();
            all.push(spare);
            return spare;
          },
        });
      } finally {
        delete process.env.HASTD_FAKE;
        subject.close();
        for (const spare of all) spare.discard();
        await until('all of them ended', 10_000, () => waiting().length === 0);
      }
    }),
  );
}

function titleOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}

spares(
  'as many wait as there are resources without a worker; one that is taken is replaced',
  bench(
    () => 2,
    async ({ subject, waiting, taken }) => {
      subject.open();
      await until('two', 10_000, () => waiting().length === 2);
      const [first] = waiting();
      const spare = taken();
      assert.is(spare.child.pid, first, 'the oldest');
      await until('a third', 10_000, () => waiting().length === 3);
    },
  ),
);

spares(
  'without one that waits a new one is made, and what was started before a change is not taken',
  bench(
    () => 1,
    async ({ subject, waiting, taken }) => {
      const early = taken();
      assert.ok((early.child.pid ?? 0) > 0);
      early.discard();
      assert.not(existsSync(early.socket));
      subject.open();
      await until('one', 10_000, () => waiting().length === 1);
      const [old] = waiting();
      subject.renew();
      assert.is.not(taken().child.pid, old);
    },
  ),
);

spares(
  'one that ends by itself is told once, and makes no crowd',
  bench(
    () => 1,
    async ({ subject, waiting, lines }) => {
      subject.open();
      await until('one', 10_000, () => waiting().length === 1);
      process.kill(waiting()[0] ?? 0, 'SIGKILL');
      await until('a word', 5000, () => lines.length > 0);
      assert.equal(lines, ['warning A worker that was kept ready has ended by itself.']);
    },
  ),
);

spares.run();
