// Writes stamped blocks, many at a time, and knows afterwards what each block may hold.
import type { NbdClient } from './nbd.ts';

export const BLOCK = 4096;
const SECTOR = 512;

/** Each sector tells its block and the number of the write, so that a torn block is seen. */
export function stamped(block: number, write: number): Buffer {
  const stamp = Buffer.alloc(8);
  stamp.writeUInt32LE(block, 0);
  stamp.writeUInt32LE(write, 4);
  return Buffer.alloc(BLOCK, stamp);
}

/**
 * Whose write each sector of a block is; several numbers if it is torn, 0 where it has zeroes.
 * @throws Error when it holds what `stamped` makes for no write to this block
 */
export function writesIn(block: number, data: Buffer): Set<number> {
  const writes = new Set<number>();
  for (let at = 0; at < BLOCK; at += SECTOR) {
    const sector = data.subarray(at, at + SECTOR);
    const write = sector.readUInt32LE(4);
    const whole = write === 0 ? Buffer.alloc(SECTOR) : stamped(block, write).subarray(0, SECTOR);
    if (!sector.equals(whole)) throw new Error(`block ${block} holds what was never written there`);
    writes.add(write);
  }
  return writes;
}

export interface Found {
  /** Blocks that hold a write which was never answered: stored all the same. */
  readonly unanswered: number;
  /** Blocks that lost an answered write. Only where `durable` is 'flushed' this is no error. */
  readonly lost: number;
}

export class StampedWriter {
  /** What a block may not fall behind: what was answered, or what was answered and flushed. */
  readonly #durable: 'answered' | 'flushed';
  readonly #owner: number[] = [-1];
  readonly #issued: Uint32Array;
  readonly #answered: Uint32Array;
  readonly #floor: Uint32Array;
  readonly #busy = new Set<number>();
  #unflushed = new Map<number, number>();
  #stopping = false;
  #running: Promise<unknown> = Promise.resolve();
  /** Writes that were answered without error. */
  answered = 0;
  flushes = 0;

  constructor(bytes: number, durable: 'answered' | 'flushed') {
    const blocks = Math.floor(bytes / BLOCK);
    this.#durable = durable;
    this.#issued = new Uint32Array(blocks);
    this.#answered = new Uint32Array(blocks);
    this.#floor = new Uint32Array(blocks);
  }

  /** Writes until `stop`, or until the connection ends. */
  start(client: NbdClient, depth: number, flushEvery: number): void {
    this.#stopping = false;
    const lanes = Array.from({ length: depth }, () => this.#lane(client, flushEvery));
    this.#running = Promise.all(lanes);
    this.#running.catch(() => {}); // told by `stop`
  }

  /** Waits for what is in flight. @throws Error when a write or flush was answered with an error */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
  }

  async #lane(client: NbdClient, flushEvery: number): Promise<void> {
    while (!this.#stopping && !client.over) {
      const block = Math.floor(Math.random() * this.#issued.length);
      if (this.#busy.has(block)) continue;
      const write = this.#owner.push(block) - 1;
      this.#busy.add(block);
      this.#issued[block] = write;
      const reply = await client.write(block * BLOCK, stamped(block, write)).catch(() => undefined);
      this.#busy.delete(block);
      if (reply === undefined) return;
      if (reply.error !== 0) throw new Error(`a write was answered with error ${reply.error}`);
      this.#answered[block] = write;
      this.answered += 1;
      if (this.#durable === 'answered') this.#floor[block] = write;
      else this.#unflushed.set(block, write);
      if (this.answered % flushEvery === 0) await this.flush(client);
    }
  }

  async flush(client: NbdClient): Promise<void> {
    const covered = this.#unflushed;
    this.#unflushed = new Map();
    const reply = await client.flush().catch(() => undefined);
    if (reply === undefined) return;
    if (reply.error !== 0) throw new Error(`a flush was answered with error ${reply.error}`);
    this.flushes += 1;
    for (const [block, write] of covered) {
      this.#floor[block] = Math.max(this.#floor[block] ?? 0, write);
    }
  }

  /**
   * Reads everything ever written, through the export; what is found counts from now on.
   * @throws Error when a block holds anything that it may not hold
   */
  async verify(client: NbdClient): Promise<Found> {
    let unanswered = 0;
    let lost = 0;
    const used = [...this.#issued.keys()].filter((block) => this.#issued[block] !== 0);
    const lane = async (): Promise<void> => {
      for (let block = used.pop(); block !== undefined; block = used.pop()) {
        const found = await this.#found(client, block);
        const answered = this.#answered[block] ?? 0;
        if (found > answered) unanswered += 1;
        if (found < answered) lost += 1;
        this.#floor[block] = found;
        this.#answered[block] = found;
        this.#issued[block] = found;
      }
    };
    await Promise.all(Array.from({ length: 64 }, lane));
    this.#unflushed.clear();
    return { unanswered, lost };
  }

  async #found(client: NbdClient, block: number): Promise<number> {
    const { error, data } = await client.read(block * BLOCK, BLOCK);
    if (error !== 0) throw new Error(`a read was answered with error ${error}`);
    const writes = writesIn(block, data);
    for (const write of writes) {
      if (write === 0 || this.#owner[write] === block) continue;
      throw new Error(`block ${block} holds what was never written there`);
    }
    const [write = 0] = writes;
    const facts = `answered ${this.#answered[block]}, safe ${this.#floor[block]}`;
    if (writes.size > 1)
      throw new Error(`block ${block} is torn: ${[...writes].join(' ')}; ${facts}`);
    if (write < (this.#floor[block] ?? 0)) {
      throw new Error(`block ${block} holds write ${write}, which is too old: ${facts}`);
    }
    return write;
  }
}
