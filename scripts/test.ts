// Runs the tests in phases and adds up their counts.
//   test.ts [PHASE]...   phases whose name contains any of the words; without one, all
// Every phase prints its time; the last line is "N passed, N failed, N skipped".
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { readableTree } from './readable-tree.ts';
import {
  add,
  type Command,
  type Counts,
  FAILED,
  inWords,
  judge,
  NOTHING,
  remarks,
  type Verdict,
} from './test/command.ts';
import { runPool } from './test/pool.ts';

process.chdir(new URL('..', import.meta.url).pathname);

interface Phase {
  readonly name: string;
  readonly run: () => Promise<Verdict>;
}

const MINUTE = 60_000;

/** One command, whose output is seen as it comes. */
function phase(name: string, command: Command): Phase {
  return {
    name,
    run: () => judge(command, (text, stream) => process[stream].write(text)),
  };
}

function step(name: string, ...words: string[]): Phase {
  return phase(name, { words, milliseconds: 15 * MINUTE });
}

function countNative(output: string): Counts | undefined {
  const last = [...output.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm)].at(-1);
  if (last === undefined) return undefined;
  return { passed: Number(last[1]), failed: Number(last[2]), skipped: Number(last[3]) };
}

const ASAN_OPTIONS = [
  'detect_stack_use_after_return=1',
  'strict_string_checks=1',
  // What is free stays mapped, and its shadow is written: page faults take longer than both.
  'allocator_release_to_os_interval_ms=-1',
  'clear_shadow_mmap_threshold=1000000000',
];

function native(variant: string, directory: string): Phase[] {
  const jobs = String(Math.min(4, availableParallelism()));
  return [
    step(`native build ${variant}`, 'scripts/build-test', variant),
    phase(`native ${variant}`, {
      words: [`out/${directory}/hast_test`, '--jobs', jobs],
      milliseconds: 15 * MINUTE,
      environment: {
        ASAN_OPTIONS: ASAN_OPTIONS.join(':'),
        UBSAN_OPTIONS: 'print_stacktrace=1',
        TSAN_OPTIONS: 'halt_on_error=0:second_deadlock_stack=1',
      },
      count: countNative,
    }),
  ];
}

/** Kept seeds, each twice, and fresh ones for a minute and a half, with ASan and UBSan. */
function simulation(): Phase[] {
  const count = (output: string): Counts | undefined => {
    const last = [...output.matchAll(/^(\d+) schedules, (\d+) findings$/gm)].at(-1);
    if (last === undefined) return undefined;
    const failed = Number(last[2]);
    return { passed: failed === 0 ? 1 : 0, failed, skipped: 0 };
  };
  const countRows = (output: string): Counts | undefined => {
    const last = /^\d+ states, \d+ meetings, (\d+) rows, (\d+) findings$/m.exec(output);
    if (last === null) return undefined;
    return { passed: Number(last[1]), failed: Number(last[2]), skipped: 0 };
  };
  const sim = (...args: readonly string[]): Command => ({
    words: ['out/test-asan/hast_sim', ...args],
    milliseconds: 15 * MINUTE,
    environment: { UBSAN_OPTIONS: 'print_stacktrace=1' },
    count,
  });
  return [
    step('sim build', 'scripts/sim', '--build', 'asan'),
    phase('sim kept', sim('--kept', 'test/sim/seeds')),
    phase('sim reconnect', { ...sim('--reconnect', '--replay'), count: countRows }),
    // Always the same ones, so that a failure is of the change and not of the day.
    phase('sim', sim('--seed', '721', '--seconds', '60')),
  ];
}

/** What takes longer than others, the longest first. */
const LONG: readonly string[] = [
  'test/system/pair.test.ts',
  'test/system/faults.test.ts',
  'test/system/old-peers.test.ts',
  'test/system/reload.test.ts',
  'test/system/malformed.test.ts',
  'test/system/daemon.test.ts',
  'test/system/adoption.test.ts',
  'test/system/failover.test.ts',
  'test/unit/failover/switch.test.ts',
  'test/unit/ctl/create.test.ts',
  'test/unit/resource/supervisor.test.ts',
];

/** Those of `npm run test:vm`. */
const OTHER_KERNEL = 'test/vm/';

/** Daemons are started from there, and their workers must be able to read it. */
let found: string | undefined;
function place(): string {
  found ??= readableTree();
  return found;
}

/** Each file in a process of its own, two at a time, as most of them wait. */
function suites(name: string, files: readonly string[], cwd: () => string): Phase {
  const long = LONG.filter((file) => files.includes(file));
  const run = () =>
    runPool({
      files: [...long, ...files.filter((file) => !long.includes(file))],
      lanes: Math.max(2, Math.min(4, availableParallelism())),
      milliseconds: 10 * MINUTE,
      cwd: cwd(),
      print: (text) => process.stdout.write(text),
    });
  return { name, run };
}

/** One phase for each folder of test/; those with real daemons are the last. */
function uvuPhases(): Phase[] {
  const all = readdirSync('test', { recursive: true })
    .map((name) => `test/${name}`)
    .filter((file) => file.endsWith('.test.ts') && !file.startsWith(OTHER_KERNEL))
    .sort();
  const gone = LONG.filter((file) => !all.includes(file));
  if (gone.length > 0) throw new Error(`scripts/test.ts names what is not there: ${gone.join()}`);
  const folderOf = (file: string) => /^test\/(\w+)\//.exec(file)?.[1] ?? '';
  const folders = [...new Set(all.map(folderOf))].filter((folder) => folder !== '');
  const of = (folder: string) => all.filter((file) => folderOf(file) === folder);
  folders.sort((a, b) => Number(a === 'system') - Number(b === 'system') || a.localeCompare(b));
  return [
    suites('suites', of(''), () => '.'),
    ...folders.map((folder) => suites(`suites ${folder}`, of(folder), place)),
  ];
}

const phases: readonly Phase[] = [
  step('check generated', 'npm', 'run', '--silent', 'build:generated'),
  step('check typescript style', 'node_modules/.bin/biome', 'ci', '.'),
  step('check c++ style', 'scripts/clang-format', 'check'),
  step('check types', 'npm', 'run', '--silent', 'types'),
  ...native('asan', 'test-asan'),
  phase('fuzz', {
    words: ['node', '--import', 'tsx', 'scripts/fuzz.ts', '--seed-loop', '--seconds', '1.2'],
    milliseconds: 5 * MINUTE,
    count: countNative,
  }),
  ...native('tsan', 'test-tsan'),
  ...simulation(),
  ...uvuPhases(),
  step('demo', 'node', '--import', 'tsx', 'scripts/demo.ts'),
];

const words = process.argv.slice(2);
const chosen = phases.filter(
  ({ name }) => words.length === 0 || words.some((word) => name.includes(word)),
);
let total = NOTHING;
const broken: string[] = [];
for (const { name, run } of chosen) {
  process.stdout.write(`\n=== ${name}\n`);
  const verdict = await run();
  process.stdout.write(`--- ${name}: ${inWords(verdict.counts)}, ${remarks(verdict)}\n`);
  total = add(total, verdict.counts);
  if (verdict.counts.failed > 0) broken.push(name);
}
if (chosen.length === 0) {
  process.stderr.write(`no phase is named like ${words.join(' or ')}\n`);
  total = FAILED;
}
process.stdout.write(broken.length === 0 ? '\n' : `\nfailed: ${broken.join(', ')}\n`);
process.stdout.write(`${inWords(total)}\n`);
process.exitCode = total.failed > 0 ? 1 : 0;
