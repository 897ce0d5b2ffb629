import type { ShowCommand } from '../command-line.ts';
import { type Context, firstExit } from '../context.ts';
import { explain, reportsOf } from '../reports.ts';

/** A block of details for each resource. @returns the exit code */
export async function list(command: ShowCommand, context: Context): Promise<number> {
  const reports = await reportsOf(context, command.names);
  context.print(context.format.list(reports));
  if (!command.json) for (const report of reports) explain(context, report);
  return firstExit(reports.map((report) => ('error' in report ? report.error.exit : 0)));
}
