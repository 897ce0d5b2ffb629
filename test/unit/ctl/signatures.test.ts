// What create recognises, by marks put in place here and by the tools that make the real ones.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Found, whatIsThere } from '../../../src/ctl/signatures.ts';
import { native } from '../../../src/native.ts';
import { missing, unless } from '../../helper/skip.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const SIZE = 8 * 1024 * 1024;
/** mkfs.xfs wants 300 MiB. */
const DISK_BYTES = 320 * 1024 * 1024;

function look(disk: Buffer): Found {
  const read = (offset: number, length: number) =>
    offset < 0 ? Buffer.alloc(0) : disk.subarray(offset, offset + length);
  return whatIsThere(read, disk.length);
}

function nameOf(disk: Buffer): string {
  const found = look(disk);
  return found.kind === 'other' ? found.name : found.kind;
}

function diskWith(
  ...marks: readonly (readonly [offset: number, bytes: string | number[]])[]
): Buffer {
  const disk = Buffer.alloc(SIZE);
  for (const [offset, bytes] of marks) {
    const mark = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : Buffer.from(bytes);
    mark.copy(disk, offset < 0 ? SIZE + offset : offset);
  }
  return disk;
}

const MD = [0xfc, 0x4e, 0x2b, 0xa9];
const MARKED: readonly (readonly [name: string, disk: Buffer])[] = [
  ['a LUKS container', diskWith([0, 'LUKS\xba\xbe'])],
  ['an xfs file system', diskWith([0, 'XFSB'])],
  ['a btrfs file system', diskWith([65600, '_BHRfS_M'])],
  ['swap space', diskWith([4086, 'SWAPSPACE2'])],
  ['an LVM physical volume', diskWith([512, 'LABELONE'], [536, 'LVM2 001'])],
  ['a GPT partition table', diskWith([512, 'EFI PART'])],
  ['a GPT partition table', diskWith([4096, 'EFI PART'])],
  ['the copy of a GPT partition table', diskWith([-512, 'EFI PART'])],
  ['an md RAID member', diskWith([4096, MD])],
  ['an md RAID member', diskWith([-65536, MD])],
  ['an md RAID member', diskWith([-8192, MD])],
  ['a zfs pool member', diskWith([131072 + 5 * 1024, [0x0c, 0xb1, 0xba]])],
  ['a zfs pool member', diskWith([-262144 + 131072, [0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c]])],
  ['an ext2 file system', diskWith([1080, [0x53, 0xef]])],
  ['an ext3 file system', diskWith([1080, [0x53, 0xef]], [1024 + 0x5c, [4]])],
  ['an ext4 file system', diskWith([1080, [0x53, 0xef]], [1024 + 0x60, [0x40]])],
  [
    'an MBR partition table',
    diskWith([446, [0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 32]], [510, [0x55, 0xaa]]),
  ],
];

const signatures = suite('signatures');

signatures('every mark is recognised where it belongs', () => {
  for (const [name, disk] of MARKED) assert.is(nameOf(disk), name);
});

signatures('zeros, noise and a bare boot mark are nothing', () => {
  assert.is(nameOf(Buffer.alloc(SIZE)), 'nothing');
  assert.is(nameOf(Buffer.alloc(SIZE, 0x5a)), 'nothing');
  assert.is(nameOf(diskWith([510, [0x55, 0xaa]])), 'nothing');
  for (const size of [0, 1, 511, 512, 4095, 4096, 100_000]) {
    assert.is(nameOf(Buffer.alloc(size)), 'nothing', `${size} bytes`);
  }
});

signatures('a HAST block is read, and what is behind it does not matter', () => {
  const fields = {
    resource: 'data',
    datasize: 4194304n,
    extentsize: 2097152,
    keepdirty: 64,
    offset: 4608n,
    resuid: 5n,
    localcnt: 1n,
    remotecnt: 0n,
    prevrole: 'primary',
  } as const;
  const disk = diskWith([65600, '_BHRfS_M'], [-512, 'EFI PART']);
  native.codec.metadataBlock(fields, false).copy(disk);
  const found = look(disk);
  assert.ok(found.kind === 'hast');
  assert.equal(found.block.fields, fields);
  disk[40] = 0xff;
  assert.is(nameOf(disk), 'damaged HAST metadata');
});

function real(name: string, tool: string, command: string): void {
  unless(signatures, missing(tool))(`${tool} makes ${name}`, () =>
    inTempdir((directory) => {
      const path = join(directory, 'disk');
      writeFileSync(path, '');
      truncateSync(path, DISK_BYTES);
      const { status, stderr } = spawnSync('sh', ['-c', command, 'sh', path], { encoding: 'utf8' });
      assert.is(status, 0, stderr);
      const fd = openSync(path, 'r');
      const read = (offset: number, length: number) => {
        const bytes = Buffer.alloc(length);
        return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
      };
      const found = whatIsThere(read, DISK_BYTES);
      closeSync(fd);
      assert.equal(found, { kind: 'other', name });
    }),
  );
}

real('an ext2 file system', 'mkfs.ext2', 'mkfs.ext2 -qF "$1"');
real('an ext3 file system', 'mkfs.ext3', 'mkfs.ext3 -qF "$1"');
real('an ext4 file system', 'mkfs.ext4', 'mkfs.ext4 -qF "$1"');
real('an xfs file system', 'mkfs.xfs', 'mkfs.xfs -q "$1"');
real('a btrfs file system', 'mkfs.btrfs', 'mkfs.btrfs -q "$1"');
real('swap space', 'mkswap', 'mkswap "$1"');
real('an MBR partition table', 'sfdisk', 'echo ,,L | sfdisk -qX dos "$1"');
real('a GPT partition table', 'sfdisk', 'echo ,,L | sfdisk -qX gpt "$1"');
real('a LUKS container', 'cryptsetup', 'echo x | cryptsetup -q luksFormat "$1" -');
real('a FAT file system', 'mkfs.fat', 'mkfs.fat "$1"');

signatures.run();
