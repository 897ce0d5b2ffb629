// What `hastctl why` says in each state: whether the copy is whole, what an end would cost, and
// that no command loses data without saying so.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Why, WorkerStatus } from '../../../src/control/protocol.ts';
import { whyText } from '../../../src/ctl/why-text.ts';
import type { EngineStats } from '../../../src/native.ts';
import type { RoleState, WorkerEnd } from '../../../src/resource/role.ts';
import { type WhyFacts, whyOf } from '../../../src/resource/why.ts';
import { workerOf } from '../../helper/fake-daemon.ts';

const why = suite('why');

const GIB = 1024 ** 3;
const WHOLE = { syncTarget: false, discarded: false, stale: false, fresh: false };
const PRIMARY: RoleState = { phase: 'primary', crashes: 0, since: 0 };
const SESSION: RoleState = { phase: 'session', open: true, stopping: false };
const REFUSED = 'cannot connect to the peer: Connection refused';

function endOf(text: string, changes: Partial<WorkerEnd> = {}): WorkerEnd {
  return { exit: 78, signal: null, code: 'X', text, refused: false, ...changes };
}

const told: Why[] = [];

function ask(changes: Partial<WhyFacts>): Why {
  const answer = whyOf({
    name: 'data',
    node: 'alpha',
    remote: 'tcp4://10.0.0.2',
    replication: 'memsync',
    state: { phase: 'init' },
    hasWorker: false,
    stats: null,
    last: undefined,
    disk: WHOLE,
    history: [],
    beside: [],
    ...changes,
  });
  told.push(answer);
  return answer;
}

function primary(stats: Partial<WorkerStatus>, changes: Partial<WhyFacts> = {}): Why {
  return ask({ state: PRIMARY, hasWorker: true, stats: workerOf(stats), ...changes });
}

const commands = ({ next }: Why, on: 'here' | 'peer') =>
  next.steps.filter((step) => step.on === on).flatMap((step) => step.commands);

why('without a role: nobody is let in, and secondary is safe', () => {
  const answer = ask({});
  assert.is(answer.state, 'no-role');
  assert.is(answer.data.complete, null);
  assert.equal(commands(answer, 'here'), ['hastctl role secondary data']);
  assert.match(ask({ disk: { ...WHOLE, fresh: true } }).data.text, /^new/);
});

why('a start that failed: the reason, its advice, and the role that was asked for', () => {
  const time = '2026-01-31T12:00:00.000Z';
  const detail = { role: 'primary', by: 'hastctl (root, pid 7)', text: 'no disk' };
  const answer = ask({
    last: endOf('the local component cannot be opened', { hint: 'check local in hast.conf' }),
    history: [{ time, last: time, times: 1, event: 'role-failed', detail }],
  });
  assert.is(answer.state, 'failed');
  assert.match(answer.now.join('\n'), 'cannot be opened');
  assert.match(answer.next.text, 'check local in hast.conf');
  assert.equal(commands(answer, 'here'), ['hastctl role primary data']);
});

why('a secondary that waits: look at the other node first; taking over says what is lost', () => {
  const answer = ask({ state: { phase: 'secondary' } });
  assert.is(answer.state, 'waiting');
  assert.is(answer.data.complete, null);
  assert.is(commands(answer, 'peer')[0], 'hastctl why data');
  const over = answer.next.steps.find(
    ({ on, commands: [first] }) => on === 'here' && first === 'hastctl role primary data',
  );
  assert.match(over?.loses ?? '', 'is not here');
  assert.match(answer.ifThisNodeDies, 'written here and has not reached');
  // An incomplete copy is not offered at all.
  const half = ask({ state: { phase: 'secondary' }, disk: { ...WHOLE, syncTarget: true } });
  assert.is(half.data.complete, false);
  assert.equal(commands(half, 'here'), []);
});

why('a secondary with its primary is whole, or says that it is not', () => {
  const stats = workerOf({ status: 'complete', state: 'secondary' });
  const connected = { state: SESSION, hasWorker: true, stats };
  const whole = ask(connected);
  assert.is(whole.state, 'secondary');
  assert.is(whole.data.complete, true);
  assert.match(whole.ifPeerDies, 'nothing that was acknowledged');
  assert.match(ask({ ...connected, replication: 'async' }).ifPeerDies, 'not sent yet');
  const target = ask({ ...connected, disk: { ...WHOLE, syncTarget: true } });
  assert.is(target.state, 'sync-target');
  assert.is(target.data.complete, false);
  assert.match(target.next.text, 'do not fail over');
  const original = { ...connected, stats: { ...stats, peerKind: 'original' as const } };
  assert.is(ask(original).data.complete, null);
  const unread = ask({ ...connected, disk: 'EIO: i/o error' });
  assert.is(unread.data.complete, null);
  assert.match(unread.data.text, 'EIO');
});

why('in sync: nothing to do, and the modes differ in what is lost', () => {
  const inSync = (replication: EngineStats['replication']) =>
    primary({ status: 'complete', state: 'in-sync', replication });
  const answer = inSync('fullsync');
  assert.is(answer.state, 'in-sync');
  assert.is(answer.data.complete, true);
  assert.equal(answer.next.steps, []);
  assert.match(answer.ifThisNodeDies, /lost is nothing that was acknowledged$/);
  const hook = 'the last hook failed: exit code 1';
  const beside = primary({ status: 'complete', state: 'in-sync' }, { beside: [hook] });
  assert.is(beside.now.at(-1), hook);
  assert.match(inSync('memsync').ifThisNodeDies, 'unless that node fails, too');
  assert.match(inSync('async').ifThisNodeDies, 'had not reached it');
});

why('a synchronisation: how far, and in which direction', () => {
  const stats = {
    status: 'complete',
    state: 'syncing',
    syncBytesLeft: 3 * GIB,
    syncBytesDone: GIB,
    syncBytesPerSecond: GIB / 10,
  } as const;
  const to = primary({ ...stats, syncSource: 'local' });
  assert.is(to.state, 'syncing');
  assert.match(to.now[0] ?? '', '25% done, 3.0GB left, about 30s yet');
  assert.is(to.data.complete, true);
  assert.match(to.ifThisNodeDies, 'up to 3.0GB');
  assert.match(to.ifPeerDies, 'nothing is lost');
  const from = primary(
    { ...stats, syncSource: 'remote' },
    { disk: { ...WHOLE, syncTarget: true } },
  );
  assert.is(from.state, 'syncing-here');
  assert.is(from.data.complete, false);
  assert.match(from.ifThisNodeDies, 'nothing is lost');
  assert.match(from.ifPeerDies, 'may be lost');
});

why('alone: the reason with its advice, and what the other node lacks', () => {
  const answer = primary({ reason: REFUSED, syncBytesLeft: 4 * 1024 ** 2 });
  assert.is(answer.state, 'alone');
  assert.match(answer.now.join('\n'), REFUSED);
  assert.match(answer.next.text, 'is hastd running there');
  assert.match(answer.ifThisNodeDies, 'up to 4.0MB');
  assert.is(answer.data.complete, true);
  const far = primary({ reason: 'cannot connect to the peer: Connection timed out' });
  assert.is(far.state, 'alone');
  assert.match(far.next.text, 'is that host up');
  const no = primary({ reason: 'Remote node acts as init for the resource.' });
  assert.is(no.state, 'refused');
  assert.ok(commands(no, 'peer').includes('hastctl role secondary data'));
  const half = primary({ reason: REFUSED }, { disk: { ...WHOLE, syncTarget: true } });
  assert.is(half.data.complete, false);
});

why('split-brain names both nodes, and what is lost on the one that gives up', () => {
  const text = 'Split-brain condition!';
  for (const answer of [
    primary({ reason: text }),
    ask({ state: { phase: 'secondary' }, last: endOf(text) }),
    ask({ last: endOf(text) }),
  ]) {
    assert.is(answer.state, 'split-brain');
    const [there, here] = answer.next.steps;
    assert.is(there?.on, 'peer');
    assert.is(here?.on, 'here');
    for (const step of [there, here]) {
      assert.match(step?.text ?? '', 'alpha (this node)');
      assert.match(step?.text ?? '', '10.0.0.2');
      assert.ok(step?.commands.includes('hastctl discard data'));
    }
    assert.match(there?.loses ?? '', /written on the other node \(10\.0\.0\.2\)/);
    assert.match(here?.loses ?? '', /written on alpha/);
  }
});

why('a stale local disk: the other node has the only copy', () => {
  const stats = { status: 'complete', state: 'in-sync', localStale: true } as const;
  const answer = primary(stats, { disk: { ...WHOLE, stale: true } });
  assert.is(answer.state, 'stale-disk');
  assert.is(answer.data.complete, false);
  assert.is(answer.ifThisNodeDies, 'nothing is lost');
  assert.is(commands(answer, 'here')[0], 'hastctl role --if-unused init data');
  const away = primary({ ...stats, status: 'degraded', state: 'degraded', reason: REFUSED });
  assert.is(away.state, 'stale-disk');
  assert.match(away.next.text, 'bring the other node');
});

why('between two states it says to wait', () => {
  const backoff = { phase: 'backoff', from: 'init', force: false, crashes: 3 } as const;
  const crashed = ask({
    state: backoff,
    last: endOf('', { exit: null, signal: 'SIGSEGV' }),
  });
  assert.is(crashed.state, 'backoff');
  assert.match(crashed.now.join('\n'), /crashed.*\n.*SIGSEGV/);
  assert.equal(commands(crashed, 'here'), ['hastctl why data']);
  assert.match(crashed.ifThisNodeDies, 'has not reached the other node');
  const leaving = ask({
    state: { phase: 'leaving', from: 'primary', to: 'init', force: false, fallback: 'init' },
  });
  assert.match(leaving.now[0] ?? '', 'the role init is being taken');
  assert.is(ask({ state: PRIMARY, hasWorker: true }).state, 'silent');
  assert.is(ask({ state: PRIMARY }).state, 'starting');
  assert.is(primary({ state: 'connecting' }).state, 'starting');
});

why('no command loses data without saying so', () => {
  assert.ok(told.length > 20);
  for (const { state, next } of told) {
    for (const { commands: all, loses } of next.steps) {
      const text = all.join('; ');
      if (/ create | -f /.test(text)) assert.ok(loses !== null, `${state}: ${text}`);
      assert.not.match(text, ' -f ');
    }
    assert.ok(next.text !== '', state);
  }
});

// ---- As people see it -------------------------------------------------------------------------

const TIMES = ['00:00', '00:01', '00:02'].map((minute) => `2026-01-31T12:${minute}.000Z`);
const [T0 = '', T1 = '', T2 = ''] = TIMES;

why('the text has all of it, in lines of 80', () => {
  const once = (time: string, event: string, detail: Record<string, string | number> = {}) => ({
    time,
    last: time,
    times: 1,
    event,
    detail,
  });
  const zone = process.env.TZ;
  process.env.TZ = 'UTC';
  try {
    const text = whyText(
      primary(
        { reason: REFUSED, syncBytesLeft: 4 * 1024 ** 2 },
        {
          history: [
            once(T0, 'role', { from: 'init', to: 'primary', by: 'hastctl (root, pid 7)' }),
            once(T1, 'syncdone', { done: GIB, seconds: 61 }),
            { ...once(T1, 'disconnect', { text: 'the peer is gone\u001b.' }), times: 3, last: T2 },
          ],
        },
      ),
    );
    assert.is(
      text,
      `data on alpha: primary, alone
  data is primary and alone: the other node (10.0.0.2) is not connected
  the reason: cannot connect to the peer: Connection refused
  what is written now exists only here until the other node is back

How it came about
  2026-01-31 12:00:00  role from init to primary, asked for by hastctl (root,
                       pid 7)
  2026-01-31 12:00:01  synchronisation done, 1.0GB copied in 1m1s
  2026-01-31 12:00:02  connection lost: the peer is gone? (3 times since
                       2026-01-31 12:00:01)

The data
  here: complete: the newest copy that this node knows of
  if this node died now: what the other node (10.0.0.2) lacks is lost: up to
                         4.0MB
  if the other node died now: nothing is lost

Next
  nobody listens at the address of remote: is hastd running there (hastctl
  status data), do its listen address and port agree with our remote, does a
  firewall refuse?
  see what it says there:
    there# hastctl why data
  if it has no role there:
    there# hastctl role secondary data
`,
    );
  } finally {
    if (zone === undefined) delete process.env.TZ;
    else process.env.TZ = zone;
  }
  for (const answer of told) {
    for (const line of whyText(answer).split('\n')) assert.ok(line.length <= 80, line);
  }
});

why.run();
