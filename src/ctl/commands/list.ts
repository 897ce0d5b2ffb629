import type { ResourceReport } from '../../control/client.ts';
import type { ShowCommand } from '../command-line.ts';
import { type Context, firstExit, tell } from '../context.ts';
import { reportsOf } from '../reports.ts';

/** Why a resource is as it is goes to stderr: scripts read every line of the block. */
function explain({ log }: Context, report: ResourceReport): void {
  const about = log.child(report.name);
  if ('error' in report) {
    tell(about, report.error);
    return;
  }
  const { lastError, notes } = report.status;
  if (lastError !== null) about.warning(`last failure: ${lastError.message}`);
  for (const note of notes) about.warning(note);
}

/** A block of details for each resource. @returns the exit code */
export async function list(command: ShowCommand, context: Context): Promise<number> {
  const reports = await reportsOf(context, command.names);
  context.print(context.format.list(reports));
  if (!command.json) for (const report of reports) explain(context, report);
  return firstExit(reports.map((report) => ('error' in report ? report.error.exit : 0)));
}
