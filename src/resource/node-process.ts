/** How a Node process of ours is started from this one. */
import { fileURLToPath } from 'node:url';

export const HEAP_FLAGS = ['--max-semi-space-size=1', '--max-old-space-size=64'];

/** The worker-main of this installation: compiled, or the source when run from there. */
export function workerEntry(): string {
  const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  return fileURLToPath(new URL(`./worker-main.${ending}`, import.meta.url));
}

/** Node's own flags that a child needs to read the same kind of sources, good in any folder. */
export function nodeFlags(): string[] {
  const flags: string[] = [];
  const given = process.execArgv;
  for (let i = 0; i < given.length; i += 1) {
    const flag = given[i] ?? '';
    const value = given[i + 1];
    if ((flag !== '--import' && flag !== '--require') || value === undefined) continue;
    flags.push(flag, flag === '--import' ? import.meta.resolve(value) : value);
    i += 1;
  }
  return flags;
}

export function workerEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => ['PATH', 'LANG', 'TZ', 'TMPDIR'].includes(name) || /^(HASTD|TSX)_/.test(name),
  );
  return Object.fromEntries(kept);
}
