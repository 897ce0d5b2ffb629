import { inParallel } from '../../control/client.ts';
import type { Why } from '../../control/protocol.ts';
import { HastError } from '../../error.ts';
import type { ShowCommand } from '../command-line.ts';
import { type Context, firstExit, tell } from '../context.ts';
import { namesOf, unknownToDaemon } from '../reports.ts';

/** What the daemon says of why one resource is as it is, or that it says nothing. */
export type WhyReport =
  | { readonly name: string; readonly why: Why }
  | { readonly name: string; readonly error: HastError };

async function report(name: string, { client }: Context): Promise<WhyReport> {
  try {
    return { name, why: await client.why(name) };
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    // Nobody is there: that is one failure, not one of each resource.
    if (error.code === 'CTL_CONNECT') throw error;
    return { name, error: error.code === 'RESOURCE_UNKNOWN' ? unknownToDaemon() : error };
  }
}

/** Why resources are as they are. @returns the exit code of the first that has no answer */
export async function why(command: ShowCommand, context: Context): Promise<number> {
  const names = await namesOf(context, command.names);
  const reports = await inParallel(names, (name) => report(name, context));
  context.print(context.format.why(reports));
  for (const each of reports) {
    if ('error' in each) tell(context.log.child(each.name), each.error);
  }
  return firstExit(reports.map((each) => ('error' in each ? each.error.exit : 0)));
}
