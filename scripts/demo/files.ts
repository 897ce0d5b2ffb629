/** Real files on a real ext4, brought onto the device and fetched back from it. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, type Dirent, readdirSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdir, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { cleanup, DemoError, hasCommand, run, startCommand, until, within } from './host.ts';
import { fetchStart } from './load.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const FOLDERS = ['docs', 'scripts', 'src', 'src-native', 'test', 'node_modules'];
const MIB = 1024 * 1024;
const FILES_BYTES = 32 * MIB;
const FILES_COUNT = 1000;
const ONE_FILE_BYTES = 4 * MIB;
const UNDO_MS = 3000;
export const FILESYSTEM_BYTES = 64 * MIB;

/** Path in the file system: SHA-256 of what is in the file. */
export type Files = ReadonlyMap<string, string>;

function hashOf(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function byName(a: Dirent, b: Dirent): number {
  return a.name < b.name ? -1 : 1;
}

/** Regular files only, in a fixed order. */
function* walk(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true }).sort(byName)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* walk(path);
    else if (entry.isFile()) yield path;
  }
}

/** Files of this checkout, as many as the file system holds with ease. */
function chooseFiles(): { path: string; bytes: number }[] {
  const chosen: { path: string; bytes: number }[] = [];
  let total = 0;
  for (const folder of FOLDERS) {
    for (const path of walk(join(ROOT, folder))) {
      const bytes = statSync(path).size;
      if (bytes > ONE_FILE_BYTES || total + bytes > FILES_BYTES) continue;
      if (chosen.length === FILES_COUNT) return chosen;
      total += bytes;
      chosen.push({ path, bytes });
    }
  }
  return chosen;
}

export interface Brought {
  readonly files: Files;
  readonly bytes: number;
}

/** Copies the files into a folder. */
async function copyInto(folder: string): Promise<Brought> {
  const files = new Map<string, string>();
  let total = 0;
  for (const { path, bytes } of chooseFiles()) {
    const name = relative(ROOT, path);
    const target = join(folder, name);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(path, target);
    files.set(name, hashOf(path));
    total += bytes;
  }
  return { files, bytes: total };
}

// ---- Without root: the file system is made as a file and copied in ------------------------------

export async function bringImage(directory: string, uri: string): Promise<Brought> {
  const folder = join(directory, 'files');
  const image = join(directory, 'ext4');
  const brought = await copyInto(folder);
  const size = `${FILESYSTEM_BYTES / MIB}M`;
  await run('mkfs.ext4', ['-q', '-F', '-b', '4096', '-d', folder, image, size]);
  await run('nbdcopy', ['--flush', image, uri]);
  return brought;
}

// ---- With root: the file system is made and mounted on the device -------------------------------

/** Why a kernel mount is not possible here; undefined when it is. */
export function mountProblem(): string | undefined {
  for (const name of ['nbdfuse', 'losetup', 'mount']) {
    if (!hasCommand(name)) return `there is no ${name}`;
  }
  for (const device of ['/dev/fuse', '/dev/loop-control']) {
    try {
      accessSync(device);
    } catch {
      return `there is no ${device}`;
    }
  }
  return undefined;
}

/** Undoes what a demo that is stopped in the middle leaves mounted; it may be gone already. */
function undo(file: string, ...args: string[]): void {
  spawnSync(file, args, { stdio: 'ignore', timeout: UNDO_MS, killSignal: 'SIGKILL' });
}

function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8').includes(` ${path} `);
}

function loopsOf(directory: string): string[] {
  return readdirSync('/sys/block')
    .filter((name) => {
      try {
        const file = readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8');
        return file.startsWith(`${directory}/`);
      } catch {
        return false; // no loop device, or one without a file
      }
    })
    .map((name) => `/dev/${name}`);
}

function undoMounts(directory: string, mount: string, fuse: string): void {
  if (isMounted(mount)) undo('umount', mount);
  if (isMounted(mount)) undo('umount', '-l', mount);
  for (const loop of loopsOf(directory)) undo('losetup', '-d', loop);
  if (isMounted(fuse)) undo('umount', '-l', fuse);
  const left = [mount, fuse].filter(isMounted).concat(loopsOf(directory));
  if (left.length > 0) throw new Error(`still there: ${left.join(', ')}`);
}

export async function bringMounted(directory: string, uri: string): Promise<Brought> {
  const fuse = join(directory, 'fuse');
  const mount = join(directory, 'mount');
  const file = join(fuse, 'nbd');
  await mkdir(fuse);
  await mkdir(mount);
  const server = startCommand('nbdfuse', [file, uri]);
  cleanup.add(() => undoMounts(directory, mount, fuse));
  await until('nbdfuse has mounted', 10_000, async () => {
    if (server.child.exitCode !== null) await server.done;
    return stat(file).then(
      (found) => found.isFile(),
      () => false,
    );
  });
  const limit = `--sizelimit=${FILESYSTEM_BYTES}`;
  const loop = (await run('losetup', ['-f', '--show', '--direct-io=on', limit, file])).trim();
  await run('mkfs.ext4', ['-q', '-F', '-b', '4096', loop]);
  await run('mount', ['-t', 'ext4', loop, mount]);
  const brought = await copyInto(mount);
  await run('sync', ['-f', mount]);
  await run('umount', [mount]);
  await run('losetup', ['-d', loop]);
  // The kernel lets go of the file a moment after losetup has answered.
  await until('the loop device is free', 10_000, () => loopsOf(directory).length === 0);
  await run('umount', [fuse]);
  await within('nbdfuse has ended', 10_000, server.done);
  return brought;
}

// ---- Back again -----------------------------------------------------------------------------

/** Reads the device through the export and compares every file. */
export async function checkFiles(directory: string, socket: string, files: Files): Promise<void> {
  const image = join(directory, 'image');
  const folder = join(directory, 'back');
  await mkdir(folder);
  await fetchStart(socket, FILESYSTEM_BYTES, image);
  await run('e2fsck', ['-f', '-n', image]);
  // Owners cannot be set without root, which debugfs says and which does not matter here.
  await run('debugfs', ['-R', `rdump / ${folder}`, image]);
  const found = new Map<string, string>();
  for (const path of walk(folder)) found.set(relative(folder, path), hashOf(path));
  for (const [name, hash] of files) {
    if (found.get(name) !== hash) {
      throw new DemoError(`${name} ${found.has(name) ? 'has other bytes' : 'is not there'}`);
    }
  }
  if (found.size !== files.size)
    throw new DemoError(`${found.size} files instead of ${files.size}`);
}
