/** What tests on a real kernel have in common; see test/vm. */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { runProgram } from './pair.ts';

/** The reason for skipping where a test could meet devices of this machine. */
export function noVm(): string | undefined {
  return process.env.VM === '1' ? undefined : 'not in the machine of npm run test:vm';
}

/** Runs a program to its end. @returns what it printed. @throws Error when it fails */
export async function must(file: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runProgram(file, args);
  if (code === 0) return stdout.trim();
  throw new Error(`${file} ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
}

/** Loads a module of the kernel, which another file may have loaded already. */
export async function loadModule(name: string, ...options: readonly string[]): Promise<void> {
  if (!existsSync(`/sys/module/${name}`)) await must('modprobe', name, ...options);
}

/** As `[ -b PATH ]`. */
export function isBlockDevice(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isBlockDevice() === true;
}

/** A figure for docs/kernel.md. */
export function figure(what: string, milliseconds: number): void {
  process.stdout.write(`figure: ${what}: ${Math.round(milliseconds)} ms\n`);
}

export function isMounted(folder: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8').includes(` ${folder} `);
}

/** A file system that is mounted while `body` runs. */
export async function mounted<T>(
  device: string,
  folder: string,
  body: () => Promise<T>,
): Promise<T> {
  mkdirSync(folder, { recursive: true });
  await must('mount', device, folder);
  try {
    return await body();
  } finally {
    if (isMounted(folder)) await must('umount', folder);
    rmSync(folder, { recursive: true });
  }
}

export interface FioResult {
  /** The longest that a request took. */
  readonly longestMs: number;
}

const VERIFY = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1'];

/** Random writes, then all of them read back. @throws Error when one failed or reads otherwise */
export async function fioVerify(target: string, ...more: readonly string[]): Promise<FioResult> {
  const job = ['--name=v', `--filename=${target}`, '--rw=randwrite', '--bs=4k', '--direct=1'];
  const engine = ['--ioengine=libaio', '--iodepth=16', '--output-format=json'];
  const printed = await must('fio', ...job, ...engine, ...VERIFY, ...more);
  interface Direction {
    readonly clat_ns: { readonly max: number };
  }
  const report = JSON.parse(printed.slice(printed.indexOf('{'))) as {
    readonly jobs: readonly { readonly read: Direction; readonly write: Direction }[];
  };
  const longest = report.jobs.flatMap(({ read, write }) => [read.clat_ns.max, write.clat_ns.max]);
  return { longestMs: Math.max(...longest) / 1e6 };
}
