/**
 * The root logger and its outputs: the foreground text, syslog, and JSON as an extension.
 * Formatters are pure; only the sinks write.
 */
import type { LogLevel } from './native.ts';

export interface LogRecord {
  readonly time: Date;
  readonly level: LogLevel;
  readonly text: string;
  readonly resource: string | undefined;
  readonly role: string | undefined;
  /** Numbers and words beside the sentence; only the JSON output shows them apart. */
  readonly fields: LogFields | undefined;
}
export type LogFields = Readonly<Record<string, string | number>>;
export type Sink = (record: LogRecord) => void;

const SYSLOG_LINE_BYTES = 1023;
const SYSLOG_PREFIX_BYTES = 127;

interface LevelRow {
  readonly word: string;
  readonly priority: number;
  readonly stream: 'stdout' | 'stderr';
  /** How many `-d` it takes to be seen. */
  readonly debug: number;
}
const LEVELS: Readonly<Record<LogLevel, LevelRow>> = {
  emerg: { word: '[EMERG]', priority: 0, stream: 'stderr', debug: 0 },
  alert: { word: '[ALERT]', priority: 1, stream: 'stderr', debug: 0 },
  crit: { word: '[CRIT]', priority: 2, stream: 'stderr', debug: 0 },
  error: { word: '[ERROR]', priority: 3, stream: 'stderr', debug: 0 },
  warning: { word: '[WARNING]', priority: 4, stream: 'stderr', debug: 0 },
  notice: { word: '[NOTICE]', priority: 5, stream: 'stdout', debug: 0 },
  info: { word: '[INFO]', priority: 6, stream: 'stdout', debug: 0 },
  debug1: { word: '[DEBUG][1]', priority: 7, stream: 'stdout', debug: 1 },
  debug2: { word: '[DEBUG][2]', priority: 7, stream: 'stdout', debug: 2 },
};

/** Control characters would let a foreign text forge a line of its own. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, ' ');
}

/** The prefix of everything about a resource: `[NAME] (role) `. */
export function prefixOf({ resource, role }: Pick<LogRecord, 'resource' | 'role'>): string {
  if (resource === undefined) return '';
  return printable(role === undefined ? `[${resource}] ` : `[${resource}] (${role}) `);
}

function cut(text: string, bytes: number): string {
  const all = Buffer.from(text);
  if (all.length <= bytes) return text;
  let end = bytes;
  while (end > 0 && ((all[end] ?? 0) & 0xc0) === 0x80) end -= 1; // not inside a character
  return all.subarray(0, end).toString();
}

export function formatForeground(record: LogRecord): string {
  return `${LEVELS[record.level].word} ${prefixOf(record)}${printable(record.text)}\n`;
}

export function formatSyslog(record: LogRecord): string {
  const prefix = cut(prefixOf(record), SYSLOG_PREFIX_BYTES);
  return cut(`${prefix}${printable(record.text)}`, SYSLOG_LINE_BYTES);
}

export function formatJson({ time, level, text, resource, role, fields }: LogRecord): string {
  const line = { time: time.toISOString(), level, resource, role, text, ...fields };
  return `${JSON.stringify(line)}\n`;
}

export function streamOf(level: LogLevel): 'stdout' | 'stderr' {
  return LEVELS[level].stream;
}

// ---- Outputs --------------------------------------------------------------------------------

const ignore = (): void => {};

/** Writes lines to this process's own streams. A reader that went away is no reason to end. */
function streamSink(format: (record: LogRecord) => string): Sink {
  for (const stream of [process.stdout, process.stderr]) {
    // Told as an uncaught error, it would be written to the same stream, and so on for ever.
    if (!stream.listeners('error').includes(ignore)) stream.on('error', ignore);
  }
  return (record) => {
    process[streamOf(record.level)].write(format(record));
  };
}

export function foregroundSink(): Sink {
  return streamSink(formatForeground);
}

export function jsonSink(): Sink {
  return streamSink(formatJson);
}

/** Prints what another process of ours has already formatted. */
export function relay(stream: 'stdout' | 'stderr', text: string): void {
  process[stream].write(text);
}

export function syslogSink(syslog: (priority: number, text: string) => void): Sink {
  return (record) => syslog(LEVELS[record.level].priority, formatSyslog(record));
}

// ---- The logger -----------------------------------------------------------------------------

/** Shared by a logger and all its children, so that the daemon can change its output once. */
interface Output {
  sink: Sink;
  debug: number;
}

export class Logger {
  readonly #output: Output;
  readonly #resource: string | undefined;
  readonly #role: string | undefined;

  private constructor(output: Output, resource?: string, role?: string) {
    this.#output = output;
    this.#resource = resource;
    this.#role = role;
  }

  /** @param debug  how many `-d` were given */
  static root(sink: Sink, debug: number): Logger {
    return new Logger({ sink, debug });
  }

  child(resource: string, role?: string): Logger {
    return new Logger(this.#output, resource, role);
  }

  /** From now on everything, also what children log, goes there. */
  redirect(sink: Sink): void {
    this.#output.sink = sink;
  }

  get debug(): number {
    return this.#output.debug;
  }

  log(level: LogLevel, text: string, fields?: LogFields): void {
    if (LEVELS[level].debug > this.#output.debug) return;
    const { sink } = this.#output;
    sink({ time: new Date(), level, text, fields, resource: this.#resource, role: this.#role });
  }

  error(text: string, fields?: LogFields): void {
    this.log('error', text, fields);
  }
  warning(text: string, fields?: LogFields): void {
    this.log('warning', text, fields);
  }
  notice(text: string, fields?: LogFields): void {
    this.log('notice', text, fields);
  }
  info(text: string, fields?: LogFields): void {
    this.log('info', text, fields);
  }
  debug1(text: string, fields?: LogFields): void {
    this.log('debug1', text, fields);
  }
  debug2(text: string, fields?: LogFields): void {
    this.log('debug2', text, fields);
  }
}

/** `TEXT: ERROR.`, the form of every message about a system error. */
export function withReason(text: string, error: unknown): string {
  const reason = error instanceof Error ? error.message : String(error);
  return `${text}: ${reason.replace(/\.$/, '')}.`;
}
