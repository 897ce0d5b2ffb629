/** Modules of the kernel. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const MODPROBE_MS = 10_000;
const run = promisify(execFile);

/**
 * For a driver that `isThere` looks for.
 * @returns why there is none, even when its module is loaded; undefined when there is one
 */
export async function driverLacking(
  name: string,
  isThere: () => boolean,
): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'needs root';
  const problem = isThere() ? undefined : await loadModule(name);
  return isThere() ? undefined : (problem ?? `the kernel has no module ${name}`);
}

/** @returns why it did not work; undefined when modprobe is content */
async function loadModule(name: string): Promise<string | undefined> {
  try {
    await run('modprobe', [name], {
      timeout: MODPROBE_MS,
      env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` },
    });
    return undefined;
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    return `modprobe ${name}: ${(stderr === '' ? message : stderr).trim().split('\n')[0]}`;
  }
}
