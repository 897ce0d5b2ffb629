import { spawnSync } from 'node:child_process';
import type { Test } from 'uvu';

type Add = (name: string, body: () => void | Promise<void>) => void;

/**
 * Adds a test, or skips it with the reason printed.
 * @param reason  why this machine cannot run it; undefined when it can
 */
export function unless(test: Test, reason: string | undefined): Add {
  if (reason === undefined) return (name, body) => test(name, body);
  return (name, body) => {
    process.stdout.write(`skipped "${name}": ${reason}\n`);
    test.skip(name, body);
  };
}

/** The reason for skipping when a command is not installed. */
export function missing(command: string): string | undefined {
  const { status } = spawnSync('sh', ['-c', 'command -v "$0"', command], { stdio: 'ignore' });
  return status === 0 ? undefined : `${command} is not installed`;
}

/** The reason for skipping when not root. */
export function notRoot(): string | undefined {
  return process.getuid?.() === 0 ? undefined : 'needs root';
}
