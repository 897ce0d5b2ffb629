// Supervisors that are killed and come back, or do not: what becomes of their workers.
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import type { NbdClient } from '../helper/nbd.ts';
import {
  LIMIT_MS,
  type Node,
  noPair,
  ORPHANS_END,
  Pair,
  runProgram,
  story,
  withPair,
} from '../helper/pair.ts';
import { missing, unless } from '../helper/skip.ts';

const adoption = suite('adoption');
const unable = noPair();
const add = unless(adoption, unable);
const addWithFio = unless(adoption, unable ?? missing('fio'));

const KIB = 1024;
/** Of one request, on a machine that also starts a daemon meanwhile. */
const PAUSE_MS_MAX = 1500;

async function written(client: NbdClient, at: number, text: string): Promise<void> {
  assert.is((await client.write(at, Buffer.alloc(4 * KIB, text))).error, 0);
}

/** Kills the supervisor and starts it again. @returns what the new one has said */
async function replaceDaemon(node: Node): Promise<string> {
  await node.killDaemon();
  const from = node.output.length;
  await node.start();
  return node.output.slice(from);
}

async function eventsOf(node: Node): Promise<string[]> {
  const { history } = (await node.ask('GET', '/why')).json() as { history: { event: string }[] };
  return history.map(({ event }) => event);
}

/** What there is of workers that have a resource. */
function filesOf(node: Node): readonly string[] {
  return readdirSync(node.workers).filter((name) => !name.startsWith('spare-'));
}

/** The worker's own socket, of a node with one resource. */
function doorOf(node: Node): string {
  return `${node.workers}/${filesOf(node).find((name) => !name.endsWith('.json'))}`;
}

/** What a connection to a worker hears until `enough` says so, or until it is closed. */
async function hears(
  node: Node,
  say: string,
  enough: (said: string) => boolean,
): Promise<{ said: string; socket: Socket }> {
  const socket = connect(doorOf(node));
  let said = '';
  let closed = false;
  socket.setEncoding('utf8').on('data', (text) => {
    said += text;
  });
  socket
    .on('error', () => {})
    .on('close', () => {
      closed = true;
    });
  socket.write(say);
  await until('an answer of the worker', 10_000, () => closed || enough(said));
  return { said, socket };
}

addWithFio(
  'a primary serves on while its supervisor is killed and comes back',
  withDeadline(LIMIT_MS, async (signal) => {
    await withPair(Pair.inSync(), async (pair) => {
      const { a, b } = pair;
      const worker = await a.worker();
      const before = await a.stats();
      const job = ['--name=j', '--ioengine=nbd', `--uri=${a.uri}`, '--rw=randwrite', '--bs=4k'];
      const load = ['--iodepth=8', '--time_based', '--runtime=8', '--size=16m', '--norandommap'];
      const fio = runProgram('fio', [...job, ...load, '--output-format=json'], signal);
      await a.when('writes', (s) => (s.worker?.writes ?? 0) > before.writes + 100);
      const said = await replaceDaemon(a);
      assert.match(said, `[data] (primary) Adopted the running worker (pid ${worker.pid}).`);
      const { role, worker: now } = await a.status();
      assert.equal([role, now?.state, now?.pid], ['primary', 'in-sync', worker.pid]);
      const { writes } = await a.stats();
      await a.when('more writes', (s) => (s.worker?.writes ?? 0) > writes + 100);
      const { code, stdout, stderr } = await fio;
      assert.is(code, 0, stderr);
      const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{')));
      const slowest = jobs[0].write.lat_ns.max / 1e6;
      process.stdout.write(`slowest write over a restart of hastd: ${slowest.toFixed(0)} ms\n`);
      assert.is(jobs[0].error, 0);
      assert.ok(slowest < PAUSE_MS_MAX, `a write waited ${slowest} ms`);
      assert.equal(await eventsOf(a), ['adopted']);
      assert.not.match(b.output, /connection.*lost|the peer is gone/i);

      await pair.mustBeClean(a);
      await a.role('secondary');
      await until('the worker ended', 10_000, () => !worker.alive);
      assert.not(existsSync(a.socket));
      assert.equal(filesOf(a), []);
      await b.role('primary');
      await b.inSync();
    });
  }),
);

add(
  'a secondary receives on, and its worker is known to the next supervisor',
  story(async (pair) => {
    const { a, b } = pair;
    const worker = await b.worker();
    const client = await a.connect();
    await written(client, 0, 'before');
    await b.killDaemon();
    await written(client, 4 * KIB, 'without');
    await b.start();
    const { role, worker: now } = await b.status();
    assert.equal([role, now?.pid], ['secondary', worker.pid]);
    await written(client, 8 * KIB, 'after');
    assert.is((await b.hastctl('role', 'primary', 'data')).code, 5, 'the primary is connected');
    assert.is((await a.stats()).state, 'in-sync');
    await pair.mustBeClean(a);
    client.destroy();

    // The end of an adopted worker is told like any other, and the next one is a child again.
    worker.signal('SIGKILL');
    await b.when('another worker', (s) => ![undefined, worker.pid].includes(s.worker?.pid));
    assert.match(b.output, 'exit code unknown');
    await a.inSync();
    await b.role('init');
  }),
);

add(
  'an adopted worker of a primary that dies is started again',
  story(async ({ a }) => {
    const worker = await a.worker();
    await replaceDaemon(a);
    worker.signal('SIGKILL');
    await a.when('another worker', (s) => ![undefined, worker.pid].includes(s.worker?.pid));
    await a.inSync();
    assert.match(a.output, 'Worker crashed (exit code unknown), restarting at once.');
  }),
);

add(
  'a worker that nobody comes back to answers its clients and ends, and leaves nothing locked',
  story(
    async (pair) => {
      const { a, b } = pair;
      const worker = await a.worker();
      const client = await a.connect();
      let answered = 0;
      let refused = 0;
      let lost = 0;
      const load = (async () => {
        for (let i = 0; !client.over; i = (i + 1) % 1024) {
          await client.write(i * 4 * KIB, Buffer.alloc(4 * KIB, i)).then(
            ({ error }) => (error === 0 ? answered++ : refused++),
            () => lost++,
          );
        }
      })();
      await a.killDaemon();
      const before = answered;
      await until('answers without a supervisor', 10_000, () => answered > before + 10);
      await until('the worker ended', 30_000, () => !worker.alive);
      await load;
      assert.ok(lost <= 1, 'only what came after the end is lost');
      await pair.mustBeEqual();
      await mustRefuse(a);
      await b.when('alone', (s) => s.worker === null);
      const from = a.output.length;
      await a.start();
      assert.is((await a.status()).role, 'init');
      assert.match(a.output.slice(from), 'The worker of the hastd before has ended');
      assert.not(existsSync(a.socket), 'the export that nobody serves is removed');
      assert.equal(filesOf(a), []);
      await a.role('primary');
      await a.inSync();
    },
    { env: { HASTD_ORPHAN: '1' } },
  ),
);

async function mustRefuse(node: Node): Promise<void> {
  await node.connect().then(
    () => assert.unreachable('the export answers'),
    ({ code }) => assert.is(code, 'ECONNREFUSED'),
  );
}

/** The log may come after what `status` says. */
function logged(node: Node, text: string): Promise<void> {
  return until(`"${text}" in the log`, 10_000, () => node.output.includes(text));
}

add(
  'a file that has changed meanwhile is taken as by a reload',
  story(async (pair) => {
    const { a } = pair;
    const worker = await a.worker();
    await a.killDaemon();
    pair.writeConfig({ compression: 'lzf' });
    await a.start();
    await a.when('the new words', (s) => s.compression === 'lzf');
    await logged(a, 'takes the new configuration as it runs (compression)');
    assert.is((await a.stats()).pid, worker.pid);
    // The note is that of the new configuration.
    const again = await replaceDaemon(a);
    assert.not.match(again, 'takes the new configuration');

    await a.killDaemon();
    const text = readFileSync(a.config, 'utf8');
    writeFileSync(a.config, text.replaceAll(a.socket, `${a.socket}2`));
    await a.start();
    await a.when('restarted', (s) => s.export.endsWith('2') && s.worker?.state === 'in-sync');
    await logged(a, 'restarted with the new configuration (export)');
    assert.not(worker.alive);
    assert.not(existsSync(a.socket));
    assert.ok(existsSync(`${a.socket}2`));

    const next = await a.worker();
    await a.killDaemon();
    writeFileSync(a.config, text.replace('resource data', 'resource other'));
    await a.start();
    await until('the end of what is not configured', 30_000, () => !next.alive);
    await until('its name is gone', 10_000, async () => {
      const { stdout } = await a.hastctl('status', '--json');
      return !stdout.includes('"data"');
    });
    await logged(a, 'Reload: removed');
  }),
);

add(
  'a worker of another version is told to end, and the role is init',
  story(async ({ a }) => {
    const worker = await a.worker();
    await a.killDaemon();
    const note = `${doorOf(a)}.json`;
    writeFileSync(note, readFileSync(note, 'utf8').replace(/"version":"[^"]*"/, '"version":"0"'));
    await a.start();
    await until('its end', 20_000, () => !worker.alive);
    const { role, lastError } = await a.status();
    assert.is(role, 'init');
    assert.match(lastError?.message ?? '', 'another version');
    await a.role('primary');
    await a.inSync();
  }),
);

add(
  'strangers at a worker’s socket get nothing and hold up nobody',
  story(async ({ a }) => {
    const worker = await a.worker();
    for (const path of [a.workers, doorOf(a)]) {
      const { mode, uid } = statSync(path);
      assert.equal([mode & 0o077, uid], [0, process.getuid?.()], path);
    }
    // While there is a supervisor.
    const busy = await hears(a, '{"kind":"adopt"}\n', (said) => said.includes('busy'));
    assert.match(busy.said, '"kind":"busy"');
    assert.is((await a.status()).worker?.pid, worker.pid);
    await a.killDaemon();
    for (const garbage of ['\u0000\u0001\n', '{"kind":"never"}\n', 'x'.repeat(2 << 20), '[]\n']) {
      const { said } = await hears(a, garbage, () => false);
      assert.not.match(said, 'adopted');
    }
    // One that says nothing, and one that stops in the middle of a line.
    const open = [await hears(a, '', (said) => said.includes('hello'))];
    open.push(await hears(a, '{"kind":"ad', (said) => said.includes('hello')));
    await a.start();
    assert.is((await a.status()).worker?.pid, worker.pid);
    for (const { socket } of open) socket.destroy();
    assert.is((await a.stats()).state, 'in-sync');
  }),
);

add(
  'a second supervisor without a pid file is refused, and takes no worker',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.inSync({ env: ORPHANS_END }), async ({ a }) => {
      const { pid } = await a.worker();
      assert.is((await a.daemon('-F')).code, 71);
      assert.is((await a.stats()).pid, pid, 'the worker stays with the first');
    }),
  ),
);

adoption.run();
