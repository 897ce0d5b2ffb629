/** Modules of the kernel. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const MODPROBE_MS = 10_000;
const run = promisify(execFile);

/** @returns why it did not work; undefined when modprobe is content */
export async function loadModule(name: string): Promise<string | undefined> {
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
