// What signals do to a supervisor and to its workers, beyond SIGHUP and SIGTERM of the supervisor.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { type Node, noPair, Pair, type Process, withPair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';

const signals = suite('signals');
const add = unless(signals, noPair());
const LIMIT_MS = 60_000;

/** Of all threads: signals that were sent and have not been taken. */
function pending(pid: number): boolean {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*(\w+)$/gm)].some(
    ([, set]) => !/^0*$/.test(set ?? ''),
  );
}

async function send(process: Process, signal: NodeJS.Signals): Promise<void> {
  process.signal(signal);
  await until(`${signal} is taken`, 10_000, () => !process.alive || !pending(process.pid));
}

const HARMLESS = ['SIGUSR1', 'SIGUSR2', 'SIGPIPE', 'SIGWINCH', 'SIGCONT', 'SIGCHLD'] as const;

add(
  'signals that mean nothing end nobody, and open no door',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.inSync(), async (pair) => {
      const { a, b } = pair;
      const workers = [await a.worker(), await b.worker()];
      for (const signal of HARMLESS) {
        for (const worker of workers) await send(worker, signal);
        a.signal(signal);
      }
      for (const worker of workers) await send(worker, 'SIGHUP'); // a reload is the supervisor's
      await a.must('status');
      const { worker } = await a.inSync();
      assert.is(worker?.state, 'in-sync');
      assert.equal(
        [await a.worker(), await b.worker()].map(({ pid }) => pid),
        workers.map(({ pid }) => pid),
      );
      for (const node of [a, b]) assert.not.match(node.output, /ebugger|nspector|Disconnected/);
    }),
  ),
);

/** Until the worker is gone and another one is at work. */
async function replaced(node: Node, worker: Process): Promise<void> {
  await until('its end', 10_000, () => !worker.alive);
  await until('another worker', 20_000, async () => {
    return (await node.worker().catch(() => worker)).pid !== worker.pid;
  });
}

add(
  'a worker of a secondary that is told to end drains, and the role stays',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.inSync(), async (pair) => {
      const { a, b } = pair;
      for (const signal of ['SIGINT', 'SIGTERM'] as const) {
        const worker = await b.worker();
        worker.signal(signal);
        await replaced(b, worker);
        await a.inSync();
        assert.is((await b.status()).role, 'secondary', signal);
      }
      assert.not.match(b.output, /crashed|falls/);
      await pair.mustBeClean(a);
    }),
  ),
);

add(
  'a primary worker ends its role by SIGINT, and is back after a signal that kills',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.inSync(), async (pair) => {
      const { a } = pair;
      for (const signal of ['SIGQUIT', 'SIGSEGV', 'SIGABRT'] as const) {
        const worker = await a.worker();
        worker.signal(signal);
        await replaced(a, worker);
        assert.match(a.output, `Worker crashed (signal ${signal})`);
        await a.inSync();
        await pair.mustBeClean(a);
      }
      (await a.worker()).signal('SIGINT');
      await a.when('init', ({ role }) => role === 'init');
      assert.match(a.output, '[WARNING] [data] (init) Role falls from primary to init: ');
    }),
  ),
);

add(
  'SIGINT ends the supervisor like SIGTERM, and to all its processes at once no less in order',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.inSync(), async (pair) => {
      const { a, b } = pair;
      const [first, second] = [await a.worker(), await b.worker()];
      b.signal('SIGINT');
      await until('the end of b', 20_000, () => !b.running && !second.alive);
      // As a terminal does it.
      first.signal('SIGINT');
      a.signal('SIGINT');
      a.signal('SIGINT');
      await until('the end of a', 20_000, () => !a.running && !first.alive);
      for (const node of [a, b]) {
        assert.is(await node.stop(), 0);
        assert.match(node.output, '[INFO] Ending.');
        assert.not.match(node.output, /ERROR/);
      }
      await pair.mustBeEqual();
    }),
  ),
);

signals.run();
