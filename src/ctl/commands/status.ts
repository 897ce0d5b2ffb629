import type { ShowCommand } from '../command-line.ts';
import { type Context, firstExit, tell } from '../context.ts';
import { explain, reportsOf } from '../reports.ts';

/** One line for each resource. @returns the exit code */
export async function status(command: ShowCommand, context: Context): Promise<number> {
  const reports = await reportsOf(context, command.names);
  context.print(context.format.status(reports));
  for (const report of reports) {
    if (!command.json) explain(context, report);
    else if ('error' in report) tell(context.log.child(report.name), report.error);
  }
  return firstExit(reports.map((report) => ('error' in report ? report.error.exit : 0)));
}
