/** What every kind of kernel device must do, on a real kernel; each kind has a file in test/vm. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import type { BridgeKind } from '../../src/resource/bridge.ts';
import { until, withDeadline } from './deadline.ts';
import { type Node, Pair, withPair } from './pair.ts';
import { unless } from './skip.ts';
import {
  type FioResult,
  figure,
  fioVerify,
  isBlockDevice,
  isMounted,
  mounted,
  must,
  noVm,
} from './vm.ts';

const LIMIT_MS = 300_000;
const MIB = 1 << 20;
/** Of everything that must not hang, in emulation. */
const SOON_MS = 30_000;
/** Only tests with this in their names: a machine in emulation takes minutes for all. */
const ONLY = process.env.HASTD_VM_ONLY ?? '';
const WRITES_PER_SECOND = 50;
const ROUNDS = Number(process.env.HASTD_VM_ROUNDS ?? 2);

/** One pair for all tests of a file, since processes start slowly in emulation. */
class Scene {
  readonly pair: Pair;
  primary: Node;

  constructor(pair: Pair) {
    this.pair = pair;
    this.primary = pair.a;
  }

  get secondary(): Node {
    return this.pair.other(this.primary);
  }
  get mount(): string {
    return this.mountOf(this.primary);
  }
  mountOf({ name }: Node): string {
    return `${this.pair.directory}/${name}.mnt`;
  }

  /** The other node is the primary from now on. */
  async swap(): Promise<void> {
    await this.primary.take('secondary');
    await this.secondary.take('primary');
    this.primary = this.secondary;
    await this.primary.inSync();
  }

  format(...more: readonly string[]): Promise<string> {
    const quick = ['-q', '-F', '-E', 'lazy_itable_init=0,nodiscard', ...more];
    return must('mkfs.ext4', ...quick, this.primary.device);
  }
}

/** Writes files one after the other, each followed by fsync, until it fails or is stopped. */
class FileWriter {
  readonly #child: ChildProcess;
  readonly written: number[] = [];
  ended = false;

  constructor(folder: string) {
    const script = `i=0
      while yes "$i" | head -c 8192 >${folder}/$i && sync ${folder}/$i; do
        echo $i; i=$((i + 1))
      done`;
    this.#child = spawn('bash', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    let rest = '';
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      this.written.push(...lines.map(Number));
    });
    this.#child.on('close', () => {
      this.ended = true;
    });
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGKILL');
    await until('the end of the writer', SOON_MS, () => this.ended);
  }
}

/** Requests from now on for longer than `seconds`; begun when this resolves. */
class Load {
  readonly end: Promise<FioResult>;
  over = false;

  private constructor(device: string, seconds: number) {
    const size = 4096 * WRITES_PER_SECOND * seconds;
    const pace = `--rate_iops=1000,${WRITES_PER_SECOND}`;
    this.end = fioVerify(device, `--size=${size}`, pace).finally(() => {
      this.over = true;
    });
    this.end.catch(() => {}); // told when it is waited for
  }

  static async on(node: Node, seconds: number): Promise<Load> {
    const { writes } = await node.stats();
    const load = new Load(node.device, seconds);
    await until('load', SOON_MS, async () => (await node.stats()).writes > writes + 50);
    return load;
  }

  /** What was done was done to running requests. */
  mustRun(): void {
    assert.not(this.over, 'the load has ended too early');
  }
}

async function expectFiles(folder: string, names: readonly number[]): Promise<void> {
  for (const name of names) {
    const expected = `${name}\n`.repeat(8192).slice(0, 8192);
    assert.is(await readFile(`${folder}/${name}`, 'latin1'), expected, `file ${name}`);
  }
}

async function sumOf(file: string): Promise<string> {
  return (await must('sha256sum', file)).split(' ')[0] ?? '';
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** Where there is no udev. */
const LVM_CONF = `devices { obtain_device_list_from_udev = 0 use_devicesfile = 0 dir = "/dev" }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
`;

async function withLvm(directory: string, body: () => Promise<void>): Promise<void> {
  await mkdir(`${directory}/lvm`);
  await writeFile(`${directory}/lvm/lvm.conf`, LVM_CONF);
  process.env.LVM_SYSTEM_DIR = `${directory}/lvm`;
  process.env.DM_DISABLE_UDEV = '1';
  try {
    await body();
  } finally {
    delete process.env.LVM_SYSTEM_DIR;
    await rm(`${directory}/lvm`, { recursive: true });
  }
}

/** Until a worker waits for the next role, which then takes as long as it usually does. */
function spareOf(node: Node): Promise<void> {
  const children = `/proc/${node.pid}/task/${node.pid}/children`;
  return until('a worker that waits', SOON_MS, () =>
    readFileSync(children, 'latin1')
      .split(' ')
      .some((pid) => pid !== '' && titleOf(pid).startsWith('hastd: (spare)')),
  );
}

function titleOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}

export function addDeviceTests(test: Test, kind: BridgeKind): void {
  let scene: Scene | undefined;
  const skipped = (name: string): string | undefined =>
    noVm() ?? (name.includes(ONLY) ? undefined : 'not in HASTD_VM_ONLY');

  /** With the pair in sync, whatever the test before has left. */
  const add = (name: string, body: (scene: Scene) => Promise<void>): void =>
    unless(test, skipped(name))(
      name,
      withDeadline(LIMIT_MS, async () => {
        scene ??= new Scene(
          await Pair.inSync({
            device: kind,
            diskBytes: 66 * MIB,
            mode: 'fullsync',
            create: ['--contents-equal'],
            // A daemon starts slowly in emulation, and its workers are to wait for it.
            env: { HASTD_ORPHAN: '120' },
          }),
        );
        try {
          await body(scene);
        } catch (error) {
          process.stdout.write(`\n--- a\n${scene.pair.a.output}--- b\n${scene.pair.b.output}`);
          process.stdout.write(`--- kernel\n${(await must('dmesg')).slice(-4000)}\n`);
          const broken = scene.pair;
          scene = undefined;
          try {
            broken.abandon();
          } catch {
            // Something is still mounted there; the machine goes with it.
          }
          throw error;
        }
      }),
    );

  test.after(async () => {
    await scene?.pair.close();
  });

  add('the device is there when the role is answered, on the primary alone', async (scene) => {
    const { pair, primary, secondary } = scene;
    await primary.take('secondary');
    assert.not(existsSync(primary.device));
    await spareOf(primary);
    figure(
      'role primary, peer reachable, to a usable device',
      await timed(() => primary.take('primary')),
    );
    assert.ok(isBlockDevice(primary.device));
    assert.not(existsSync(secondary.device));
    assert.is((await primary.status()).device, primary.device);
    assert.match(await primary.must('list', pair.resource), `device: ${primary.device}`);
    await primary.inSync();
  });

  const token = '10 MB are enough to tell who is the primary: [ -b /dev/hast/NAME ]';
  unless(test, skipped(token))(
    token,
    withDeadline(LIMIT_MS, () =>
      withPair(Pair.inSync({ device: kind, diskBytes: 10 * MIB }), async ({ a, b }) => {
        const who = (): string => [a, b].map(({ device }) => isBlockDevice(device)).join(' ');
        assert.is(who(), 'true false');
        await a.take('secondary');
        assert.is(who(), 'false false');
        await b.take('primary');
        assert.is(who(), 'false true');
        await b.crash();
        await a.promote();
        assert.is(isBlockDevice(a.device), true);
        await b.start();
        assert.is(who(), 'true false');
      }),
    ),
  );

  add(
    'a file system: mkfs, mount, fsync, fio with verify, fstrim; then on the other node',
    async (scene) => {
      await scene.format();
      const sum = await mounted(scene.primary.device, scene.mount, async () => {
        const file = `${scene.mount}/file`;
        await must('dd', 'if=/dev/urandom', `of=${file}`, 'bs=64k', 'count=32', 'conv=fsync');
        await fioVerify(`${scene.mount}/fio`, '--size=4M', '--fsync=64');
        await must('fstrim', scene.mount);
        return sumOf(file);
      });
      await scene.swap();
      await must('e2fsck', '-fn', scene.primary.device);
      await mounted(scene.primary.device, scene.mount, async () => {
        assert.is(await sumOf(`${scene.mount}/file`), sum);
      });
    },
  );

  add('its limits, and what is discarded or zeroed', async ({ primary: { device } }) => {
    const queue = `/sys/block/${realpathSync(device).slice('/dev/'.length)}/queue`;
    const limit = (name: string): string => readFileSync(`${queue}/${name}`, 'utf8').trim();
    assert.is(limit('logical_block_size'), '512');
    assert.is(limit('max_sectors_kb'), '128');
    assert.is(limit('write_cache'), 'write back');
    assert.is(limit('fua'), '1');
    assert.ok(Number(limit('discard_max_bytes')) >= MIB);
    assert.ok(Number(limit('write_zeroes_max_bytes')) > 0);

    await must('dd', 'if=/dev/urandom', `of=${device}`, 'bs=1M', 'count=3', 'oflag=direct');
    const sum = (skip: number): Promise<string> =>
      must('bash', '-c', `dd if=${device} bs=1M skip=${skip} count=1 iflag=direct | sha256sum`);
    const before = [await sum(0), await sum(1), await sum(2)];
    await must('blkdiscard', '--force', '--offset', '0', '--length', '1MiB', device);
    await must('blkdiscard', '--zeroout', '--offset', '2MiB', '--length', '1MiB', device);
    const zeroes = await must('bash', '-c', 'head -c 1M /dev/zero | sha256sum');
    assert.equal([await sum(0), await sum(1), await sum(2)], [zeroes, before[1], zeroes]);
  });

  add('a killed worker is a pause, and no request fails', async (scene) => {
    const load = await Load.on(scene.primary, 20);
    const { pid } = await scene.primary.killWorker();
    load.mustRun();
    figure('longest request across a SIGKILL of the worker', (await load.end).longestMs);
    await scene.primary.inSync();
    assert.is.not((await scene.primary.stats()).pid, pid);
  });

  add('a supervisor that is killed and started again is not noticed', async (scene) => {
    const { pid } = await scene.primary.stats();
    const load = await Load.on(scene.primary, 60);
    await scene.primary.killDaemon();
    await scene.primary.start();
    load.mustRun();
    figure('longest request across a restart of the supervisor', (await load.end).longestMs);
    assert.is((await scene.primary.stats()).pid, pid);
    assert.is((await scene.primary.status()).device, scene.primary.device);
    assert.ok(isBlockDevice(scene.primary.device));
    // What the next worker needs was found again, too.
    const more = await Load.on(scene.primary, 10);
    await scene.primary.killWorker();
    await more.end;
    await scene.primary.inSync();
  });

  add('another version of hastd replaces the worker, and no request fails', async (scene) => {
    const { primary } = scene;
    const { pid } = await primary.stats();
    const load = await Load.on(primary, 60);
    await primary.killDaemon();
    const file = new URL('../../package.json', import.meta.url);
    const before = readFileSync(file, 'utf8');
    writeFileSync(file, before.replace(/"version": "[^"]+"/, '"version": "999.0.0"'));
    try {
      await primary.start();
      await primary.when('another worker', ({ worker }) => worker !== null && worker.pid !== pid);
      load.mustRun();
      figure('longest request across another version of hastd', (await load.end).longestMs);
      assert.is((await primary.status()).device, primary.device);
      await primary.inSync();
    } finally {
      writeFileSync(file, before);
    }
    await primary.killDaemon();
    await primary.start(); // as of the former version again
    await primary.inSync();
  });

  add('in use, it is not taken away by --if-unused, and its users are named', async (scene) => {
    const { primary, pair } = scene;
    const refusal = async (): Promise<string> => {
      const { code, stderr } = await primary.hastctl('role', '--if-unused', 'init', pair.resource);
      assert.is(code, 5, stderr);
      return stderr;
    };
    await scene.format();
    await mounted(primary.device, scene.mount, async () => {
      assert.match(await refusal(), `in use by the file system on ${scene.mount}`);
    });
    const fd = openSync(primary.device, 'r');
    try {
      assert.match(await refusal(), new RegExp(`in use by .*\\(pid ${process.pid}\\)`));
    } finally {
      closeSync(fd);
    }
    process.env.DM_DISABLE_UDEV = '1';
    await must('dmsetup', 'create', 'top', '--table', `0 2048 linear ${primary.device} 0`);
    try {
      assert.match(await refusal(), 'in use by /dev/mapper/top');
    } finally {
      await must('dmsetup', 'remove', 'top');
    }
    await primary.must('role', '--if-unused', 'init', pair.resource);
    await primary.take('primary');
    await primary.inSync();
  });

  for (let round = 1; round <= ROUNDS; round += 1) {
    add(`the role first, umount afterwards: nothing hangs or is lost (${round})`, async (scene) => {
      const { primary: old, mount } = scene;
      await scene.format();
      await mkdir(mount);
      await must('mount', old.device, mount);
      const writer = new FileWriter(mount);
      await until('files', SOON_MS, () => writer.written.length > 20 * round);
      await writeFile(`${mount}/never-flushed`, 'x'.repeat(MIB));
      figure('role secondary under a file system', await timed(() => old.take('secondary')));
      assert.not(existsSync(old.device));
      await until('the writer hears of it', SOON_MS, () => writer.ended);
      const ms = await timed(() => must('umount', mount));
      figure('umount after the role', ms);
      assert.ok(ms < SOON_MS);
      await must('rmdir', mount);
      await scene.secondary.take('primary');
      scene.primary = scene.secondary;
      await mounted(scene.primary.device, scene.mount, () =>
        expectFiles(scene.mount, writer.written),
      );
      await must('e2fsck', '-fn', scene.primary.device);
      await scene.primary.inSync();
    });
  }

  add('LVM on top: the role first, and the volume is there on the other node', async (scene) => {
    const { primary: old, mount, pair } = scene;
    await withLvm(pair.directory, async () => {
      await must('pvcreate', '-qq', '-ff', '-y', realpathSync(old.device));
      await must('vgcreate', '-qq', 'group', realpathSync(old.device));
      await must('lvcreate', '-qq', '-y', '-Zn', '-Wn', '-l', '100%FREE', '-n', 'one', 'group');
      await must('mkfs.ext4', '-q', '-F', '/dev/mapper/group-one');
      await mkdir(mount);
      await must('mount', '/dev/mapper/group-one', mount);
      const writer = new FileWriter(mount);
      await until('files', SOON_MS, () => writer.written.length > 10);
      await old.take('secondary');
      await until('the writer hears of it', SOON_MS, () => writer.ended);
      await must('umount', mount);
      await must('rmdir', mount);
      await must('dmsetup', 'remove', 'group-one'); // vgchange would read the device first

      await scene.secondary.take('primary');
      scene.primary = scene.secondary;
      await must('vgchange', '-qq', '-ay', 'group');
      await mounted('/dev/mapper/group-one', scene.mount, () =>
        expectFiles(scene.mount, writer.written),
      );
      await must('vgremove', '-qq', '-f', 'group');
    });
    await scene.primary.inSync();
  });

  for (let round = 1; round <= ROUNDS; round += 1) {
    add(`SIGKILL of a whole node: the other one has every file (${round})`, async (scene) => {
      const { primary: dead, secondary: next } = scene;
      await scene.format();
      await mkdir(scene.mount);
      const lost = scene.mount;
      await must('mount', dead.device, lost);
      const node = realpathSync(dead.device);
      const writer = new FileWriter(lost);
      await until('files', SOON_MS, () => writer.written.length > 20 * round);
      await dead.crash();
      const written = [...writer.written];
      figure('take-over', await timed(() => next.promote()));
      scene.primary = next;
      await mounted(next.device, scene.mount, () => expectFiles(scene.mount, written));
      await must('e2fsck', '-fn', next.device);

      // The node comes back: its old device fails at once, and never serves again.
      await dead.start();
      assert.not(existsSync(dead.device));
      await until('the writer hears of it', SOON_MS, () => writer.ended);
      assert.ok(isMounted(lost));
      await must('umount', lost);
      await must('rmdir', lost);
      const size = (): string => readFileSync(`/sys/block/${node.slice(5)}/size`, 'utf8').trim();
      await until('the device is free', SOON_MS, () => !existsSync(node) || size() === '0');
      await dead.take('secondary');
      await next.inSync();
    });
  }
}
