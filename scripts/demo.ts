// Shows in a minute what hastd is for: two nodes on this machine, one dies in the middle of writes,
// the other one has all of it, the dead one comes back and is brought up to date. Needs no root.
// Exit status: 0 when everything was verified, 1 when not, 69 without its tools, 130 on ^C.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Brought,
  bringImage,
  bringMounted,
  checkFiles,
  FILESYSTEM_BYTES,
  mountProblem,
} from './demo/files.ts';
import { cleanup, DemoError, freePorts, missingPackages, run, until } from './demo/host.ts';
import { readableInstallation } from './demo/installation.ts';
import { BLOCK_BYTES, type Blocks, checkBlocks, Writer } from './demo/load.ts';
import { configuration, HastNode, type WorkerState } from './demo/node.ts';
import { count, mebibytes, Story, seconds } from './demo/story.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 256 * MIB;
const WRITES_BEFORE = 5000;
const WRITES_ALONE = 5000;
const WRITES_MEANWHILE = 1000;
const LIMIT_MS = 110_000;
const LONGEST_TMPDIR = 70; // a socket in there must fit into 107 bytes
const EXIT = { failed: 1, noTools: 69, interrupted: 130 } as const;

const story = new Story();
const asRoot = process.getuid?.() === 0;

interface Scene {
  readonly directory: string;
  readonly left: HastNode;
  readonly right: HastNode;
}

function makeDirectory(): string {
  const parent = tmpdir().length > LONGEST_TMPDIR ? '/tmp' : tmpdir();
  const directory = mkdtempSync(join(parent, 'hastd-demo-'));
  cleanup.add(() => {
    // What is still mounted in there must not be emptied.
    if (readFileSync('/proc/self/mounts', 'utf8').includes(` ${directory}/`)) {
      throw new Error(`${directory} stays: something is mounted in it`);
    }
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  });
  return directory;
}

async function setScene(): Promise<Scene> {
  const directory = makeDirectory();
  const config = join(directory, 'hast.conf');
  const { root, user } = await readableInstallation(directory);
  writeFileSync(config, configuration(directory, await freePorts(), user));
  const place = { directory, config, root };
  return {
    directory,
    left: new HastNode('left', place, story),
    right: new HastNode('right', place, story),
  };
}

/** Written, not only sized: a file system may take long to remove what grew by random writes. */
async function makeDisk(path: string): Promise<void> {
  const zeroes = Buffer.alloc(4 * MIB);
  const file = await open(path, 'wx');
  for (let done = 0; done < DISK_BYTES; done += zeroes.length) await file.write(zeroes);
  await file.sync();
  await file.close();
}

// ---- The acts -----------------------------------------------------------------------------------

async function startPair({ left, right }: Scene): Promise<number> {
  story.step('Two nodes, each with a disk of its own');
  for (const node of [left, right]) {
    await makeDisk(node.disk);
    await node.create();
  }
  await left.start();
  await right.start();
  await right.role('secondary');
  await left.role('primary');
  await left.inSync(30_000);
  const { bytes } = await left.area();
  story.proved(`left serves ${mebibytes(bytes)} by NBD, right keeps the same bytes`);
  return bytes;
}

async function bringFiles({ directory, left }: Scene): Promise<Brought> {
  story.step('A file system with real files, through left');
  const problem = asRoot ? mountProblem() : 'only root can mount it';
  const mounted = problem === undefined;
  story.note(
    mounted
      ? 'ext4, mounted through nbdfuse and a loop device'
      : `ext4, copied in as an image (${problem})`,
  );
  const brought = await (mounted ? bringMounted : bringImage)(directory, left.uri);
  story.proved(`${count(brought.files.size)} files with ${mebibytes(brought.bytes)} are stored`);
  return brought;
}

/** When left acknowledged its last write, by the clock in milliseconds. */
async function killInTheMiddle({ left }: Scene, blocks: Blocks): Promise<number> {
  story.step('A client writes, and notes each write that is acknowledged');
  story.note('libnbd: random blocks of 4 KiB, 16 at a time, for as long as it can');
  const writer = new Writer(left.socket, blocks, 0);
  await writer.reached(WRITES_BEFORE, 30_000);

  story.step('left dies in the middle of it');
  await left.kill();
  const {
    acknowledged,
    unanswered,
    ended,
    lastAnswer,
    seconds: took,
  } = await writer.written(10_000);
  if (ended === 'done') throw new DemoError('the writer did not notice that left died');
  const rate = count(Math.round(acknowledged / took));
  story.note(
    `${count(acknowledged)} writes were acknowledged, ${rate} a second; ${unanswered} more`,
  );
  story.note('were on their way: these may be on the disk or not');
  return lastAnswer * 1000;
}

/** How long nobody served, in milliseconds. */
async function takeOver({ right }: Scene, blocks: Blocks, last: number): Promise<number> {
  story.step('right takes over');
  await right.role('primary');
  const { acknowledged, firstAnswer } = await new Writer(right.socket, blocks, 1).written(20_000);
  if (acknowledged !== 1) throw new DemoError('right does not take a write');
  const outage = firstAnswer * 1000 - last;
  story.proved(`right acknowledged a write ${seconds(outage)} after the last one of left`);
  return outage;
}

async function proveAll(scene: Scene, blocks: Blocks, { files }: Brought): Promise<void> {
  const { directory, right } = scene;
  const checked = await checkBlocks(right.socket, blocks);
  story.proved(`each of ${count(checked.writes)} acknowledged writes is there`);
  await checkFiles(directory, right.socket, files);
  story.proved(`e2fsck finds the ext4 clean; ${count(files.size)} files have the same SHA-256`);
}

interface Copied {
  readonly bytes: number;
  readonly perSecond: number;
}

/** Follows a synchronisation from its source to its end. */
async function followSync(source: HastNode): Promise<Copied> {
  let last: WorkerState | undefined;
  await until(`${source.name} has brought its peer up to date`, 40_000, async () => {
    const worker = await source.worker();
    if (worker?.state !== 'syncing' && worker?.state !== 'in-sync') return false;
    last = worker;
    const { syncBytesDone: done, syncBytesLeft: left, syncBytesPerSecond: speed } = worker;
    const share = worker.state === 'in-sync' ? 1 : Math.min(done / Math.max(done + left, 1), 0.99);
    story.bar(share, `${mebibytes(done)}, ${mebibytes(speed)}/s`);
    return share === 1;
  });
  return { bytes: last?.syncBytesDone ?? 0, perSecond: last?.syncBytesPerSecond ?? 0 };
}

async function comeBack({ left, right }: Scene, blocks: Blocks): Promise<Copied> {
  story.step('Work goes on while left is away, and while it is brought up to date');
  const alone = await new Writer(right.socket, blocks, WRITES_ALONE).written(40_000);
  if (alone.ended !== 'done') throw new DemoError(`the writer ended: ${alone.ended}`);
  story.note(`${count(alone.acknowledged)} writes to right alone; now a client goes on writing`);
  const writer = new Writer(right.socket, blocks, 0);
  await writer.reached(1, 10_000);
  await left.start();
  await left.role('secondary');
  const copied = await followSync(right);
  await writer.reached(WRITES_MEANWHILE, 20_000);
  writer.stop();
  const meanwhile = await writer.written(10_000);
  if (meanwhile.ended !== 'done') throw new DemoError(`the writer ended: ${meanwhile.ended}`);
  await right.inSync(20_000);
  story.proved(`left has what it missed; ${count(meanwhile.acknowledged)} writes in the meantime`);
  return copied;
}

async function compareDisks({ left, right }: Scene): Promise<void> {
  story.step('Both disks, byte by byte');
  await right.role('init');
  await left.role('init');
  const [one, other] = [await left.area(), await right.area()];
  if (one.bytes !== other.bytes) throw new DemoError('the disks differ in size');
  const skip = `${one.offset}:${other.offset}`;
  await run('cmp', ['-i', skip, '-n', String(one.bytes), left.disk, right.disk]);
  story.proved(`${mebibytes(one.bytes)} are identical`);
  await left.stop();
  await right.stop();
}

async function tell(scene: Scene): Promise<void> {
  const bytes = await startPair(scene);
  const brought = await bringFiles(scene);
  const blocks: Blocks = {
    first: FILESYSTEM_BYTES / BLOCK_BYTES,
    count: Math.floor((bytes - FILESYSTEM_BYTES) / BLOCK_BYTES),
    notes: join(scene.directory, 'acknowledged'),
  };
  const last = await killInTheMiddle(scene, blocks);
  const outage = await takeOver(scene, blocks, last);
  story.step('Is everything there?');
  await proveAll(scene, blocks, brought);
  const copied = await comeBack(scene, blocks);
  const { writes, blocks: written } = await checkBlocks(scene.right.socket, blocks);
  await compareDisks(scene);

  story.row('acknowledged writes, all there', `${count(writes)} in ${count(written)} blocks`);
  story.row('files on the ext4, all the same', `${count(brought.files.size)}`);
  story.row('the two disks', `identical, ${mebibytes(bytes)}`);
  story.row('without service', seconds(outage));
  story.row('brought up to date', `${mebibytes(copied.bytes)}, ${mebibytes(copied.perSecond)}/s`);
  story.row('the whole demo', seconds(story.elapsedMs));
}

// ---- The frame ----------------------------------------------------------------------------------

/** Rejects when the demo has to end before its time. */
function ending(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => reject(new Interrupted(signal)));
    }
    process.stdout.on('error', () => reject(new Interrupted('a reader that went away')));
    const late = () => reject(new DemoError(`not done within ${LIMIT_MS / 1000} s`));
    setTimeout(late, LIMIT_MS).unref();
  });
}

class Interrupted extends Error {}

function explain(error: unknown, scene: Scene | undefined): void {
  story.failed(error instanceof DemoError ? error.message : `${(error as Error).stack ?? error}`);
  for (const node of scene === undefined ? [] : [scene.left, scene.right]) {
    if (node.logTail !== '')
      story.say(`\nThe end of what hastd of ${node.name} said:\n${node.logTail}`);
  }
}

async function main(): Promise<number> {
  story.say('hastd: one disk on two machines (here: two nodes on this machine)');
  const missing = missingPackages();
  if (missing.length > 0) {
    story.say(`\nThe demo needs some more tools: apt-get install ${missing.join(' ')}`);
    return EXIT.noTools;
  }
  const stopped = ending();
  let scene: Scene | undefined;
  try {
    scene = await Promise.race([setScene(), stopped]);
    await Promise.race([tell(scene), stopped]);
  } catch (error) {
    if (!(error instanceof Interrupted)) {
      explain(error, scene);
      return EXIT.failed;
    }
    process.stderr.write(`\nEnded by ${error.message}; cleaning up.\n`);
    return EXIT.interrupted;
  }
  return 0;
}

let code: number = await main();
const problems = cleanup.run();
for (const problem of problems) process.stderr.write(`cleaning up: ${problem}\n`);
if (problems.length > 0) code ||= EXIT.failed;
if (code === 0) story.summary();
process.exit(code);
