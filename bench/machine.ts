/** Where a result was taken: without that it means nothing. */
import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { cpus, loadavg, release, totalmem, userInfo } from 'node:os';
import { join } from 'node:path';
import { tryRun } from './process.ts';

export interface Machine {
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly storage: string;
  readonly compiler: string;
  readonly node: string;
  readonly fio: string;
  readonly qemu: string;
  readonly load: string;
}

const ROOT = new URL('..', import.meta.url).pathname;

function firstLine(text: string | undefined): string {
  return text?.split('\n')[0]?.trim() || 'unknown';
}

async function commit(): Promise<string> {
  const name = await tryRun('git', ['-C', ROOT, 'rev-parse', '--short', 'HEAD']);
  if (name === undefined) return 'unknown';
  const sources = ['src', 'src-native', 'CMakeLists.txt'];
  const changed = await tryRun('git', ['-C', ROOT, 'status', '--porcelain', '--', ...sources]);
  return name.trim() + (changed === '' ? '' : ' with changes');
}

async function compiler(): Promise<string> {
  const cache = join(ROOT, 'out/native/CMakeCache.txt');
  const text = existsSync(cache) ? readFileSync(cache, 'utf8') : '';
  const type = /^CMAKE_BUILD_TYPE:\w+=(.*)$/m.exec(text)?.[1] ?? '';
  return `${firstLine(await tryRun('c++', ['--version']))} ${type}`.trim();
}

export function loadNow(): string {
  return loadavg()
    .map((value) => value.toFixed(1))
    .join(' ');
}

/** @param place  the folder or disk that is measured */
export async function readMachine(place: string): Promise<Machine> {
  const facts = await tryRun('findmnt', ['-nro', 'FSTYPE,SOURCE', '--target', place]);
  const disk = await tryRun('lsblk', ['-dno', 'NAME,SIZE,MODEL', place]);
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    commit: await commit(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    storage: place.startsWith('/dev/') ? `disk ${firstLine(disk)}` : firstLine(facts),
    compiler: await compiler(),
    node: process.version,
    fio: firstLine(await tryRun('fio', ['--version'])),
    qemu: firstLine(await tryRun('qemu-nbd', ['--version'])),
    load: loadNow(),
  };
}

const TMPFS = [0x01021994, 0x858458f6];

export function freeBytes(directory: string): number {
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize;
}

/** A file system in memory measures nothing. */
export function isInMemory(directory: string): boolean {
  return TMPFS.includes(statfsSync(directory).type);
}

export function isRoot(): boolean {
  return userInfo().uid === 0;
}
