// The bench overwrites disks: on real block devices, it refuses all that could hold something.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { clearHead, type DiskFacts, inspect, refusal } from '../../bench/disks.ts';
import { missing, notRoot, unless } from '../helper/skip.ts';
import { inTempdir } from '../helper/tempdir.ts';

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;
const ROOT = new URL('../..', import.meta.url).pathname;

const TAKEN = 'taken';

function whyNot(disk: DiskFacts, bytes: number, destroy: readonly string[]): string {
  return refusal(disk, bytes, destroy) ?? TAKEN;
}

const disks = suite('disks of the bench');

function noLoop(): string | undefined {
  const reason = notRoot() ?? missing('losetup') ?? missing('wipefs') ?? missing('mkfs.ext4');
  if (reason !== undefined) return reason;
  const { status } = spawnSync('losetup', ['--find'], { stdio: 'ignore' });
  return status === 0 ? undefined : 'no loop device can be had';
}

/** Runs `body` with a loop device over an empty file. */
function withLoop(body: (device: string, directory: string) => Promise<void>): Promise<void> {
  return inTempdir(async (directory) => {
    const file = join(directory, 'disk');
    writeFileSync(file, Buffer.alloc(SIZE));
    const device = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).trim();
    try {
      await body(device, directory);
    } finally {
      execFileSync('losetup', ['--detach', device]);
    }
  });
}

const onLoop = unless(disks, noLoop());

onLoop('an empty disk is taken, one that is too small is not', () =>
  withLoop(async (device) => {
    const facts = await inspect(device);
    assert.is(facts.bytes, SIZE);
    assert.is(facts.contents, '');
    assert.is(whyNot(facts, SIZE, []), TAKEN);
    assert.match(whyNot(facts, SIZE + 1, []), /are needed/);
  }),
);

onLoop('a file system is refused, and a disk without serial number cannot be given up', () =>
  withLoop(async (device) => {
    execFileSync('mkfs.ext4', ['-q', device]);
    const facts = await inspect(device);
    assert.is(facts.contents, 'ext4');
    assert.match(whyNot(facts, MIB, []), /is not empty \(ext4\): it has no serial number/);
    assert.match(whyNot(facts, MIB, ['']), /is not empty/);
  }),
);

onLoop('what is mounted is refused, whatever is given up', () =>
  withLoop(async (device, directory) => {
    const folder = join(directory, 'mounted');
    mkdirSync(folder);
    execFileSync('mkfs.ext4', ['-q', device]);
    execFileSync('mount', [device, folder]);
    try {
      const facts = await inspect(device);
      assert.match(whyNot({ ...facts, serial: 'S1' }, MIB, ['S1']), /is in use: unmount it/);
    } finally {
      execFileSync('umount', [folder]);
    }
  }),
);

onLoop('data without a signature is refused until the head is cleared', () =>
  withLoop(async (device) => {
    const bytes = Buffer.alloc(4096);
    bytes.write('x', 100);
    writeFileSync(device, bytes);
    assert.match(whyNot(await inspect(device), MIB, []), /is not empty \(data\)/);
    clearHead(device);
    assert.is(whyNot(await inspect(device), MIB, []), TAKEN);
  }),
);

onLoop('the command refuses before it writes anything', () =>
  withLoop(async (device) => {
    execFileSync('mkfs.ext4', ['-q', device]);
    const before = execFileSync('sha256sum', [device], { encoding: 'utf8' });
    const bench = ['--import', 'tsx', 'bench/run.ts', '--only', 'fio', '--quick'];
    const args = [...bench, '--disk-a', device, '--disk-b', device];
    const { status, stderr } = spawnSync('node', args, { cwd: ROOT, encoding: 'utf8' });
    assert.is(status, 1);
    assert.match(stderr, /is not empty \(ext4\)/);
    assert.is(execFileSync('sha256sum', [device], { encoding: 'utf8' }), before);
  }),
);

disks('a serial number gives up the disk that bears it, and no other', async () => {
  const disk: DiskFacts = {
    path: '/dev/sdx',
    bytes: SIZE,
    serial: 'S1',
    inUse: false,
    contents: 'gpt',
  };
  assert.match(whyNot(disk, MIB, []), /--destroy S1$/);
  assert.match(whyNot(disk, MIB, ['S2']), /--destroy S1$/);
  assert.is(whyNot(disk, MIB, ['S2', 'S1']), TAKEN);
});

disks('a file is no disk', async () => {
  try {
    await inspect(join(ROOT, 'package.json'));
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /is not a block device/);
  }
});

disks.run();
