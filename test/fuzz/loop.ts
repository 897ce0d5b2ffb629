// What drives the fuzzers of the TypeScript parsers, with the options of the native seed loop:
//   NAME.fuzz.ts FILE...                               runs these inputs once: repeats a finding
//   NAME.fuzz.ts [--seconds N] [--runs N] [--seed S]   the corpus, then mutations of it
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Mutator } from './mutate.ts';

const ROOT = new URL('../../', import.meta.url).pathname;

/** Throws, or rejects, when a property does not hold for the input. */
export type Target = (input: Buffer) => void | Promise<void>;

interface Way {
  readonly seconds: number;
  readonly runs: number;
  readonly seed: number;
  readonly files: readonly string[];
}

function wayOf(args: string[]): Way {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { seconds: { type: 'string' }, runs: { type: 'string' }, seed: { type: 'string' } },
  });
  return {
    seconds: Number(values.seconds ?? 10),
    runs: Number(values.runs ?? Number.POSITIVE_INFINITY),
    seed: Number(values.seed ?? (Date.now() ^ process.pid) >>> 0),
    files: positionals,
  };
}

function corpusOf(name: string): Buffer[] {
  const folder = `${ROOT}test/fuzz/corpus/${name}`;
  return readdirSync(folder)
    .sort()
    .map((file) => readFileSync(`${folder}/${file}`));
}

/** Also for what fails behind the target's back: an exception in a callback of node's. */
function onFailure(report: (error: unknown) => void): void {
  process.on('uncaughtException', report);
  process.on('unhandledRejection', report);
}

/**
 * Runs a target as the command line says; ends the process with 1 at the first finding.
 * @param name   of the target and of its corpus
 * @param words  texts that are worth inserting
 * @returns whether the corpus was run, not only some inputs
 */
export async function fuzz(
  name: string,
  target: Target,
  words: readonly string[],
): Promise<boolean> {
  const way = wayOf(process.argv.slice(2));
  let input: Buffer = Buffer.alloc(0);
  let runs = 0;
  onFailure((error) => {
    const path = `out/finding-${name}-${way.seed}-${runs}`;
    mkdirSync(`${ROOT}out`, { recursive: true });
    writeFileSync(ROOT + path, input);
    const text = error instanceof Error ? error.stack : String(error);
    process.stdout.write(`${text}\n${name}: failed with seed ${way.seed} at run ${runs}\n`);
    process.stdout.write(`  repeat it: node --import tsx test/fuzz/${name}.fuzz.ts ${path}\n`);
    process.exit(1);
  });
  const attempt = async (bytes: Buffer) => {
    input = bytes;
    runs += 1;
    await target(bytes);
  };
  for (const file of way.files) await attempt(readFileSync(file));
  if (way.files.length > 0) return false;

  const corpus = corpusOf(name);
  for (const bytes of corpus) await attempt(bytes);
  const mutator = new Mutator(corpus, words, way.seed);
  const end = performance.now() + way.seconds * 1000;
  while (runs < way.runs && performance.now() < end) await attempt(mutator.next());
  process.stdout.write(`${name}: ${runs} runs, seed ${way.seed}\n`);
  return true;
}
