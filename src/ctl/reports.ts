import type { ResourceReport } from '../control/client.ts';
import { HastError } from '../error.ts';
import { type Context, tell } from './context.ts';

/** HAST's number for a name that the running daemon does not know, also as exit code. */
export const NO_SUCH_RESOURCE = 1;

export function unknownToDaemon(): HastError {
  return new HastError('RESOURCE_UNKNOWN', {
    message: 'the running hastd knows no such resource',
    hint: 'hastctl status lists what it knows; after a change of hast.conf: hastctl reload',
    exit: NO_SUCH_RESOURCE,
  });
}

/** Each once. Only a leading `all` means all; later it is a name like any other. */
export async function namesOf(
  { client }: Context,
  names: readonly string[],
): Promise<readonly string[]> {
  if (names[0] !== 'all') return [...new Set(names)];
  return (await client.resources()).map(({ name }) => name);
}

/**
 * What the daemon says of the named resources, in the order of the names; of all of them when the
 * first name is `all` or there is none. One question, whatever the number of names.
 */
export async function reportsOf(
  { client }: Context,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<readonly ResourceReport[]> {
  const all = await client.resources(signal);
  const [first = 'all'] = names;
  if (first === 'all') return all;
  const known = new Map(all.map((report) => [report.name, report]));
  return names.map((name) => known.get(name) ?? { name, error: unknownToDaemon() });
}

/** Why a resource is as it is goes to stderr: scripts read every line of stdout. */
export function explain({ log }: Context, report: ResourceReport): void {
  const about = log.child(report.name);
  if ('error' in report) {
    tell(about, report.error);
    return;
  }
  const { lastError, notes } = report.status;
  const failure = lastError === null ? '' : `last failure: ${lastError.message}`;
  for (const note of new Set([failure, ...notes])) {
    if (note !== '') about.warning(note);
  }
}
