/**
 * Recognises what a component holds already, by the marks that each format documents for itself.
 * Enough to refuse with a name; whoever knows better says -f.
 */
import { HastError } from '../error.ts';
import { decodeBlock, type MetadataBlock } from '../metadata.ts';

/** Reads up to `length` bytes at `offset`; fewer where the component ends. */
export type ReadArea = (offset: number, length: number) => Buffer;

interface Mark {
  readonly name: string;
  readonly offset: number;
  readonly bytes: string | readonly number[];
}

/** Marks at one place, with more telling ones first. */
const MARKS: readonly Mark[] = [
  { name: 'a LUKS container', offset: 0, bytes: 'LUKS\xba\xbe' },
  { name: 'an xfs file system', offset: 0, bytes: 'XFSB' },
  { name: 'a btrfs file system', offset: 65536 + 64, bytes: '_BHRfS_M' },
  { name: 'swap space', offset: 4096 - 10, bytes: 'SWAPSPACE2' },
  { name: 'swap space', offset: 4096 - 10, bytes: 'SWAP-SPACE' },
  { name: 'swap space', offset: 65536 - 10, bytes: 'SWAPSPACE2' },
  { name: 'an md RAID member', offset: 0, bytes: [0xfc, 0x4e, 0x2b, 0xa9] },
  { name: 'an md RAID member', offset: 4096, bytes: [0xfc, 0x4e, 0x2b, 0xa9] },
  { name: 'a bcache device', offset: 4096 + 24, bytes: [0xc6, 0x85, 0x73, 0xf6] },
  { name: 'an f2fs file system', offset: 1024, bytes: [0x10, 0x20, 0xf5, 0xf2] },
  { name: 'a jfs file system', offset: 32768, bytes: 'JFS1' },
  { name: 'a reiserfs file system', offset: 65536 + 52, bytes: 'ReIsEr' },
  { name: 'an ocfs2 file system', offset: 8192, bytes: 'OCFSV2' },
  { name: 'a gfs2 file system', offset: 65536, bytes: [0x01, 0x16, 0x19, 0x70] },
  { name: 'an ISO 9660 image', offset: 32769, bytes: 'CD001' },
  { name: 'a squashfs image', offset: 0, bytes: 'hsqs' },
  { name: 'a qcow2 image', offset: 0, bytes: 'QFI\xfb' },
  { name: 'an ntfs file system', offset: 3, bytes: 'NTFS    ' },
  { name: 'an exfat file system', offset: 3, bytes: 'EXFAT   ' },
  { name: 'a FAT file system', offset: 54, bytes: 'FAT' },
  { name: 'a FAT file system', offset: 82, bytes: 'FAT32' },
  { name: 'a GPT partition table', offset: 512, bytes: 'EFI PART' },
  { name: 'a GPT partition table', offset: 4096, bytes: 'EFI PART' },
];

const SECTOR = 512;
const LVM_SECTORS = 4;
const EXT = { offset: 1024, bytes: 0x68, magic: 0x38, compat: 0x5c, incompat: 0x60 } as const;
const EXT_JOURNAL = 0x4;
const EXT4_FEATURES = 0x40 | 0x80 | 0x200; // extents, 64 bit, flexible groups
const MBR = { table: 446, entries: 4, entryBytes: 16, magic: 510 } as const;
const MD_MAGIC = Buffer.from([0xfc, 0x4e, 0x2b, 0xa9]);
const ZFS = { label: 256 * 1024, ring: 128 * 1024, step: 1024 } as const;

function has(bytes: Buffer, mark: string | readonly number[] | Buffer): boolean {
  const wanted = typeof mark === 'string' ? Buffer.from(mark, 'latin1') : Buffer.from(mark);
  return bytes.subarray(0, wanted.length).equals(wanted);
}

function extName(read: ReadArea): string | undefined {
  const block = read(EXT.offset, EXT.bytes);
  if (block.length < EXT.bytes || block.readUInt16LE(EXT.magic) !== 0xef53) return undefined;
  if ((block.readUInt32LE(EXT.incompat) & EXT4_FEATURES) !== 0) return 'an ext4 file system';
  const journal = (block.readUInt32LE(EXT.compat) & EXT_JOURNAL) !== 0;
  return journal ? 'an ext3 file system' : 'an ext2 file system';
}

/** A boot sector counts when its table has a plausible entry; others have its two bytes too. */
function hasPartitions(read: ReadArea): boolean {
  const sector = read(0, SECTOR);
  if (sector.length < SECTOR || sector.readUInt16LE(MBR.magic) !== 0xaa55) return false;
  const entries = Array.from({ length: MBR.entries }, (_, i) =>
    sector.subarray(MBR.table + i * MBR.entryBytes, MBR.table + (i + 1) * MBR.entryBytes),
  );
  const states = entries.every((entry) => entry[0] === 0 || entry[0] === 0x80);
  const used = (entry: Buffer) => entry[4] !== 0 && entry.readUInt32LE(12) !== 0;
  return states && entries.some(used);
}

function hasLvm(read: ReadArea): boolean {
  return Array.from({ length: LVM_SECTORS }, (_, i) => read(i * SECTOR, 32)).some(
    (label) => has(label, 'LABELONE') && has(label.subarray(24), 'LVM2 001'),
  );
}

/** The two older places of md, counted from the end. */
function hasMdAtEnd(read: ReadArea, size: number): boolean {
  const aligned64k = Math.floor(size / 65536) * 65536 - 65536;
  const sectors = Math.floor(size / SECTOR);
  const version1 = (sectors - 16 - ((sectors - 16) % 8)) * SECTOR;
  return [aligned64k, version1].some((at) => at >= 0 && has(read(at, 4), MD_MAGIC));
}

/** Labels at both ends, each with a ring of blocks that begin with the magic in either order. */
function hasZfs(read: ReadArea, size: number): boolean {
  const end = Math.floor(size / ZFS.label) * ZFS.label;
  return [0, ZFS.label, end - 2 * ZFS.label, end - ZFS.label]
    .filter((label) => label >= 0)
    .some((label) => {
      const ring = read(label + ZFS.ring, ZFS.label - ZFS.ring);
      for (let at = 0; at + 8 <= ring.length; at += ZFS.step) {
        if (ring.readBigUInt64LE(at) === 0xbab10cn) return true;
        if (ring.readBigUInt64BE(at) === 0xbab10cn) return true;
      }
      return false;
    });
}

export type Found =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'hast'; readonly block: MetadataBlock }
  | { readonly kind: 'other'; readonly name: string };

function hastBlock(read: ReadArea): Found | undefined {
  const bytes = read(0, 4096);
  if (bytes.length < 4096) return undefined;
  try {
    return { kind: 'hast', block: decodeBlock(bytes) };
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    // The head of its first entry: a string called "resource".
    const damaged = bytes[0] === 17 && has(bytes.subarray(6), 'resource\0');
    return damaged ? { kind: 'other', name: 'damaged HAST metadata' } : undefined;
  }
}

/**
 * A valid HAST block says all there is to say: what follows it is that resource's own data, and
 * may well look like a file system.
 */
export function whatIsThere(read: ReadArea, size: number): Found {
  const hast = hastBlock(read);
  if (hast !== undefined) return hast;
  const other = (name: string): Found => ({ kind: 'other', name });
  const ext = extName(read);
  if (ext !== undefined) return other(ext);
  if (hasLvm(read)) return other('an LVM physical volume');
  for (const { name, offset, bytes } of MARKS) {
    if (has(read(offset, bytes.length), bytes)) return other(name);
  }
  if (hasPartitions(read)) return other('an MBR partition table');
  if (has(read(size - SECTOR, 8), 'EFI PART')) return other('the copy of a GPT partition table');
  if (hasMdAtEnd(read, size)) return other('an md RAID member');
  if (hasZfs(read, size)) return other('a zfs pool member');
  return { kind: 'nothing' };
}
