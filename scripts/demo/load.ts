/** The client that writes numbered blocks and notes the acknowledged ones: blocks.py, on libnbd. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DemoError, PYTHON, type Running, run, startCommand, until, within } from './host.ts';

const PROGRAM = fileURLToPath(new URL('./blocks.py', import.meta.url));
export const BLOCK_BYTES = 4096;

/** Where the blocks are, and where they are noted. */
export interface Blocks {
  readonly first: number;
  readonly count: number;
  readonly notes: string;
}

/** The writer's last line. Times are those of the clock, in seconds. */
export interface Written {
  readonly acknowledged: number;
  readonly ended: string;
  readonly unanswered: number;
  readonly firstAnswer: number;
  readonly lastAnswer: number;
  readonly seconds: number;
}

export interface Checked {
  /** Acknowledged writes, and the blocks that they went to. */
  readonly writes: number;
  readonly blocks: number;
  /** Never written, and still zero. */
  readonly untouched: number;
  readonly bad: number;
  readonly worst: readonly number[];
}

function argumentsOf(work: string, socket: string, { first, count, notes }: Blocks): string[] {
  return [PROGRAM, work, socket, String(first), String(count), notes];
}

function lastObject<T>(output: string): T {
  return JSON.parse(output.trimEnd().split('\n').at(-1) ?? '') as T;
}

export class Writer {
  readonly #running: Running;
  #acknowledged = 0;

  /** @param writes  0: until it is stopped, or the export is gone */
  constructor(socket: string, blocks: Blocks, writes: number) {
    const args = [...argumentsOf('write', socket, blocks), String(writes)];
    this.#running = startCommand(PYTHON, args, (line) => {
      this.#acknowledged = (JSON.parse(line) as { acknowledged: number }).acknowledged;
    });
  }

  /** Waits for so many acknowledged writes; fails when the writer ends before. */
  async reached(writes: number, ms: number): Promise<void> {
    const { child, done } = this.#running;
    await until(`${writes} acknowledged writes`, ms, async () => {
      if (this.#acknowledged >= writes) return true;
      if (child.exitCode === null) return false;
      throw new DemoError(`the writer ended too early: ${(await done).trim()}`);
    });
  }

  stop(): void {
    this.#running.child.kill('SIGTERM');
  }

  /** What it has done, once it has ended. */
  async written(ms: number): Promise<Written> {
    return lastObject(await within('the writer ends', ms, this.#running.done));
  }
}

/** Reads every block through an export and compares it with what was acknowledged. */
export async function checkBlocks(socket: string, blocks: Blocks): Promise<Checked> {
  const checked = lastObject<Checked>(await run(PYTHON, argumentsOf('check', socket, blocks)));
  if (checked.bad > 0) {
    throw new DemoError(
      `${checked.bad} blocks do not hold what was acknowledged: ${checked.worst.join(', ')} ...`,
    );
  }
  const lines = readFileSync(blocks.notes, 'latin1').split('\n').length - 1;
  if (checked.writes !== lines) throw new DemoError(`${checked.writes} of ${lines} notes checked`);
  return checked;
}

/** Copies the first bytes of an export to a file. */
export async function fetchStart(socket: string, bytes: number, file: string): Promise<void> {
  const blocks = { first: 0, count: bytes / BLOCK_BYTES, notes: file };
  await run(PYTHON, argumentsOf('fetch', socket, blocks));
}
