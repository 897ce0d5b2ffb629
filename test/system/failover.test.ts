// The failover scripts with two real daemons, and with a real file system where the machine has
// FUSE and loop devices: they walk into the traps of docs/failover.md.
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { mountProblem } from '../../scripts/demo/files.ts';
import { until, withDeadline } from '../helper/deadline.ts';
import { FAILOVER } from '../helper/failover-stage.ts';
import { cutInSynchronisation } from '../helper/interrupt.ts';
import {
  type Ended,
  type Node,
  noPair,
  Pair,
  type PairOptions,
  program,
  runProgram,
  withPair,
} from '../helper/pair.ts';
import { missing, notRoot, unless } from '../helper/skip.ts';

const failover = suite('failover of a pair');
const unable = noPair() ?? missing('flock') ?? missing('pgrep');
const add = unless(failover, unable);
const addMounted = unless(
  failover,
  unable ?? notRoot() ?? mountProblem() ?? missing('mkfs.ext4') ?? missing('fsck'),
);
const LIMIT_MS = 240_000;
const MIB = 1 << 20;

/** Both nodes are on one machine, and so are the pairs of others: workers are known by name. */
const RESOURCE = `failover${process.pid}`;
const PAIR: PairOptions = { resource: RESOURCE, relay: true, timeoutSeconds: 2 };

/** carp-hast-switch of one node, with its own configuration. */
class Handler {
  readonly node: Node;
  readonly mountPoint: string;
  readonly #base: string;

  constructor(node: Node, more = '') {
    this.node = node;
    this.#base = `${node.directory}/${node.name}.failover`;
    this.mountPoint = `${this.#base}/mnt`;
    mkdirSync(this.mountPoint, { recursive: true });
    this.#program('hastctl', this.#hastctl());
    // A service that must not see the empty folder.
    const there = `grep -q -F " ${this.mountPoint} " /proc/self/mounts && echo mounted`;
    this.#program('service', `echo "$1 $2 $(${there})" >> ${this.#base}/services`);
    writeFileSync(
      `${this.#base}/conf`,
      `hastctl=${this.#base}/hastctl
resources=${node.resource}
run_directory=${this.#base}/run
service_command=${this.#base}/service
services=server
promote_delay=0
worker_seconds=10
export HAST_NBD_SOCKET=${node.socket} HAST_NBD_DIRECTORY=${this.#base}/fuse
${more}
`,
    );
  }

  withFilesystem(): this {
    const conf = `${this.#base}/conf`;
    const line = `${this.node.resource} ${this.mountPoint} ext4 noatime,commit=300`;
    const more = `adapter=${FAILOVER}hast-nbd-device\nfilesystems='${line}'\n`;
    writeFileSync(conf, readFileSync(conf, 'utf8') + more);
    return this;
  }

  get services(): string[] {
    const path = `${this.#base}/services`;
    return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
  }

  get mounted(): boolean {
    return readFileSync('/proc/self/mounts', 'utf8').includes(` ${this.mountPoint} `);
  }

  switch(...args: readonly string[]): Promise<Ended> {
    return this.#run(`${FAILOVER}carp-hast-switch`, ...args);
  }

  async must(...args: readonly string[]): Promise<void> {
    const { code, stderr } = await this.switch(...args);
    assert.is(code, 0, `node ${this.node.name}: ${args.join(' ')}\n${stderr}`);
  }

  async adapter(way: 'up' | 'down'): Promise<string> {
    const { code, stdout, stderr } = await this.#run(
      '/bin/sh',
      '-c',
      `. ${this.#base}/conf; exec ${FAILOVER}hast-nbd-device ${way} ${this.node.resource}`,
    );
    assert.is(code, 0, stderr);
    return stdout.trim();
  }

  /** Nothing of ours may stay, whatever has happened. */
  async clean(): Promise<void> {
    if (this.mounted) await this.#run('umount', '-l', this.mountPoint);
    await this.adapter('down');
    assert.equal([this.mounted, loopsBelow(this.#base)], [false, []]);
    assert.not.ok(this.#loopIsAttached(), 'no loop device stays');
  }

  /** By the kernel's number for that use of it: its path is gone with the server. */
  #loopIsAttached(): boolean {
    const record = `${this.#base}/fuse.loop`;
    if (!existsSync(record)) return false;
    const [device = '', use] = readFileSync(record, 'utf8').trim().split(' ');
    const block = device.replace('/dev/', '/sys/block/');
    if (!existsSync(`${block}/loop`) || !existsSync(`${block}/diskseq`)) return false;
    return readFileSync(`${block}/diskseq`, 'utf8').trim() === use;
  }

  #run(file: string, ...args: readonly string[]): Promise<Ended> {
    const all = [`HAST_FAILOVER_CONF=${this.#base}/conf`, file, ...args];
    return runProgram('/usr/bin/env', all, AbortSignal.timeout(120_000));
  }

  #program(name: string, text: string): void {
    const path = `${this.#base}/${name}`;
    writeFileSync(path, `#!/bin/sh\n${text}\n`);
    chmodSync(path, 0o755);
  }

  #hastctl(): string {
    const { config, name } = this.node;
    const command = [process.execPath, ...program('hastctl')].join(' ');
    return `verb=$1; shift\nexec ${command} "$verb" -c ${config} -n ${name} "$@"`;
  }
}

function loopsBelow(directory: string): string[] {
  return readdirSync('/sys/block').filter((name) => {
    const path = `/sys/block/${name}/loop/backing_file`;
    return existsSync(path) && readFileSync(path, 'utf8').startsWith(`${directory}/`);
  });
}

async function write(node: Node, at: number, bytes: Buffer): Promise<void> {
  const client = await node.connect();
  try {
    assert.is((await client.write(at, bytes)).error, 0);
  } finally {
    client.destroy();
  }
}

async function flush(node: Node): Promise<void> {
  const client = await node.connect();
  try {
    assert.is((await client.flush()).error, 0);
  } finally {
    client.destroy();
  }
}

async function mustRun(file: string, ...args: readonly string[]): Promise<void> {
  const { code, stderr } = await runProgram(file, args, AbortSignal.timeout(60_000));
  assert.is(code, 0, `${file} ${args.join(' ')}\n${stderr}`);
}

function isSplit(reason: string | undefined): boolean {
  return /^Split-brain/.test(reason ?? '');
}

add(
  'events before hastd, a cold start, a flap, a half copy, two primaries: no harm and a word',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.make(PAIR), async (pair) => {
      const { a, b } = pair;
      const more = 'worker_seconds=1 boot_seconds=1';
      const [onA, onB] = [new Handler(a, more), new Handler(b, more)];

      // MASTER comes, as CARP does, before hastd: nothing happens, and boot remembers it.
      await a.stop();
      const early = await onA.switch('MASTER', '1@em0');
      assert.is(early.code, 69);
      await a.start();
      // Both boot cold: two secondaries, no service, no damage, until somebody decides.
      const [late] = await Promise.all([onA.switch('boot'), onB.must('boot')]);
      assert.is(late.code, 0, late.stderr);
      assert.match(late.stderr, 'MASTER came before hastd did');
      assert.equal([(await a.status()).role, (await b.status()).role], ['secondary', 'secondary']);
      await onA.must('primary');
      await a.inSync();
      assert.equal(onA.services, ['start server']);

      // The address flaps, the primary lives and is connected: it keeps the role.
      const from = a.output.length;
      const flap = await onB.switch('INSTANCE', 'data', 'MASTER', '100');
      assert.is(flap.code, 1);
      assert.match(flap.stderr, 'the worker of the secondary does not end');
      await onB.must('INSTANCE', 'data', 'BACKUP', '100');
      assert.not.match(a.output.slice(from), 'Disconnected');
      await a.inSync();

      // The primary dies while it copies: half a copy is not served.
      pair.cut();
      await a.degraded();
      for (let at = 0; at < 24; at += 4) await write(a, at * MIB, randomBytes(4 * MIB));
      await cutInSynchronisation(pair, a);
      await b.when('no primary', ({ worker }) => worker === null);
      const half = await onB.switch('MASTER', '1@em0');
      assert.is(half.code, 1);
      assert.match(half.stderr, 'role primary was not taken (hastctl: exit status 5)');
      assert.match(half.stderr, /copy is (incomplete|stale)/i);
      assert.equal([(await b.status()).role, onB.services], ['secondary', ['stop server']]);
      pair.heal();
      await a.inSync();

      // Both are primary while the cable is cut: each says so as soon as it is not.
      pair.cut();
      await a.degraded();
      await until(
        'promotion',
        20_000,
        async () => (await onB.switch('MASTER', '1@em0')).code === 0,
      );
      pair.heal();
      const two = ({ notes }: { readonly notes: readonly string[] }) =>
        notes.some((note) => note.startsWith('both are primary'));
      await Promise.all([a.when('it says so', two), b.when('it says so', two)]);
      await onB.must('BACKUP', '1@em0');
      await a.inSync();
      await pair.mustBeClean(a);
    }),
  ),
);

addMounted(
  'a file system goes there and back, and unmounting without the peer parts nobody',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.inSync({ ...PAIR, diskBytes: 50 * MIB }), async (pair) => {
      const { a, b } = pair;
      const [onA, onB] = [new Handler(a).withFilesystem(), new Handler(b).withFilesystem()];
      const file = (handler: Handler, name: string) => `${handler.mountPoint}/${name}`;
      try {
        const lazy = 'lazy_itable_init=0,lazy_journal_init=0';
        await mustRun('mkfs.ext4', '-q', '-E', lazy, await onA.adapter('up'));
        await onA.must('primary');
        await onA.must('primary'); // once more: nothing happens
        writeFileSync(file(onA, 'one'), 'of a'); // in the page cache until it is unmounted
        await onA.must('secondary');
        assert.is(onA.mounted, false);

        await onB.must('primary');
        assert.is(readFileSync(file(onB, 'one'), 'utf8'), 'of a');
        writeFileSync(file(onB, 'two'), 'of b');
        await b.inSync();
        await onB.must('secondary');
        await onA.must('primary');
        assert.is(readFileSync(file(onA, 'two'), 'utf8'), 'of b');
        const starts = [...onA.services, ...onB.services].filter((line) => /^start/.test(line));
        assert.ok(
          starts.every((line) => line === 'start server mounted'),
          starts.join('\n'),
        );
        await a.inSync();

        // The cable is cut and a loses its address. What unmounting writes is refused, so that b
        // may write and a join it again. All is flushed: what the peer may have lost with its
        // power would count as written alone.
        await mustRun('sync', '-f', onA.mountPoint);
        await flush(a);
        await pair.mustBeClean(a);
        pair.cut();
        await a.degraded();
        await onA.must('BACKUP', '1@em0');
        assert.is(onA.mounted, false);
        await onB.must('MASTER', '1@em0');
        writeFileSync(file(onB, 'three'), 'of b alone');
        await mustRun('sync', '-f', onB.mountPoint);
        pair.heal();
        await b.inSync();
        assert.is(readFileSync(file(onB, 'three'), 'utf8'), 'of b alone');

        // The old order, by hand, shows that this was a trap: b unmounts alone, then a writes.
        pair.cut();
        await b.degraded();
        await mustRun('umount', onB.mountPoint);
        await onB.must('secondary');
        await onA.must('primary');
        pair.heal();
        const { worker } = await a.when('an end', ({ worker: now }) => {
          return now?.state === 'in-sync' || isSplit(now?.reason);
        });
        assert.ok(isSplit(worker?.reason), 'unmounting alone has parted the two');
        await onA.must('secondary');
      } finally {
        await onA.clean();
        await onB.clean();
      }
    }),
  ),
);

failover.run();
