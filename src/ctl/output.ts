/**
 * What hastctl prints on its standard output: the text that scripts know, or JSON.
 * The formatters are pure; `print` alone writes. Messages to a person go through log.ts.
 */
import { once } from 'node:events';
import type { WriteStream } from 'node:tty';
import type { ResourceReport } from '../control/client.ts';
import {
  describeChange,
  IN_FORCE,
  NOTHING_CHANGED,
  type ReloadAnswer,
  type ResourceStatus,
  withStatements,
} from '../control/protocol.ts';
import type { HastError } from '../error.ts';
import type { MetadataBlock } from '../metadata.ts';
import { humanize } from '../units.ts';
import type { WhyReport } from './commands/why.ts';
import { shown } from './shown.ts';
import { whyText } from './why-text.ts';

/** What `dump` knows of one local component. */
export type DumpReport =
  | { readonly name: string; readonly block: MetadataBlock }
  | { readonly name: string; readonly error: HastError };

/** One text for all resources of a command, or '' when there is nothing to print. */
export interface Formatter {
  status(reports: readonly ResourceReport[]): string;
  list(reports: readonly ResourceReport[]): string;
  dump(reports: readonly DumpReport[]): string;
  why(reports: readonly WhyReport[]): string;
  reload(answer: ReloadAnswer): string;
}

function withSize(bytes: number | bigint): string {
  return `${bytes} (${humanize(bytes)})`;
}

// ---- Text -----------------------------------------------------------------------------------

function statusRow(report: ResourceReport): string {
  const name = shown(report.name);
  if ('error' in report) return `${name}\tERR${report.error.exit}\n`;
  const { role, local, remote, worker } = report.status;
  const status = (worker?.status ?? '-').padEnd(9);
  return `${name}\t${status}${role.padEnd(15)}${shown(local)}\t${shown(remote)}\n`;
}

function listBlock(report: ResourceReport): string {
  const name = shown(report.name);
  if ('error' in report) return `${name}:\n  error: ${report.error.exit}\n`;
  const { role, provname, device, local, remote, source, replication, worker } = report.status;
  const lines = [
    `${name}:`,
    `  role: ${role}`,
    `  provname: ${shown(provname)}`,
    ...(device === null ? [] : [`  device: ${shown(device)}`]),
    `  localpath: ${shown(local)}`,
    `  extentsize: ${withSize(worker?.extentBytes ?? 0)}`,
    `  keepdirty: ${worker?.keepdirty ?? 0}`,
    `  remoteaddr: ${shown(remote)}`,
    ...(source === null ? [] : [`  sourceaddr: ${shown(source)}`]),
    `  replication: ${replication}`,
    ...(worker === null ? [] : [`  status: ${worker.status}`, `  workerpid: ${worker.pid}`]),
    `  dirty: ${withSize(worker?.dirtyBytes ?? 0)}`,
    '  statistics:',
    `    reads: ${worker?.reads ?? 0}`,
    `    writes: ${worker?.writes ?? 0}`,
    `    deletes: ${worker?.deletes ?? 0}`,
    `    flushes: ${worker?.flushes ?? 0}`,
    `    activemap updates: ${worker?.activemapUpdates ?? 0}`,
    `    local errors: read: ${worker?.readErrors ?? 0}, write: ${worker?.writeErrors ?? 0}, ` +
      `delete: ${worker?.deleteErrors ?? 0}, flush: ${worker?.flushErrors ?? 0}`,
    `    queues: local: ${worker?.queueLocal ?? 0}, send: ${worker?.queueSend ?? 0}, ` +
      `recv: ${worker?.queueRecv ?? 0}, done: ${worker?.queueDone ?? 0}, ` +
      `idle: ${worker?.queueIdle ?? 0}`,
  ];
  return `${lines.join('\n')}\n`;
}

function dumpBlock(report: DumpReport): string {
  if ('error' in report) return '';
  const { fields } = report.block;
  const lines = [
    `resource: ${shown(fields.resource)}`,
    `    datasize: ${withSize(fields.datasize)}`,
    `    extentsize: ${withSize(fields.extentsize)}`,
    `    keepdirty: ${fields.keepdirty}`,
    `    localoff: ${fields.offset}`,
    `    resuid: ${fields.resuid}`,
    `    localcnt: ${fields.localcnt}`,
    `    remotecnt: ${fields.remotecnt}`,
    `    prevrole: ${fields.prevrole}`,
  ];
  return `${lines.join('\n')}\n`;
}

function reloadLines({ resources, statements }: ReloadAnswer): string {
  if (resources.length === 0 && statements.length === 0) return `${NOTHING_CHANGED}\n`;
  const lines = resources.map(
    ({ name, change, statements: own, error }) =>
      `${shown(name)}: ${describeChange({ change, failed: error !== null }, own)}`,
  );
  return `${[...lines, withStatements(IN_FORCE, statements)].join('\n')}\n`;
}

const text: Formatter = {
  status: (reports) =>
    reports.length === 0
      ? ''
      : `Name\tStatus\t Role\t\tComponents\n${reports.map(statusRow).join('')}`,
  list: (reports) => reports.map(listBlock).join(''),
  dump: (reports) => reports.map(dumpBlock).join(''),
  why: (reports) =>
    reports.flatMap((report) => ('error' in report ? [] : [whyText(report.why)])).join('\n'),
  reload: reloadLines,
};

// ---- JSON -----------------------------------------------------------------------------------

export function errorObject({ code, message, hint, exit }: HastError): object {
  return { code, message, ...(hint === undefined ? {} : { hint }), exit };
}

export function statusObject(report: ResourceReport): object | ResourceStatus {
  if ('error' in report) return { name: report.name, error: errorObject(report.error) };
  return report.status;
}

/** Sizes are numbers; what fills 64 bits is a decimal string, which no reader rounds. */
function dumpObject(report: DumpReport): object {
  if ('error' in report) return { resource: report.name, error: errorObject(report.error) };
  const { fields, facts } = report.block;
  return {
    resource: fields.resource,
    datasize: Number(fields.datasize),
    extentsize: fields.extentsize,
    keepdirty: fields.keepdirty,
    localoff: Number(fields.offset),
    resuid: String(fields.resuid),
    localcnt: String(fields.localcnt),
    remotecnt: String(fields.remotecnt),
    prevrole: fields.prevrole,
    needsRewrite: report.block.needsRewrite,
    historyKnown: facts !== undefined,
    syncTarget: facts?.syncTarget ?? false,
    localStale: facts?.localStale ?? false,
    discarded: facts?.discarded ?? false,
    peerStale: facts?.peerStale ?? false,
    ahead: facts?.ahead ?? false,
    flushFailed: facts?.flushFailed ?? false,
    peerBehind: facts?.peerBehind ?? false,
    boot: facts === undefined ? null : String(facts.boot),
    generation: facts === undefined ? null : String(facts.generation),
    history: facts === undefined ? [] : facts.history.map(String),
  };
}

function whyObject(report: WhyReport): object {
  return 'error' in report ? { name: report.name, error: errorObject(report.error) } : report.why;
}

function document(resources: readonly object[]): string {
  return `${JSON.stringify({ resources }, undefined, 2)}\n`;
}

const json: Formatter = {
  status: (reports) => document(reports.map(statusObject)),
  list: (reports) => document(reports.map(statusObject)),
  dump: (reports) => document(reports.map(dumpObject)),
  why: (reports) => document(reports.map(whyObject)),
  reload: (answer) => `${JSON.stringify(answer, undefined, 2)}\n`,
};

export const FORMATTERS = { text, json } as const;

// ---- Writing --------------------------------------------------------------------------------

export function print(stream: 'stdout' | 'stderr', output: string): void {
  if (output !== '') process[stream].write(output);
}

/** Where a view that goes on is written to, and when it is to end. */
export interface Outlet {
  /** Undefined: no terminal, or one that cannot move its cursor. */
  readonly screen: Screen | undefined;
  /** Aborted by ^C and the like, and when nobody reads any more. */
  readonly over: AbortSignal;
  /** Waits for a reader who is slow. */
  write(text: string): Promise<void>;
}

export interface Screen {
  readonly columns: number;
  readonly rows: number;
  readonly colour: boolean;
  readonly unicode: boolean;
  /** Shows these lines in place of the ones before; the last ones stay when all is over. */
  show(lines: readonly string[]): Promise<void>;
  /** Calls back when the terminal has another size, or shows us again after ^Z. */
  onChange(changed: () => void): void;
}

const TERMINAL = {
  // The other screen, no cursor, no wrapping; and back.
  enter: '\u001b[?1049h\u001b[?25l\u001b[?7l',
  leave: '\u001b[?7h\u001b[?25h\u001b[?1049l',
  home: '\u001b[H',
  restOfLine: '\u001b[K',
  restOfScreen: '\u001b[J',
} as const;

/**
 * One picture in place of the one before. Erased is before anything is written: behind the last
 * column the cursor still stands on it.
 */
function redrawn(lines: readonly string[], rows: number): string {
  const { home, restOfLine, restOfScreen } = TERMINAL;
  const below = lines.length < rows ? `\r\n${restOfScreen}` : '';
  return `${home}${lines.map((line) => restOfLine + line).join('\r\n')}${below}`;
}

const ENDING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const DEFAULT_SIZE = { columns: 80, rows: 24 } as const;

/**
 * Gives `body` the standard output for as long as it takes, and the terminal back as it was,
 * with the last picture left standing.
 * @param plain  no screen, even on a terminal
 */
export async function withOutlet<T>(
  plain: boolean,
  body: (outlet: Outlet) => Promise<T>,
  stream: WriteStream = process.stdout,
  env: NodeJS.ProcessEnv = process.env,
): Promise<T> {
  const ending = new AbortController();
  const end = () => ending.abort();
  const onScreen = !plain && stream.isTTY === true && env.TERM !== 'dumb';
  let changed = () => {};
  let last: readonly string[] = [];
  const write = (text: string) => written(stream, text, ending.signal);
  const screen: Screen | undefined = onScreen
    ? {
        // A terminal without a size says 0.
        get columns() {
          return stream.columns || DEFAULT_SIZE.columns;
        },
        get rows() {
          return stream.rows || DEFAULT_SIZE.rows;
        },
        colour: stream.hasColors(env),
        unicode: /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || ''),
        show: (lines) => {
          last = lines;
          return write(redrawn(lines, stream.rows || DEFAULT_SIZE.rows));
        },
        onChange: (callback) => {
          changed = callback;
        },
      }
    : undefined;
  const resized = () => changed();
  const suspend = () => {
    stream.write(TERMINAL.leave);
    process.kill(process.pid, 'SIGSTOP');
  };
  const resume = () => {
    stream.write(TERMINAL.enter);
    changed();
  };

  stream.on('error', end);
  for (const name of ENDING) process.on(name, end);
  if (onScreen) {
    stream.on('resize', resized);
    process.on('SIGTSTP', suspend);
    process.on('SIGCONT', resume);
    stream.write(TERMINAL.enter);
  }
  try {
    return await body({ screen, over: ending.signal, write });
  } finally {
    if (onScreen) {
      stream.off('resize', resized);
      process.off('SIGTSTP', suspend);
      process.off('SIGCONT', resume);
      stream.write(TERMINAL.leave + last.map((line) => `${line}\n`).join(''));
    }
    for (const name of ENDING) process.off(name, end);
  }
}

async function written(stream: WriteStream, text: string, over: AbortSignal): Promise<void> {
  if (over.aborted || stream.write(text)) return;
  await once(stream, 'drain', { signal: over }).catch(() => {});
}
