import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/ctl/run.ts';

export interface Ended {
  readonly exit: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const MAIN = fileURLToPath(new URL('../../src/bin/hastctl.ts', import.meta.url));

/** Runs the real command in a process of its own. */
export function hastctl(...args: readonly string[]): Promise<Ended> {
  return hastctlAs({}, ...args);
}

/** The same as another user. */
export function hastctlAs(
  user: { readonly uid?: number; readonly gid?: number },
  ...args: readonly string[]
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', 'tsx', MAIN, ...args], {
      ...user,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 60_000,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (exit) => resolve({ exit, stdout, stderr }));
  });
}

/**
 * The same without a new process, which is much quicker: what it writes is caught. One at a time.
 */
export async function hastctlHere(...args: readonly string[]): Promise<Ended> {
  const caught = { stdout: '', stderr: '' };
  const kept = { stdout: process.stdout.write, stderr: process.stderr.write };
  const names = ['stdout', 'stderr'] as const;
  for (const name of names) {
    process[name].write = (text: string | Uint8Array) => {
      caught[name] += String(text);
      return true;
    };
  }
  try {
    const exit = await run(args);
    return { exit, ...caught };
  } finally {
    for (const name of names) process[name].write = kept[name];
  }
}

/** A configuration of node `n` with one resource for each name, its component beside it. */
export function configText(
  directory: string,
  locals: Readonly<Record<string, string>>,
  control = `${directory}/control`,
): string {
  const resources = Object.entries(locals).map(
    ([name, local]) =>
      `resource ${name} {\n  on n {\n    local ${local}\n    remote none\n  }\n}\n`,
  );
  return `control uds://${control}\n${resources.join('')}`;
}
