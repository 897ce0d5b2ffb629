// Tests on a real kernel with its block devices, in a machine that QEMU makes for them.
//   test-vm.ts [WORD]...   files of test/vm whose name contains any of the words; without one, all
// There is one machine for all of them, as its start takes longest. The last line is "N passed,
// N failed, N skipped"; where the machine cannot be made, all are skipped, with the reason.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { readableTree } from './readable-tree.ts';
import { add, countUvu, inWords, judge, NOTHING, remarks } from './test/command.ts';

process.chdir(new URL('..', import.meta.url).pathname);

const FILE_SECONDS = 900;
const START_SECONDS = 120;

const words = process.argv.slice(2);
const files = readdirSync('test/vm')
  .filter((file) => file.endsWith('.test.ts'))
  .filter((file) => words.length === 0 || words.some((word) => file.includes(word)))
  .map((file) => `test/vm/${file}`)
  .sort();

/** In the machine. @returns the exit code */
async function runFiles(): Promise<number> {
  let total = NOTHING;
  for (const file of files) {
    const command = {
      words: ['node', '--import', 'tsx', file],
      milliseconds: FILE_SECONDS * 1000,
      count: countUvu,
    };
    process.stdout.write(`\n=== ${file}\n`);
    const verdict = await judge(command, (text, stream) => process[stream].write(text));
    process.stdout.write(`--- ${file}: ${inWords(verdict.counts)}, ${remarks(verdict)}\n`);
    total = add(total, verdict.counts);
  }
  process.stdout.write(`\n${inWords(total)}\n`);
  return total.failed > 0 ? 1 : 0;
}

/** What the machine needs and this one lacks; empty when it can be made. */
function lacking(): string {
  const { stdout } = spawnSync('test/vm/run.sh', ['--missing'], { encoding: 'utf8' });
  return stdout.trim().split('\n').join('; ');
}

/** Runs this program once more, in the machine. @returns the exit code */
function runMachine(): number {
  const seconds = START_SECONDS + files.length * FILE_SECONDS;
  // Emulated processors that outnumber ours slow each other down.
  const cpus = process.env.HASTD_VM_CPUS ?? String(Math.max(1, availableParallelism() >> 1));
  const options = ['--seconds', String(seconds), '--cpus', cpus, '--verbose'];
  for (const name of ['HASTD_VM_ONLY', 'HASTD_VM_ROUNDS']) options.push('--env', name);
  const inside = ['node', '--import', 'tsx', 'scripts/test-vm.ts', ...words];
  const { status } = spawnSync('test/vm/run.sh', [...options, '--', ...inside], {
    stdio: ['ignore', 'inherit', 'inherit'],
    cwd: readableTree(),
  });
  return status ?? 1;
}

function skipAll(why: string): number {
  for (const file of files) process.stdout.write(`skipped ${file}: ${why}\n`);
  process.stdout.write(`${inWords({ ...NOTHING, skipped: files.length })}\n`);
  return 0;
}

if (files.length === 0) {
  process.stderr.write(`no file of test/vm is named like ${words.join(' or ')}\n`);
  process.exitCode = 1;
} else if (process.env.VM === '1') {
  process.exitCode = await runFiles();
} else {
  const why = lacking();
  process.exitCode = why === '' ? runMachine() : skipAll(why);
}
