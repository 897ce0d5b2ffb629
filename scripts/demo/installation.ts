/** Whom the workers run as, and an installation that this user can read. */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync } from 'node:fs';
import { join, relative } from 'node:path';
import { DemoError, run } from './host.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const USER = 'nobody';
const PARTS = ['package.json', 'dist', 'out/native/hastd.node'];

export interface Installation {
  readonly root: string;
  /** For `user` of hast.conf; null: whoever runs the demo. */
  readonly user: string | null;
}

function numberOf(option: string): number {
  return Number(spawnSync('id', [option, USER], { encoding: 'utf8' }).stdout);
}

/** As hastd does before it takes a role. */
function canRun(root: string, uid: number, gid: number): boolean {
  const program = join(root, 'dist/resource/worker-main.js');
  const options = { uid, gid, cwd: '/', stdio: 'ignore', timeout: 30_000 } as const;
  return spawnSync(process.execPath, [program, '--check'], options).status === 0;
}

/** What to do when not even a copy helps. */
export function nobodyCanRun(what: string): string {
  return (
    `A worker is never root: here it runs as ${USER}, who cannot run ${process.execPath}.\n` +
    `Run ${what} as an ordinary user, or with a node that everybody can run.`
  );
}

/** Whether workers that root starts could run from there; of anybody else they always can. */
export function workersCanRun(root: string): boolean {
  return process.getuid?.() !== 0 || canRun(root, numberOf('-u'), numberOf('-g'));
}

/** As `git clone` leaves it with the usual umask, whatever root's is. */
export function openToAll(path: string): void {
  spawnSync('chmod', ['-R', 'go+rX', path]);
}

/** What hastd needs to run, and nothing of what it is built with. */
async function copyTo(root: string): Promise<void> {
  const listed = await run('npm', ['--prefix', ROOT, 'ls', '--omit=dev', '--all', '--parseable']);
  const packages = listed.trim().split('\n').slice(1);
  for (const part of [...PARTS, ...packages.map((path) => relative(ROOT, path))]) {
    cpSync(join(ROOT, part), join(root, part), { recursive: true });
  }
  openToAll(root);
}

/** Root's checkout may lie where nobody else can look: then a copy serves in its place. */
export async function readableInstallation(directory: string): Promise<Installation> {
  if (process.getuid?.() !== 0) return { root: ROOT, user: null };
  const [uid, gid] = [numberOf('-u'), numberOf('-g')];
  if (!(uid > 0))
    throw new DemoError(`There is no user ${USER}: run the demo as an ordinary user.`);
  if (canRun(ROOT, uid, gid)) return { root: ROOT, user: USER };
  const copy = join(directory, 'installation');
  chmodSync(directory, 0o711);
  await copyTo(copy);
  if (!canRun(copy, uid, gid)) {
    throw new DemoError(nobodyCanRun('the demo'));
  }
  return { root: copy, user: USER };
}
