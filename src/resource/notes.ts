/**
 * What a resource's state means and which command comes next: pure, for `list`, `status`, `why`.
 */
import type { EngineStats } from '../native.ts';
import type { RoleState, WorkerEnd } from './role.ts';

/** What there is to say of a phase; '' where the worker says it. */
export function phaseNote(name: string, state: RoleState): string {
  switch (state.phase) {
    case 'init':
      return `no role yet: hastctl role secondary ${name}, or primary on one node`;
    case 'checking':
      return 'looking at the local component before the role is taken';
    case 'secondary':
      return 'no primary is connected: hastctl role primary on the other node, or look there';
    case 'displacing':
      return 'a new connection of the primary waits for the previous session to end';
    case 'starting':
      return 'the role primary is being taken';
    case 'backoff':
      return 'the worker crashed and is started again: see the log of hastd';
    case 'leaving':
      return `the role ${state.to} is being taken: the worker settles what is in flight`;
    case 'session':
    case 'primary':
      return '';
  }
}

export const NO_WORKER_YET = 'the worker is being started';
export const NO_ANSWER = 'the worker does not answer; I/O may go on';

/** The larger node is the one to change: a smaller disk cannot grow by a command. */
function sizesDiffer(name: string, [, here = '', there = '']: RegExpExecArray): string {
  const [ours, theirs] = [BigInt(here), BigInt(there)];
  const larger = ours > theirs ? 'this node' : 'the other node';
  const which =
    ours === theirs ? 'only the extents differ: on' : `${larger} has more room for data: on it, or`;
  return (
    `${which} the node whose data may go: hastctl role init ${name}; hastctl create -m SIZE ` +
    `${name} with the disk size (and -e with the extent size) of the other one; ` +
    `hastctl role secondary ${name}; with a peer that runs FreeBSD's HAST create --layout hast here`
  );
}

type Advice = (name: string, match: RegExpExecArray) => string;

/**
 * What a reason means, and the next command. Refusals of the peer are constants of the protocol,
 * the other texts are those of src-native/engine/connector.cc.
 */
const ADVICE: readonly (readonly [RegExp, Advice])[] = [
  [
    /^Split-brain condition!/,
    (name) =>
      'both nodes were written while they were apart, and neither is overwritten by itself: ' +
      'decide whose data may go, save what is worth it there, and on that node: ' +
      `hastctl role secondary ${name}; hastctl discard ${name} ` +
      '(on FreeBSD: role init, create, role secondary)',
  ],
  [
    /^Resource unique ID mismatch/,
    (name) =>
      'the two nodes never belonged together, or one was created anew: on the node whose data ' +
      `may go: hastctl role init ${name}; hastctl create ${name}; hastctl role secondary ${name}`,
  ],
  [
    /^No access to the resource/,
    () => 'the peer does not know this address: compare its remote with our address or source',
  ],
  [
    /^Resource not configured/,
    () => 'the peer does not know the resource: the same hast.conf belongs on both nodes',
  ],
  [
    /^Remote node acts as init/,
    (name) => `the peer has no role yet: hastctl role secondary ${name} there`,
  ],
  [
    /^Remote node acts as primary/,
    (name) => `both are primary: demote one of them with hastctl role secondary ${name}`,
  ],
  [/^sizes differ: data (\d+) here, (\d+) there/, sizesDiffer],
  [
    /^cannot (?:connect to the peer|open the second connection): Connection refused/,
    (name) =>
      'nobody listens at the address of remote: is hastd running there (hastctl status ' +
      `${name}), do its listen address and port agree with our remote, does a firewall refuse?`,
  ],
  [
    /^cannot (?:connect to the peer|open the second connection): (?!Connection refused)/,
    () =>
      'the address of remote cannot be reached: is that host up, are remote and source right, ' +
      'does a firewall drop the connection?',
  ],
  [
    /^the peer (?:did not answer|has not answered)/,
    (name) =>
      'the peer takes connections but says nothing: look at the log of hastd there and at ' +
      `hastctl list ${name} there; it drops addresses that are no remote of its own`,
  ],
  [
    /^Authentication required: this node has/,
    () =>
      'the peer has a secret and this node sends none: the same statement secret and the same ' +
      'file belong on both nodes; a peer that runs another HAST cannot have one',
  ],
  [
    /^Authentication required: the secret of this node cannot be read/,
    () => 'the file of secret on the other node is missing or open to others: see its log',
  ],
  [
    /^(?:Authentication failed|the peer could not prove that it knows the secret)/,
    () =>
      'the files of secret differ: copy that of one node over that of the other (mode 600); it ' +
      'is read again before the next attempt to connect',
  ],
  [
    /^the peer has no secret for the resource/,
    () =>
      'the same statement secret and the same file belong on both nodes; a peer that runs ' +
      'another HAST cannot have one',
  ],
  [
    /^The secondary's copy is incomplete/,
    (name) =>
      'the peer counts as newer, but its copy is stale or half written: if this node has the ' +
      `good data, on the other one: hastctl role init ${name}; hastctl create ${name}; ` +
      `hastctl role secondary ${name}`,
  ],
  [
    /^this node's copy is (?:incomplete|stale)/i,
    (name) =>
      `the good data is on the other node: hastctl role secondary ${name} there, then primary ` +
      'here; or leave the other one primary and this one secondary',
  ],
  [
    /^this machine went down/,
    (name) =>
      `bring the other node up and connect the two: hastctl role secondary ${name} on one of ` +
      'them, primary on the other; what is missing here is then copied',
  ],
];

export function adviceFor(name: string, text: string): string[] {
  return ADVICE.flatMap(([pattern, advice]) => {
    const match = pattern.exec(text);
    return match === null ? [] : [advice(name, match)];
  });
}

/** Empty when all is well. */
export function notesOf(
  name: string,
  state: RoleState,
  stats: EngineStats | null,
  last: WorkerEnd | undefined,
  hasWorker: boolean,
): string[] {
  const note = phaseNote(name, state) || (hasWorker ? '' : NO_WORKER_YET);
  const notes = note === '' ? [] : [note];
  if (hasWorker && stats === null) notes.push(NO_ANSWER);
  if (stats !== null && stats.reason !== '') {
    notes.push(stats.reason, ...adviceFor(name, stats.reason));
  }
  if (last !== undefined && last.text !== '') {
    notes.push(`last failure: ${last.text}`, ...adviceFor(name, last.text));
  }
  return notes;
}
