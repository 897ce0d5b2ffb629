/**
 * The roles of one resource as a pure state machine: (state, event) to next state and effects.
 *
 * The supervisor feeds it with what happens and carries out the effects in their order; nothing
 * here knows of processes, timers or sockets. A role is `taken` when the effect `settle` says so.
 */

import { EXIT } from '../exit.ts';

export type Role = 'init' | 'primary' | 'secondary';

/** Where a resource is between two events. */
export type RoleState =
  | { readonly phase: 'init' }
  /** The component is being looked at before the role secondary is taken. */
  | { readonly phase: 'checking'; readonly from: Role }
  /** Secondary, nobody connected, no worker. */
  | { readonly phase: 'secondary' }
  /** Secondary with a worker. `open`: the primary's connection is; `stopping`: told to end. */
  | { readonly phase: 'session'; readonly open: boolean; readonly stopping: boolean }
  /** The worker was told to end because a new pair of connections waits for its place. */
  | { readonly phase: 'displacing' }
  /** Primary whose worker does not serve yet. `from` is the role to return to when refused. */
  | {
      readonly phase: 'starting';
      readonly from: Role;
      readonly force: boolean;
      readonly forked: boolean;
      readonly crashes: number;
      readonly since: number;
    }
  | { readonly phase: 'primary'; readonly crashes: number; readonly since: number }
  /** Primary between a crash of its worker and the next start. */
  | {
      readonly phase: 'backoff';
      readonly from: Role;
      readonly force: boolean;
      readonly crashes: number;
    }
  /** The worker was told to end because the role changes. */
  | {
      readonly phase: 'leaving';
      readonly from: Role;
      readonly to: Role;
      readonly force: boolean;
      readonly fallback: Role;
    };
export type Phase = RoleState['phase'];

/** How a worker, or the attempt to start one, ended. */
export interface WorkerEnd {
  /** Exit code; null when a signal ended it, or when nobody can know. */
  readonly exit: number | null;
  readonly signal: string | null;
  readonly code: string;
  readonly text: string;
  /** The end is a refusal (role unchanged), not a failure. */
  readonly refused: boolean;
  readonly hint?: string;
}

export type RoleEvent =
  | { readonly type: 'command'; readonly role: Role; readonly force: boolean; readonly now: number }
  | { readonly type: 'checked'; readonly problem: WorkerEnd | null }
  | { readonly type: 'newcomer' }
  /** The newcomer has waited for as long as it may. */
  | { readonly type: 'newcomer-late' }
  | { readonly type: 'forked' }
  | { readonly type: 'ready' }
  | { readonly type: 'disconnected' }
  | { readonly type: 'ended'; readonly end: WorkerEnd; readonly now: number }
  | { readonly type: 'timer'; readonly now: number }
  /** A start has not become ready in time. */
  | { readonly type: 'late' };

export type RoleEffect =
  | { readonly type: 'check' }
  | { readonly type: 'start'; readonly force: boolean }
  | { readonly type: 'admit' }
  | { readonly type: 'refuse-newcomer' }
  | { readonly type: 'stop' }
  | { readonly type: 'wait'; readonly ms: number }
  | { readonly type: 'cancel-wait' }
  /** The role is no longer secondary: forget half-open connections. */
  | { readonly type: 'drop-peer' }
  | { readonly type: 'hook'; readonly from: Role; readonly to: Role }
  | { readonly type: 'settle'; readonly role: Role }
  | { readonly type: 'fail'; readonly end: WorkerEnd }
  /** Commands that waited for another role than this are over. */
  | { readonly type: 'supersede'; readonly role: Role }
  | { readonly type: 'keep'; readonly end: WorkerEnd }
  | { readonly type: 'forget' }
  | { readonly type: 'log'; readonly level: 'info' | 'warning' | 'error'; readonly text: string };
type LogEffect = Extract<RoleEffect, { type: 'log' }>;

export interface Step {
  readonly state: RoleState;
  readonly effects: readonly RoleEffect[];
}

/** A worker that lived this long has not crashed in a row with the one before. */
const CRASH_ROW_MS = 60_000;
const BACKOFF_FIRST_MS = 1000;
const BACKOFF_MAX_MS = 30_000;

/** The role that is reported, and that a peer is told, in a state. */
export function roleOf(state: RoleState): Role {
  switch (state.phase) {
    case 'init':
      return 'init';
    case 'secondary':
    case 'session':
    case 'displacing':
      return 'secondary';
    case 'starting':
    case 'primary':
    case 'backoff':
      return 'primary';
    case 'checking':
    case 'leaving':
      return state.from; // unchanged until the new one is really taken
  }
}

/** The first crash restarts at once, the next ones after 1, 2, 4 ... 30 seconds. */
export function backoffMs(crashes: number): number {
  if (crashes <= 1) return 0;
  return Math.min(BACKOFF_FIRST_MS * 2 ** (crashes - 2), BACKOFF_MAX_MS);
}

/** An adopted worker that died without a word is no child of ours: its status is told to others. */
export function isUnknown({ exit, signal }: Pick<WorkerEnd, 'exit' | 'signal'>): boolean {
  return exit === null && signal === null;
}

/** Whether the end was an accident after which the same role is tried again. */
export function isCrash(end: WorkerEnd): boolean {
  return end.signal !== null || isUnknown(end) || end.exit === EXIT.tempFail;
}

function describe(end: WorkerEnd): string {
  const exit = isUnknown(end) ? 'exit code unknown' : `exit code ${end.exit}`;
  const how = end.signal === null ? exit : `signal ${end.signal}`;
  return end.text === '' ? how : `${how}: ${end.text}`;
}

const SPLIT_ADVICE = 'Neither copy is overwritten: hastctl why tells what to do.';
const STILL_CONNECTED: WorkerEnd = {
  exit: null,
  signal: null,
  code: 'ROLE_REFUSED',
  text: 'the connection from the primary is still open',
  refused: true,
  hint: 'demote the other node first, or use -f to take the role all the same',
};
const TOO_LATE: WorkerEnd = {
  exit: null,
  signal: null,
  code: 'ROLE_FAILED',
  text: 'the worker was not ready in time',
  refused: false,
  hint: 'look at the log of hastd for what it waits for (the disk, most often), and try again',
};

type Of<P extends Phase> = Extract<RoleState, { phase: P }>;
type Event<T extends RoleEvent['type']> = Extract<RoleEvent, { type: T }>;
type Row<P extends Phase> = {
  readonly [T in RoleEvent['type']]?: (state: Of<P>, event: Event<T>) => Step;
};
type Table = { readonly [P in Phase]: Row<P> };

const stay = (state: RoleState, ...effects: RoleEffect[]): Step => ({ state, effects });

// ---- Steps that several rows share ------------------------------------------------------------

function start(
  from: Role,
  { force, now }: { readonly force: boolean; readonly now: number },
  ...before: RoleEffect[]
): Step {
  return {
    state: { phase: 'starting', from, force, forked: false, crashes: 0, since: now },
    effects: [...before, { type: 'start', force }],
  };
}

function leave(state: RoleState, to: Role, force: boolean, ...before: RoleEffect[]): Step {
  // A start that has not come to a process has told nobody of the role.
  const from = state.phase === 'starting' && !state.forked ? state.from : roleOf(state);
  return {
    state: { phase: 'leaving', from, to, force, fallback: from === 'primary' ? 'init' : from },
    effects: [{ type: 'forget' }, { type: 'supersede', role: to }, ...before, { type: 'stop' }],
  };
}

function toInit(from: Role, ...before: RoleEffect[]): Step {
  const hooks: RoleEffect[] = from === 'init' ? [] : [{ type: 'hook', from, to: 'init' }];
  return {
    state: { phase: 'init' },
    effects: [...before, { type: 'drop-peer' }, ...hooks],
  };
}

function fallToInit(from: Role, end: WorkerEnd): Step {
  const text = `Role falls from ${from} to init: ${describe(end)}.`;
  return toInit(from, { type: 'keep', end }, { type: 'log', level: 'warning', text });
}

function notTaken(role: Role, end: WorkerEnd): Step {
  const text = `Role ${role} was not taken: ${end.text === '' ? describe(end) : end.text}.`;
  return stay(
    { phase: 'init' },
    { type: 'keep', end },
    { type: 'log', level: end.refused ? 'warning' : 'error', text },
  );
}

function crashed(state: Of<'starting'> | Of<'primary'>, from: Role, event: Event<'ended'>): Step {
  const crashes = event.now - state.since >= CRASH_ROW_MS ? 1 : state.crashes + 1;
  const ms = backoffMs(crashes);
  const when = ms === 0 ? 'at once' : `in ${ms / 1000} s`;
  const text = `Worker crashed (${describe(event.end)}), restarting ${when}.`;
  return {
    state: {
      phase: 'backoff',
      from,
      force: state.phase === 'starting' && state.force,
      crashes,
    },
    effects: [
      { type: 'keep', end: event.end },
      { type: 'log', level: 'error', text },
      { type: 'wait', ms },
    ],
  };
}

/** The next connection gets a worker of its own. */
function waitAgain(level: LogEffect['level'], text: string, end?: WorkerEnd): Step {
  const keep: RoleEffect[] = end === undefined ? [] : [{ type: 'keep', end }];
  return stay({ phase: 'secondary' }, ...keep, { type: 'log', level, text });
}

/** A worker of a secondary ended without a role change behind it. */
function sessionEnded({ end }: Event<'ended'>, asked: boolean): Step {
  if (end.signal !== null || isUnknown(end)) {
    return waitAgain('error', `Worker crashed (${describe(end)}), waiting for the primary.`, end);
  }
  if (asked) return stay({ phase: 'secondary' });
  // The connection goes, the role stays: that is hastctl's alone.
  if (end.exit === 0) return waitAgain('info', 'Worker was ended, waiting for the primary.');
  if (end.exit === EXIT.tempFail) {
    const why = end.text === '' ? describe(end) : end.text;
    return waitAgain('warning', `Disconnected from the primary: ${why}.`);
  }
  // What a peer said is no reason to give up the role: any host with its address could say it.
  const refused = `The primary was refused: ${end.text}`;
  if (end.code === 'PEER_SPLIT_BRAIN') return waitAgain('error', `${refused} ${SPLIT_ADVICE}`, end);
  if (end.code.startsWith('PEER_')) return waitAgain('warning', refused, end);
  return fallToInit('secondary', end);
}

function sessionCommand(state: Of<'session'> | Of<'displacing'>, event: Event<'command'>): Step {
  if (event.role === 'secondary') return stay(state, { type: 'settle', role: 'secondary' });
  const open = state.phase === 'displacing' || state.open;
  if (event.role === 'primary' && open && !event.force) {
    return stay(state, { type: 'fail', end: STILL_CONNECTED });
  }
  const drop: RoleEffect[] = [{ type: 'drop-peer' }];
  if (state.phase === 'displacing') drop.push({ type: 'refuse-newcomer' });
  return leave(state, event.role, event.force, ...drop);
}

// ---- The table --------------------------------------------------------------------------------
// What is not in a row changes nothing there.

const TABLE: Table = {
  init: {
    command: (state, event) => {
      if (event.role === 'init') return stay(state, { type: 'settle', role: 'init' });
      if (event.role === 'primary') return start('init', event, { type: 'forget' });
      return stay({ phase: 'checking', from: 'init' }, { type: 'forget' }, { type: 'check' });
    },
    newcomer: (state) => stay(state, { type: 'refuse-newcomer' }),
  },

  checking: {
    // The supervisor holds commands back until the check is over.
    checked: ({ from }, { problem }) => {
      if (problem === null) {
        const effects: RoleEffect[] = [{ type: 'settle', role: 'secondary' }];
        if (from !== 'secondary') effects.unshift({ type: 'hook', from, to: 'secondary' });
        return stay({ phase: 'secondary' }, ...effects);
      }
      const { state, effects } =
        from === 'init' ? notTaken('secondary', problem) : fallToInit(from, problem);
      return { state, effects: [...effects, { type: 'fail', end: problem }] };
    },
    newcomer: (state) => stay(state, { type: 'refuse-newcomer' }),
  },

  secondary: {
    command: (state, event) => {
      if (event.role === 'secondary') return stay(state, { type: 'settle', role: 'secondary' });
      if (event.role === 'primary') {
        return start('secondary', event, { type: 'forget' }, { type: 'drop-peer' });
      }
      const { state: init, effects } = toInit('secondary', { type: 'forget' });
      return { state: init, effects: [...effects, { type: 'settle', role: 'init' }] };
    },
    newcomer: () => stay({ phase: 'session', open: true, stopping: false }, { type: 'admit' }),
  },

  session: {
    command: sessionCommand,
    newcomer: () => stay({ phase: 'displacing' }, { type: 'stop' }),
    disconnected: (state) => stay({ ...state, open: false }),
    ended: (state, event) => sessionEnded(event, state.stopping),
  },

  displacing: {
    command: sessionCommand,
    newcomer: (state) => stay(state), // the newest pair waits in place of the one before
    'newcomer-late': () =>
      stay({ phase: 'session', open: false, stopping: true }, { type: 'refuse-newcomer' }),
    ended: (_state, event) => {
      const { state } = sessionEnded(event, true);
      if (state.phase !== 'secondary') return stay(state, { type: 'refuse-newcomer' });
      return stay({ phase: 'session', open: true, stopping: false }, { type: 'admit' });
    },
  },

  starting: {
    command: (state, event) => {
      if (event.role === 'primary') return stay(state); // waits for the same
      return leave(state, event.role, event.force);
    },
    newcomer: (state) => stay(state, { type: 'refuse-newcomer' }),
    forked: (state) => {
      if (state.forked) return stay(state);
      const { from } = state;
      return stay({ ...state, forked: true }, { type: 'hook', from, to: 'primary' });
    },
    ready: ({ crashes, since }) =>
      stay({ phase: 'primary', crashes, since }, { type: 'settle', role: 'primary' }),
    ended: (state, event) => {
      const { end } = event;
      if (isCrash(end) && state.forked) return crashed(state, state.from, event);
      const next: RoleState =
        state.from === 'secondary' ? { phase: 'secondary' } : { phase: 'init' };
      const to = roleOf(next);
      return stay(
        next,
        ...notTaken('primary', end).effects,
        ...(state.forked ? [{ type: 'hook', from: 'primary', to } as const] : []),
        { type: 'fail', end },
      );
    },
    late: (state) => lateStart(state),
  },

  primary: {
    command: (state, event) => {
      if (event.role === 'primary') return stay(state, { type: 'settle', role: 'primary' });
      return leave(state, event.role, event.force);
    },
    newcomer: (state) => stay(state, { type: 'refuse-newcomer' }),
    ended: (state, event) =>
      isCrash(event.end) ? crashed(state, 'init', event) : fallToInit('primary', event.end),
  },

  backoff: {
    command: (state, event) => {
      if (event.role === 'primary') return stay(state);
      const over: RoleEffect[] = [
        { type: 'cancel-wait' },
        { type: 'forget' },
        { type: 'supersede', role: event.role },
      ];
      if (event.role === 'secondary') {
        return stay({ phase: 'checking', from: 'primary' }, ...over, { type: 'check' });
      }
      const { state: init, effects } = toInit('primary', ...over);
      return { state: init, effects: [...effects, { type: 'settle', role: 'init' }] };
    },
    newcomer: (state) => stay(state, { type: 'refuse-newcomer' }),
    timer: ({ from, force, crashes }, { now }) =>
      stay(
        { phase: 'starting', from, force, forked: true, crashes, since: now },
        { type: 'start', force },
      ),
    late: ({ from, force }) => {
      const starting = {
        phase: 'starting',
        from,
        force,
        forked: true,
        crashes: 0,
        since: 0,
      } as const;
      const next: RoleState = from === 'secondary' ? { phase: 'secondary' } : { phase: 'init' };
      const { effects } = lateStart(starting);
      return stay(next, { type: 'cancel-wait' }, ...effects.filter(({ type }) => type !== 'stop'), {
        type: 'hook',
        from: 'primary',
        to: roleOf(next),
      });
    },
  },

  leaving: {
    command: (state, event) => {
      if (event.role === state.to) return stay({ ...state, force: event.force || state.force });
      return stay(
        { ...state, to: event.role, force: event.force },
        { type: 'supersede', role: event.role },
      );
    },
    newcomer: (state) => stay(state, { type: 'refuse-newcomer' }),
    ended: ({ from, to, force, fallback }, { end, now }) => {
      const effects: RoleEffect[] = [];
      // A secondary whose primary has just gone: that, and no accident, is what it ends with.
      const gone = from === 'secondary' && end.exit === EXIT.tempFail;
      if (end.exit !== 0 && !gone) {
        const text = `Worker did not end in order: ${describe(end)}.`;
        effects.push({ type: 'keep', end }, { type: 'log', level: 'warning', text });
      }
      if (to === 'primary') return start(fallback, { force, now }, ...effects);
      if (to === 'secondary') {
        return stay({ phase: 'checking', from }, ...effects, { type: 'check' });
      }
      const init = toInit(from, ...effects);
      return { state: init.state, effects: [...init.effects, { type: 'settle', role: 'init' }] };
    },
  },
};

function lateStart(state: Of<'starting'>): Step {
  return {
    state: {
      phase: 'leaving',
      from: 'primary',
      to: state.from === 'primary' ? 'init' : state.from,
      force: false,
      fallback: 'init',
    },
    effects: [
      { type: 'keep', end: TOO_LATE },
      { type: 'log', level: 'error', text: `Role primary was not taken: ${TOO_LATE.text}.` },
      { type: 'fail', end: TOO_LATE },
      { type: 'stop' },
    ],
  };
}

/** What happens to a resource in `state` when `event` comes. */
export function step(state: RoleState, event: RoleEvent): Step {
  const row = TABLE[state.phase] as {
    readonly [type: string]: ((state: RoleState, event: RoleEvent) => Step) | undefined;
  };
  return row[event.type]?.(state, event) ?? { state, effects: [] };
}
