// Runs the fuzz targets one after the other: those in C++ on libFuzzer if clang is there, else on
// our seed loop, and those in TypeScript.
//   fuzz.ts [--seconds N] [--target NAME] [--seed-loop]
// --seconds is for each target (default 60). --seed-loop: no clang, on the build of the tests.
// The last line is "N passed, N failed, N skipped".
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';

process.chdir(new URL('..', import.meta.url).pathname);

interface Target {
  readonly name: string;
  readonly command: readonly string[];
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    target: { type: 'string' },
    'seed-loop': { type: 'boolean', default: false },
  },
});
const seconds = Number(values.seconds);
if (!(seconds > 0)) {
  process.stderr.write('--seconds takes a number above 0\n');
  process.exit(64);
}

function namesOf(ending: string): string[] {
  return readdirSync('test/fuzz')
    .filter((file) => file.endsWith(ending))
    .map((file) => file.slice(0, -ending.length))
    .filter((name) => values.target === undefined || name === values.target);
}

function succeeds(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] }).status === 0;
}

/** With libFuzzer what it finds new is kept in out/, to go on from there next time. */
function onLibFuzzer(name: string): Target {
  const found = `out/fuzz/corpus-${name}`;
  mkdirSync(found, { recursive: true });
  const options = [
    `-max_total_time=${Math.ceil(seconds)}`,
    `-artifact_prefix=out/finding-${name}-`,
    '-timeout=30',
    '-max_len=16384',
    '-print_final_stats=1',
    '-verbosity=1',
  ];
  const command = [`out/fuzz/${name}_fuzz`, ...options, found, `test/fuzz/corpus/${name}`];
  return { name, command };
}

function onSeedLoop(name: string): Target {
  const program = `out/test-asan/${name}_fuzz`;
  return { name, command: [program, '--seconds', String(seconds), `test/fuzz/corpus/${name}`] };
}

function inTypeScript(name: string): Target {
  const program = ['node', '--import', 'tsx', `test/fuzz/${name}.fuzz.ts`];
  return { name, command: [...program, '--seconds', String(seconds)] };
}

function nativeTargets(): Target[] {
  const names = namesOf('_fuzz.cc');
  if (names.length === 0) return [];
  if (!values['seed-loop']) {
    if (succeeds('scripts/setup', 'fuzz') && succeeds('scripts/build-test', 'fuzz')) {
      return names.map(onLibFuzzer);
    }
    process.stdout.write('fuzz: no libFuzzer here, so the targets run on the seed loop\n');
  }
  // The tests have built them; alone, somebody must.
  if (names.some((name) => !existsSync(`out/test-asan/${name}_fuzz`)) || !values['seed-loop']) {
    if (!succeeds('scripts/build-test', 'asan')) process.exit(1);
  }
  return names.map(onSeedLoop);
}

const targets = [...nativeTargets(), ...namesOf('.fuzz.ts').map(inTypeScript)];
if (targets.length === 0) {
  process.stderr.write(`no target is named ${values.target}\n`);
  process.exit(64);
}
mkdirSync('out', { recursive: true });
const failed: string[] = [];
for (const { name, command } of targets) {
  const [program = '', ...args] = command;
  if (!succeeds(program, ...args)) failed.push(name);
}
if (failed.length > 0) process.stdout.write(`failed: ${failed.join(', ')}\n`);
const passed = targets.length - failed.length;
process.stdout.write(`${passed} passed, ${failed.length} failed, 0 skipped\n`);
process.exitCode = failed.length > 0 ? 1 : 0;
