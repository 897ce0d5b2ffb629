/**
 * `hastctl status --watch`: looks again and again, and shows on a terminal a picture in place of
 * the one before, elsewhere a line for what has changed.
 */
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ResourceReport } from '../../control/client.ts';
import { HastError } from '../../error.ts';
import type { StatusCommand } from '../command-line.ts';
import type { Context } from '../context.ts';
import { errorObject, type Outlet, statusObject } from '../output.ts';
import { reportsOf } from '../reports.ts';
import { gistOf, goneLine, lineOf, troubleLine } from './lines.ts';
import { nextPace, type Pace, secondsLeft } from './pace.ts';
import { picture } from './picture.ts';
import { type Row, rowOf } from './row.ts';

type Watching = StatusCommand & { readonly watchMs: number };

/** What was seen last; while the daemon is away, what there was before, and why it is away. */
interface Seen {
  readonly at: Date;
  readonly reports: readonly ResourceReport[];
  readonly paces: ReadonlyMap<string, Pace>;
  readonly trouble: HastError | undefined;
}

/** A line is said again after this time, so that whoever reads knows that it still holds. */
const SAY_AGAIN_MS = 60_000;

async function look(
  command: Watching,
  context: Context,
  before: Seen,
  over: AbortSignal,
): Promise<Seen> {
  try {
    const reports = await reportsOf(context, command.names, over);
    const at = new Date();
    const paces = new Map<string, Pace>();
    for (const report of reports) {
      const worker = 'error' in report ? null : report.status.worker;
      const pace = nextPace(before.paces.get(report.name), worker, performance.now());
      if (pace !== undefined) paces.set(report.name, pace);
    }
    return { at, reports, paces, trouble: undefined };
  } catch (error) {
    // A daemon that is being started again is no reason to end.
    if (!(error instanceof HastError)) throw error;
    return { ...before, at: new Date(), trouble: error };
  }
}

function rowsOf({ reports, paces }: Seen): Row[] {
  return reports.map((report) => rowOf(report, paces.get(report.name)));
}

/** A moment in which nothing happens, unless somebody wants the end. */
async function pause(ms: number, over: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal: over }).catch(() => {});
}

// ---- The three ways of showing ----------------------------------------------------------------

type Show = (seen: Seen) => string;

function jsonLines(): Show {
  return ({ at, reports, paces, trouble }) => {
    const time = at.toISOString();
    const line =
      trouble === undefined
        ? {
            time,
            resources: reports.map((report) => ({
              ...statusObject(report),
              secondsLeft: secondsLeft(paces.get(report.name)),
            })),
          }
        : { time, error: errorObject(trouble) };
    return `${JSON.stringify(line)}\n`;
  };
}

function textLines(): Show {
  const said = new Map<string, { readonly gist: string; readonly atMs: number }>();
  const unlessSaid = (key: string, gist: string, at: Date, line: string): string => {
    const last = said.get(key);
    const old = last === undefined || at.getTime() - last.atMs >= SAY_AGAIN_MS;
    if (!old && last.gist === gist) return '';
    said.set(key, { gist, atMs: at.getTime() });
    return line;
  };
  return (seen) => {
    const { at, trouble } = seen;
    const time = at.toISOString();
    if (trouble !== undefined) {
      return unlessSaid('', trouble.message, at, troubleLine(time, trouble.message));
    }
    // When it is away again, or back, that is worth its lines.
    if (said.delete('')) said.clear();
    const rows = rowsOf(seen);
    const gone = [...said.keys()].filter((name) => !rows.some((row) => row.name === name));
    for (const name of gone) said.delete(name);
    return [
      ...gone.map((name) => goneLine(time, name)),
      ...rows.map((row) => unlessSaid(row.name, gistOf(row), at, lineOf(time, row))),
    ].join('');
  };
}

function pictureOf(seen: Seen, node: string, screen: NonNullable<Outlet['screen']>): string[] {
  const time = seen.at.toTimeString().slice(0, 8);
  const trouble = seen.trouble === undefined ? '' : `${seen.trouble.message}; trying again`;
  return picture({ node, time, rows: rowsOf(seen), trouble }, screen);
}

/** Goes on until somebody ends it, which is no failure. @returns the exit code */
export async function watch(command: Watching, context: Context, outlet: Outlet): Promise<number> {
  const { screen, over } = outlet;
  const node = command.node ?? context.config.resources[0]?.node ?? hostname();
  const show = command.json ? jsonLines() : textLines();
  let seen: Seen = { at: new Date(), reports: [], paces: new Map(), trouble: undefined };
  const draw = () =>
    screen === undefined ? outlet.write(show(seen)) : screen.show(pictureOf(seen, node, screen));
  screen?.onChange(() => void draw());
  while (!over.aborted) {
    const began = performance.now();
    seen = await look(command, context, seen, over);
    if (over.aborted) break;
    await draw();
    await pause(Math.max(command.watchMs - (performance.now() - began), 0), over);
  }
  return 0;
}
