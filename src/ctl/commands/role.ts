import { inParallel } from '../../control/client.ts';
import type { RoleAnswer } from '../../control/protocol.ts';
import { HastError } from '../../error.ts';
import type { RoleCommand } from '../command-line.ts';
import { type Context, exitOf, firstExit, tell } from '../context.ts';
import { namesOf, unknownToDaemon } from '../reports.ts';

interface Change {
  readonly name: string;
  readonly answer?: RoleAnswer;
  readonly error?: unknown;
}

async function change(name: string, command: RoleCommand, { client }: Context): Promise<Change> {
  const { role, force, ifUnused } = command;
  try {
    return { name, answer: await client.setRole(name, { role, force, ifUnused }) };
  } catch (error) {
    const unknown = error instanceof HastError && error.code === 'RESOURCE_UNKNOWN';
    return { name, error: unknown ? unknownToDaemon() : error };
  }
}

function report({ name, answer, error }: Change, { log }: Context): void {
  const about = log.child(name);
  if (answer === undefined) {
    tell(about, error);
    return;
  }
  if (answer.previous === answer.role) about.debug2(`role unchanged: ${answer.role}`);
  else about.debug1(`role changed: ${answer.previous} -> ${answer.role}`);
  for (const notice of answer.notices) about.warning(notice);
}

/**
 * Changes the roles of many resources at the same time. @returns the exit code of the first failure
 */
export async function role(command: RoleCommand, context: Context): Promise<number> {
  const names = await namesOf(context, command.names);
  const changes = await inParallel(names, (name) => change(name, command, context));
  const unreached = changes.find(
    ({ error }) => error instanceof HastError && error.code === 'CTL_CONNECT',
  );
  // Nobody is there: that is one failure, not one of each resource.
  if (unreached !== undefined && changes.every(({ answer }) => answer === undefined)) {
    throw unreached.error;
  }
  for (const each of changes) report(each, context);
  return firstExit(changes.map(({ error }) => (error === undefined ? 0 : exitOf(error))));
}
