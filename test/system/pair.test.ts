// Two real nodes: what an operator does to them, and what may happen to them.
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { FUA, NBD_ERROR, type NbdClient, type Reply } from '../helper/nbd.ts';
import {
  isCompiled,
  LIMIT_MS,
  type Node,
  noPair,
  ORPHANS_END,
  Pair,
  type PairOptions,
  runProgram,
  story,
  withClient,
  withPair,
} from '../helper/pair.ts';
import { missing, unless } from '../helper/skip.ts';

const pairs = suite('pair');
const unable = noPair();
const add = unless(pairs, unable);
const addWithFio = unless(pairs, unable ?? missing('fio'));

const KIB = 1024;
const MIB = 1024 * KIB;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function good(reply: Promise<Reply>): Promise<Buffer> {
  const { error, data } = await reply;
  assert.is(error, 0);
  return data;
}

/** Writes blocks of 64 KiB at many places at once. @returns what was written where */
async function fill(client: NbdClient, count = 64): Promise<Map<number, Buffer>> {
  const step = Math.floor(client.size / count / (64 * KIB)) * 64 * KIB;
  const written = new Map<number, Buffer>();
  for (let i = 0; i < count; ++i) {
    // Every fourth one is a hole, every fourth compresses, the others do not.
    const block = i % 4 === 0 ? Buffer.alloc(64 * KIB) : randomBytes(64 * KIB);
    if (i % 4 === 1) block.fill(i, 4 * KIB);
    written.set(i * step, block);
  }
  await Promise.all([...written].map(([at, block]) => good(client.write(at, block))));
  return written;
}

async function mustHold(client: NbdClient, written: ReadonlyMap<number, Buffer>): Promise<void> {
  for (const [at, block] of written) {
    assert.ok((await good(client.read(at, block.length))).equals(block), `at ${at}`);
  }
}

function writeOne(node: Node, at: number, text: string): Promise<void> {
  return withClient(node, async (client) => {
    await good(client.write(at, Buffer.alloc(4 * KIB, text)));
  });
}

function readOne(node: Node, at: number): Promise<string> {
  return withClient(node, async (client) => {
    return (await good(client.read(at, 4 * KIB))).toString('latin1', 0, 16);
  });
}

// ---- Replication ------------------------------------------------------------------------------

const SETTINGS: readonly PairOptions[] = [
  { mode: 'fullsync', compression: 'none', checksum: 'none' },
  { mode: 'memsync', compression: 'lzf', checksum: 'crc32' },
  { mode: 'async', compression: 'lzf', checksum: 'sha256' },
  { mode: 'fullsync', compression: 'hole', checksum: 'none' },
];

add(
  'what is written on the first start and in every mode is on both disks',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make(SETTINGS[0]), async (pair) => {
      for (const settings of SETTINGS) {
        if (!pair.a.running) {
          pair.writeConfig(settings);
          await Promise.all([pair.a.start(), pair.b.start()]);
        }
        await pair.b.role('secondary');
        await pair.a.role('primary');
        const { worker, checksum, compression } = await pair.a.inSync();
        assert.equal(
          [worker?.replication, compression, checksum],
          [settings.mode, settings.compression, settings.checksum],
        );
        await withClient(pair.a, async (client) => {
          const written = await fill(client);
          if (settings.mode !== 'fullsync') await good(client.flush());
          await pair.mustBeEqual();
          await mustHold(client, written);
          await good(client.trim(0, 4 * MIB));
          await good(client.write(2 * MIB, Buffer.alloc(4 * KIB, 'x'), FUA));
          await good(client.flush());
          await pair.mustBeEqual();
          assert.ok((await good(client.read(0, MIB))).every((byte) => byte === 0));
        });
        const { dirtyBytes } = await pair.a.stats();
        assert.ok(dirtyBytes <= 64 * 2 * MIB);
        await Promise.all([pair.a.stop(), pair.b.stop()]);
      }
    }),
  ),
);

add(
  'status, list and dump show a healthy pair, and create is refused to it',
  story(async ({ a, b, resource }) => {
    assert.is(
      await a.must('status'),
      `Name\tStatus\t Role\t\tComponents\n` +
        `data\tcomplete primary        ${a.disk}\ttcp4://127.0.0.1:${b.port}\n`,
    );
    assert.match(await b.must('status', resource), /^data\tcomplete secondary/m);
    const list = await a.must('list', resource);
    for (const line of ['role: primary', 'status: complete', 'dirty: 0 (0B)', 'localpath: ']) {
      assert.match(list, `  ${line}`);
    }
    for (const node of [a, b]) {
      const { resources } = JSON.parse(await node.must('status', '--json'));
      assert.equal(resources[0].notes, [], 'a healthy node has nothing to say');
      assert.is(resources[0].lastError, null);
    }
    const [left, right] = await Promise.all([a.dump(), b.dump()]);
    assert.is(left.resuid, right.resuid);
    assert.is(left.localcnt, right.remotecnt);
    assert.is(left.remotecnt, right.localcnt);
    assert.equal([left.prevrole, right.prevrole], ['primary', 'secondary']);
    assert.match(await a.must('dump', resource), /^ {4}resuid: \d+$/m);
    const unknown = await a.hastctl('status', 'nope');
    assert.is(unknown.code, 1);
    assert.match(unknown.stdout, /^nope\tERR1$/m);

    for (const node of [a, b]) {
      const { code, stderr } = await node.hastctl('create', resource);
      assert.is(code, 73, stderr);
      assert.match(stderr, `hastctl role init ${resource}`);
      assert.is((await node.hastctl('create', '-f', resource)).code, 73);
    }
    await a.inSync(1000);
  }),
);

// ---- Changing places --------------------------------------------------------------------------

/** Asks as hastctl does, without its start. @returns milliseconds to the answer */
async function timedRole(node: Node, role: string): Promise<number> {
  const began = performance.now();
  const answer = await node.ask('POST', '/role', JSON.stringify({ role }));
  assert.is(answer.status, 200, answer.text);
  return performance.now() - began;
}

add(
  'roles are changed there and back in a moment, and the data goes along',
  story(async (pair) => {
    const times: Record<string, number[]> = { primary: [], secondary: [] };
    let from = pair.a;
    for (let i = 0; i < 4; ++i) {
      await writeOne(from, i * MIB, `turn ${i}`);
      const to = pair.other(from);
      times.secondary?.push(await timedRole(from, 'secondary'));
      times.primary?.push(await timedRole(to, 'primary'));
      const { notes, lastError } = await to.inSync();
      assert.equal([notes, lastError], [[], null], 'a planned change is no failure');
      for (let j = 0; j <= i; ++j) assert.match(await readOne(to, j * MIB), `turn ${j}`);
      from = to;
    }
    await pair.mustBeEqual();
    for (const [role, ms] of Object.entries(times)) {
      say(`role ${role} with a peer in reach, ms: ${ms.map((one) => one.toFixed(0)).join(' ')}`);
      assert.ok(Math.min(...ms) < 5000, 'far from the 200 ms that are wanted');
    }
  }),
);

add(
  'role primary is refused while the primary is connected, and while it is there at all',
  story(
    async (pair) => {
      const { a, b, resource } = pair;
      const connected = await b.hastctl('role', 'primary', resource);
      assert.is(connected.code, 5, connected.stderr);
      assert.match(connected.stderr, 'the connection from the primary is still open');
      assert.match(connected.stderr, '-f');
      assert.is((await b.status()).role, 'secondary');
      // Unconnected, but the primary answers that it is one.
      await b.role('init');
      await a.degraded();
      const began = performance.now();
      const busy = await b.hastctl('role', 'primary', resource);
      assert.is(busy.code, 5, busy.stderr);
      assert.match(busy.stderr, 'the peer is primary. Demote it first');
      assert.ok(performance.now() - began >= 1900, 'it asks for the whole timeout');
      assert.is((await b.status()).role, 'init');
      assert.is((await a.status()).role, 'primary');
      await b.role('secondary');
      await a.inSync();
    },
    { timeoutSeconds: 2 },
  ),
);

add(
  'the end of being primary is a fence: what was answered is stored, what comes later fails',
  story(async (pair) => {
    const { a, b, resource } = pair;
    const client = await a.connect();
    const refused = await a.hastctl('role', '--if-unused', 'secondary', resource);
    assert.is(refused.code, 5, refused.stderr);
    assert.match(refused.stderr, `in use by pid ${process.pid}, uid ${process.getuid?.()}`);
    assert.is((await a.status()).role, 'primary');

    const answers = new Map<number, number>();
    let sent = 0;
    let running = true;
    const one = async (): Promise<void> => {
      while (running) {
        const n = sent++;
        const at = (n % 4096) * 4 * KIB;
        const reply = await client.write(at, Buffer.alloc(4 * KIB, n + 1)).catch(() => undefined);
        if (reply === undefined) return;
        answers.set(n, reply.error);
      }
    };
    const lanes = Array.from({ length: 32 }, one);
    await until('writes', 20_000, () => answers.size > 500);
    await a.role('secondary');
    await client.closed;
    running = false;
    await Promise.all(lanes);
    const errors = new Set(answers.values());
    errors.delete(0);
    assert.equal(
      [...errors].filter((error) => error !== NBD_ERROR.shutdown),
      [],
    );
    assert.not(existsSync(a.socket), 'the socket is removed');
    await pair.mustBeEqual();

    await b.role('primary');
    const last = new Map<number, number>();
    for (const [n, error] of [...answers].sort(([x], [y]) => x - y)) {
      if (error === 0) last.set((n % 4096) * 4 * KIB, n);
    }
    await withClient(b, async (reader) => {
      for (const [at, n] of last) {
        const data = await good(reader.read(at, 4 * KIB));
        assert.is(data[0], (n + 1) & 255, `write ${n} was answered`);
      }
    });
    const late = [...answers.values()].filter((error) => error !== 0).length;
    say(`fence: ${answers.size - late} writes answered, ${late} refused`);
  }),
);

// ---- Accidents --------------------------------------------------------------------------------

add(
  'a killed worker of the primary is restarted at once, and clients connect again',
  story(async (pair) => {
    const { a } = pair;
    const client = await a.connect();
    await good(client.write(0, Buffer.alloc(4 * KIB, 'before')));
    const killed = await a.killWorker();
    await client.closed;
    const began = performance.now();
    let again: NbdClient | undefined;
    await until('the export is back', 20_000, async () => {
      again = await a.connect().catch(() => undefined);
      return again !== undefined;
    });
    say(`the export is back ${(performance.now() - began).toFixed(0)} ms after a kill`);
    again?.destroy();
    assert.match(await readOne(a, 0), 'before');
    const { worker, lastError } = await a.inSync();
    assert.not.equal(worker?.pid, killed.pid);
    assert.is(lastError?.message, 'the worker was ended by SIGKILL');
    await writeOne(a, MIB, 'after');
    await pair.mustBeEqual();
  }),
);

add(
  'a killed supervisor that nobody replaces takes its worker along in order; a later one goes on',
  story(
    async (pair) => {
      const { a, b, resource } = pair;
      const client = await a.connect();
      await good(client.write(0, Buffer.alloc(4 * KIB, 'before')));
      await a.killDaemon();
      await client.closed;
      await a.workersEnded();
      assert.is((await a.hastctl('status')).code, 71);
      await pair.mustBeEqual();
      await b.when('alone', ({ worker }) => worker === null);
      await a.start();
      await a.role('primary');
      assert.match(await readOne(a, 0), 'before');
      await a.inSync();
      // That of the secondary is no different.
      await b.killDaemon();
      await b.workersEnded();
      await a.degraded();
      await writeOne(a, MIB, 'alone');
      await b.start();
      await b.role('secondary', '-d');
      await a.inSync();
      await pair.mustBeEqual();
      assert.is((await b.hastctl('role', 'secondary', resource)).code, 0);
    },
    { env: ORPHANS_END },
  ),
);

add(
  'the secondary is promoted when the primary has died, which comes back as secondary',
  story(
    async (pair) => {
      const { a, b, resource } = pair;
      await writeOne(a, 0, 'acknowledged');
      await a.crash();
      await until('promotion', 20_000, async () => {
        return (await b.hastctl('role', 'primary', resource)).code === 0;
      });
      const { worker, notes } = await b.status();
      assert.is(worker?.state, 'degraded');
      assert.ok(notes.length > 0, 'it says why it is degraded');
      assert.match(await readOne(b, 0), 'acknowledged');
      await writeOne(b, MIB, 'later');
      await a.start();
      const refused = await a.hastctl('role', 'primary', resource);
      assert.is(refused.code, 5, refused.stderr);
      await a.role('secondary');
      await b.inSync();
      await pair.mustBeEqual();
      await b.role('secondary');
      await a.role('primary');
      assert.match(await readOne(a, MIB), 'later');
    },
    { timeoutSeconds: 2 },
  ),
);

add(
  'a primary that waits to connect again hears at once of a node that becomes secondary',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make(), async ({ a, b }) => {
      await a.role('primary');
      await sleep(7500); // attempts after 0, 1, 3 and 7 seconds; the next one is due after 15
      const { text } = await b.ask('POST', '/role', JSON.stringify({ role: 'secondary' }));
      assert.match(text, '"role":"secondary"');
      // Its worker has to be started; without the knock nobody would be there before 7.5 seconds.
      await a.when('complete', ({ worker }) => worker?.status === 'complete', 6000);
    }),
  ),
);

add(
  'split-brain is seen by both nodes and said by both, and ends where the operator says so',
  story(
    async (pair) => {
      const { a, b, resource } = pair;
      pair.cut();
      await a.degraded();
      await writeOne(a, 0, 'here');
      await until('promotion', 20_000, async () => {
        return (await b.hastctl('role', 'primary', resource)).code === 0;
      });
      await writeOne(b, MIB, 'there');
      await b.role('secondary');
      pair.heal();
      await a.when('split-brain', ({ notes }) => notes.join().includes('Split-brain condition!'));
      const there = await b.when('split-brain', ({ lastError }) => lastError !== null);
      assert.is(there.role, 'secondary', 'it keeps its role');
      assert.is(there.lastError?.code, 'PEER_SPLIT_BRAIN');
      assert.match(there.notes.join('\n'), /split-brain/i);
      assert.is((await a.stats()).status, 'degraded');
      assert.match(await readOne(a, 0), 'here');
      // The one way out: one node's data is given up, and the command says so.
      await b.role('init');
      await b.must('create', resource);
      await b.role('secondary');
      await a.inSync();
      await pair.mustBeEqual();
      assert.equal((await a.status()).notes, []);
    },
    { timeoutSeconds: 2, relay: true },
  ),
);

add(
  'a stopped secondary holds the primary up for three seconds and no longer',
  story(async (pair) => {
    const { a, b } = pair;
    const worker = await b.worker();
    await withClient(a, async (client) => {
      await good(client.write(0, Buffer.alloc(4 * KIB, 'before')));
      const began = performance.now();
      await worker.freeze();
      try {
        await good(client.flush());
        await good(client.write(0, Buffer.alloc(4 * KIB, 'meanwhile')));
        const ms = performance.now() - began;
        say(`a flush went on ${ms.toFixed(0)} ms after the secondary was stopped`);
        assert.ok(ms < 6000);
        await a.degraded();
      } finally {
        worker.signal('SIGCONT');
      }
    });
    await a.inSync();
    await pair.mustBeEqual();
    assert.match(await readOne(a, 0), 'meanwhile');
  }),
);

add(
  'a client may leave while the secondary still owes its answers',
  story(
    async (pair) => {
      const { a, b } = pair;
      const { pid } = await a.stats();
      const worker = await b.worker();
      await worker.freeze();
      try {
        await withClient(a, async (client) => {
          const blocks = Array.from({ length: 20 }, (_, i) => i * 64 * KIB);
          await Promise.all(blocks.map((at) => good(client.write(at, Buffer.alloc(4 * KIB, 'x')))));
          const { inFlight } = await a.stats();
          assert.is(inFlight, 20, 'all are answered, and none is final');
        });
        await a.when('no client', ({ worker: now }) => now?.clients.length === 0);
      } finally {
        worker.signal('SIGCONT');
      }
      await a.when('all final', ({ worker: now }) => now?.inFlight === 0);
      assert.is((await a.stats()).pid, pid, 'the same worker as before');
      await a.inSync();
      await pair.mustBeEqual();
    },
    { mode: 'async' },
  ),
);

// ---- JavaScript does not matter ---------------------------------------------------------------

/** Loaded into hastd and its workers by Node's own flag: signals that make JavaScript misbehave. */
const MISCHIEF = `
process.on('SIGUSR2', () => {
  const end = Date.now() + 10000;
  while (Date.now() < end);
});
process.on('SIGWINCH', () => setTimeout(() => { throw new Error('mischief'); }, 0));
`;

addWithFio(
  'JavaScript that hangs for ten seconds, or throws, changes nothing for fio',
  withDeadline(LIMIT_MS, async (signal) => {
    // Workers of another user read it too.
    const file = join(tmpdir(), `hastd-mischief-${process.pid}.mjs`);
    writeFileSync(file, MISCHIEF);
    await withPair(Pair.inSync({ flags: ['--import', file] }), async ({ a, b }) => {
      const workers = [await a.worker(), await b.worker()];
      const log = `${a.directory}/fio`;
      const args = ['--name=j', '--ioengine=nbd', `--uri=${a.uri}`, '--rw=randwrite', '--bs=4k'];
      const more = ['--iodepth=8', '--time_based', '--runtime=8', '--size=32m', '--norandommap'];
      const output = ['--output-format=json', `--write_iops_log=${log}`, '--log_avg_msec=500'];
      const fio = runProgram('fio', [...args, ...more, ...output], signal);
      const before = await a.stats();
      await a.when('writes', ({ worker }) => (worker?.writes ?? 0) > before.writes + 100);
      for (const worker of workers) worker.signal('SIGWINCH');
      await until('the exception is told', 10_000, () =>
        [a, b].every(({ output: said }) => said.includes('Uncaught in the worker: Error: misch')),
      );
      for (const worker of workers) worker.signal('SIGUSR2');
      const busy = await a.when('silent', ({ worker }) => worker === null, 10_000);
      assert.match(busy.notes.join(), 'the worker does not answer; I/O may go on');
      const { code, stdout, stderr } = await fio;
      assert.is(code, 0, stderr);
      const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{')));
      const slowest = jobs[0].write.lat_ns.max / 1e6;
      const steps = readFileSync(`${log}_iops.1.log`, 'utf8').trim().split('\n');
      const rates = steps.map((line) => Number(line.split(',')[1]));
      say(
        `fio while JavaScript hangs: ${jobs[0].write.iops.toFixed(0)} IOPS, in half seconds ` +
          `${Math.min(...rates)} to ${Math.max(...rates)}, slowest write ${slowest.toFixed(0)} ms`,
      );
      assert.ok(slowest < 3000, 'a write waited for JavaScript');
      await a.inSync();
      assert.equal(
        await Promise.all([a, b].map(async (node) => (await node.stats()).pid)),
        workers.map(({ pid }) => pid),
      );
    }).finally(() => rmSync(file));
  }),
);

// ---- Memory -----------------------------------------------------------------------------------

/** Proportional set size in MiB: shared pages count by the share. Beside it the resident size. */
function memoryOf(pid: number): { readonly pss: number; readonly text: string } {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const [pss = 0, rss = 0] = ['Pss', 'Rss'].map(
    (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1]) / KIB,
  );
  return { pss, text: `${pss.toFixed(1)} MiB (resident ${rss.toFixed(1)})` };
}

unless(pairs, unable ?? (isCompiled() ? undefined : 'the program is not compiled (npm run build)'))(
  'the processes of a resource of one TiB stay small',
  story(
    async (pair) => {
      const { a, b } = pair;
      assert.is((await a.stats()).syncBytesDone, 0, 'equal contents need no first pass');
      await withClient(a, async (client) => {
        const pages = client.size / (4 * KIB);
        const block = randomBytes(4 * KIB);
        for (let i = 0; i < 10_000; i += 50) {
          const places = Array.from({ length: 50 }, () => Math.floor(Math.random() * pages));
          await Promise.all(places.map((page) => good(client.write(page * 4 * KIB, block))));
        }
        await good(client.flush());
      });
      assert.ok((await a.stats()).writes >= 10_000);
      const limits = { worker: 120, supervisor: 90 };
      for (const node of [a, b]) {
        const worker = memoryOf((await node.worker()).pid);
        const supervisor = memoryOf(node.pid);
        say(`PSS of ${node.name}, 1 TiB: worker ${worker.text}, supervisor ${supervisor.text}`);
        assert.ok(worker.pss < limits.worker, 'the worker is too large');
        assert.ok(supervisor.pss < limits.supervisor, 'the supervisor is too large');
      }
    },
    { diskBytes: 1024 ** 4, create: ['--contents-equal'] },
  ),
);

pairs.run();
