/** How a reload is told: to the log, and to who asked for it. */
import {
  describeChange,
  IN_FORCE,
  NOTHING_CHANGED,
  type ReloadAnswer,
  withStatements,
} from './control/protocol.ts';
import type { Logger } from './log.ts';
import type { ResourceChange } from './resource/set.ts';

export function tellReload(
  log: Logger,
  about: (resource: string) => Logger,
  statements: readonly string[],
  changes: readonly ResourceChange[],
): void {
  if (changes.length === 0 && statements.length === 0) {
    log.info(`Reload: ${NOTHING_CHANGED}.`);
    return;
  }
  for (const { name, change, words, error } of changes) {
    about(name).info(`Reload: ${describeChange({ change, failed: error !== null }, words)}.`);
    if (error !== null) about(name).error(`Reload: ${error.message.replace(/\.$/, '')}.`);
  }
  log.info(`Reload: ${withStatements(IN_FORCE, statements)}.`);
}

export function reloadAnswer(
  statements: readonly string[],
  changes: readonly ResourceChange[],
  warnings: readonly string[],
): ReloadAnswer {
  const resources = changes.map(({ name, change, words, error }) => ({
    name,
    change,
    statements: [...words],
    error: error === null ? null : { code: error.code, message: error.message, exit: error.exit },
  }));
  return { resources, statements: [...statements], warnings: [...warnings] };
}
