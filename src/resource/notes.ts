/** What a resource's state means and which command comes next: pure, for `list` and `status`. */
import type { EngineStats } from '../native.ts';
import type { RoleState, WorkerEnd } from './role.ts';

function stateNotes(name: string, state: RoleState, hasWorker: boolean): string[] {
  switch (state.phase) {
    case 'init':
      return [`no role yet: hastctl role secondary ${name}, or primary on one node`];
    case 'checking':
      return ['looking at the local component before the role is taken'];
    case 'secondary':
      return ['no primary is connected: hastctl role primary on the other node, or look there'];
    case 'displacing':
      return ['a new connection of the primary waits for the previous session to end'];
    case 'starting':
      return ['the role primary is being taken'];
    case 'backoff':
      return ['the worker crashed and is started again: see the log of hastd'];
    case 'leaving':
      return [`the role ${state.to} is being taken: the worker settles what is in flight`];
    case 'session':
    case 'primary':
      return hasWorker ? [] : ['the worker is being started'];
  }
}

/** What a refusal of the peer means, and the next command. The texts are constants of the protocol. */
const ADVICE: readonly (readonly [RegExp, (name: string) => string])[] = [
  [
    /^Split-brain condition!/,
    (name) =>
      'both nodes were written while they were apart, and neither is overwritten by itself: ' +
      'decide whose data may go, save what is worth it there, and on that node: ' +
      `hastctl role init ${name}; hastctl create ${name}; hastctl role secondary ${name}`,
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
];

function adviceFor(name: string, text: string): string[] {
  return ADVICE.filter(([pattern]) => pattern.test(text)).map(([, advice]) => advice(name));
}

/** Empty when all is well. */
export function notesOf(
  name: string,
  state: RoleState,
  stats: EngineStats | null,
  last: WorkerEnd | undefined,
  hasWorker: boolean,
): string[] {
  const notes = stateNotes(name, state, hasWorker);
  if (hasWorker && stats === null) notes.push('the worker does not answer; I/O may go on');
  if (stats !== null && stats.reason !== '') {
    notes.push(stats.reason, ...adviceFor(name, stats.reason));
  }
  if (last !== undefined && last.text !== '') {
    notes.push(`last failure: ${last.text}`, ...adviceFor(name, last.text));
  }
  return notes;
}
