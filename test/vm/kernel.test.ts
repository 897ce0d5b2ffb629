// The machine of these tests has what the others ask of its kernel.
import { existsSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import { unless } from '../helper/skip.ts';
import { loadModule, noVm } from '../helper/vm.ts';

const kernel = suite('kernel');
const LIMIT_MS = 60_000;

for (const [module, proof] of [
  ['nbd', '/dev/nbd0'],
  ['ublk_drv', '/dev/ublk-control'],
] as const) {
  unless(kernel, noVm())(
    `the module ${module} brings ${proof}`,
    withDeadline(LIMIT_MS, async () => {
      await loadModule(module);
      assert.ok(existsSync(proof));
    }),
  );
}

kernel.run();
