// Root's checkout may lie where the user of the workers cannot look, as below /root: then what
// starts daemons from it runs in a copy.
import { chmodSync, cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nobodyCanRun, openToAll, workersCanRun } from './demo/installation.ts';

/** The working folder if workers can run there, else a copy of it that goes when we end. */
export function readableTree(): string {
  const root = process.cwd();
  if (workersCanRun(root)) return root;
  const copy = mkdtempSync(join(tmpdir(), 'hastd-test-'));
  process.on('exit', () => rmSync(copy, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(1));
  }
  process.stderr.write(`The workers' user cannot read ${root}: the suites run in ${copy}.\n`);
  chmodSync(copy, 0o755);
  const parts = readdirSync(root).filter((name) => !['.git', 'out'].includes(name));
  const built = ['out/native', 'out/test-asan/nbd_null', 'out/test/nbd_null'].filter((path) =>
    existsSync(path),
  );
  for (const part of [...parts, ...built]) {
    const options = { recursive: true, preserveTimestamps: true, verbatimSymlinks: true };
    cpSync(join(root, part), join(copy, part), options);
  }
  openToAll(copy);
  if (!workersCanRun(copy)) {
    process.stderr.write(`${nobodyCanRun('the tests')}\n`);
    process.exit(1);
  }
  return copy;
}
