import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Logger } from '../../../src/log.ts';
import { HookQueue, hookStarter, refuseHook, type StartHook } from '../../../src/resource/hooks.ts';
import { until, withDeadline } from '../../helper/deadline.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const hooks = suite('hooks');

function queue(
  start: StartHook,
  clock?: () => number,
  limits?: ConstructorParameters<typeof HookQueue>[4],
) {
  const lines: string[] = [];
  const log = Logger.root(({ level, text }) => lines.push(`${level} ${text}`), 0);
  return { lines, hooks: new HookQueue('data', start, () => log, clock, limits) };
}

function program(directory: string, text: string): string {
  const path = `${directory}/hook`;
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o700);
  return path;
}

hooks(
  'run in order, one at a time, with the words of the manual',
  withDeadline(20_000, () =>
    inTempdir(async (directory) => {
      const log = `${directory}/log`;
      const path = program(directory, `sleep 0.1; echo "$0 $*" >> ${log}`);
      const { hooks: subject, lines } = queue(hookStarter(true));
      subject.run(path, 'role', 'init', 'primary');
      subject.run(path, 'connect');
      subject.run(path, 'syncdone');
      await until('three lines', 10_000, () => {
        return existsSync(log) && readFileSync(log, 'utf8').split('\n').length === 4;
      });
      assert.is(
        readFileSync(log, 'utf8'),
        `${path} role data init primary\n${path} connect data\n${path} syncdone data\n`,
      );
      assert.equal(lines, []);
    }),
  ),
);

hooks(
  'a bad end is an error in the log and stops nothing',
  withDeadline(20_000, () =>
    inTempdir(async (directory) => {
      const path = program(directory, 'test "$1" = connect');
      const { hooks: subject, lines } = queue(hookStarter(true));
      subject.run(path, 'connect');
      subject.run(path, 'disconnect');
      await until('a line', 10_000, () => lines.length === 1);
      assert.match(lines[0] ?? '', 'error Hook ended with exit code 1');
    }),
  ),
);

hooks('a repeated split-brain is passed on once a minute', () => {
  let now = 0;
  let count = 0;
  const start: StartHook = () => {
    count += 1;
    return { ended: Promise.resolve(null) };
  };
  return inTempdir(async (directory) => {
    const path = program(directory, '');
    const { hooks: subject } = queue(start, () => now);
    for (now = 0; now < 180_000; now += 10_000) {
      subject.run(path, 'split-brain');
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.is(count, 3);
  });
});

hooks(
  'a split-brain after a connection is a new one',
  withDeadline(20_000, () =>
    inTempdir(async (directory) => {
      const started: string[] = [];
      const path = program(directory, '');
      const { hooks: subject } = queue((_path, [event = '']) => {
        started.push(event);
        return { ended: Promise.resolve(null) };
      });
      for (const event of ['split-brain', 'split-brain', 'connect', 'split-brain']) {
        subject.run(path, event);
      }
      await until('all', 10_000, () => started.length === 3);
      assert.equal(started, ['split-brain', 'connect', 'split-brain']);
    }),
  ),
);

hooks(
  'one that hangs is named again and again, and the next one starts in the end',
  withDeadline(20_000, () =>
    inTempdir(async (directory) => {
      const started: string[] = [];
      const path = program(directory, '');
      const limits = { warnMs: 20, noteMs: 0, patienceMs: 100, queued: 1 };
      const { hooks: subject, lines } = queue(
        (_path, args) => {
          started.push(args.join(' '));
          return { ended: new Promise(() => {}) };
        },
        undefined,
        limits,
      );
      assert.equal([subject.notes(), subject.report().running], [[], null]);
      subject.run(path, 'connect');
      subject.run(path, 'syncstart');
      subject.run(path, 'syncdone');
      subject.run(path, 'role', 'primary', 'init');
      assert.equal(subject.notes(), [
        `a hook has been running for 0 s (${path} connect data), 2 more wait for it`,
        'the last hook failed: Too many hooks wait, syncdone is left out',
      ]);
      assert.is(subject.report().waiting, 2);
      const named = () => lines.filter((line) => line.includes('Hook has been running for'));
      await until('named twice', 10_000, () => named().length >= 2);
      await until('the others', 10_000, () => started.length === 3);
      assert.equal(started, ['connect data', 'syncstart data', 'role data primary init']);
    }),
  ),
);

hooks('no program, nothing to do', () => {
  const { hooks: subject } = queue(() => {
    throw new Error('not to be started');
  });
  subject.run(null, 'connect');
});

hooks('programs that others could have written are refused', () =>
  inTempdir((directory) => {
    const uid = process.getuid?.() ?? 0;
    const path = program(directory, '');
    assert.is(refuseHook(path, uid), null);
    chmodSync(path, 0o702);
    assert.match(refuseHook(path, uid) ?? '', 'others may write');
    assert.match(refuseHook(directory, uid) ?? '', 'no file');
    assert.match(refuseHook('hook', uid) ?? '', 'not absolute');
    assert.match(refuseHook(`${directory}/none`, uid) ?? '', 'ENOENT');
    chmodSync(path, 0o600);
    assert.match(refuseHook(path, uid) ?? '', 'EACCES');
  }),
);

hooks.run();
