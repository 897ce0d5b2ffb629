// A new configuration for daemons that run: what goes on, what restarts, what is refused.
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as v from 'valibot';
import { ReloadAnswerSchema } from '../../src/control/protocol.ts';
import { until } from '../helper/deadline.ts';
import { ask } from '../helper/http.ts';
import { freePorts } from '../helper/lane.ts';
import { type Node, noPair, story } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';
import { StampedWriter } from '../helper/writer.ts';

const reloads = suite('reload');
const add = unless(reloads, noPair());

function change(node: Node, from: string | RegExp, to: string): void {
  const text = readFileSync(node.config, 'utf8');
  const changed = text.replace(from, to);
  assert.is.not(changed, text, `${from} is not in the file`);
  writeFileSync(node.config, changed);
}

/** Each run of the hook of a node as a line. */
function hookOf(node: Node): string {
  const path = `${node.directory}/${node.name}.hook`;
  writeFileSync(path, `#!/bin/sh\necho "$@" >> ${path}.log\n`);
  chmodSync(path, 0o755);
  return path;
}
function hooksOf(node: Node): string {
  const path = `${node.directory}/${node.name}.hook.log`;
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}

/** Runs `body` while a client writes. Not one write may fail. */
async function underLoad(node: Node, body: () => Promise<void>): Promise<void> {
  const client = await node.connect();
  const writer = new StampedWriter(client.size, 'answered');
  try {
    writer.start(client, 16, 64);
    await until('some writes', 10_000, () => writer.answered > 100);
    await body();
    const before = writer.answered;
    await until('more writes', 10_000, () => writer.answered > before + 100);
    await writer.stop();
    await writer.verify(client);
  } finally {
    client.destroy();
  }
}

add(
  'a primary takes mode, checksum, compression and timeout as it runs, under load',
  story(async (pair) => {
    const { a } = pair;
    const { pid } = await a.worker();
    await underLoad(a, async () => {
      for (const [mode, checksum, compression] of [
        ['async', 'sha256', 'none'],
        ['fullsync', 'crc32', 'hole'],
        ['memsync', 'none', 'none'],
      ] as const) {
        pair.writeConfig({ mode, checksum, compression, timeoutSeconds: 9 });
        const said = await a.must('reload');
        assert.match(said, /^data: takes the new configuration as it runs \(.*replication.*\)\n/);
        const wanted = await a.when('the new mode', ({ worker }) => worker?.replication === mode);
        assert.equal([wanted.checksum, wanted.compression], [checksum, compression]);
        assert.is(wanted.worker?.state, 'in-sync');
      }
      assert.is(await a.must('reload'), 'the configuration has not changed\n');
    });
    assert.is((await a.worker()).pid, pid);
    assert.is(a.output.includes('Disconnected'), false, a.output);
    await pair.mustBeClean(a);
  }),
);

add(
  'another remote ends the connection, without an error for the client; the old one is back',
  story(async (pair) => {
    const { a } = pair;
    const { pid } = await a.worker();
    await underLoad(a, async () => {
      const remote = /(on a \{\n\t\tlocal .*\n\t\tremote )(\S+)/;
      const [, , peer = ''] = remote.exec(readFileSync(a.config, 'utf8')) ?? [];
      change(a, remote, '$1none');
      assert.match(await a.must('reload'), 'data: takes the new configuration as it runs (remote)');
      await a.degraded();
      change(a, remote, `$1${peer}`);
      a.signal('SIGHUP');
      await a.inSync();
    });
    assert.is((await a.worker()).pid, pid);
    await pair.mustBeClean(a);
  }),
);

add(
  'a secondary restarts: the hook is told, the primary comes back, nothing is lost',
  story(async (pair) => {
    const { a, b } = pair;
    change(b, /timeout 20/, `timeout 7\n\texec ${hookOf(b)}`);
    await underLoad(a, async () => {
      const said = await b.must('reload');
      assert.match(said, 'data: restarted with the new configuration (timeout, exec)\n');
      await a.inSync();
    });
    change(b, /timeout 7/, 'timeout 8');
    await b.must('reload');
    await a.inSync();
    await until('both hooks', 10_000, () => /secondary init\nrole data init/.test(hooksOf(b)));
    await pair.mustBeClean(a);
  }),
);

add(
  'a primary that needs another export restarts and is primary again',
  story(async (pair) => {
    const { a } = pair;
    const { pid } = await a.worker();
    change(a, `export uds://${a.socket}`, `export uds://${a.socket}2`);
    assert.match(await a.must('reload'), 'restarted with the new configuration (export)');
    await a.inSync();
    assert.is.not((await a.worker()).pid, pid);
    assert.equal([existsSync(a.socket), existsSync(`${a.socket}2`)], [false, true]);
  }),
);

add(
  'what cannot be taken again is told with its reason and an exit code, and is mended by the next',
  story(async (pair) => {
    const { b } = pair;
    change(b, `local ${b.disk}`, `local ${b.disk}.none`);
    const { code, stdout, stderr } = await b.hastctl('reload');
    assert.is(code, 6, stderr);
    assert.match(stdout, 'data: could not take its role again (local)');
    assert.match(stderr, `${b.disk}.none`);
    assert.is((await b.status()).role, 'init');
    change(b, `local ${b.disk}.none`, `local ${b.disk}`);
    await b.must('reload');
    await b.role('secondary');
    await pair.a.inSync();
  }),
);

add(
  'resources come and go, and two change their disks',
  story(async (pair) => {
    const { a, b } = pair;
    const more = (name: string, disk: string) =>
      `resource ${name} {\n\tdevice none\n\tstart secondary\n\texport uds://${a.socket}.${name}\n` +
      `\ton a {\n\t\tlocal ${disk}\n\t\tremote none\n\t}\n}\n`;
    const text = readFileSync(a.config, 'utf8');
    const disks = ['x', 'y'].map((name) => `${a.directory}/${name}.disk`) as [string, string];
    for (const disk of disks) writeFileSync(disk, Buffer.alloc(4 << 20));
    writeFileSync(a.config, `${text}${more('x', disks[0])}${more('y', disks[1])}`);
    await a.must('create', 'x', 'y');
    assert.match(await a.must('reload'), 'x: added\ny: added\n');
    await a.must('role', 'secondary', 'x', 'y');
    await a.must('role', 'primary', 'x');
    assert.match(await a.must('status'), /data.*primary[\s\S]*\nx.*primary[\s\S]*\ny.*secondary/);
    // Each disk names its resource: the new places need new metadata.
    writeFileSync(a.config, `${text}${more('x', disks[1])}${more('y', disks[0])}`);
    const swapped = await a.hastctl('reload');
    assert.is(swapped.code, 6);
    assert.match(swapped.stderr, /\[x\] .*holds the metadata of resource y/);
    await a.must('create', '-f', 'x', 'y');
    await a.must('role', 'secondary', 'x', 'y');
    writeFileSync(a.config, text);
    assert.match(await a.must('reload'), 'x: removed\ny: removed\n');
    assert.is((await a.hastctl('role', 'init', 'x')).code, 1);
    await a.inSync(1000);
    await b.status();
  }),
);

add(
  'a bad or empty file leaves the old one in force and says why',
  story(async ({ a }) => {
    const good = readFileSync(a.config, 'utf8');
    const control = `control ${a.control}\n`;
    for (const [bad, code, why] of [
      [`${good}}`, 78, a.config],
      [`${control}resource data { }\n`, 78, 'data'],
      [control, 78, 'no resource of this node'],
    ] as const) {
      writeFileSync(a.config, bad);
      const before = a.output.length;
      const answer = await a.hastctl('reload');
      assert.is(answer.code, code, answer.stderr);
      assert.match(answer.stderr, why);
      a.signal('SIGHUP');
      await until('the log says so', 10_000, () =>
        a.output.includes('Reload: the configuration stays as it was', before),
      );
      assert.is((await a.status()).worker?.state, 'in-sync');
    }
  }),
);

add(
  'control socket and listen address move; what is connected stays',
  story(async (pair) => {
    const { a, b } = pair;
    const [port] = await freePorts();
    const old = a.control;
    const subscriber = ask(old, 'GET', '/v1/events', undefined, AbortSignal.timeout(60_000));
    subscriber.catch(() => {});
    change(b, `listen tcp4://127.0.0.1:${b.port}`, `listen tcp4://0.0.0.0:${b.port}`);
    change(b, `control ${b.control}`, `control ${b.control}2`);
    const answer = await ask(b.control, 'POST', '/v1/reload', '', AbortSignal.timeout(60_000));
    assert.equal(v.parse(ReloadAnswerSchema, answer.json()), {
      resources: [],
      statements: ['control', 'listen'],
      warnings: [],
    });
    assert.equal([existsSync(b.control), existsSync(`${b.control}2`)], [false, true]);
    await a.inSync(1000);
    // The wildcard gives way to its address, and then to another port.
    change(b, `listen tcp4://0.0.0.0:${b.port}`, `listen tcp4://127.0.0.1:${b.port}`);
    assert.is(await b.must('reload'), 'the new configuration is in force (listen)\n');
    change(b, `listen tcp4://127.0.0.1:${b.port}`, `listen tcp4://127.0.0.1:${port}`);
    await b.must('reload');
    change(a, `remote tcp4://127.0.0.1:${b.port}`, `remote tcp4://127.0.0.1:${port}`);
    await a.must('reload');
    await a.inSync();
    // An address that this host does not have, alone: refused.
    change(b, `listen tcp4://127.0.0.1:${port}`, 'listen tcp4://192.0.2.1:8457');
    const refused = await b.hastctl('reload');
    assert.is(refused.code, 71, refused.stderr);
    assert.match(refused.stderr, 'cannot listen on tcp4://192.0.2.1:8457');
    await a.inSync(1000);
  }),
);

reloads.run();
