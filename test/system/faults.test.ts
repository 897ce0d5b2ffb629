// Accidents under load, in short; scripts/faults.ts has the same for longer.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import { IN_FLIGHT_LEAST, primaryFaults, secondaryFaults, tableOf } from '../helper/faults.ts';
import { MODES, noPair } from '../helper/pair.ts';
import { missing, unless } from '../helper/skip.ts';

const faults = suite('faults');
const unable = noPair();
const LIMIT_MS = 180_000;

for (const mode of MODES) {
  unless(faults, unable ?? missing('fio'))(
    `${mode}: no client sees that the secondary is killed or the link fails, and both end equal`,
    withDeadline(LIMIT_MS, async (signal) => {
      // All four kinds in turn, over the modes.
      const first = MODES.indexOf(mode) * 2;
      const plan = { mode, cycles: 2, first, seconds: 0, mib: 32, signal };
      const report = await secondaryFaults(plan);
      process.stdout.write(`\n${tableOf('secondary', [report])}`);
      assert.ok(report.inFlight >= IN_FLIGHT_LEAST);
    }),
  );

  const promised = mode === 'async' ? 'flushed' : 'answered';
  unless(faults, unable)(
    `${mode}: the heir of a killed primary has all that was ${promised}, and both end equal`,
    withDeadline(LIMIT_MS, async (signal) => {
      const report = await primaryFaults({ mode, cycles: 2, seconds: 0, mib: 16, signal });
      process.stdout.write(`\n${tableOf('primary', [report])}`);
      assert.ok(report.inFlight >= IN_FLIGHT_LEAST);
    }),
  );
}

faults.run();
