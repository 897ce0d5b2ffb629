// `hastctl status --watch`: figures, the picture on a terminal, the lines in a pipe.
import { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { WriteStream } from 'node:tty';
import { stripVTControlCharacters } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlClient } from '../../../src/control/client.ts';
import type { ResourceStatus } from '../../../src/control/protocol.ts';
import { parseCommandLine } from '../../../src/ctl/command-line.ts';
import type { Context } from '../../../src/ctl/context.ts';
import { FORMATTERS, withOutlet } from '../../../src/ctl/output.ts';
import { lineOf } from '../../../src/ctl/watch/lines.ts';
import { nextPace, type Pace, progressOf, secondsLeft } from '../../../src/ctl/watch/pace.ts';
import { type Paper, picture, shortDuration } from '../../../src/ctl/watch/picture.ts';
import { type Row, rowOf } from '../../../src/ctl/watch/row.ts';
import { watch } from '../../../src/ctl/watch/watch.ts';
import { HastError } from '../../../src/error.ts';
import { Logger } from '../../../src/log.ts';
import { configOf } from '../../helper/config.ts';
import { until, withDeadline } from '../../helper/deadline.ts';
import { fakeDaemon, resourceOf, sendJson, workerOf } from '../../helper/fake-daemon.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const TIME = '2026-01-31T12:00:00.000Z';

const syncing = (done: number, left: number, perSecond = 0) =>
  workerOf({
    status: 'complete',
    state: 'syncing',
    dirtyBytes: left,
    syncBytesDone: done,
    syncBytesLeft: left,
    syncBytesPerSecond: perSecond,
    inFlight: 7,
  });

// ---- Figures ----------------------------------------------------------------------------------

const pace = suite('pace of a synchronisation');

function paceOf(looks: readonly (readonly [ms: number, done: number, left: number])[]) {
  let known: Pace | undefined;
  for (const [ms, done, left] of looks) known = nextPace(known, syncing(done, left), ms);
  return known;
}

pace('is unknown at first, and what the worker says when it says something', () => {
  assert.is(nextPace(undefined, null, 0), undefined);
  assert.is(nextPace(undefined, workerOf({ state: 'in-sync' }), 0), undefined);
  assert.is(secondsLeft(undefined), null);
  assert.is(secondsLeft(paceOf([[0, 0, GIB]])), null);
  assert.is(secondsLeft(nextPace(undefined, syncing(0, 10 * MIB, MIB), 0)), 10);
});

pace('is smoothed: one slow second does not frighten, many do', () => {
  const steady = paceOf([
    [0, 0, 1000 * MIB],
    [1000, 10 * MIB, 990 * MIB],
    [2000, 20 * MIB, 980 * MIB],
  ]);
  assert.is(secondsLeft(steady), 98);
  const hiccup = nextPace(steady, syncing(20 * MIB, 980 * MIB), 3000);
  const after = secondsLeft(hiccup) ?? 0;
  assert.ok(after > 98 && after < 125, String(after));
  const stuck = nextPace(hiccup, syncing(20 * MIB, 980 * MIB), 3_600_000);
  assert.is(secondsLeft(stuck), null);
});

pace('begins anew with another worker and with another pass', () => {
  const before = paceOf([
    [0, 0, GIB],
    [1000, MIB, GIB - MIB],
  ]);
  assert.is(before?.rate, MIB);
  assert.is(nextPace(before, { ...syncing(2 * MIB, GIB), pid: 2 }, 2000)?.rate, null);
  assert.is(nextPace(before, syncing(0, GIB), 2000)?.rate, null);
  assert.is(nextPace(before, workerOf({ state: 'degraded' }), 2000), undefined);
});

pace('is whole only when nothing is left', () => {
  assert.is(progressOf(undefined), null);
  assert.is(progressOf(paceOf([[0, 0, 0]])), 1);
  assert.is(progressOf(paceOf([[0, 3, 1]])), 0.75);
  assert.is(secondsLeft(paceOf([[0, 5, 0]])), 0);
});

pace('times have two units', () => {
  const shown = [0, 59, 60, 115, 3599, 3661, 86_399, 90_061, 99 * 86_400].map(shortDuration);
  assert.equal(shown, ['0s', '59s', '1m', '1m55s', '59m59s', '1h1m', '23h59m', '1d1h', '99d']);
});

// ---- The picture ------------------------------------------------------------------------------

const view = suite('picture');

function row(status: ResourceStatus, known?: Pace): Row {
  return rowOf({ name: status.name, status }, known);
}

const DATA = row(resourceOf('data', { role: 'primary', worker: syncing(5 * GIB, 11 * GIB) }), {
  pid: 1,
  doneBytes: 5 * GIB,
  leftBytes: 11 * GIB,
  atMs: 0,
  rate: 98 * MIB,
});
const REFUSED = 'cannot connect to the peer: Connection refused';
const AWAY = row(
  resourceOf('mail', {
    role: 'primary',
    worker: workerOf({ reason: REFUSED, dirtyBytes: 4 * MIB }),
    notes: [REFUSED, 'is hastd running there?'],
  }),
);
const GOOD = row(
  resourceOf('web', { role: 'primary', worker: workerOf({ state: 'in-sync', inFlight: 112 }) }),
);
const SPLIT = row(
  resourceOf('old', {
    role: 'primary',
    worker: workerOf({ reason: 'Split-brain condition!' }),
    notes: ['Split-brain condition!'],
  }),
);

function drawn(rows: readonly Row[], paper: Partial<Paper> = {}, trouble = ''): string[] {
  const whole = { columns: 80, rows: 24, colour: false, unicode: false, ...paper };
  return picture({ node: 'alpha', time: '12:34:56', rows, trouble }, whole);
}

const widest = (lines: readonly string[]) =>
  Math.max(...lines.map((line) => [...stripVTControlCharacters(line)].length));

view('80 columns have all there is', () => {
  assert.equal(
    drawn([DATA, AWAY, GOOD]).map((line) => line.trimEnd()),
    [
      'hastd on alpha: 3 resources                                             12:34:56',
      'NAME     ROLE      PEER      MODE     DIRTY            DONE    RATE   LEFT QUEUE',
      'data     primary   syncing   memsync   11GB ###-------  31%  98MB/s  1m55s     7',
      'mail     primary   away      memsync  4.0MB               -       -      -     0',
      '  cannot connect to the peer: Connection refused',
      'web      primary   in sync   memsync     0B               -       -      -   112',
    ],
  );
});

view('40 columns have what matters most', () => {
  assert.equal(
    drawn([DATA, AWAY], { columns: 40 }).map((line) => line.trimEnd()),
    [
      'hastd on alpha: 2 resources     12:34:56',
      'NAME     ROLE      PEER      DONE   LEFT',
      'data     primary   syncing    31%  1m55s',
      'mail     primary   away         -      -',
      '  cannot connect to the peer: Connecti..',
    ],
  );
});

view('no line is wider than the terminal, whatever it is', () => {
  const long = row(resourceOf('n'.repeat(200), { role: 'secondary', notes: ['x'.repeat(500)] }));
  const wild = row(resourceOf('é\u001b[2J漢字', { notes: ['\u0007漢'.repeat(50)] }));
  for (const columns of [1, 5, 10, 19, 20, 39, 40, 41, 60, 79, 80, 81, 132, 300]) {
    for (const unicode of [false, true]) {
      const paper = { columns, unicode, colour: unicode };
      const lines = drawn([DATA, AWAY, long, wild], paper, 'the daemon is away '.repeat(9));
      assert.ok(widest(lines) <= columns, `${columns}: ${widest(lines)}`);
      assert.not.match(stripVTControlCharacters(lines.join('')), /\p{Cc}/u);
    }
  }
});

view('a long name ends with an ellipsis, or has room on a wide terminal', () => {
  const name = 'a-very-long-name-of-a-resource';
  const long = row(resourceOf(name));
  assert.match(drawn([long])[2] ?? '', /^a-very-l\.\. init/);
  assert.match(drawn([long], { unicode: true })[2] ?? '', /^a-very-lo… init/);
  assert.match(drawn([long], { columns: 120 })[2] ?? '', `${name} init`);
});

view('colour is for terminals that have it, and changes no width', () => {
  const plain = drawn([DATA, AWAY, GOOD]);
  const colourful = drawn([DATA, AWAY, GOOD], { colour: true });
  assert.not.match(plain.join('\n'), '\u001b');
  assert.match(colourful.join('\n'), '\u001b[31maway');
  assert.equal(colourful.map(stripVTControlCharacters), plain);
});

view('when not all fit the worst come first, and it says how many are missing', () => {
  const many = [
    ...Array.from({ length: 30 }, (_, i) => ({ ...GOOD, name: `web${i}` })),
    AWAY,
    DATA,
    SPLIT,
  ];
  const lines = drawn(many, { rows: 10 });
  assert.is(lines.length, 10);
  const names = lines.slice(2, -1).map((line) => line.split(' ')[0]);
  assert.equal(names, ['old', '', 'mail', '', 'data', 'web0', 'web1']);
  assert.is(lines.at(-1), '28 more not shown, all in order');
  const fewer = drawn(many, { rows: 6 });
  assert.is(fewer.at(-1), '32 more not shown, 2 of them not in order');
  assert.ok(drawn(many, { rows: 1 }).length <= 1);
  // In the order of hast.conf as long as there is room.
  assert.match(drawn(many, { rows: 60 })[2] ?? '', /^web0 /);
});

view('says so while the daemon is away, and when there is nothing', () => {
  assert.match(drawn([GOOD], {}, 'cannot be reached')[1] ?? '', 'cannot be reached');
  assert.is(drawn([]).length, 1);
});

view('every state has a word', () => {
  const peerOf = (changes: Partial<ResourceStatus>) => row(resourceOf('a', changes)).peer;
  const primary = (worker: Parameters<typeof workerOf>[0]) =>
    peerOf({ role: 'primary', worker: workerOf(worker) });
  const failed = (message: string) => ({ lastError: { code: 'X', message, exit: 78 } });
  assert.is(peerOf({}), '-');
  assert.is(peerOf(failed('no disk')), '-');
  assert.is(peerOf({ role: 'secondary' }), 'waiting');
  assert.is(peerOf({ role: 'secondary', ...failed('Split-brain condition!') }), 'split');
  assert.is(peerOf({ role: 'secondary', worker: workerOf({ state: 'secondary' }) }), 'connected');
  assert.is(peerOf({ role: 'primary' }), '-');
  assert.is(primary({ state: 'connecting' }), 'starting');
  assert.is(primary({ state: 'stopping' }), 'ending');
  assert.is(primary({ reason: 'Remote node acts as primary' }), 'refused');
  const unproven = 'the peer could not prove that it knows the secret';
  assert.is(primary({ reason: unproven }), 'refused');
  assert.is(primary({ localStale: true }), 'away');
  assert.is(primary({ localStale: true, state: 'in-sync' }), 'disk');
  const error = new HastError('RESOURCE_UNKNOWN');
  assert.is(rowOf({ name: 'x', error }, undefined).reason, error.message);
});

// ---- Lines ------------------------------------------------------------------------------------

const lines = suite('lines of the view');

lines('have a stable shape, and a reason in quotes', () => {
  assert.is(
    lineOf(TIME, DATA),
    `${TIME} data role=primary peer=syncing mode=memsync dirty=${11 * GIB} left=${11 * GIB} ` +
      'done=31% rate=102760448 eta=115 queue=7\n',
  );
  assert.is(
    lineOf(TIME, { ...AWAY, reason: 'a "b"\n\u001b[2J', name: 'a b' }),
    `${TIME} "a b" role=primary peer=away mode=memsync dirty=4194304 left=0 done=- rate=- eta=- ` +
      'queue=0 reason="a \\"b\\"??[2J"\n',
  );
});

// ---- Watching ---------------------------------------------------------------------------------

const watching = suite('watching');

/** A terminal, or a pipe, that a test looks at. */
class FakeStream extends EventEmitter {
  readonly isTTY: boolean;
  columns = 80;
  rows = 24;
  text = '';
  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }
  write(text: string): boolean {
    this.text += text;
    return true;
  }
  hasColors(env: NodeJS.ProcessEnv): boolean {
    return env.NO_COLOR === undefined;
  }
}

interface Scene {
  readonly stream: FakeStream;
  readonly path: string;
  /** What the daemon says; undefined: it breaks the connection. */
  say(resources: readonly ResourceStatus[] | undefined): void;
  /** Until the daemon was asked again, and what it answered is on the stream. */
  looks(count: number): Promise<void>;
  /** How it ended. */
  readonly ended: Promise<number>;
}

function scene(
  line: string,
  tty: boolean,
  env: NodeJS.ProcessEnv,
  body: (scene: Scene) => Promise<void>,
): () => Promise<void> {
  return withDeadline(30_000, () =>
    inTempdir(async (directory) => {
      let said: readonly ResourceStatus[] | undefined = [];
      let asked = 0;
      const answer = (_request: IncomingMessage, response: ServerResponse) => {
        asked += 1;
        if (said === undefined) response.destroy();
        else sendJson(response, 200, { resources: said });
      };
      const daemon = await fakeDaemon(join(directory, 'control'), answer);
      const stream = new FakeStream(tty);
      const command = parseCommandLine(line.split(' '));
      if (command.verb !== 'status' || command.watchMs === undefined) throw new Error(line);
      const watched = { ...command, watchMs: command.watchMs };
      const context: Context = {
        config: configOf(''),
        client: new ControlClient(daemon.path),
        log: Logger.root(() => {}, 0),
        format: FORMATTERS.text,
        print: () => {},
      };
      const ended = withOutlet(
        command.json,
        (outlet) => watch(watched, context, outlet),
        stream as unknown as WriteStream,
        env,
      );
      try {
        await body({
          stream,
          path: daemon.path,
          ended,
          say: (resources) => {
            said = resources;
          },
          looks: (count) => {
            const wanted = asked + count + 1; // the one after it has seen its answer written
            return until('looks', 10_000, () => asked >= wanted);
          },
        });
      } finally {
        stream.emit('error', new Error('the test is over'));
        await ended;
        await daemon.close();
      }
    }),
  );
}

const FAST = 'status --watch --interval 0.1 -n alpha';
const IN_SYNC = resourceOf('a', { role: 'primary', worker: workerOf({ state: 'in-sync' }) });

watching(
  'a pipe gets a line for a change, none for none, and word of an absence',
  scene(FAST, false, {}, async ({ stream, say, looks, ended }) => {
    say([IN_SYNC, resourceOf('b')]);
    await looks(3);
    assert.is(stream.text.trimEnd().split('\n').length, 2);
    // What moves all the time is no change.
    const busy = workerOf({ state: 'in-sync', inFlight: 9, dirtyBytes: 5 });
    say([{ ...IN_SYNC, worker: busy }, resourceOf('b')]);
    await looks(2);
    assert.is(stream.text.trimEnd().split('\n').length, 2);
    say(undefined);
    await looks(3);
    say([IN_SYNC, resourceOf('b')]);
    await looks(2);
    say([IN_SYNC]);
    await looks(2);
    const all = stream.text.trimEnd().split('\n');
    assert.is(all.length, 6, stream.text);
    assert.match(all[5] ?? '', / b peer=- reason="no longer configured"$/);
    for (const line of all) assert.match(line, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ /);
    assert.match(all[0] ?? '', / a role=primary peer=in-sync /);
    assert.match(all[2] ?? '', / \* peer=- reason="the daemon did not answer/);
    assert.match(all[3] ?? '', / a role=primary /);
    assert.not.match(stream.text, '\u001b');
    stream.emit('error', Object.assign(new Error('EPIPE'), { code: 'EPIPE' }));
    assert.is(await ended, 0);
  }),
);

watching(
  'JSON is a document in a line, also on a terminal',
  scene(`${FAST} --json a`, true, {}, async ({ stream, say, looks }) => {
    say([{ ...IN_SYNC, worker: syncing(MIB, 9 * MIB, MIB) }, resourceOf('b')]);
    await looks(2);
    say(undefined);
    await looks(2);
    const documents = stream.text.trimEnd().split('\n');
    const first = JSON.parse(documents.find((line) => line.includes('syncing')) ?? '');
    assert.is(first.resources.length, 1);
    assert.is(first.resources[0].secondsLeft, 9);
    assert.is(first.resources[0].worker.state, 'syncing');
    const last = JSON.parse(documents.at(-1) ?? '');
    assert.is(last.error.code, 'CTL_EXCHANGE');
    assert.ok(Date.parse(last.time) >= Date.parse(first.time));
  }),
);

watching(
  'a terminal is drawn in place, follows its size, and is given back with the last picture',
  scene(FAST, true, { LANG: 'C.UTF-8' }, async ({ stream, say, looks, ended }) => {
    say([{ ...IN_SYNC, worker: syncing(MIB, MIB) }]);
    await looks(2);
    assert.ok(stream.text.startsWith('\u001b[?1049h\u001b[?25l\u001b[?7l\u001b[H\u001b[K'));
    assert.match(stream.text, '████░░░░');
    assert.match(stream.text, '\u001b[33msyncing');
    stream.text = '';
    stream.columns = 40;
    stream.emit('resize');
    const resized = stripVTControlCharacters(stream.text.split('\r\n')[0] ?? '');
    assert.is(resized.length, 40, 'at once, without a look');
    say(undefined);
    await looks(2);
    assert.match(stream.text, /the daemon did not answer/);
    assert.match(stream.text, 'syncing', 'what was known last stays');
    const begun = process.listenerCount('SIGINT');
    stream.text = '';
    process.emit('SIGINT');
    assert.is(await ended, 0);
    assert.is(process.listenerCount('SIGINT'), begun - 1);
    const rest = stream.text.slice(stream.text.indexOf('\u001b[?7h'));
    assert.ok(rest.startsWith('\u001b[?7h\u001b[?25h\u001b[?1049lhastd on alpha'), rest);
    assert.ok(rest.endsWith('\n'));
  }),
);

watching(
  'NO_COLOR has no colour',
  scene(FAST, true, { NO_COLOR: '1' }, async ({ stream, say, looks }) => {
    say([IN_SYNC]);
    await looks(2);
    assert.match(stream.text, /primary {3}in sync/);
    // Erasing at the end of a line that is full would take its last character.
    for (const part of stream.text.split(/(?=\p{Cc}\[[JK])/u).slice(0, -1)) {
      assert.match(part, /(\r\n|\[H)$/);
    }
    assert.not.match(stream.text, /\p{Cc}\[[0-9;]*m/u);
  }),
);

watching(
  'a dumb terminal gets lines',
  scene(FAST, true, { TERM: 'dumb' }, async ({ stream, say, looks }) => {
    say([IN_SYNC]);
    await looks(2);
    assert.match(stream.text, / a role=primary /);
    assert.not.match(stream.text, '\u001b');
  }),
);

for (const each of [pace, view, lines, watching]) each.run();
