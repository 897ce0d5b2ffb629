import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  backoffMs,
  type Role,
  type RoleEvent,
  type RoleState,
  roleOf,
  type Step,
  step,
  type WorkerEnd,
} from '../../../src/resource/role.ts';

const role = suite('role');

const CLEAN: WorkerEnd = { exit: 0, signal: null, code: '', text: '', refused: false };
const KILLED: WorkerEnd = { ...CLEAN, exit: null, signal: 'SIGKILL', code: 'WORKER_ENDED' };
const LOST: WorkerEnd = { ...CLEAN, exit: 75, text: 'connection lost' };
const BROKEN: WorkerEnd = { ...CLEAN, exit: 66, code: 'META_UNREADABLE', text: 'unreadable' };
const REFUSED: WorkerEnd = { ...CLEAN, exit: 5, code: 'ROLE_REFUSED', text: 'no', refused: true };

const SECONDARY: RoleState = { phase: 'secondary' };
const SESSION: RoleState = { phase: 'session', open: true, stopping: false };
const PRIMARY: RoleState = { phase: 'primary', crashes: 0, since: 0 };
const STARTING: RoleState = {
  phase: 'starting',
  from: 'init',
  force: false,
  forked: true,
  crashes: 0,
  since: 0,
};

function command(to: Role, force = false): RoleEvent {
  return { type: 'command', role: to, force, now: 0 };
}
function ended(end: WorkerEnd, now = 0): RoleEvent {
  return { type: 'ended', end, now };
}

/** Effects as words, in order; logs and kept errors left out unless asked for. */
function words({ effects }: Step): string[] {
  return effects.flatMap((effect) => {
    switch (effect.type) {
      case 'log':
      case 'keep':
      case 'forget':
        return [];
      case 'hook':
        return [`hook ${effect.from} ${effect.to}`];
      case 'settle':
        return [`settle ${effect.role}`];
      case 'fail':
        return [`fail ${effect.end.code}`];
      case 'wait':
        return [`wait ${effect.ms}`];
      default:
        return [effect.type];
    }
  });
}

function run(state: RoleState, ...events: RoleEvent[]): { state: RoleState; did: string[] } {
  const did: string[] = [];
  let now = state;
  for (const event of events) {
    const next = step(now, event);
    now = next.state;
    did.push(...words(next));
  }
  return { state: now, did };
}

role('init to primary: the hook after the fork, the answer when it serves', () => {
  const { state, did } = run({ phase: 'init' }, command('primary'), { type: 'forked' });
  assert.equal(did, ['start', 'hook init primary']);
  assert.is(roleOf(state), 'primary');
  const served = run(state, { type: 'ready' });
  assert.equal(served.did, ['settle primary']);
  assert.is(served.state.phase, 'primary');
});

role('init to secondary: taken when the component is good', () => {
  const first = run({ phase: 'init' }, command('secondary'));
  assert.equal(first.did, ['check']);
  assert.is(roleOf(first.state), 'init');
  const good = run(first.state, { type: 'checked', problem: null });
  assert.equal(good.did, ['hook init secondary', 'settle secondary']);
  assert.is(good.state.phase, 'secondary');
  const bad = run(first.state, { type: 'checked', problem: BROKEN });
  assert.equal(bad.did, ['fail META_UNREADABLE']);
  assert.is(bad.state.phase, 'init');
});

role('the same role again does nothing but answer', () => {
  for (const state of [{ phase: 'init' }, SECONDARY, SESSION, PRIMARY] as const) {
    const same = run(state, command(roleOf(state)));
    assert.equal(same.did, [`settle ${roleOf(state)}`]);
    assert.equal(same.state, state);
  }
});

role('a refused start leaves the role unchanged and tells hooks of both changes', () => {
  const init = run(STARTING, ended(REFUSED));
  assert.equal(init.did, ['hook primary init', 'fail ROLE_REFUSED']);
  assert.is(init.state.phase, 'init');
  const secondary = run({ ...STARTING, from: 'secondary' }, ended(REFUSED));
  assert.equal(secondary.did, ['hook primary secondary', 'fail ROLE_REFUSED']);
  assert.is(secondary.state.phase, 'secondary');
});

role('a start that comes to no process is told to no hook', () => {
  const { did, state } = run({ phase: 'init' }, command('primary'), ended(BROKEN));
  assert.equal(did, ['start', 'fail META_UNREADABLE']);
  assert.is(state.phase, 'init');
});

role('a start that takes too long is stopped and the role given back', () => {
  const late = run({ ...STARTING, from: 'secondary' }, { type: 'late' });
  assert.equal(late.did, ['fail ROLE_FAILED', 'stop']);
  const after = run(late.state, ended(CLEAN));
  assert.equal(after.did, ['check']);
});

role('primary to secondary is a fence: the worker ends first', () => {
  const asked = run(PRIMARY, command('secondary'));
  assert.equal(asked.did, ['supersede', 'stop']);
  assert.is(roleOf(asked.state), 'primary');
  const gone = run(asked.state, ended(CLEAN), { type: 'checked', problem: null });
  assert.equal(gone.did, ['check', 'hook primary secondary', 'settle secondary']);
});

role('primary to init, also when its worker had to be killed', () => {
  for (const end of [CLEAN, KILLED]) {
    const { did, state } = run(PRIMARY, command('init'), ended(end));
    assert.equal(did, ['supersede', 'stop', 'drop-peer', 'hook primary init', 'settle init']);
    assert.is(state.phase, 'init');
  }
});

role('role primary is refused while the connection from the primary is open', () => {
  const refused = run(SESSION, command('primary'));
  assert.equal(refused.did, ['fail ROLE_REFUSED']);
  assert.equal(refused.state, SESSION);
  assert.equal(run(SESSION, command('primary', true)).did, ['supersede', 'drop-peer', 'stop']);
  assert.equal(run(SESSION, { type: 'disconnected' }, command('primary')).did, [
    'supersede',
    'drop-peer',
    'stop',
  ]);
});

role('secondary to primary waits for the old worker to drain', () => {
  const { did, state } = run(SESSION, command('primary', true), ended(CLEAN), { type: 'forked' });
  assert.equal(did, ['supersede', 'drop-peer', 'stop', 'start', 'hook secondary primary']);
  assert.equal(run(state, ended(REFUSED)).state.phase, 'secondary');
});

role('a session that ends leaves the role, whoever ended it, and its reason in the log', () => {
  const split = { ...BROKEN, exit: 78, code: 'PEER_SPLIT_BRAIN', text: 'Split-brain condition!' };
  const rows: readonly (readonly [WorkerEnd, string, RegExp])[] = [
    [CLEAN, 'info', /^Worker was ended, waiting for the primary\.$/],
    [LOST, 'warning', /^Disconnected from the primary: connection lost\.$/],
    [KILLED, 'error', /^Worker crashed \(signal SIGKILL\), waiting for the primary\.$/],
    [split, 'error', /^The primary was refused: Split-brain condition! .*hastctl why/],
    [
      { ...split, code: 'PEER_INCOMPLETE', text: 'No.' },
      'warning',
      /^The primary was refused: No\.$/,
    ],
  ];
  for (const [end, level, text] of rows) {
    const { state, effects } = step(SESSION, ended(end));
    assert.equal(state, SECONDARY);
    const [log] = effects.filter(({ type }) => type === 'log');
    assert.ok(log?.type === 'log' && log.level === level, `${level}: ${JSON.stringify(log)}`);
    assert.match(log.text, text);
  }
});

role('a good second message displaces the running session', () => {
  const asked = run(SESSION, { type: 'newcomer' });
  assert.equal(asked.did, ['stop']);
  const free = run(asked.state, ended(CLEAN));
  assert.equal(free.did, ['admit']);
  assert.is(free.state.phase, 'session');
});

role('a newcomer that waited too long is refused, the old worker goes on ending', () => {
  const late = run(SESSION, { type: 'newcomer' }, { type: 'newcomer-late' });
  assert.equal(late.did, ['stop', 'refuse-newcomer']);
  const free = run(late.state, ended(CLEAN));
  assert.equal(free.did, []);
  assert.is(free.state.phase, 'secondary');
});

role('nobody is admitted in another role', () => {
  for (const state of [{ phase: 'init' }, PRIMARY, STARTING] as const) {
    assert.equal(run(state, { type: 'newcomer' }).did, ['refuse-newcomer']);
  }
});

role('a primary whose worker crashed or lost its footing is restarted', () => {
  for (const end of [KILLED, LOST]) {
    const down = run(PRIMARY, ended(end));
    assert.equal(down.did, ['wait 0']);
    assert.is(roleOf(down.state), 'primary');
    assert.equal(run(down.state, { type: 'timer', now: 1 }).did, ['start']);
  }
});

role('crashes in a row back off, a long life forgets them', () => {
  let state: RoleState = PRIMARY;
  const waits: string[] = [];
  for (let i = 0; i < 8; i += 1) {
    const { state: next, did } = run(
      state,
      ended(KILLED, i),
      { type: 'timer', now: i },
      {
        type: 'ready',
      },
    );
    state = next;
    waits.push(did[0] ?? '');
  }
  const expected = [0, 1000, 2000, 4000, 8000, 16000, 30000, 30000];
  assert.equal(
    waits,
    expected.map((ms) => `wait ${ms}`),
  );
  assert.is(run(state, ended(KILLED, 70_000)).did[0], 'wait 0');
  assert.is(backoffMs(1), 0);
});

role('any other end of a primary worker falls to init with its reason', () => {
  for (const end of [CLEAN, BROKEN]) {
    const next = step(PRIMARY, ended(end));
    assert.is(next.state.phase, 'init');
    assert.equal(words(next), ['drop-peer', 'hook primary init']);
    assert.ok(next.effects.some((effect) => effect.type === 'keep' && effect.end === end));
  }
});

role('a secondary waits on after a lost connection or a crash', () => {
  for (const end of [KILLED, LOST]) {
    const { did, state } = run(SESSION, ended(end));
    assert.equal(did, []);
    assert.is(state.phase, 'secondary');
  }
});

role('a secondary stays one whatever a peer says, and falls with its own disk', () => {
  const split: WorkerEnd = { ...BROKEN, exit: 78, code: 'PEER_SPLIT_BRAIN' };
  assert.is(run(SESSION, ended(split)).state.phase, 'secondary');
  const own = run(SESSION, ended(BROKEN));
  assert.is(own.state.phase, 'init');
  assert.equal(own.did, ['drop-peer', 'hook secondary init']);
});

role('another command changes the target of one under way', () => {
  const { did, state } = run(PRIMARY, command('init'), command('primary'), ended(CLEAN));
  assert.equal(did, ['supersede', 'stop', 'supersede', 'start']);
  assert.is(state.phase, 'starting');
  const stopped = run(STARTING, command('init'), ended(CLEAN));
  assert.equal(stopped.did, ['supersede', 'stop', 'drop-peer', 'hook primary init', 'settle init']);
});

role('a crash loop can be left', () => {
  const loop: RoleState = { phase: 'backoff', from: 'init', force: false, crashes: 3 };
  assert.equal(run(loop, command('init')).did, [
    'cancel-wait',
    'supersede',
    'drop-peer',
    'hook primary init',
    'settle init',
  ]);
  assert.equal(run(loop, command('secondary')).did, ['cancel-wait', 'supersede', 'check']);
});

role('every state takes every event', () => {
  const states: RoleState[] = [
    { phase: 'init' },
    { phase: 'checking', from: 'init' },
    SECONDARY,
    SESSION,
    { phase: 'displacing' },
    STARTING,
    PRIMARY,
    { phase: 'backoff', from: 'init', force: false, crashes: 1 },
    { phase: 'leaving', from: 'primary', to: 'init', force: false, fallback: 'init' },
  ];
  const events: RoleEvent[] = [
    command('init'),
    command('secondary'),
    command('primary'),
    { type: 'checked', problem: null },
    { type: 'newcomer' },
    { type: 'newcomer-late' },
    { type: 'forked' },
    { type: 'ready' },
    { type: 'disconnected' },
    ended(CLEAN),
    ended(KILLED),
    { type: 'timer', now: 0 },
    { type: 'late' },
  ];
  for (const state of states) {
    for (const event of events) assert.ok(roleOf(step(state, event).state));
  }
});

role('a secondary that ends with its primary gone, while it is promoted, has not failed', () => {
  const leaving: RoleState = {
    phase: 'leaving',
    from: 'secondary',
    to: 'primary',
    force: false,
    fallback: 'secondary',
  };
  const keeps = ({ effects }: Step) => effects.some(({ type }) => type === 'keep');
  assert.is(keeps(step(leaving, ended(LOST))), false);
  assert.is(keeps(step(leaving, ended(BROKEN))), true);
  assert.is(keeps(step({ ...leaving, from: 'primary', to: 'init' }, ended(LOST))), true);
});

role.run();
