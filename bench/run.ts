// Measures hastd: `npm run bench -- [options]`, see docs/performance.md.
// The table goes to stdout, progress to stderr. Nothing stays behind.
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { native } from '../src/native.ts';
import { clearHead, inspect, refusal } from './disks.ts';
import { fill } from './fio.ts';
import { type Job, readJobs } from './jobs.ts';
import { freeBytes, isInMemory, isRoot, loadNow, readMachine } from './machine.ts';
import { codecBenches } from './micro/codec.bench.ts';
import { type MicroResult, runMicro } from './micro/micro.ts';
import { nvBenches } from './micro/nv.bench.ts';
import { copyBuild, MODES, type Mode, ourTarget, type Setting, type User } from './pair.ts';
import { BenchError, killAll, tryRun } from './process.ts';
import { columns, OURS, type Result, reportText, type Sample } from './report.ts';
import {
  echoTarget,
  nullTarget,
  type Place,
  qemuTarget,
  rawTarget,
  type Target,
} from './targets.ts';

const MIB = 1024 * 1024;
/** Room for metadata and map in front of the data. */
const OVERHEAD_BYTES = 64 * MIB;
const QUICK_JOBS = ['randwrite-4k-qd1', 'randwrite-4k-qd32', 'fsync-4k'];

interface Options {
  readonly quick?: true;
  readonly rounds?: number;
  readonly seconds?: number;
  readonly modes: readonly Mode[];
  readonly jobs?: readonly string[];
  readonly only?: 'micro' | 'fio';
  readonly json?: string;
  readonly dir?: string;
  readonly user?: string;
  readonly diskA?: string;
  readonly diskB?: string;
  readonly destroy: readonly string[];
}

function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

// ---- Command line --------------------------------------------------------------------------

function count(most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= 1 && value <= most) return value;
    throw new InvalidArgumentError(`give a number from 1 to ${most}`);
  };
}

function oneOf<T extends string>(known: readonly T[]): (text: string) => T {
  return (text) => {
    const found = known.find((word) => word === text);
    if (found !== undefined) return found;
    throw new InvalidArgumentError(`known are: ${known.join(', ')}`);
  };
}

function listOf<T extends string>(known: readonly T[]): (text: string) => readonly T[] {
  return (text) => text.split(',').map(oneOf(known));
}

function readOptions(jobs: readonly Job[]): Options {
  const names = jobs.map(({ name }) => name);
  const command = new Command('npm run bench --')
    .description('Measures hastd against the disk, the network and qemu-nbd in the same run.')
    .option('--quick', 'three jobs, one round of one second, fullsync only: a first look')
    .option('--rounds <n>', 'how often everything is measured (default: 3)', count(100))
    .option('--seconds <s>', 'length of one measurement (default: 2)', count(600))
    .option('--modes <list>', `of ${MODES.join(',')}`, listOf(MODES))
    .option('--jobs <list>', `of ${names.join(',')}`, listOf(names))
    .option('--only <part>', 'micro or fio', oneOf(['micro', 'fio']))
    .option('--json <file>', 'write all measurements to this file')
    .option('--dir <folder>', 'where the data files are made; not in memory')
    .option('--user <name>', 'who the workers are when run by root (default: nobody)')
    .option('--disk-a <device>', 'the disk of the primary, instead of files; it is overwritten')
    .option('--disk-b <device>', 'the disk of the secondary; it is overwritten')
    .option(
      '--destroy <serial>',
      'the serial number of a disk that is not empty and may be lost; once for each disk',
      (serial: string, before: readonly string[]) => [...before, serial],
      [] as readonly string[],
    )
    .allowExcessArguments(false);
  command.parse();
  const options = command.opts<Omit<Options, 'modes'> & { readonly modes?: readonly Mode[] }>();
  if ((options.diskA === undefined) !== (options.diskB === undefined)) {
    command.error('error: --disk-a and --disk-b go together');
  }
  return { ...options, modes: options.modes ?? (options.quick ? ['fullsync'] : MODES) };
}

// ---- Places --------------------------------------------------------------------------------

function canWrite(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function chooseFolder(asked: string | undefined, bytes: number): string {
  const mib = Math.ceil(bytes / MIB);
  const problem = (directory: string) => {
    if (!canWrite(directory)) return `${directory} cannot be written`;
    if (bytes > 0 && isInMemory(directory)) return `${directory} is in memory`;
    if (freeBytes(directory) < bytes) return `${directory} has less than ${mib} MiB free`;
    return undefined;
  };
  const candidates = asked === undefined ? [tmpdir(), '/var/tmp'] : [asked];
  const chosen = candidates.find((directory) => problem(directory) === undefined);
  if (chosen !== undefined) return realpathSync(chosen);
  throw new BenchError(
    `${candidates.map(problem).join('; ')}: name a folder on a disk with --dir, or smaller --jobs`,
  );
}

function chooseUser(asked: string | undefined): User | undefined {
  if (!isRoot()) {
    if (asked !== undefined) throw new BenchError('--user is for root only');
    return undefined;
  }
  const name = asked ?? 'nobody';
  const ids = native.host.lookupUser(name);
  if (ids === null) throw new BenchError(`there is no user ${name}: name one with --user`);
  if (ids.uid === 0) throw new BenchError('a worker is never root: name another one with --user');
  return { name, ...ids };
}

/** Where the copies are, and where raw disk and qemu-nbd are measured. */
interface Places {
  readonly pair: readonly [string, string];
  /** None on disks: a third component would need a third disk. */
  readonly alone: string | undefined;
  readonly raw: Place;
  readonly rawB: Place | undefined;
  readonly clear: () => void;
}

async function makeFile(path: string, bytes: number): Promise<string> {
  closeSync(openSync(path, 'wx', 0o600));
  if ((await tryRun('fallocate', ['-l', String(bytes), path])) === undefined) {
    throw new BenchError(`${path}: fallocate failed: is there room, and a file system that can?`);
  }
  await fill(path, 0, bytes);
  return path;
}

async function fileStages(directory: string, bytes: number): Promise<Places> {
  progress(`writing 4 files of ${bytes / MIB} MiB in ${directory}`);
  const make = (name: string) => makeFile(join(directory, name), bytes);
  const pair = [await make('a.img'), await make('b.img')] as const;
  const alone = await make('alone.img');
  const raw = { path: await make('floor.img'), offset: 0 };
  return { pair, alone, raw, rawB: undefined, clear: () => {} };
}

/** The component first, the region for the floor behind it. */
async function diskStages(a: string, b: string, bytes: number, destroy: readonly string[]) {
  const disks = [await inspect(a), await inspect(b)];
  const problems = disks.flatMap((disk) => refusal(disk, 2 * bytes, destroy) ?? []);
  const [diskA = '', diskB = ''] = disks.map(({ path }) => path);
  if (diskA === diskB) problems.push(`${diskA} cannot be both disks`);
  if (problems.length > 0) throw new BenchError(problems.join('\n'));
  for (const path of [diskA, diskB]) {
    progress(`writing ${(2 * bytes) / MIB} MiB of ${path}`);
    clearHead(path);
    await fill(path, 0, 2 * bytes);
  }
  return {
    pair: [diskA, diskB],
    alone: undefined,
    raw: { path: diskA, offset: bytes },
    rawB: { path: diskB, offset: bytes },
    clear: () => {
      for (const path of [diskA, diskB]) clearHead(path);
    },
  } satisfies Places;
}

// ---- Measuring -----------------------------------------------------------------------------

async function makeTargets(
  setting: Setting,
  places: Places,
  modes: readonly Mode[],
  notes: string[],
): Promise<readonly Target[]> {
  const { directory, componentBytes } = setting;
  const targets: Target[] = [rawTarget('raw', places.raw)];
  /** What cannot be had is left out, with the reason. */
  const add = async (name: string, make: () => Target | Promise<Target>) => {
    try {
      targets.push(await make());
    } catch (error) {
      if (!(error instanceof BenchError) || OURS.includes(name)) throw error;
      notes.push(`${name} is left out: ${error.message}`);
    }
  };
  const { rawB, alone } = places;
  if (rawB !== undefined) targets.push(rawTarget('raw b', rawB));
  await add('null', () => nullTarget(directory, componentBytes));
  await add('tcp echo', () => echoTarget(directory));
  await add('qemu-nbd', async () => {
    if ((await tryRun('qemu-nbd', ['--version'])) === undefined) {
      throw new BenchError('install qemu-utils');
    }
    return qemuTarget(directory, places.raw);
  });
  if (alone === undefined) notes.push('alone is left out: it would need a third disk');
  else await add('alone', () => ourTarget(setting, 'fullsync', [alone], true));
  for (const [i, mode] of modes.entries()) {
    await add(mode, () => ourTarget(setting, mode, places.pair, i === 0));
  }
  for (const line of bufferNotes(directory)) notes.push(line);
  return targets;
}

/** What the workers said about memory that they could not lock: it changes the figures. */
function bufferNotes(directory: string): readonly string[] {
  return ['a', 'b'].flatMap((name) => {
    const log = readFileSync(join(directory, `${name}.log`), 'utf8');
    return [...log.matchAll(/\((primary|secondary)\) (Buffers: .*)$/gm)].map(
      ([, role, text]) => `${role}: ${text}`,
    );
  });
}

/** One that fails so often is not asked any more. */
const FAILURES_MAX = 2;

/** @param failures  what went wrong, for each target; the others go on */
async function measureAll(
  targets: readonly Target[],
  jobs: readonly Job[],
  rounds: number,
  seconds: number,
  failures: Map<string, readonly string[]>,
): Promise<readonly Sample[]> {
  const samples: Sample[] = [];
  const measureOne = async (target: Target, job: Job, round: number) => {
    const { name } = target;
    const earlier = failures.get(name) ?? [];
    if (!target.fits(job) || earlier.length >= FAILURES_MAX) return;
    const about = `round ${round + 1} of ${rounds}, ${job.name}, ${name}`;
    try {
      const measured = await target.measure(job, seconds);
      samples.push({ ...measured, job: job.name, target: name, round });
      const { iops, cpu } = measured;
      const cost = cpu.length === 0 ? '' : `, CPU ${cpu.map((x) => x.toFixed(1)).join(' + ')} us`;
      progress(`${about}: ${iops.toFixed(0)} IOPS${cost}`);
    } catch (error) {
      if (!(error instanceof BenchError)) throw error;
      progress(`${about}: ${error.message}`);
      failures.set(name, [...earlier, `${job.name}: ${error.message.split('\n')[0]}`]);
    }
  };
  for (let round = 0; round < rounds; round += 1) {
    for (const job of jobs) {
      // Another one begins in each round: what the neighbours do hits all of them.
      const first = round % targets.length;
      const order = [...targets.slice(first), ...targets.slice(0, first)];
      for (const target of order) await measureOne(target, job, round);
    }
  }
  return samples;
}

async function measureIo(options: Options, jobs: readonly Job[], places: Places, base: Setting) {
  const rounds = options.rounds ?? (options.quick ? 1 : 3);
  const seconds = options.seconds ?? (options.quick ? 1 : 2);
  const machine = await readMachine(places.raw.path);
  const notes: string[] = [];
  const targets = await makeTargets(base, places, options.modes, notes);
  const minutes = (targets.length * jobs.length * rounds * (seconds + 3)) / 60;
  progress(`${targets.length} targets, ${jobs.length} jobs: about ${Math.ceil(minutes)} minutes`);
  const failures = new Map<string, readonly string[]>();
  const samples = await measureAll(targets, jobs, rounds, seconds, failures);
  for (const [name, texts] of failures) {
    for (const text of texts) notes.push(`${name} failed in ${text}`);
    if (OURS.includes(name)) process.exitCode = 1;
  }
  return {
    machine,
    loadAfter: loadNow(),
    rounds,
    seconds,
    oneDisk: places.rawB === undefined,
    targets: targets.map(({ name, what }) => ({ name, what })),
    notes,
    jobs,
    samples,
  } satisfies Result;
}

function measureMicro(seconds: number): readonly MicroResult[] {
  progress('synchronous functions');
  return [...codecBenches(), ...nvBenches()].map((micro) => runMicro(micro, seconds));
}

function microText(results: readonly MicroResult[]): string {
  const rows = results.map(({ name, nanoseconds, error, mibPerSecond }) => [
    name,
    nanoseconds.toFixed(0),
    `${error.toFixed(1)} %`,
    mibPerSecond?.toFixed(0) ?? '-',
  ]);
  return `Synchronous functions\n${columns([['function', 'ns', '+-', 'MiB/s'], ...rows])}\n`;
}

// ---- All -----------------------------------------------------------------------------------

async function withPlaces(options: Options, jobs: readonly Job[]): Promise<Result> {
  const { diskA, diskB, destroy } = options;
  const bytes = Math.max(...jobs.map(({ spanBytes }) => spanBytes)) + OVERHEAD_BYTES;
  const onDisks = diskA !== undefined && diskB !== undefined;
  const user = chooseUser(options.user);
  const parent = chooseFolder(options.dir, onDisks ? 0 : 4 * bytes);
  const directory = mkdtempSync(join(parent, 'hastd-bench-'));
  chmodSync(directory, 0o755); // the workers, another user, run what is copied into it
  let places: Places | undefined;
  const cleanUp = () => {
    rmSync(directory, { recursive: true, force: true });
    places?.clear();
    places = undefined;
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      killAll();
      setTimeout(() => {
        cleanUp();
        process.exit(75);
      }, 1000); // the workers end when their daemon is gone
    });
  }
  try {
    copyBuild(directory);
    places = onDisks
      ? await diskStages(diskA, diskB, bytes, destroy)
      : await fileStages(directory, bytes);
    return await measureIo(options, jobs, places, {
      directory,
      user,
      componentBytes: bytes,
      progress,
    });
  } finally {
    cleanUp();
  }
}

async function main(): Promise<void> {
  const known = readJobs();
  const options = readOptions(known);
  if (options.only !== 'micro' && (await tryRun('fio', ['--version'])) === undefined) {
    throw new BenchError('fio is missing: install it, or see --only micro');
  }
  const names = options.jobs ?? (options.quick ? QUICK_JOBS : known.map(({ name }) => name));
  const jobs = known.filter(({ name }) => names.includes(name));
  const micro = options.only === 'fio' ? [] : measureMicro(options.quick ? 0.1 : 1);
  if (micro.length > 0) process.stdout.write(microText(micro));
  const io = options.only === 'micro' ? undefined : await withPlaces(options, jobs);
  if (io !== undefined) process.stdout.write(reportText(io));
  if (options.json !== undefined) {
    writeFileSync(options.json, `${JSON.stringify({ micro, io }, null, 2)}\n`);
  }
}

try {
  await main();
} catch (error) {
  killAll();
  const text = error instanceof BenchError ? error.message : (error as Error).stack;
  process.stderr.write(`bench: ${text}\n`);
  process.exitCode = 1;
}
