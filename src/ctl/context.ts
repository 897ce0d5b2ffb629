import type { Config } from '../config/config.ts';
import type { ControlClient } from '../control/client.ts';
import { HastError } from '../error.ts';
import { EXIT } from '../exit.ts';
import type { Logger } from '../log.ts';
import type { Formatter } from './output.ts';

/** What every command works with. */
export interface Context {
  readonly config: Config;
  readonly client: ControlClient;
  readonly log: Logger;
  readonly format: Formatter;
  /** Regular output. */
  readonly print: (text: string) => void;
}

/**
 * Tells a person about a failure: what went wrong, and in brackets what to do next. A message of
 * several lines (all problems of a configuration) stays one.
 */
export function tell(log: Logger, error: unknown): void {
  if (!(error instanceof HastError)) {
    log.error(`internal error: ${error instanceof Error ? error.message : String(error)}`);
    log.debug1(error instanceof Error ? (error.stack ?? '') : '');
    return;
  }
  const lines = error.message.split('\n').filter((line) => line !== '');
  const last = lines.length - 1;
  for (const [index, line] of lines.entries()) {
    const hint = index === last && error.hint !== undefined ? ` (${error.hint})` : '';
    log.error(`${line.replace(/\.$/, '')}${hint}`);
  }
}

/** The exit code of the first that failed, in the order given; 0 when none did. */
export function firstExit(exits: Iterable<number>): number {
  for (const exit of exits) {
    if (exit !== 0) return exit;
  }
  return 0;
}

export function exitOf(error: unknown): number {
  return error instanceof HastError ? error.exit : EXIT.software;
}

/**
 * One after another; a failure is told and ends only its own. @returns the first one's exit code
 */
export async function forEachName(
  names: readonly string[],
  { log }: Context,
  act: (name: string) => Promise<void>,
): Promise<number> {
  const exits: number[] = [];
  for (const name of names) {
    try {
      await act(name);
    } catch (error) {
      tell(log.child(name), error);
      exits.push(exitOf(error));
    }
  }
  return firstExit(exits);
}
