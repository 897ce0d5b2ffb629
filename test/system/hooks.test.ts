// Hooks of two real daemons: every event with its arguments and its moment, and programs that hang,
// fail or may not be run.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { HookLog } from '../helper/hook-log.ts';
import { cutInSynchronisation } from '../helper/interrupt.ts';
import { type Node, noPair, Pair, Process, withPair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';

const hooks = suite('hooks of a pair');
const add = unless(hooks, noPair());
const LIMIT_MS = 240_000;
const MIB = 1 << 20;

/** What any program here has open: 0 to 2, what lists them, and what came from far above. */
function ordinaryDescriptors(): string {
  const list = 'cd /proc/self/fd && echo *';
  return execFileSync('/bin/sh', ['-c', list], { encoding: 'utf8' }).trim();
}

async function write(node: Node, at: number, bytes: Uint8Array): Promise<void> {
  const client = await node.connect();
  try {
    const { error } = await client.write(at, Buffer.from(bytes));
    assert.is(error, 0);
  } finally {
    client.destroy();
  }
}

async function writeMuch(node: Node): Promise<void> {
  for (let at = 0; at < 24; at += 4) await write(node, at * MIB, randomBytes(4 * MIB));
}

add(
  'every event comes once, in its order, with its arguments, on the nodes it is for',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make({ relay: true, timeoutSeconds: 2 }), async (pair) => {
      const { a, b, resource } = pair;
      const [onA, onB] = [new HookLog(a), new HookLog(b)];
      writeFileSync(`${onA.path}.slow`, '');
      await Promise.all([onA.use('events extended'), onB.use()]);

      // The roles and a first full pass.
      await b.role('secondary');
      let atB = await onB.are(['role data init secondary']);
      await a.role('primary');
      await a.inSync();
      await pair.mustBeClean(a);
      let atA = await onA.are([
        'role data init primary',
        'connect data',
        'syncstart data',
        'syncdone data',
      ]);
      atB = await onB.are(['connect data'], atB);
      assert.is(onA.environment, `${onA.path} / ${ordinaryDescriptors()}`);
      rmSync(`${onA.path}.slow`);

      // The same role again is no change.
      await a.role('primary');
      await b.role('secondary');

      // A lost connection, and a pass that is cut off.
      pair.cut();
      await a.degraded();
      atA = await onA.are(['disconnect data'], atA);
      atB = await onB.are(['disconnect data'], atB);
      await writeMuch(a);
      await cutInSynchronisation(pair, a);
      atB = await onB.are(['connect data', 'disconnect data'], atB);
      await until('a cut pass', 20_000, () => onA.ended(atA).length >= 4);
      const cut = onA.ended(atA);
      assert.equal(cut.slice(0, 2), ['connect data', 'syncstart data']);
      assert.equal([...cut.slice(2)].sort(), ['disconnect data', 'syncintr data']);
      atA += cut.length;
      pair.heal();
      await a.inSync();
      atA = await onA.are(['connect data', 'syncstart data', 'syncdone data'], atA);
      atB = await onB.are(['connect data'], atB);

      // Both written alone: each node hears of the split-brain once, however often they meet.
      pair.cut();
      await a.degraded();
      await b.promote();
      await Promise.all([write(a, 0, randomBytes(4096)), write(b, MIB, randomBytes(4096))]);
      await b.role('secondary');
      atA = await onA.are(['disconnect data'], atA);
      atB = await onB.are(
        ['disconnect data', 'role data secondary primary', 'role data primary secondary'],
        atB,
      );
      const said = b.output.length;
      pair.heal();
      await until('refused twice', 40_000, () => {
        return b.output.slice(said).split('The primary was refused').length > 2;
      });
      atA = await onA.are(['split-brain data'], atA);
      atB = await onB.are(['split-brain data'], atB);
      await b.role('init');
      await b.must('create', resource);
      await b.role('secondary');
      await a.inSync();
      await pair.mustBeClean(a);
      const again = ['connect data', 'syncstart data', 'syncdone data'];
      atA = await onA.are(again, atA);
      const roles = ['role data secondary init', 'role data init secondary'];
      atB = await onB.are([...roles, 'connect data'], atB);

      // A role that is given up ends the connection: only the peer has lost it.
      await a.role('secondary');
      atA = await onA.are(['role data primary secondary'], atA);
      atB = await onB.are(['disconnect data'], atB);
      // A worker that was told to end takes the role with it.
      await a.role('primary');
      await a.inSync();
      atA = await onA.are(['role data secondary primary', 'connect data'], atA);
      atB = await onB.are(['connect data'], atB);
      // Not the newest child, which may be a hook.
      new Process((await a.stats()).pid).signal('SIGTERM');
      atA = await onA.are(['disconnect data', 'role data primary init'], atA);
      atB = await onB.are(['disconnect data'], atB);

      // The end of the daemons is no event.
      await a.role('primary');
      await a.inSync();
      atA = await onA.are(['role data init primary', 'connect data'], atA);
      atB = await onB.are(['connect data'], atB);
      await b.stop();
      await a.degraded();
      atA = await onA.are(['disconnect data'], atA);
      await a.stop();
      assert.equal([onA.ended(atA), onB.ended(atB)], [[], []]);

      // `ready` only for who has asked for it, once for each worker of a primary.
      const ready = (one: HookLog) => one.all.filter((line) => line === 'ready data').length;
      assert.equal([ready(onA), ready(onB)], [3, 0]);
      assert.ok(onA.all.indexOf('ready data') > onA.all.indexOf('role data init primary'));

      for (const { lines } of [onA, onB]) {
        const overlapping = lines.filter((line, i) => line.startsWith('begin') !== (i % 2 === 0));
        assert.equal(overlapping, [], 'one at a time');
      }
    }),
  ),
);

add(
  'a hook that hangs and one that fails disturb nothing; log and status name them',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make(), async (pair) => {
      const { a, b, resource } = pair;
      const hanging = new HookLog(a);
      hanging.write('#!/bin/sh\necho $$ > "$0.pid"\nexec sleep 600\n');
      const failing = new HookLog(b);
      failing.write('#!/bin/sh\nexit 3\n');
      await Promise.all([hanging.use(), failing.use()]);
      await b.role('secondary');
      await a.role('primary');
      await a.inSync();
      await write(a, 0, randomBytes(MIB));
      await pair.mustBeClean(a);

      const { hooks: there } = await b.when('a failure', ({ hooks: { failure } }) => {
        return failure?.endsWith('connect data)') ?? false;
      });
      const wrong = `Hook ended with exit code 3 (${failing.path} connect data)`;
      assert.equal(there, { running: null, runningSeconds: 0, waiting: 0, failure: wrong });
      assert.ok(b.output.includes(`[ERROR] [data] (secondary) ${wrong}.`), b.output);
      assert.match((await b.hastctl('status')).stderr, `the last hook failed: ${wrong}`);

      const { hooks: here, notes } = await a.when('a note', ({ notes: all }) => all.length > 0);
      assert.is(here.running, 'role data init primary');
      assert.ok(here.waiting >= 3, 'connect, syncstart and syncdone wait');
      const line = `${hanging.path} role data init primary`;
      assert.match(notes[0] ?? '', /^a hook has been running for \d+ s/);
      assert.ok(notes[0]?.includes(line));
      assert.match((await a.hastctl('status', resource)).stderr, 'a hook has been running for');

      // What may not be run is not, and one that ends well makes the failure a thing of the past.
      for (const [mode, reason] of [
        [0o644, 'permission denied'],
        [0o777, 'others may write to it'],
      ] as const) {
        failing.write('#!/bin/sh\ntouch "$0.ran"\n', mode);
        await b.role('init');
        await b.when('not run', ({ hooks: { failure } }) => {
          return failure?.includes(`${failing.path} role data secondary init`) ?? false;
        });
        assert.match(b.output, new RegExp(`Hook was not run .*${reason}`));
        assert.throws(() => readFileSync(`${failing.path}.ran`));
        chmodSync(failing.path, 0o755);
        await b.role('secondary');
        await b.when('no failure', ({ hooks: { failure, running } }) => {
          return failure === null && running === null;
        });
        rmSync(`${failing.path}.ran`);
      }

      // Neither holds up the end of its daemon, and the one that hangs outlives it.
      const hung = new Process(Number(readFileSync(`${hanging.path}.pid`, 'utf8')));
      try {
        assert.is(await a.stop(), 0);
        assert.ok(hung.alive);
      } finally {
        hung.signal('SIGKILL');
      }
    }),
  ),
);

hooks.run();
