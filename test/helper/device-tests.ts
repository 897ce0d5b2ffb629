/** What every kind of kernel device must do, on a real kernel; each kind has a file in test/vm. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, realpathSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import type { BridgeKind } from '../../src/resource/bridge.ts';
import { until, withDeadline } from './deadline.ts';
import { type Node, Pair } from './pair.ts';
import { unless } from './skip.ts';
import { figure, fioVerify, isBlockDevice, isMounted, mounted, must, noVm } from './vm.ts';

const LIMIT_MS = 300_000;
const MIB = 1 << 20;
/** Of everything that must not hang, in emulation. */
const SOON_MS = 30_000;
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

export function addDeviceTests(test: Test, kind: BridgeKind): void {
  let scene: Scene | undefined;
  const inVm = noVm();

  /** With the pair in sync, whatever the test before has left. */
  const add = (name: string, body: (scene: Scene) => Promise<void>): void =>
    unless(test, inVm)(
      name,
      withDeadline(LIMIT_MS, async () => {
        scene ??= new Scene(
          await Pair.inSync({
            device: kind,
            diskBytes: 66 * MIB,
            mode: 'fullsync',
            timeoutSeconds: 5,
            create: ['--contents-equal'],
          }),
        );
        try {
          await body(scene);
        } catch (error) {
          process.stdout.write(`\n--- a\n${scene.pair.a.output}--- b\n${scene.pair.b.output}`);
          process.stdout.write(`--- kernel\n${(await must('dmesg')).slice(-4000)}\n`);
          const broken = scene.pair;
          scene = undefined;
          broken.abandon();
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

  add('a killed worker is a pause, and no request fails', async (scene) => {
    const before = await scene.primary.stats();
    const load = fioVerify(scene.primary.device, '--size=16M', '--rate_iops=400,400,400');
    await until(
      'load',
      SOON_MS,
      async () => (await scene.primary.stats()).writes > before.writes + 200,
    );
    const { pid } = await scene.primary.killWorker();
    figure('longest request across a SIGKILL of the worker', (await load).longestMs);
    assert.is.not((await scene.primary.stats()).pid, pid);
    await scene.primary.inSync();
  });

  add('a supervisor that is killed and started again is not noticed', async (scene) => {
    const { pid, writes } = await scene.primary.stats();
    const load = fioVerify(scene.primary.device, '--size=16M', '--rate_iops=400,400,400');
    await until('load', SOON_MS, async () => (await scene.primary.stats()).writes > writes + 200);
    await scene.primary.killDaemon();
    await scene.primary.start();
    figure('longest request across a restart of the supervisor', (await load).longestMs);
    assert.is((await scene.primary.stats()).pid, pid);
    assert.is((await scene.primary.status()).device, scene.primary.device);
    assert.ok(isBlockDevice(scene.primary.device));
    // What the next worker needs was found again, too.
    const more = fioVerify(scene.primary.device, '--size=4M', '--rate_iops=400,400,400');
    await scene.primary.killWorker();
    await more;
    await scene.primary.inSync();
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

  add(
    'the role first and umount afterwards: nothing hangs, what was answered is there',
    async (scene) => {
      const { primary: old } = scene;
      await scene.format();
      await mkdir(scene.mount);
      await must('mount', old.device, scene.mount);
      const writer = new FileWriter(scene.mount);
      await until('files', SOON_MS, () => writer.written.length > 20);
      await writeFile(`${scene.mount}/never-flushed`, 'x'.repeat(MIB));
      figure(
        'role secondary under a mounted file system',
        await timed(() => old.take('secondary')),
      );
      assert.not(existsSync(old.device));
      await until('the writer hears of it', SOON_MS, () => writer.ended);
      const ms = await timed(() => must('umount', scene.mount));
      figure('umount after the role', ms);
      assert.ok(ms < SOON_MS);
      await scene.secondary.take('primary');
      scene.primary = scene.secondary;
      await mounted(scene.primary.device, scene.mount, () =>
        expectFiles(scene.mount, writer.written),
      );
      await must('e2fsck', '-fn', scene.primary.device);
      await scene.primary.inSync();
    },
  );

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
