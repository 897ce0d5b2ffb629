// Runs the tests in phases and adds up their counts.
//   test.ts [PHASE]...   phases whose name contains any of the words; without one, all
// Every phase prints its time; the last line is "N passed, N failed, N skipped".
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { stripVTControlCharacters } from 'node:util';
import { readableTree } from './readable-tree.ts';

process.chdir(new URL('..', import.meta.url).pathname);

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

interface Phase {
  readonly name: string;
  readonly command: readonly string[];
  readonly minutes: number;
  readonly environment?: Readonly<Record<string, string>>;
  /** It starts daemons, whose workers must be able to read where it runs. */
  readonly daemons?: boolean;
  /** Reads the counts of what the command printed; undefined when they are not there. */
  readonly count: (output: string) => Counts | undefined;
}

const ONE_STEP: Counts = { passed: 1, failed: 0, skipped: 0 };
const FAILED_STEP: Counts = { passed: 0, failed: 1, skipped: 0 };

function step(name: string, ...command: string[]): Phase {
  return { name, command, minutes: 15, count: () => ONE_STEP };
}

function countNative(output: string): Counts | undefined {
  const last = [...output.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm)].at(-1);
  if (last === undefined) return undefined;
  return { passed: Number(last[1]), failed: Number(last[2]), skipped: Number(last[3]) };
}

function countUvu(output: string): Counts | undefined {
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

/** What runs on several threads; the other suites have one, on a simulated loop. */
const THREADED = ['ring: ', 'socket: ', 'file: ', 'engine: ', 'assert: ', 'task: ', 'pipe: '];

function native(variant: string, directory: string, suites: readonly string[] = []): Phase[] {
  const jobs = String(Math.min(4, availableParallelism()));
  return [
    step(`native build ${variant}`, 'scripts/build-test', variant),
    {
      name: `native ${variant}`,
      command: [`out/${directory}/hast_test`, '--jobs', jobs, ...suites],
      minutes: 15,
      environment: {
        ASAN_OPTIONS: 'detect_stack_use_after_return=1:strict_string_checks=1',
        UBSAN_OPTIONS: 'print_stacktrace=1',
        TSAN_OPTIONS: 'halt_on_error=0:second_deadlock_stack=1',
      },
      count: countNative,
    },
  ];
}

/** Kept seeds, each twice, and fresh ones for a minute and a half, with ASan and UBSan. */
function simulation(): Phase[] {
  const program = 'out/test-asan/hast_sim';
  const sim = (name: string, ...args: string[]): Phase => ({
    name,
    command: [program, ...args],
    minutes: 15,
    environment: { UBSAN_OPTIONS: 'print_stacktrace=1' },
    count: (output) => {
      const last = [...output.matchAll(/^(\d+) schedules, (\d+) findings$/gm)].at(-1);
      if (last === undefined) return undefined;
      const failed = Number(last[2]);
      return { passed: failed === 0 ? 1 : 0, failed, skipped: 0 };
    },
  });
  return [
    step('sim build', 'scripts/sim', '--build', 'asan'),
    sim('sim kept', '--kept', 'test/sim/seeds'),
    {
      ...sim('sim reconnect', '--reconnect', '--replay'),
      count: (output) => {
        const last = /^\d+ states, \d+ meetings, (\d+) rows, (\d+) findings$/m.exec(output);
        if (last === null) return undefined;
        return { passed: Number(last[1]), failed: Number(last[2]), skipped: 0 };
      },
    },
    // Always the same ones, so that a failure is of the change and not of the day.
    sim('sim', '--seed', '721', '--seconds', '60'),
  ];
}

/** One process per folder of test/, so that a crash in one hides nothing of the others. */
function uvuPhases(): Phase[] {
  const hasSuites = (directory: string) =>
    readdirSync(directory, { recursive: true }).some((f) => String(f).endsWith('.test.ts'));
  const uvu = (name: string, directory: string, pattern: string): Phase => ({
    name,
    command: ['node', '--import', 'tsx', 'node_modules/uvu/bin.js', directory, pattern],
    minutes: 30,
    count: countUvu,
  });
  const folders = readdirSync('test', { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && hasSuites(`test/${entry.name}`))
    .map((entry) => entry.name);
  const slow = ['sim', 'system'];
  const rank = (folder: string) => slow.indexOf(folder);
  folders.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  return [
    uvu('suites', 'test', '^[^/]*\\.test\\.ts$'),
    ...folders.map((folder) => ({
      ...uvu(`suites ${folder}`, `test/${folder}`, '\\.test\\.ts$'),
      daemons: true,
    })),
  ];
}

let found: string | undefined;
function place(): string {
  found ??= readableTree();
  return found;
}

/** Runs one command, showing and keeping its output. A late one is killed with its children. */
function run(phase: Phase): Promise<{ output: string; problem: string | undefined }> {
  return new Promise((resolve) => {
    const [file = '', ...args] = phase.command;
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      cwd: phase.daemons === true ? place() : '.',
      env: { ...process.env, ...phase.environment },
    });
    let output = '';
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    }, phase.minutes * 60_000);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      process.stdout.write(text);
    });
    child.stderr.pipe(process.stderr, { end: false });
    child.on('error', (error) => {
      clearTimeout(timer);
      resolve({ output, problem: error.message });
    });
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      // A stray child may hold the pipes open: what was printed until now is enough.
      setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
      }, 2000).unref();
      child.on('close', () => {
        const ended = signal === null ? `exit ${code}` : `ended by ${signal}`;
        if (late) resolve({ output, problem: `not done after ${phase.minutes} minutes` });
        else resolve({ output, problem: code === 0 ? undefined : ended });
      });
    });
  });
}

async function runPhase(phase: Phase): Promise<Counts> {
  process.stdout.write(`\n=== ${phase.name}\n`);
  const start = performance.now();
  const { output, problem } = await run(phase);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const read = phase.count(stripVTControlCharacters(output));
  let counts = read ?? FAILED_STEP;
  if (problem !== undefined && (counts === ONE_STEP || counts.failed === 0)) {
    counts = counts === ONE_STEP ? FAILED_STEP : { ...counts, failed: 1 };
  }
  const why = problem ?? (read === undefined ? 'printed no summary' : undefined);
  process.stdout.write(
    `--- ${phase.name}: ${counts.passed} passed, ${counts.failed} failed, ` +
      `${counts.skipped} skipped, ${seconds} s${why === undefined ? '' : ` (${why})`}\n`,
  );
  return counts;
}

const phases: readonly Phase[] = [
  step('check generated', 'npm', 'run', '--silent', 'build:generated'),
  step('check typescript style', 'node_modules/.bin/biome', 'ci', '.'),
  step('check c++ style', 'scripts/clang-format', 'check'),
  step('check types', 'npm', 'run', '--silent', 'types'),
  ...native('asan', 'test-asan'),
  {
    name: 'fuzz',
    command: ['node', '--import', 'tsx', 'scripts/fuzz.ts', '--seed-loop', '--seconds', '1.2'],
    minutes: 5,
    count: countNative,
  },
  ...native('tsan', 'test-tsan', THREADED),
  ...simulation(),
  ...uvuPhases(),
  step('demo', 'node', '--import', 'tsx', 'scripts/demo.ts'),
];

const words = process.argv.slice(2);
const chosen = phases.filter(
  ({ name }) => words.length === 0 || words.some((word) => name.includes(word)),
);
const total = { passed: 0, failed: 0, skipped: 0 };
const broken: string[] = [];
for (const phase of chosen) {
  const counts = await runPhase(phase);
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
  if (counts.failed > 0) broken.push(phase.name);
}
if (chosen.length === 0) {
  process.stderr.write(`no phase is named like ${words.join(' or ')}\n`);
  total.failed = 1;
}
process.stdout.write(broken.length === 0 ? '\n' : `\nfailed: ${broken.join(', ')}\n`);
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
process.exitCode = total.failed > 0 ? 1 : 0;
