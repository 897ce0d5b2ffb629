// Our LZF against Debian's liblzf in one run: `npm run bench:lzf -- [options]`, see
// docs/performance.md.
// The table goes to stdout, progress to stderr. Nothing stays behind.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import * as v from 'valibot';
import { type CorpusSet, corpus, KINDS, type Kind, SETS } from './lzf-corpus.ts';
import { loadNow, readMachine } from './machine.ts';
import { BenchError, killAll, run, tryRun } from './process.ts';
import { columns } from './report.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const KIB = 1024;
const BLOCKS = [4, 8, 16, 32, 64, 128].map((kib) => kib * KIB);
/** Of which instructions are counted: it takes long. */
const COUNTED_BLOCKS = [4 * KIB, 128 * KIB];
const OPERATIONS = ['encode', 'liblzf', 'decode', 'liblzf'] as const;

const Times = v.object({
  bytes: v.number(),
  ours: v.number(),
  theirs: v.number(),
  times: v.array(v.array(v.number())),
});
type Times = v.InferOutput<typeof Times>;

function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

/** Warnings and optimisation as the addon has them. */
async function compile(directory: string): Promise<string> {
  const program = join(directory, 'lzf_bench');
  const sources = ['src-native/codec/lzf.cc', 'src-native/base/assert.cc'];
  await run(
    'c++',
    [
      ...['-std=c++20', '-O2', '-Wall', '-Wextra', '-fno-exceptions', '-fno-rtti'],
      `-I${ROOT}src-native`,
      ...['bench/native/lzf_bench.cc', ...sources].map((file) => ROOT + file),
      ...['-o', program, '-llzf'],
    ],
    120,
  );
  return program;
}

function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * part)] ?? Number.NaN;
}

/** Theirs by ours in each round: the median, and in parentheses where the middle half lies. */
function ahead({ times }: Times, ours: number): string {
  const theirs = times[ours + 1] ?? [];
  const ratios = (times[ours] ?? []).map((time, i) => (theirs[i] ?? Number.NaN) / time);
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(ratios, part).toFixed(2));
  return `${middle} (${low}-${high})`;
}

function rate({ times, bytes }: Times, operation: number): string {
  return ((bytes / quantile(times[operation] ?? [], 0.5)) * 1000).toFixed(0);
}

const HEAD = [
  'KiB',
  'bytes of 100',
  'by liblzf',
  'encode MB/s',
  'liblzf',
  'x',
  'decode MB/s',
  'liblzf',
  'x',
  'x, our streams',
];

function timeRow(block: number, times: Times): readonly string[] {
  const { bytes, ours, theirs } = times;
  return [
    String(block / KIB),
    ((100 * ours) / bytes).toFixed(1),
    (ours / theirs).toFixed(3),
    rate(times, 0),
    rate(times, 1),
    ahead(times, 0),
    rate(times, 2),
    rate(times, 3),
    ahead(times, 2),
    ahead(times, 4),
  ];
}

/** Instructions per byte of data: what two runs more have cost, so that all else cancels out. */
async function count(program: string, file: string, block: number, operation: number) {
  const collected = async (times: number) => {
    const out = await run(
      'sh',
      [
        '-c',
        // A table that is cleared by one instruction repeated would count as one for each byte.
        'export GLIBC_TUNABLES=glibc.cpu.x86_rep_stosb_threshold=1000000000; ' +
          'exec valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1',
        ...['sh', program, 'count', file, String(block), String(operation), String(times)],
      ],
      600,
    );
    const sum = Number(/Collected : (\d+)/.exec(out)?.[1]);
    const bytes = Number(/^(\d+)$/m.exec(out)?.[1]);
    if (!(sum > 0 && bytes > 0)) throw new BenchError(`valgrind says nothing of use:\n${out}`);
    return { sum, bytes };
  };
  const [less, more] = [await collected(1), await collected(3)];
  return (more.sum - less.sum) / 2 / less.bytes;
}

async function measure(
  directory: string,
  program: string,
  set: CorpusSet,
  kind: Kind,
  options: Options,
): Promise<string> {
  const file = join(directory, `${set}.${kind}`);
  writeFileSync(file, corpus(set, kind));
  const rows: (readonly string[])[] = [HEAD];
  for (const block of BLOCKS) {
    progress(`${set}, ${kind}, ${block / KIB} KiB`);
    const text = await run(program, ['time', file, String(block), String(options.rounds)], 600);
    rows.push(timeRow(block, v.parse(Times, JSON.parse(text))));
  }
  let text = `${kind}, ${set} set\n${columns(rows)}`;
  if (options.count && (await tryRun('valgrind', ['--version'])) !== undefined) {
    const counts: (readonly string[])[] = [['instructions a byte', ...OPERATIONS]];
    for (const block of COUNTED_BLOCKS) {
      progress(`${set}, ${kind}, ${block / KIB} KiB, instructions`);
      const row: string[] = [`${block / KIB} KiB`];
      for (const [operation] of OPERATIONS.entries()) {
        row.push((await count(program, file, block, operation)).toFixed(2));
      }
      counts.push(row);
    }
    text += columns(counts);
  }
  return `${text}\n`;
}

// ---- Command line --------------------------------------------------------------------------

interface Options {
  readonly rounds: number;
  readonly count: boolean;
  readonly set?: CorpusSet;
}

function rounds(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 10_000) return value;
  throw new InvalidArgumentError('give a number from 1 to 10000');
}

function setName(text: string): CorpusSet {
  const found = SETS.find((name) => name === text);
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`known are: ${SETS.join(', ')}`);
}

function readOptions(): Options {
  const command = new Command('npm run bench:lzf --')
    .description('Measures our LZF against liblzf in the same run.')
    .option('--rounds <n>', 'how often everything is measured', rounds, 101)
    .option('--set <name>', 'judging or tuning (default: judging)', setName)
    .option('--no-count', 'no instruction counts (they take valgrind and a minute)')
    .allowExcessArguments(false);
  return command.parse().opts<Options>();
}

async function main(): Promise<void> {
  const options = readOptions();
  const directory = mkdtempSync(join(tmpdir(), 'hastd-lzf-'));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      killAll();
      rmSync(directory, { recursive: true, force: true });
      process.exit(75);
    });
  }
  try {
    const { date, commit, cpu, cores, kernel, load } = await readMachine(directory);
    const program = await compile(directory);
    const tables: string[] = [];
    for (const kind of KINDS) {
      tables.push(await measure(directory, program, options.set ?? 'judging', kind, options));
    }
    const compiler = (await tryRun('c++', ['--version']))?.split('\n')[0] ?? 'unknown';
    const judge = (await tryRun('dpkg-query', ['-W', 'liblzf1']))?.trim().replace('\t', ' ');
    process.stdout.write(
      `${date}, commit ${commit}\n${cpu}, ${cores} cores, Linux ${kernel}\n` +
        `${compiler} -O2, ${judge ?? 'liblzf of unknown version'}\n` +
        `load ${load} before, ${loadNow()} after; ` +
        `${options.rounds} rounds in turn: median of the ratios (middle half)\n\n` +
        tables.join('\n'),
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

main().catch((error: unknown) => {
  if (!(error instanceof BenchError)) throw error;
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
});
