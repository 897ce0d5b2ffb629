/** Processes of the bench. What it starts ends with it; every wait has a bound. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Something that a person can put right; printed without a stack. */
export class BenchError extends Error {}

const running = new Set<ChildProcess>();

function track(child: ChildProcess): void {
  running.add(child);
  child.once('exit', () => running.delete(child));
}

/** The end of an output, for a message. */
function tail(text: string): string {
  return text.trim().split('\n').slice(-5).join('\n');
}

/** Runs a command to its end. @returns what it printed on stdout */
export function run(command: string, args: readonly string[], seconds: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    track(child);
    let stdout = '';
    let stderr = '';
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, seconds * 1000);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new BenchError(`${command} cannot be started: ${error.message}`));
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) return resolve(stdout);
      const how = late ? `is not done after ${seconds} s` : `ended with ${signal ?? code}`;
      reject(new BenchError(`${command} ${how}\n${tail(stderr === '' ? stdout : stderr)}`));
    });
  });
}

/** Like `run`; undefined when that fails. For facts that are nice to have. */
export function tryRun(command: string, args: readonly string[]): Promise<string | undefined> {
  return run(command, args, 20).catch(() => undefined);
}

/** A process that stays; what it prints goes to the file `log`. */
export class Server {
  readonly #child: ChildProcess;
  readonly #log: string;
  #problem: string | undefined;

  constructor(command: string, args: readonly string[], log: string) {
    const fd = openSync(log, 'w');
    this.#log = log;
    this.#child = spawn(command, args, { stdio: ['ignore', fd, fd] });
    closeSync(fd);
    track(this.#child);
    this.#child.on('error', (error) => {
      this.#problem = error.message;
    });
    this.#child.on('exit', (code, signal) => {
      this.#problem ??= `ended with ${signal ?? code}`;
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** @throws BenchError when it is not there any more */
  expectAlive(): void {
    if (this.#problem === undefined) return;
    throw new BenchError(`${this.#child.spawnfile} ${this.#problem}\n${this.output()}`);
  }

  output(): string {
    return tail(readFileSync(this.#log, 'utf8'));
  }

  async stop(seconds = 15): Promise<void> {
    this.#child.kill('SIGTERM');
    for (let waited = 0; this.#problem === undefined && waited < seconds * 1000; waited += 20) {
      await sleep(20);
    }
    this.#child.kill('SIGKILL');
  }
}

/** Asks `ready` again and again until it says so. */
export async function until(
  what: string,
  seconds: number,
  ready: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!(await ready())) {
    if (performance.now() > end) throw new BenchError(`${what}: not within ${seconds} s`);
    await sleep(20);
  }
}

/** For the end of the bench by a signal: no time to be polite. */
export function killAll(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** User and system time of all threads of a process until now, in microseconds. */
export function cpuMicroseconds(pid: number): number {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    throw new BenchError(`process ${pid} has gone`);
  }
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' '); // the name may hold anything
  return (Number(fields[11]) + Number(fields[12])) * 10_000; // USER_HZ is 100 on Linux
}
