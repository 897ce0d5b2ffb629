/** The words for what a reload did. */
import type { ReloadAnswer } from './protocol.ts';

type Change = ReloadAnswer['resources'][number]['change'];

const DONE: Readonly<Record<Change, string>> = {
  added: 'added',
  removed: 'removed',
  restarted: 'restarted with the new configuration',
  'in-place': 'takes the new configuration as it runs',
};
export const NOTHING_CHANGED = 'the configuration has not changed';
export const IN_FORCE = 'the new configuration is in force';

/** Without a full stop. */
export function describeChange(change: Change, statements: readonly string[]): string {
  return withStatements(DONE[change], statements);
}

export function withStatements(text: string, statements: readonly string[]): string {
  return statements.length === 0 ? text : `${text} (${statements.join(', ')})`;
}
