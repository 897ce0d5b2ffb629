// `hastctl why` of two real nodes: what both say of what an operator and an accident do to them.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as v from 'valibot';
import { type Why, WhySchema } from '../../src/control/protocol.ts';
import { withDeadline } from '../helper/deadline.ts';
import { type Node, noPair, Pair, withPair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';

const reasons = suite('why, of a pair');

async function why(node: Node): Promise<Why> {
  const { resources } = JSON.parse(await node.must('why', '--json', node.resource));
  return v.parse(WhySchema, resources[0]);
}

const eventsOf = ({ history }: Why) => history.map(({ event }) => event);
const last = ({ history }: Why, event: string) =>
  history.findLast((entry) => entry.event === event)?.detail ?? {};

async function write(node: Node, text: string): Promise<void> {
  const client = await node.connect();
  try {
    const { error } = await client.write(0, Buffer.alloc(4096, text));
    assert.is(error, 0);
  } finally {
    client.destroy();
  }
}

unless(reasons, noPair())(
  'both nodes tell how they came to where they are, and split-brain names what is lost',
  withDeadline(180_000, () =>
    withPair(Pair.make({ relay: true, timeoutSeconds: 5 }), async (pair) => {
      const { a, b } = pair;
      assert.is((await why(a)).state, 'no-role');
      await b.role('secondary');
      const waiting = await why(b);
      assert.is(waiting.state, 'waiting');
      assert.match(String(last(waiting, 'role').by), /^hastctl \((root|uid \d+), pid \d+\)$/);

      await a.role('primary');
      await a.inSync();
      const good = await why(a);
      assert.is(good.state, 'in-sync');
      assert.is(good.data.complete, true);
      const story = eventsOf(good);
      for (const event of ['role', 'connect', 'ready', 'syncstart', 'syncdone']) {
        assert.ok(story.includes(event), `${event} in ${story}`);
      }
      assert.ok(Number(last(good, 'syncdone').done) > 0);
      const there = await why(b);
      assert.is(there.state, 'secondary');
      assert.is(there.data.complete, true);

      pair.cut();
      await a.degraded();
      const alone = await why(a);
      assert.is(alone.state, 'alone');
      assert.is(eventsOf(alone).at(-1), 'disconnect');
      assert.ok(String(last(alone, 'disconnect').text ?? '') !== '', 'with its reason');
      await b.when('no primary', ({ worker }) => worker === null);
      const left = await why(b);
      assert.is(left.state, 'waiting');
      assert.ok(String(last(left, 'disconnect').text ?? '') !== '', 'with its reason');

      await write(a, 'a');
      await b.promote();
      await write(b, 'b');
      await b.role('secondary');
      pair.heal();
      await a.when('split-brain', ({ notes }) => notes.join().includes('Split-brain condition!'));
      await b.when('split-brain', ({ lastError }) => lastError?.code === 'PEER_SPLIT_BRAIN');
      for (const node of [a, b]) {
        const split = await why(node);
        assert.is(split.state, 'split-brain', node.name);
        const words = split.next.steps.map(({ on, loses }) => `${on}: ${loses}`);
        assert.match(words[0] ?? '', /^peer: what was written on the other node \(127\.0\.0\.1/);
        assert.match(words[1] ?? '', new RegExp(`^here: what was written on ${node.name} `));
        assert.match(
          await node.must('why', 'all'),
          `data on ${node.name}: ${split.role}, split brain`,
        );
      }

      // As it was said.
      for (const command of (await why(b)).next.steps[1]?.commands ?? []) {
        const [, verb = '', ...words] = command.split(' ');
        await b.must(verb, ...words);
      }
      await a.inSync();
      await pair.mustBeEqual();
      assert.is((await why(b)).data.complete, true);
      const unknown = await a.hastctl('why', 'nope');
      assert.is(unknown.code, 1);
    }),
  ),
);

reasons.run();
