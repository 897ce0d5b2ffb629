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
  if (stats !== null && stats.reason !== '') notes.push(stats.reason);
  if (last !== undefined && last.text !== '') notes.push(`last failure: ${last.text}`);
  return notes;
}
