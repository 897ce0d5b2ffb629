/**
 * Why a resource is as it is, in sentences: the present state, whether the data here is whole, what
 * each node's end would cost now, and the next command. Pure; the sentences about reasons are those
 * of notes.ts, and a command that loses data says which.
 */
import {
  type HistoryEntry,
  isRefusal,
  isSplitBrain,
  type Step,
  type Why,
} from '../control/protocol.ts';
import type { EngineStats } from '../native.ts';
import { formatDuration, humanize } from '../units.ts';
import type { DiskFacts } from './disk-facts.ts';
import { adviceFor, NO_ANSWER, NO_WORKER_YET, phaseNote } from './notes.ts';
import { type RoleState, roleOf, type WorkerEnd } from './role.ts';
import { saidOf } from './worker-end.ts';

export interface WhyFacts {
  readonly name: string;
  readonly node: string;
  /** `remote` as configured; `none`: there is no other node. */
  readonly remote: string;
  readonly replication: 'fullsync' | 'memsync' | 'async';
  readonly state: RoleState;
  readonly hasWorker: boolean;
  readonly stats: EngineStats | null;
  readonly last: WorkerEnd | undefined;
  /** Or why they are not known. */
  readonly disk: DiskFacts | string;
  readonly history: readonly HistoryEntry[];
  /** What goes on beside: hooks that hang or failed. */
  readonly beside: readonly string[];
}

type Told = Pick<Why, 'state' | 'now' | 'data' | 'ifThisNodeDies' | 'ifPeerDies' | 'next'>;
type Data = Why['data'];

const NOTHING_TO_DO: Why['next'] = { text: 'nothing needs to be done', steps: [] };

/** How the sentences name things. */
interface Names {
  readonly name: string;
  readonly here: string;
  readonly there: string;
}

function namesOf({ name, node, remote }: WhyFacts): Names {
  const address = remote.replace(/^\w+:\/\//, '');
  const there =
    remote === 'none' ? 'the other node (none is configured)' : `the other node (${address})`;
  return { name, here: `${node} (this node)`, there };
}

// ---- Steps ------------------------------------------------------------------------------------

const step = (on: Step['on'], text: string, ...commands: string[]): Step => ({
  text,
  on,
  commands,
  loses: null,
});

function losing(loses: string, one: Step): Step {
  return { ...one, loses };
}

const askAgain = ({ name }: Names): Step => step('here', 'ask again', `hastctl why ${name}`);

/** Gives up the copy of one node: it gets that of the other one. */
function giveUp({ name, here, there }: Names, on: Step['on']): Step {
  const [loser, keeper] = on === 'here' ? [here, there] : [there, here];
  const commands = [`hastctl role secondary ${name}`, `hastctl discard ${name}`];
  return losing(
    `what was written on ${loser} while they were apart`,
    step(on, `to keep the data of ${keeper}, on ${loser}`, ...commands),
  );
}

// ---- The copy here ----------------------------------------------------------------------------

/** What the disk says against itself; undefined: nothing. */
function flaw(disk: DiskFacts | string): Data | undefined {
  if (typeof disk === 'string') {
    return { complete: null, text: `unknown: the metadata of the disk cannot be read (${disk})` };
  }
  if (disk.discarded) {
    const text = 'given up by hastctl discard: the primary overwrites it as soon as it connects';
    return { complete: false, text };
  }
  if (disk.syncTarget) {
    const text = 'incomplete: a synchronisation into this disk has not ended, part of it is older';
    return { complete: false, text };
  }
  if (disk.stale) {
    return { complete: false, text: 'stale: the data of the other node is the newer one' };
  }
  return undefined;
}

// ---- States without a peer --------------------------------------------------------------------

/** Nobody writes here now. What either node has alone is not known to this one. */
function resting(
  { disk, state }: WhyFacts,
  { there }: Names,
): Pick<Told, 'data' | 'ifThisNodeDies' | 'ifPeerDies'> {
  const wrong = flaw(disk);
  if (typeof disk === 'object' && disk.fresh && wrong === undefined) {
    return {
      data: { complete: null, text: 'new: nothing was ever replicated to or from this disk' },
      ifThisNodeDies: `nothing is lost that ${there} has`,
      ifPeerDies: 'what was written there is lost',
    };
  }
  const since =
    roleOf(state) === 'primary'
      ? 'as whole as it was: the worker says more when it serves'
      : 'whole as of the last connection; nobody here knows what was written since';
  return {
    data: wrong ?? { complete: null, text: since },
    ifThisNodeDies:
      wrong?.complete === false
        ? `nothing is lost: ${there} has the good copy`
        : `what was written here and has not reached ${there} is lost`,
    ifPeerDies: `what was written there and has not reached this node is lost`,
  };
}

function failed(facts: WhyFacts, names: Names, last: WorkerEnd): Told {
  const { name } = names;
  const wanted = facts.history.findLast(({ event }) => event === 'role-failed')?.detail.role;
  const role = wanted === 'primary' ? 'primary' : 'secondary';
  const advice = adviceFor(name, last.text);
  if (isSplitBrain(last.text)) return split(facts, names);
  return {
    state: 'failed',
    now: [
      `${name} has no role: the last one could not be taken or kept`,
      `the reason: ${saidOf(last)}`,
    ],
    ...resting(facts, names),
    next: {
      text:
        [...advice, ...(last.hint === undefined ? [] : [last.hint])].join('; ') ||
        'mend the reason',
      steps: [step('here', 'then, as it was asked for', `hastctl role ${role} ${name}`)],
    },
  };
}

function unroled(facts: WhyFacts, names: Names): Told {
  const { name } = names;
  return {
    state: 'no-role',
    now: [`${name} has no role: it is not served here, and no primary is let in`],
    ...resting(facts, names),
    next: {
      text: phaseNote(name, facts.state),
      steps: [step('here', 'safe whatever the other node does', `hastctl role secondary ${name}`)],
    },
  };
}

function waiting(facts: WhyFacts, names: Names): Told {
  const { name, there } = names;
  const { last, disk } = facts;
  if (last !== undefined && isSplitBrain(last.text)) return split(facts, names);
  const takeOver = losing(
    'what was written there and is not here; both would be written apart if it is alive after all',
    step(
      'here',
      `only if ${there} is certainly off and does not come back soon`,
      `hastctl role primary ${name}`,
    ),
  );
  const whole = flaw(disk) === undefined;
  return {
    state: 'waiting',
    now: [
      `${name} is ready as secondary, and no primary is connected`,
      ...(last === undefined ? [] : [`last failure: ${saidOf(last)}`]),
    ],
    ...resting(facts, names),
    next: {
      text: [
        phaseNote(name, facts.state),
        ...(last === undefined ? [] : adviceFor(name, last.text)),
      ].join('; '),
      steps: [
        step('peer', 'see what it says there', `hastctl why ${name}`),
        step(
          'peer',
          'if it is not primary there, should be, and the nodes reach each other',
          `hastctl role primary ${name}`,
        ),
        ...(whole ? [takeOver] : []),
      ],
    },
  };
}

/** Between two states: what comes next comes by itself. */
function passing(facts: WhyFacts, names: Names, state: string): Told {
  const { last } = facts;
  return {
    state,
    now: [
      phaseNote(names.name, facts.state) || NO_WORKER_YET,
      ...(last === undefined ? [] : [`last failure: ${saidOf(last)}`]),
    ],
    ...resting(facts, names),
    next: {
      text: ['wait', ...(last === undefined ? [] : adviceFor(names.name, last.text))].join('; '),
      steps: [askAgain(names)],
    },
  };
}

function silent(facts: WhyFacts, names: Names): Told {
  return {
    state: 'silent',
    now: [NO_ANSWER],
    ...resting(facts, names),
    next: {
      text: 'look at the log of hastd and for a disk that does not answer (dmesg)',
      steps: [askAgain(names)],
    },
  };
}

// ---- A secondary with its primary -------------------------------------------------------------

function connected({ disk, replication, stats }: WhyFacts, names: Names): Told {
  const { name, there } = names;
  const whole: Data =
    stats?.peerKind === 'original'
      ? {
          complete: null,
          text: 'as whole as that primary has made it: it does not say how far it is',
        }
      : { complete: true, text: 'complete: it gets every write of the primary' };
  const wrong = flaw(disk);
  const kept =
    replication === 'async'
      ? 'what it had not sent yet (replication async)'
      : 'nothing that was acknowledged';
  if (wrong?.complete === false) {
    return {
      state: 'sync-target',
      now: [`${name} is secondary, ${there} is primary and copies to this disk what it lacks`],
      data: wrong,
      ifThisNodeDies: `nothing is lost: ${there} has everything`,
      ifPeerDies: 'what is not copied yet is lost; this node refuses to become primary without -f',
      next: {
        text: 'wait until the synchronisation has ended, and do not fail over before',
        steps: [step('peer', 'how far it is', `hastctl status --watch ${name}`)],
      },
    };
  }
  return {
    state: 'secondary',
    now: [`${name} is secondary, ${there} is primary and connected`],
    data: wrong ?? whole,
    ifThisNodeDies: `nothing is lost: ${there} goes on alone`,
    ifPeerDies: `this node can take over; lost is ${kept}`,
    next: NOTHING_TO_DO,
  };
}

// ---- A primary --------------------------------------------------------------------------------

function split(facts: WhyFacts, names: Names): Told {
  const { name, here, there } = names;
  const primary = roleOf(facts.state) === 'primary';
  return {
    state: 'split-brain',
    now: [
      `${here} and ${there} were both written to while they were apart`,
      primary
        ? 'this node goes on alone, and every write makes them differ more'
        : 'they do not connect, and this node stays as it is',
    ],
    data: flaw(facts.disk) ?? {
      complete: null,
      text: `complete for what was written here; what was written on ${there} is not in it`,
    },
    ifThisNodeDies: `what was written on ${here} while they were apart is lost`,
    ifPeerDies: `what was written on ${there} while they were apart is lost`,
    next: {
      text: adviceFor(name, 'Split-brain condition!').join('; '),
      steps: [giveUp(names, 'peer'), giveUp(names, 'here')],
    },
  };
}

function inSync({ stats }: WhyFacts, names: Names): Told {
  const { name, there } = names;
  const lost = {
    fullsync: 'nothing that was acknowledged',
    memsync:
      'nothing that was acknowledged, unless that node fails, too, before its queue is stored',
    async: 'what had not reached it yet (replication async)',
  }[stats?.replication ?? 'async'];
  return {
    state: 'in-sync',
    now: [`${name} is primary, ${there} is connected, and both hold the same data`],
    data: { complete: true, text: 'complete, on both nodes' },
    ifThisNodeDies: `${there} can take over; lost is ${lost}`,
    ifPeerDies: 'nothing is lost: this node goes on alone',
    next: NOTHING_TO_DO,
  };
}

function syncing(stats: EngineStats, names: Names): Told {
  const { name, here, there } = names;
  const { syncBytesLeft: left, syncBytesDone: done, syncBytesPerSecond: rate, syncSource } = stats;
  const time = rate > 0 && left > 0 ? `, about ${formatDuration(Math.ceil(left / rate))} yet` : '';
  const percent = left + done > 0 ? Math.floor((done / (left + done)) * 100) : 0;
  const progress = `${percent}% done, ${humanize(left)} left${time}`;
  const wait: Why['next'] = {
    text: 'wait until the synchronisation has ended, and do not fail over before',
    steps: [step('here', 'how far it is', `hastctl status --watch ${name}`)],
  };
  if (syncSource === 'remote') {
    return {
      state: 'syncing-here',
      now: [`${name} is primary; ${there} has the newer data, which is copied here: ${progress}`],
      data: {
        complete: false,
        text: `incomplete: ${humanize(left)} are read from ${there} until they are copied`,
      },
      ifThisNodeDies: `nothing is lost: ${there} has everything`,
      ifPeerDies: 'what is not copied yet cannot be read until it is back, and may be lost',
      next: wait,
    };
  }
  return {
    state: 'syncing',
    now: [`${name} is primary and copies to ${there} what it lacks: ${progress}`],
    data: { complete: true, text: `complete on ${here}; the other copy is not yet` },
    ifThisNodeDies: `what is not copied yet is lost: up to ${humanize(left)}`,
    ifPeerDies: 'nothing is lost: everything is here',
    next: wait,
  };
}

function stale(stats: EngineStats, names: Names): Told {
  const { name, here, there } = names;
  const away = stats.status !== 'complete';
  const mend = losing(
    'the stale copy on this disk, of which the other node has the newer one',
    step(
      'here',
      'when the disk is replaced',
      `hastctl create ${name}`,
      `hastctl role secondary ${name}`,
    ),
  );
  const move = [
    step('here', 'close what uses the device, then', `hastctl role --if-unused init ${name}`),
    step('peer', 'then', `hastctl role primary ${name}`),
    mend,
  ];
  return {
    state: 'stale-disk',
    now: [
      `the local disk of ${here} was given up: it failed, or lacks what the other node has`,
      away
        ? `${there} has the good copy and is not connected: nothing can be served`
        : `${name} is primary and everything is read from and written to ${there}`,
      ...(away && stats.reason !== '' ? [`the reason: ${stats.reason.replace(/\.$/, '')}`] : []),
    ],
    data: { complete: false, text: `stale: the only whole copy is on ${there}` },
    ifThisNodeDies: 'nothing is lost',
    ifPeerDies: 'what this disk lacks is lost',
    next: away
      ? {
          text: [`bring ${there} back`, ...adviceFor(name, stats.reason)].join('; '),
          steps: [step('peer', 'when it is up', `hastctl role secondary ${name}`)],
        }
      : { text: 'let the other node serve, and mend the disk here', steps: move },
  };
}

function alone(facts: WhyFacts, stats: EngineStats, names: Names): Told {
  const { name, there } = names;
  const { reason } = stats;
  const refused = isRefusal(reason);
  const left = stats.syncBytesLeft;
  const wrong = flaw(facts.disk);
  const lacks =
    left > 0
      ? `what ${there} lacks is lost: up to ${humanize(left)}`
      : `nothing is lost: ${there} lacks nothing`;
  return {
    state: refused ? 'refused' : 'alone',
    now: [
      refused
        ? `${name} is primary and alone: ${there} answers and refuses`
        : `${name} is primary and alone: ${there} is not connected`,
      `the reason: ${reason === '' ? 'none is known yet' : reason.replace(/\.$/, '')}`,
      'what is written now exists only here until the other node is back',
    ],
    data:
      wrong?.complete === false
        ? wrong
        : { complete: true, text: 'complete: the newest copy that this node knows of' },
    ifThisNodeDies: lacks,
    ifPeerDies: wrong?.complete === false ? 'what is missing here is lost' : 'nothing is lost',
    next: {
      text: adviceFor(name, reason).join('; ') || `find out what ${there} does`,
      steps: [
        step('peer', 'see what it says there', `hastctl why ${name}`),
        step('peer', 'if it has no role there', `hastctl role secondary ${name}`),
      ],
    },
  };
}

function primary(facts: WhyFacts, stats: EngineStats, names: Names): Told {
  const attached = stats.status === 'complete';
  if (!attached && isSplitBrain(stats.reason)) return split(facts, names);
  if (stats.localStale) return stale(stats, names);
  switch (stats.state) {
    case 'in-sync':
      return inSync(facts, names);
    case 'syncing':
      return syncing(stats, names);
    case 'connecting':
      return passing(facts, names, 'starting');
    case 'stopping':
      return passing(facts, names, 'leaving');
    default:
      return alone(facts, stats, names);
  }
}

// ---- All of it --------------------------------------------------------------------------------

function toldOf(facts: WhyFacts, names: Names): Told {
  const { state, stats, last, hasWorker } = facts;
  switch (state.phase) {
    case 'init':
      return last === undefined ? unroled(facts, names) : failed(facts, names, last);
    case 'secondary':
      return waiting(facts, names);
    case 'checking':
    case 'displacing':
    case 'starting':
    case 'leaving':
    case 'backoff':
      return passing(facts, names, state.phase);
    case 'session':
      if (!hasWorker) return passing(facts, names, 'starting');
      return stats === null ? silent(facts, names) : connected(facts, names);
    case 'primary':
      if (!hasWorker) return passing(facts, names, 'starting');
      return stats === null ? silent(facts, names) : primary(facts, stats, names);
  }
}

export function whyOf(facts: WhyFacts): Why {
  const { name, node, history, beside } = facts;
  const role = roleOf(facts.state);
  const told = toldOf(facts, namesOf(facts));
  return { name, node, role, ...told, now: [...told.now, ...beside], history: [...history] };
}
