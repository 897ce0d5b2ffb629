import type { StatusCommand } from '../command-line.ts';
import { type Context, firstExit, tell } from '../context.ts';
import { withOutlet } from '../output.ts';
import { explain, reportsOf } from '../reports.ts';
import { watch } from '../watch/watch.ts';

/** One line for each resource, or a view that goes on. @returns the exit code */
export async function status(command: StatusCommand, context: Context): Promise<number> {
  const { watchMs } = command;
  if (watchMs !== undefined) {
    return await withOutlet(command.json, (outlet) =>
      watch({ ...command, watchMs }, context, outlet),
    );
  }
  const reports = await reportsOf(context, command.names);
  context.print(context.format.status(reports));
  for (const report of reports) {
    if (!command.json) explain(context, report);
    else if ('error' in report) tell(context.log.child(report.name), report.error);
  }
  return firstExit(reports.map((report) => ('error' in report ? report.error.exit : 0)));
}
