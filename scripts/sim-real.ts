// Two real daemons in network namespaces under seeded accidents, held against a model.
//   sim-real.ts [--seconds N] [--seed S] [--schedules N] [--jobs N] [--verbose]
// Without --seed it begins at a fresh one. Needs root and iproute2. What is found goes to
// out/sim-real/SEED. The last line is "N schedules, N findings".
import { parseArgs } from 'node:util';
import { noNamespaces } from '../test/helper/namespaces.ts';
import { noPair } from '../test/helper/pair.ts';
import { noTotals, planOf, runSchedule } from '../test/helper/sim-real.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '300' },
    seed: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    schedules: { type: 'string', default: 'Infinity' },
    verbose: { type: 'boolean', default: false },
  },
});

function numberOf(name: keyof typeof values, text: string): number {
  const number = Number(text);
  if (number >= 0) return number;
  throw new Error(`--${name} ${text}: give a number, such as --${name} 20`);
}

const seconds = numberOf('seconds', values.seconds);
const first = numberOf('seed', values.seed ?? String(Date.now() % 1_000_000));
const most = numberOf('schedules', values.schedules);
const jobs = numberOf('jobs', values.jobs);
const keepIn = new URL('../out/sim-real', import.meta.url).pathname;
const totals = noTotals();
const began = Date.now();
let findings = 0;

function sum(numbers: Iterable<number>): number {
  return [...numbers].reduce((x, y) => x + y, 0);
}

function progress(text: string): void {
  const time = ((Date.now() - began) / 1000).toFixed(1).padStart(6);
  console.log(`${time} s  ${text}`);
}

const endMs = began + seconds * 1000;
let next = first;

/** One schedule after the other, each with nodes of its own. */
async function job(): Promise<void> {
  while (Date.now() < endMs && next < first + most) {
    const plan = planOf(next);
    next += 1;
    const { seed, mode } = plan;
    const finding = await runSchedule(plan, {
      totals,
      endMs,
      keepIn,
      onAccident: (name) => {
        const { reads, writes } = totals.counts;
        const done = sum(totals.accidents.values());
        progress(`seed ${seed}, ${mode}, accident ${done}: ${name}; ${reads + writes} requests`);
      },
      ...(values.verbose ? { say: (text: string) => console.log(`${seed}: ${text}`) } : {}),
    });
    if (finding === undefined) continue;
    findings += 1;
    console.log(`\n=== finding with seed ${seed}: ${finding.message}\n${finding.events}`);
    console.log(`Logs and disks: ${keepIn}/${seed}`);
    console.log(`Again, as far as time allows: npm run sim:real -- --seed ${seed} --schedules 1\n`);
  }
}

const unable = noNamespaces() ?? noPair();
if (unable === undefined) {
  await Promise.all(Array.from({ length: jobs }, job));
  for (const [name, count] of [...totals.accidents].sort()) {
    console.log(`${String(count).padStart(4)}  ${name}`);
  }
  const { counts } = totals;
  console.log(
    Object.entries(counts)
      .map(([what, count]) => `${count} ${what}`)
      .join(', '),
  );
}
const skipped = unable === undefined ? '' : `, skipped: ${unable}`;
console.log(`${totals.schedules} schedules, ${findings} findings${skipped}`);
process.exitCode = findings > 0 ? 1 : 0;
