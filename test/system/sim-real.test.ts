// Accidents of two real daemons in network namespaces, in short; scripts/sim-real.ts has more.
import { open } from 'node:fs/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import { noCounts } from '../helper/load.ts';
import { noNamespaces } from '../helper/namespaces.ts';
import { type Node, noPair } from '../helper/pair.ts';
import { DATA_BYTES, Scene } from '../helper/scene.ts';
import { noTotals, planOf, runSchedule } from '../helper/sim-real.ts';
import { unless } from '../helper/skip.ts';
import { inTempdir } from '../helper/tempdir.ts';
import { BLOCK } from '../helper/writer.ts';

const real = suite('sim-real');
const unable = noNamespaces() ?? noPair();
const LIMIT_MS = 180_000;
const SECONDS = 10;
const FIRST_SEED = 1;

unless(real, unable)(
  'accidents of daemons and of the link lose nothing, and both disks end equal',
  withDeadline(LIMIT_MS, async () => {
    await inTempdir(async (keepIn) => {
      const totals = noTotals();
      const endMs = Date.now() + SECONDS * 1000;
      for (let seed = FIRST_SEED; Date.now() < endMs; seed += 1) {
        const onAccident = () => {};
        const found = await runSchedule(planOf(seed), { totals, endMs, keepIn, onAccident });
        assert.is(found, undefined, `seed ${seed}: ${found?.message}\n${found?.events}`);
      }
      process.stdout.write(`\n${[...totals.accidents.keys()].join('; ')}\n`);
    });
  }),
);

/** A scene with a little in it, then something that no accident may do; it must be found. */
function finds(name: string, spoil: (scene: Scene) => Promise<void>, finding: RegExp): void {
  unless(real, unable)(
    name,
    withDeadline(LIMIT_MS, async () => {
      const scene = await Scene.make({ seed: FIRST_SEED, mode: 'fullsync', counts: noCounts() });
      try {
        scene.load.run();
        await scene.answers(scene.load, 200);
        await scene.settle();
        await spoil(scene)
          .then(() => scene.settle())
          .then(
            () => assert.unreachable('nothing was found'),
            (error: Error) => assert.match(error.message, finding),
          );
      } finally {
        await scene.close();
      }
    }),
  );
}

async function overwrite(node: Node, bytes: Buffer): Promise<void> {
  const { localoff } = await node.dump();
  const disk = await open(node.disk, 'r+');
  await disk.write(bytes, 0, bytes.length, Number(localoff));
  await disk.close();
}

finds(
  'a byte that changes on one disk is found',
  ({ secondary }) => overwrite(secondary, Buffer.from('?')),
  /the data areas differ at byte 0/,
);

finds(
  'blocks that lose what was written to them on both disks are found',
  async ({ pair: { a, b } }) => {
    for (const node of [a, b]) await overwrite(node, Buffer.alloc(64 * BLOCK));
  },
  /block \d+: a read from \d+ gave 0, which may not be there/,
);

finds(
  'an extent that differs without a mark is found',
  async (scene) => {
    const { pair, primary } = scene;
    scene.load.mayLose = true;
    for (const node of [pair.a, pair.b]) await scene.crash(node);
    await scene.mustBeMarked();
    await overwrite(primary, Buffer.alloc(DATA_BYTES, '?'));
    await scene.mustBeMarked();
  },
  /and nothing on either of them says so/,
);

finds(
  'a daemon that ends by itself is found',
  async ({ secondary }) => {
    await secondary.stop();
  },
  /the daemon of node b has ended by itself/,
);

real.run();
