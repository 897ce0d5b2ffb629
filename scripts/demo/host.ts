/** Processes and waits of the demo: each has a deadline, and none outlives the demo. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;
const STDERR_CHARS = 2000;

// An ordinary user's PATH often lacks the places of mkfs and losetup.
process.env.PATH = [process.env.PATH, '/usr/sbin', '/sbin'].join(delimiter);

/** Something the demo cannot go on with; the text is for the reader, without a stack. */
export class DemoError extends Error {}

// ---- Cleaning up ----------------------------------------------------------------------------

/** Undoes what was done, last things first, whatever happens on the way. */
export class Cleanup {
  readonly #undo: (() => void)[] = [];

  add(undo: () => void): void {
    this.#undo.push(undo);
  }

  /** What could not be undone. */
  run(): string[] {
    const problems: string[] = [];
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        undo();
      } catch (error) {
        problems.push(error instanceof Error ? error.message : String(error));
      }
    }
    return problems;
  }
}

export const cleanup = new Cleanup();

// ---- Waiting --------------------------------------------------------------------------------

/** Waits until `ready` gives something else than undefined, false or null. */
export async function until<T>(
  what: string,
  ms: number,
  ready: () => T | undefined | false | null | Promise<T | undefined | false | null>,
): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    const found = await ready();
    if (found !== undefined && found !== false && found !== null) return found;
    if (performance.now() > end) throw new DemoError(`${what}: not within ${ms / 1000} s`);
    await sleep(POLL_MS);
  }
}

export async function within<T>(what: string, ms: number, work: Promise<T>): Promise<T> {
  const abort = new AbortController();
  const late = sleep(ms, undefined, { signal: abort.signal }).then(() => {
    throw new DemoError(`${what}: not within ${ms / 1000} s`);
  });
  late.catch(() => {}); // aborted when the work was in time
  try {
    return await Promise.race([work, late]);
  } finally {
    abort.abort();
  }
}

// ---- Processes ------------------------------------------------------------------------------

/** Ended, or ended and not yet waited for by whoever is its parent now. */
export function isGone(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return 'ZX'.includes(stat.charAt(stat.lastIndexOf(')') + 2));
  } catch {
    return true;
  }
}

/** The whole process group at once: hastd with its workers. */
export function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nobody is left in it.
  }
}

/** A child with a process group of its own, killed with it when the demo ends. */
function start(file: string, args: readonly string[], output: 'pipe' | number): ChildProcess {
  const child = spawn(file, args, {
    detached: true, // a ^C reaches the demo only, which then ends the rest in order
    stdio: ['ignore', output, output],
  });
  const { pid } = child;
  if (pid !== undefined) {
    cleanup.add(() => {
      if (child.exitCode === null && child.signalCode === null) killGroup(pid);
    });
  }
  return child;
}

/** Starts something that stays, with its output in a file. */
export function startLogged(file: string, args: readonly string[], log: string): ChildProcess {
  const fd = openSync(log, 'a');
  try {
    const child = start(file, args, fd);
    child.on('error', () => {}); // its absence is noticed by whoever waits for it
    // Its workers are in its group, and may be there when it is not.
    const { pid } = child;
    if (pid !== undefined) cleanup.add(() => killGroup(pid));
    return child;
  } finally {
    closeSync(fd);
  }
}

export interface Running {
  readonly child: ChildProcess;
  /** What it printed; rejects when it fails. */
  readonly done: Promise<string>;
}

/** Starts a command whose output is wanted; `onLine` sees each line of it at once. */
export function startCommand(
  file: string,
  args: readonly string[],
  onLine?: (line: string) => void,
): Running {
  const child = start(file, args, 'pipe');
  let output = '';
  let errors = '';
  let rest = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) onLine?.(line);
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-STDERR_CHARS);
  });
  const done = new Promise<string>((resolve, reject) => {
    const fail = (why: string) => reject(new DemoError(`${file} ${args.join(' ')}\n${why}`));
    child.on('error', (error) => fail(error.message));
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output);
      else fail(`${errors}ended with ${signal ?? `exit status ${code}`}`);
    });
  });
  done.catch(() => {}); // whoever waits for it hears of it
  return { child, done };
}

/** Runs a command to its end. */
export function run(file: string, args: readonly string[], ms = 30_000): Promise<string> {
  return within(`${file} ${args[0] ?? ''}`, ms, startCommand(file, args).done);
}

/** Two different ports of 127.0.0.1 that nobody uses now. */
export async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()];
  const ports: number[] = [];
  for (const server of servers) {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(0, '127.0.0.1', resolve);
    });
    const address = server.address();
    if (typeof address === 'object' && address !== null) ports.push(address.port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  const [one, two] = ports;
  if (one === undefined || two === undefined) throw new DemoError('no free port on 127.0.0.1');
  return [one, two];
}

// ---- What is installed ----------------------------------------------------------------------

export const PYTHON = '/usr/bin/python3';

function works(file: string, ...args: string[]): boolean {
  return spawnSync(file, args, { stdio: 'ignore', timeout: 10_000 }).status === 0;
}

export function hasCommand(name: string): boolean {
  return works('sh', '-c', `command -v ${name}`);
}

/** Debian packages of clients that the demo cannot do without and that are not here. */
export function missingPackages(): string[] {
  const missing = new Set<string>();
  if (!hasCommand('nbdcopy')) missing.add('libnbd-bin');
  if (!works(PYTHON, '-c', 'import nbd')) missing.add('python3-libnbd');
  for (const name of ['mkfs.ext4', 'e2fsck', 'debugfs']) {
    if (!hasCommand(name)) missing.add('e2fsprogs');
  }
  if (!hasCommand('cmp')) missing.add('diffutils');
  return [...missing];
}
