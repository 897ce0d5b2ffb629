// Who the peer is: nobody yet, a node over IPv6.
import { readFileSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { LOOPBACK6, type Node, noPair, Pair, withPair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';

const peers = suite('peers');
const add = unless(peers, noPair());
const LIMIT_MS = 60_000;
const BLOCK = Buffer.alloc(4096, 'peer');

async function write(node: Node, offset: number): Promise<void> {
  const client = await node.connect();
  try {
    await client.write(offset, BLOCK);
  } finally {
    client.destroy();
  }
}

/** Its own `remote`, the one of the block of this node. @returns what stood there */
function setRemote(node: Node, to: string): string {
  const text = readFileSync(node.config, 'utf8');
  const own = new RegExp(`(on ${node.name} \\{\\n\\t\\tlocal .*\\n\\t\\tremote )(\\S+)`);
  const [, , before] = own.exec(text) ?? [];
  assert.ok(before, 'remote is in the file');
  writeFileSync(node.config, text.replace(own, `$1${to}`));
  return before ?? '';
}

add(
  'remote none: a secondary takes nobody in and asks for nobody, until it is told who',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make(), async (pair) => {
      const { a, b } = pair;
      const remote = setRemote(b, 'none');
      await b.reload();
      await b.role('secondary');
      await a.role('primary');
      await write(a, 0); // served, without the peer
      const { worker } = await a.status();
      assert.is(worker?.state, 'degraded');
      const dropped = '[WARNING] Connection from 127.0.0.1 dropped: no resource has this remote';
      await until('the connection is dropped', 10_000, () => b.output.includes(dropped));
      const { role, worker: none } = await b.status();
      assert.equal([role, none], ['secondary', null]);
      assert.not.match(b.output, 'Cannot resolve');
      assert.not.match(a.output, 'Connection from', 'no knock either');

      setRemote(b, remote);
      assert.match(await b.must('reload'), 'restarted with the new configuration (remote)');
      await a.inSync(); // at once: a secondary with a peer makes itself known
      await pair.mustBeClean(a);
    }),
  ),
);

add(
  'remote none: a primary serves at once, degraded, and says why',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make({ only: 'a' }), async ({ a }) => {
      setRemote(a, 'none');
      await a.reload();
      const began = performance.now();
      await a.role('primary');
      assert.ok(performance.now() - began < 4000, 'there is nobody to wait for');
      await write(a, 0);
      const { worker } = await a.degraded();
      assert.is(worker?.reason, 'no peer is configured (remote none)');
      assert.match(a.output, 'Serving without the peer: no peer is configured (remote none).\n');
    }),
  ),
);

add(
  'two nodes over IPv6 replicate, lose each other, and change their roles',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make({ network: LOOPBACK6 }), async (pair) => {
      const { a, b } = pair;
      // The same address in another spelling, and where to connect from.
      setRemote(b, `tcp://[0:0:0:0:0:0:0:1]:${a.port}`);
      setRemote(a, `tcp6://[::1]:${b.port}\n\t\tsource tcp6://[::1]`);
      for (const node of [a, b]) await node.reload();
      assert.match(a.output, `Listening on address tcp6://[::1]:${a.port}.`);
      await b.role('secondary');
      await a.role('primary');
      await a.inSync();
      await write(a, 0);
      await pair.mustBeClean(a);
      assert.match(b.output, 'Connection from ::1.');

      await b.killWorker();
      await until('the loss', 10_000, () => a.output.includes('Disconnected from the peer'));
      await a.inSync();
      await a.role('secondary');
      await b.promote();
      await b.inSync();
      await write(b, 8192);
      await pair.mustBeClean(b);
    }),
  ),
);

add(
  'the address of an IPv4 peer admits nobody who comes by IPv6',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make({ network: LOOPBACK6 }), async (pair) => {
      const { a, b } = pair;
      setRemote(b, `tcp4://127.0.0.1:${a.port}`);
      await b.reload();
      await b.role('secondary');
      await a.role('primary');
      const dropped = '[WARNING] Connection from ::1 dropped: no resource has this remote address.';
      await until('the connection is dropped', 10_000, () => b.output.includes(dropped));
      assert.is((await a.stats()).state, 'degraded');
    }),
  ),
);

peers.run();
