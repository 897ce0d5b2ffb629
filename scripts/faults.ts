// Accidents under load for as long as wanted, and a table of what was seen.
//   faults.ts [SECONDS] [CYCLES]   of each mode and kind, at least both; 60 seconds, 20 cycles
import {
  type FaultPlan,
  type FaultReport,
  primaryFaults,
  secondaryFaults,
  tableOf,
} from '../test/helper/faults.ts';
import { MODES, noPair } from '../test/helper/pair.ts';

const [seconds = 60, cycles = 20] = process.argv.slice(2).map(Number);
const LIMIT_MS = 30 * 60_000;

const KINDS: readonly (readonly [string, (plan: FaultPlan) => Promise<FaultReport>])[] = [
  ['secondary or link', secondaryFaults],
  ['primary', primaryFaults],
];

const unable = noPair();
if (unable !== undefined) throw new Error(unable);
let failures = 0;
let tables = '';
for (const [title, run] of KINDS) {
  const reports: FaultReport[] = [];
  for (const mode of MODES) {
    console.log(`\n=== ${title}, ${mode}`);
    const began = Date.now();
    const say = (text: string) =>
      console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${text}`);
    const signal = AbortSignal.timeout(LIMIT_MS);
    const mib = run === secondaryFaults ? 128 : 32;
    try {
      reports.push(await run({ mode, cycles, seconds, mib, signal, say }));
    } catch (error) {
      failures += 1;
      console.error(error);
    }
  }
  tables += `\n${tableOf(title, reports)}`;
}
console.log(tables);
console.log('Times: least / median / most. Both disks were compared byte by byte at every end.');
console.log(`${KINDS.length * MODES.length - failures} passed, ${failures} failed, 0 skipped`);
process.exitCode = failures > 0 ? 1 : 0;
