// Runs one command with a deadline, and judges it by what it printed and how it ended.
import { spawn } from 'node:child_process';
import { stripVTControlCharacters } from 'node:util';

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export const NOTHING: Counts = { passed: 0, failed: 0, skipped: 0 };
const ONE_STEP: Counts = { passed: 1, failed: 0, skipped: 0 };
export const FAILED: Counts = { passed: 0, failed: 1, skipped: 0 };

export interface Command {
  readonly words: readonly string[];
  readonly milliseconds: number;
  readonly cwd?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Reads the counts of what it printed, undefined without them. A command without is one step. */
  readonly count?: (output: string) => Counts | undefined;
}

export interface Verdict {
  readonly counts: Counts;
  readonly seconds: number;
  /** What is wrong, beside tests that failed. */
  readonly why: string | undefined;
}

export type Show = (text: string, stream: 'stdout' | 'stderr') => void;

export function countUvu(output: string): Counts | undefined {
  const number = (word: string) => {
    const last = [...output.matchAll(new RegExp(`^  ${word}:\\s+(\\d+)$`, 'gm'))].at(-1);
    return last === undefined ? undefined : Number(last[1]);
  };
  const total = number('Total');
  const passed = number('Passed');
  const skipped = number('Skipped');
  if (total === undefined || passed === undefined || skipped === undefined) return undefined;
  return { passed, failed: total - passed, skipped };
}

export function add(one: Counts, other: Counts): Counts {
  return {
    passed: one.passed + other.passed,
    failed: one.failed + other.failed,
    skipped: one.skipped + other.skipped,
  };
}

/** "N passed, N failed, N skipped" */
export function inWords({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** Behind the counts of a command: its time, and what is wrong with it. */
export function remarks({ seconds, why }: Verdict): string {
  return `${seconds.toFixed(1)} s${why === undefined ? '' : ` (${why})`}`;
}

interface End {
  readonly output: string;
  readonly problem: string | undefined;
}

const running = new Set<number>();

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // All of it has just ended.
  }
}

/** A command leads a group of its own, which no signal of the terminal reaches. */
function killAllAtTheEnd(): void {
  if (process.listenerCount('exit', killAll) > 0) return;
  process.on('exit', killAll);
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => process.exit(1));
  }
}

function killAll(): void {
  for (const pid of running) killGroup(pid);
}

/** Shows and keeps the output. A late one is killed with its children. */
function run(command: Command, show: Show): Promise<End> {
  killAllAtTheEnd();
  return new Promise((resolve) => {
    const [file = '', ...args] = command.words;
    const { cwd, milliseconds, environment } = command;
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...process.env, ...environment },
    });
    const { pid } = child;
    if (pid !== undefined) running.add(pid);
    let output = '';
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      if (pid !== undefined) killGroup(pid);
    }, milliseconds);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      show(text, 'stdout');
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => show(text, 'stderr'));
    child.on('error', (error) => {
      clearTimeout(timer);
      resolve({ output, problem: error.message });
    });
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      if (pid !== undefined) running.delete(pid);
      // A stray child may hold the pipes open: what was printed until now is enough.
      setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
      }, 2000).unref();
      child.on('close', () => {
        const ended = signal === null ? `exit ${code}` : `ended by ${signal}`;
        if (late) resolve({ output, problem: `not done after ${milliseconds / 1000} s` });
        else resolve({ output, problem: code === 0 ? undefined : ended });
      });
    });
  });
}

/** A bad end counts as a failure, whatever was printed; so does a missing summary. */
export async function judge(command: Command, show: Show): Promise<Verdict> {
  const start = performance.now();
  const { output, problem } = await run(command, show);
  const seconds = (performance.now() - start) / 1000;
  const { count } = command;
  if (count === undefined) {
    return { counts: problem === undefined ? ONE_STEP : FAILED, seconds, why: problem };
  }
  const read = count(stripVTControlCharacters(output));
  const why = problem ?? (read === undefined ? 'printed no summary' : undefined);
  const counts = read ?? FAILED;
  if (problem === undefined || counts.failed > 0) return { counts, seconds, why };
  return { counts: { ...counts, failed: 1 }, seconds, why };
}
