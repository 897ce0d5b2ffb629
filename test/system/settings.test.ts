// Every mode with every compression and checksum between two real daemons.
import { randomBytes } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import type { NbdClient } from '../helper/nbd.ts';
import { MODES, noPair, Pair, withPair } from '../helper/pair.ts';
import { CODECS } from '../helper/payload.ts';
import { unless } from '../helper/skip.ts';

const settings = suite('settings of a pair');
const add = unless(settings, noPair());

const LIMIT_MS = 240_000;
const KIB = 1024;
const STEP = 256 * KIB;

/** Zeros, text and noise of several sizes, elsewhere each time. */
async function writeAll(client: NbdClient, image: Buffer, turn: number): Promise<void> {
  const sizes = [512, 4 * KIB, 128 * KIB];
  const blocks = sizes.flatMap((size) => [
    Buffer.alloc(size),
    Buffer.alloc(size, `turn ${turn} and so on; `),
    randomBytes(size),
  ]);
  const replies = blocks.map((block, i) => {
    const at = ((turn * 7 + i) * STEP) % (image.length - STEP);
    block.copy(image, at);
    return client.write(at, block);
  });
  for (const { error } of await Promise.all(replies)) assert.is(error, 0);
}

for (const mode of MODES) {
  add(
    `${mode} with every compression and checksum, through a loss and back, byte for byte`,
    withDeadline(LIMIT_MS, () =>
      withPair(Pair.inSync({ relay: true, diskBytes: 18 << 20 }), async (pair) => {
        const { a, b } = pair;
        const client = await a.connect();
        const image = Buffer.alloc(client.size);
        for (const [turn, codec] of CODECS.entries()) {
          const what = JSON.stringify(codec);
          pair.writeConfig({ mode, ...codec });
          await a.reload();
          await writeAll(client, image, 2 * turn);
          assert.is((await client.flush()).error, 0);
          for (const node of [a, b]) assert.ok((await node.data()).equals(image), what);
          pair.cut();
          await a.degraded();
          await writeAll(client, image, 2 * turn + 1);
          assert.not((await b.data()).equals(image), what);
          pair.heal();
          await b.reload(); // restarts it with the setting, and the primary hears of it at once
          await a.inSync();
          for (const node of [a, b]) assert.ok((await node.data()).equals(image), what);
        }
        client.destroy();
        const { worker, checksum, compression } = await a.status();
        assert.equal([worker?.replication, checksum, compression], [mode, 'sha256', 'lzf']);
      }),
    ),
  );
}

settings.run();
