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

/** Without a full stop. `failed`: the resource does not have the role that it had. */
export function describeChange(
  { change, failed }: { readonly change: Change; readonly failed: boolean },
  statements: readonly string[],
): string {
  return withStatements(failed ? 'could not take its role again' : DONE[change], statements);
}

export function withStatements(text: string, statements: readonly string[]): string {
  return statements.length === 0 ? text : `${text} (${statements.join(', ')})`;
}
