/** Who has a block device open: for the refusal to take it away. */
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { native } from '../native.ts';

/** How many processes are named. */
const NAMED = 5;

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The disk and its partitions. */
function partsOf(device: string): readonly string[] {
  const name = basename(device);
  return [name, ...namesIn(`/sys/block/${name}`).filter((part) => part.startsWith(`${name}p`))];
}

function isAmong(path: string, nodes: ReadonlySet<string>): boolean {
  if (!path.startsWith('/dev/')) return false;
  try {
    return nodes.has(realpathSync(path));
  } catch {
    return false;
  }
}

/** Octal escapes stand for blanks and the like. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function mountsOf(nodes: ReadonlySet<string>): readonly string[] {
  return textOf('/proc/self/mountinfo')
    .split('\n')
    .flatMap((line) => {
      const [own = '', source = ''] = line.split(' - ');
      if (!isAmong(unescaped(source.split(' ')[1] ?? ''), nodes)) return [];
      return [`the file system on ${unescaped(own.split(' ')[4] ?? '')}`];
    });
}

/** Devices on top: LVM, RAID, encryption. */
function holdersOf(parts: readonly string[]): readonly string[] {
  const [disk = ''] = parts;
  return parts.flatMap((part) => {
    const folder = part === disk ? `/sys/block/${disk}` : `/sys/block/${disk}/${part}`;
    return namesIn(`${folder}/holders`).map((holder) => {
      const name = textOf(`/sys/block/${holder}/dm/name`);
      return name === '' ? `/dev/${holder}` : `/dev/mapper/${name}`;
    });
  });
}

function swapsOf(nodes: ReadonlySet<string>): readonly string[] {
  const lines = textOf('/proc/swaps').split('\n').slice(1);
  return lines.some((line) => isAmong(line.split(/\s/)[0] ?? '', nodes)) ? ['swap'] : [];
}

function hasOpen(pid: string, nodes: ReadonlySet<string>): boolean {
  return namesIn(`/proc/${pid}/fd`).some((fd) => {
    try {
      return nodes.has(readlinkSync(`/proc/${pid}/fd/${fd}`));
    } catch {
      return false;
    }
  });
}

function processesOf(nodes: ReadonlySet<string>): readonly string[] {
  const pids = namesIn('/proc').filter((name) => /^\d+$/.test(name) && hasOpen(name, nodes));
  const named = pids.slice(0, NAMED).map((pid) => `${textOf(`/proc/${pid}/comm`)} (pid ${pid})`);
  const more = pids.length - named.length;
  return more === 0 ? named : [...named, `${more} more processes`];
}

/** Claimed by what none of the lists names: nfsd or a target of the kernel, another namespace. */
function isClaimed(device: string): boolean {
  try {
    return !native.kernel.isUnclaimed(device);
  } catch {
    return false;
  }
}

/** In words, such as "the file system on /mnt"; empty when nobody has it open. */
export function usersOf(device: string): readonly string[] {
  const parts = partsOf(device);
  const nodes = new Set(parts.map((part) => `/dev/${part}`));
  const known = [...mountsOf(nodes), ...holdersOf(parts), ...swapsOf(nodes), ...processesOf(nodes)];
  if (known.length > 0) return known;
  return isClaimed(device) ? ['the kernel (nfsd, a target, or a mount somewhere else)'] : [];
}
