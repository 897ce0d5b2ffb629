// Foreign NBD clients on a connected primary: what they write is on both disks.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import { addNbdClientTests } from '../helper/nbd-clients.ts';
import { noPair, Pair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';

const clients = suite('nbd clients of a pair');
const unable = noPair();
const SIZE = 64 << 20;

if (unable !== undefined) {
  unless(clients, unable)('real clients', () => {});
} else {
  let pair: Pair;
  let pids: number[] = [];
  const workers = async () =>
    (await Promise.all([pair.a.stats(), pair.b.stats()])).map((w) => w.pid);

  clients.before(async () => {
    pair = await Pair.inSync({ mode: 'fullsync', diskBytes: SIZE + (1 << 20) });
    pids = await workers();
  });
  clients.after(() => pair.close());

  addNbdClientTests(clients, () => ({ socket: pair.a.socket, name: 'data', size: SIZE }));

  clients(
    'both workers have survived it all, and both disks are equal',
    withDeadline(60_000, async () => {
      await pair.a.inSync();
      assert.equal(await workers(), pids);
      await pair.a.when('idle', ({ worker }) => worker?.inFlight === 0);
      await pair.mustBeEqual();
    }),
  );
}

clients.run();
