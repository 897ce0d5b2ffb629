// Two real nodes that believe each other only with the same secret.
import { chmodSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { FakePrimary } from '../helper/fake-peer.ts';
import { type Node, noPair, Pair, withPair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';

const secrets = suite('secret');
const add = unless(secrets, noPair());
const LIMIT_MS = 120_000;
const RIGHT = 'correct-horse-battery';
const WRONG = 'incorrect-horse';

function give(node: Node, secret: string): void {
  writeFileSync(node.secret, `${secret}\n`, { mode: 0o600 });
}

async function said(node: Node, text: string): Promise<void> {
  await until(`node ${node.name} says ${text}`, 30_000, () => node.output.includes(text));
}

/** Neither processes nor logs tell the secret to anybody. */
async function mustBeHidden(nodes: readonly Node[]): Promise<void> {
  for (const node of nodes) {
    assert.is(node.output.includes(RIGHT), false);
    for (const command of [['status', '--json'], ['list']]) {
      assert.is((await node.must(...(command as [string]))).includes(RIGHT), false);
    }
    const { stdout, stderr } = await node.daemon('-t');
    assert.is(`${stdout}${stderr}`.includes(RIGHT), false);
    const worker = await node.worker();
    for (const file of ['cmdline', 'environ']) {
      assert.is(readFileSync(`/proc/${worker.pid}/${file}`, 'latin1').includes(RIGHT), false);
    }
  }
}

add(
  'a wrong or missing secret is told on both sides, and a corrected one needs no restart',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make({ secret: true }), async (pair) => {
      const { a, b, resource } = pair;
      // No file, or one that others can read: the role is not taken.
      const none = await b.hastctl('role', 'secondary', resource);
      assert.is.not(none.code, 0);
      assert.match(none.stderr, `${b.secret} cannot be read`);
      give(b, WRONG);
      chmodSync(b.secret, 0o640);
      assert.match(
        (await b.hastctl('role', 'secondary', resource)).stderr,
        `chmod 600 ${b.secret}`,
      );
      assert.match((await a.hastctl('role', 'primary', resource)).stderr, a.secret);
      chmodSync(b.secret, 0o600);

      give(a, RIGHT);
      await b.role('secondary');
      await a.role('primary');
      for (const node of [a, b]) await said(node, 'Authentication failed: the secrets differ.');
      const { notes } = await a.degraded();
      assert.match(notes.join('\n'), 'copy that of one node');
      assert.is(String((await b.dump()).resuid), '0', 'nothing was written there');

      rmSync(b.secret);
      await said(b, `${b.secret} cannot be read`);
      give(b, RIGHT);
      await a.inSync();
      await mustBeHidden([a, b]);

      // A stranger with the right address, and then with a message of his own.
      const stranger = { port: b.port, resource, resuid: 1n, extended: true };
      await FakePrimary.connect(stranger).then(
        () => assert.unreachable('it was let in'),
        (error: Error) => assert.match(error.message, 'Authentication required'),
      );
      const { pid } = await b.worker();
      await a.inSync(1000);
      assert.is((await b.worker()).pid, pid);

      // The primary's own file: changed while it is alone, it counts as well.
      await b.role('init');
      await a.degraded();
      give(a, WRONG);
      give(b, 'another');
      await b.role('secondary');
      await said(b, 'Authentication failed');
      give(a, 'another');
      await a.inSync();
      await pair.mustBeEqual();
      assert.ok(readdirSync(pair.directory).includes('a.key'));
    }),
  ),
);

secrets.run();
