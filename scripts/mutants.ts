// Does a test notice when a guard is gone? Every guard of the core (`// guard:NAME`) has a mutation
// in mutants/list.ts; each is built into a test program of its own, which must fail.
//   mutants.ts [NAME]...   only those; HAST_MUTANTS_VERBOSE=1 shows what failed
// The last line is "N caught, N missed".
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { mutated } from './mutants/guards.ts';
import { MUTANTS, type Mutant } from './mutants/list.ts';

process.chdir(new URL('..', import.meta.url).pathname);

const OUT = 'out/mutants';
const FLAGS = [
  '-std=c++20',
  '-O1',
  '-D_GNU_SOURCE',
  '-D_FILE_OFFSET_BITS=64',
  `-DHAST_TEST_DIR="${process.cwd()}/test"`,
  '-Isrc-native',
  '-Itest',
  '-Itest/native',
  '-fno-rtti',
  // A mutated coroutine without any co_await is none, and would run off its end.
  '-Werror=return-type',
];
const MINUTE = 60_000;
const JOBS = Math.min(4, availableParallelism());

interface Ended {
  readonly ok: boolean;
  readonly text: string;
  readonly how: string;
}

function run(command: string, args: readonly string[], ms: number): Promise<Ended> {
  const options = { timeout: ms, killSignal: 'SIGKILL', maxBuffer: 1 << 26 } as const;
  return new Promise((resolve) => {
    execFile(command, [...args], options, (error, stdout, stderr) => {
      const signal = error?.killed === true ? 'no end in time' : (error?.signal ?? undefined);
      const how = signal ?? `exit ${error?.code ?? 0}`;
      resolve({ ok: error === null, text: `${stdout}${stderr}`, how });
    });
  });
}

/** Some at a time. */
async function each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  const worker = async () => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: JOBS }, worker));
}

// --- building -----------------------------------------------------------------------------------

/** The engine with all below it that needs no kernel, and the tests of both. */
function sources(): string[] {
  const folders = ['base', 'codec', 'wire', 'engine'].map((room) => `src-native/${room}`);
  const all = [...folders, 'test/native/codec', 'test/native/engine'].flatMap((folder) =>
    readdirSync(folder).map((name) => `${folder}/${name}`),
  );
  for (const name of ['loop', 'task', 'stream', 'sim_loop', 'pipe_stream']) {
    all.push(`src-native/ring/${name}.cc`);
  }
  all.push('src-native/disk/fault_component.cc', 'test/sim/pair.cc');
  all.push('test/native/main.cc', 'test/native/vectors.cc');
  // Its thread needs a real ring.
  const threaded = /\/engine(_test)?\.cc$/;
  return all.filter((file) => file.endsWith('.cc') && !threaded.test(file));
}

async function compile(source: string, object: string, more: readonly string[] = []) {
  mkdirSync(dirname(object), { recursive: true });
  const flags = [...FLAGS, ...more, '-MMD', '-c', '-o', object, source];
  const built = await run('g++', flags, 5 * MINUTE);
  if (!built.ok) throw new Error(`${source} does not compile:\n${built.text}`);
}

function newest(file: string): number {
  return existsSync(file) ? statSync(file).mtimeMs : 0;
}

/** By the files it was made of, as the compiler wrote them down. */
function isFresh(object: string): boolean {
  const list = object.replace(/\.o$/, '.d');
  if (!existsSync(object) || !existsSync(list)) return false;
  const made = newest(object);
  const files = readFileSync(list, 'utf8')
    .split(/[\s\\]+/)
    .slice(1);
  return files.every((file) => file === '' || (newest(file) > 0 && newest(file) <= made));
}

const objectOf = (source: string) => join(OUT, source.replace(/\.cc$/, '.o'));

async function link(program: string, instead = new Map<string, string>()): Promise<void> {
  const parts = sources().map((source) => instead.get(source) ?? objectOf(source));
  const linked = await run('g++', ['-o', program, ...parts, '-lcrypto', '-lz'], 5 * MINUTE);
  if (!linked.ok) throw new Error(linked.text);
}

// --- one mutant ---------------------------------------------------------------------------------

async function buildMutant(mutant: Mutant): Promise<string> {
  const folder = join(OUT, 'changed', mutant.guard);
  const instead = new Map<string, string>();
  for (const [file, text] of mutated(mutant)) {
    const changed = join(folder, file);
    mkdirSync(dirname(changed), { recursive: true });
    writeFileSync(changed, text);
    const object = changed.replace(/\.cc$/, '.o');
    await compile(changed, object, ['-O0']);
    instead.set(`src-native/${file}`, object);
  }
  const program = join(folder, 'test');
  await link(program, instead);
  return program;
}

/** Caught is only what a test or an assertion has noticed: a crash may be the mutation's own. */
function noticed(text: string): string | undefined {
  const failed = /^FAILED {2}(.*)$/m.exec(text)?.[1];
  if (failed !== undefined) return failed;
  const assertion = /assertion failed: (.*)/.exec(text)?.[1];
  return assertion === undefined ? undefined : `assertion ${assertion}`;
}

// --- all of them --------------------------------------------------------------------------------

await each(
  sources().filter((source) => !isFresh(objectOf(source))),
  (source) => compile(source, objectOf(source)),
);
const whole = join(OUT, 'whole');
await link(whole);
const began = Date.now();
const unchanged = await run(whole, [], 10 * MINUTE);
if (!unchanged.ok) throw new Error(`the tests fail without any mutation:\n${unchanged.text}`);
const limit = 10_000 + 10 * (Date.now() - began);

const names = process.argv.slice(2);
const wanted = MUTANTS.filter(({ guard }) => names.length === 0 || names.includes(guard));
let caught = 0;
let missed = 0;
await each(wanted, async (mutant) => {
  const program = await buildMutant(mutant);
  const result = await run(program, ['--first-failure'], limit);
  const by = noticed(result.text);
  const place = `[${caught + missed + 1}/${wanted.length}]`;
  if (by === undefined) {
    missed += 1;
    console.log(`${place} MISSED ${mutant.guard}: ${result.ok ? 'all passed' : result.how}`);
  } else {
    caught += 1;
    console.log(`${place} caught ${mutant.guard}: ${by}`);
  }
  if (process.env.HAST_MUTANTS_VERBOSE !== undefined) console.log(result.text);
});
console.log(`${caught} caught, ${missed} missed`);
process.exitCode = missed > 0 ? 1 : 0;
