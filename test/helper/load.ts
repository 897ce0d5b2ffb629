// Many requests at a time to one export, each answer held against the model of its blocks.
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf } from './config.ts';
import { FUA, NBD_ERROR, type NbdClient, type Reply } from './nbd.ts';
import type { Node } from './pair.ts';
import type { Registers } from './registers.ts';
import { BLOCK, stamped, writesIn } from './writer.ts';

/** Longer than any accident. A request that takes longer hangs. */
const ANSWER_MS = 45_000;
const PAUSE_MS = 10;
/** Half of all requests meet here, so that they overlap. */
const HOT_BLOCKS = 64;
const LONG_BLOCKS = 64;
const VERIFY_BLOCKS = 32;
const VERIFY_LANES = 16;

/** The first thing that went wrong, wherever that was. */
export class Trouble {
  readonly happened: Promise<never>;
  #reject: (error: Error) => void = () => {};

  constructor() {
    this.happened = new Promise<never>((_resolve, reject) => {
      this.#reject = reject;
    });
    this.happened.catch(() => {}); // whoever waits for it is told
  }

  tell(error: unknown): void {
    this.#reject(error instanceof Error ? error : new Error(String(error)));
  }
}

export type Counts = Record<'reads' | 'writes' | 'fua' | 'flushes' | 'trims' | 'zeroes', number>;

export function noCounts(): Counts {
  return { reads: 0, writes: 0, fua: 0, flushes: 0, trims: 0, zeroes: 0 };
}

interface Span {
  readonly first: number;
  readonly count: number;
}

export class Load {
  readonly registers: Registers;
  readonly #trouble: Trouble;
  readonly #counts: Counts;
  readonly #random: (n: number) => number;
  readonly #depth: number;
  /** Requests on each block; -1 for zeroes, which are alone on theirs. */
  readonly #users: Int32Array;
  #node: Node;
  #client: NbdClient | undefined;
  #connecting: Promise<NbdClient> | undefined;
  #running = false;
  #lanes: Promise<unknown> = Promise.resolve();
  #calmSince: number | undefined;
  /** Answered without an error. */
  answered = 0;
  /** The connection may end: its server is having an accident. */
  mayLose = false;
  /** Requests may be refused, as by a server that ends in order. */
  mayRefuse = false;

  constructor(
    node: Node,
    registers: Registers,
    options: { seed: number; depth: number; trouble: Trouble; counts: Counts },
  ) {
    this.#node = node;
    this.registers = registers;
    this.#random = randomOf(options.seed);
    this.#depth = options.depth;
    this.#trouble = options.trouble;
    this.#counts = options.counts;
    this.#users = new Int32Array(registers.count);
  }

  /** Both nodes are connected and nothing is done to them: what is flushed now is on both. */
  set calm(calm: boolean) {
    this.#calmSince = calm ? this.registers.now() : undefined;
  }

  #isCalm(since: number): boolean {
    return this.#calmSince !== undefined && this.#calmSince < since;
  }

  // ---- Running --------------------------------------------------------------------------------

  run(): void {
    if (this.#running) return;
    this.#running = true;
    this.#lanes = Promise.all(Array.from({ length: this.#depth }, () => this.#lane()));
    this.#lanes.catch((error) => this.#trouble.tell(error));
  }

  /** Asks no more, and waits until all is answered or lost. */
  async pause(): Promise<void> {
    this.#running = false;
    await this.#lanes;
  }

  /** Closes the connection. What is under way may still happen, until its server is gone. */
  async leave(): Promise<void> {
    this.#running = false;
    this.mayLose = true;
    this.#client?.destroy();
    await this.#lanes;
    this.#client = undefined;
  }

  /** Another node serves from now on. */
  async moveTo(node: Node): Promise<void> {
    await this.leave();
    this.#node = node;
  }

  async #lane(): Promise<void> {
    while (this.#running) {
      const client = await this.#connect();
      if (client !== undefined && this.#running) await this.#request(client);
    }
  }

  /** The connection that there is, or the next one. Undefined if it is no longer wanted. */
  async #connect(): Promise<NbdClient | undefined> {
    if (this.#client !== undefined && !this.#client.over) return this.#client;
    if (this.#client !== undefined && !this.mayLose) {
      throw new Error(`node ${this.#node.name} ended the connection of its client, unprovoked`);
    }
    this.#connecting ??= this.#attempt().finally(() => {
      this.#connecting = undefined;
    });
    const client = await Promise.race([this.#connecting, this.#unwanted()]);
    if (client !== undefined) this.#client = client;
    return client;
  }

  async #unwanted(): Promise<undefined> {
    while (this.#running) await sleep(PAUSE_MS);
  }

  async #attempt(): Promise<NbdClient> {
    const end = Date.now() + ANSWER_MS;
    for (;;) {
      const node = this.#node;
      const client = await node.connect().catch((error: Error) => error);
      if (!(client instanceof Error)) {
        // Whoever served before is gone: a node has one worker, and it holds the disk.
        this.registers.endOpen();
        return client;
      }
      const facts = `no client can connect to node ${node.name} after ${ANSWER_MS} ms`;
      if (Date.now() > end) throw new Error(`${facts}: ${client.message}`);
      await sleep(PAUSE_MS);
    }
  }

  // ---- Requests -------------------------------------------------------------------------------

  /** @returns undefined when the connection ended first */
  async #answer(what: string, asked: Promise<Reply>): Promise<Reply | undefined> {
    const timer = setTimeout(() => {
      this.#trouble.tell(new Error(`${what} has no answer after ${ANSWER_MS} ms`));
    }, ANSWER_MS);
    const reply = await asked.catch(() => undefined);
    clearTimeout(timer);
    if (reply === undefined) return undefined;
    if (reply.error === 0) this.answered += 1;
    else if (!this.mayRefuse || reply.error !== NBD_ERROR.shutdown) {
      throw new Error(`${what} was answered with error ${reply.error}`);
    }
    return reply;
  }

  async #request(client: NbdClient): Promise<void> {
    const dice = this.#random(100);
    if (dice < 2) return await this.#flush(client);
    const alone = dice < 8;
    const span = this.#span(alone);
    if (span === undefined) return;
    const { first, count } = span;
    const users = this.#users.subarray(first, first + count);
    for (const i of users.keys()) users[i] = alone ? -1 : (users[i] ?? 0) + 1;
    try {
      if (alone) await this.#zeroes(client, span, dice % 2 === 0);
      else if (dice < 36) await this.#read(client, span);
      else await this.#write(client, span);
    } finally {
      for (const i of users.keys()) users[i] = alone ? 0 : (users[i] ?? 1) - 1;
    }
  }

  /** Undefined when others are in the way. */
  #span(alone: boolean): Span | undefined {
    const count = this.#random(50) === 0 ? LONG_BLOCKS : 1 + this.#random(4);
    const within = this.#random(2) === 0 ? HOT_BLOCKS : this.registers.count;
    const first = this.#random(within - count + 1);
    const users = this.#users.subarray(first, first + count);
    const free = users.every((user) => (alone ? user === 0 : user >= 0));
    return free ? { first, count } : undefined;
  }

  async #write(client: NbdClient, { first, count }: Span): Promise<void> {
    const write = this.registers.begin(first, count);
    const blocks = Array.from({ length: count }, (_, i) => stamped(first + i, write.id));
    const fua = this.#random(8) === 0;
    const began = this.registers.now();
    const asked = client.write(first * BLOCK, Buffer.concat(blocks), fua ? FUA : 0);
    const reply = await this.#answer(`a write to block ${first}`, asked);
    if (reply === undefined) return;
    if (reply.error !== 0) return this.registers.refuse(write);
    this.registers.acknowledge(write, fua && this.#isCalm(began));
    this.#counts.writes += 1;
    if (fua) this.#counts.fua += 1;
  }

  async #zeroes(client: NbdClient, { first, count }: Span, trim: boolean): Promise<void> {
    const write = this.registers.begin(first, count, true);
    const [offset, length] = [first * BLOCK, count * BLOCK];
    const asked = trim ? client.trim(offset, length) : client.writeZeroes(offset, length);
    const reply = await this.#answer(`zeroes for block ${first}`, asked);
    if (reply === undefined) return;
    if (reply.error !== 0) return this.registers.refuse(write);
    this.registers.acknowledge(write);
    this.#counts[trim ? 'trims' : 'zeroes'] += 1;
  }

  async #read(client: NbdClient, { first, count }: Span): Promise<void> {
    const began = this.registers.now();
    const asked = client.read(first * BLOCK, count * BLOCK);
    const reply = await this.#answer(`a read of block ${first}`, asked);
    if (reply === undefined || reply.error !== 0) return;
    this.#counts.reads += 1;
    for (let i = 0; i < count; i += 1) {
      const data = reply.data.subarray(i * BLOCK, (i + 1) * BLOCK);
      const [write = 0, ...more] = writesIn(first + i, data);
      if (more.length > 0) throw new Error(`block ${first + i} is torn: ${[write, ...more]}`);
      this.registers.read(first + i, write, began);
    }
  }

  async #flush(client: NbdClient): Promise<void> {
    const began = this.registers.now();
    const reply = await this.#answer('a flush', client.flush());
    if (reply === undefined || reply.error !== 0) return;
    this.#counts.flushes += 1;
    if (this.#isCalm(began)) this.registers.flushed(began);
  }

  // ---- While it is paused ---------------------------------------------------------------------

  async #paused(): Promise<NbdClient> {
    if (this.#running) throw new Error('requests are running');
    if (this.#client === undefined || this.#client.over) this.#client = await this.#attempt();
    return this.#client;
  }

  async flush(): Promise<void> {
    await this.#flush(await this.#paused());
  }

  /** Reads every block. Nothing else can be there from now on. */
  async verify(): Promise<void> {
    const client = await this.#paused();
    let next = 0;
    const lane = async () => {
      while (next < this.registers.count) {
        const first = next;
        next += VERIFY_BLOCKS;
        const count = Math.min(VERIFY_BLOCKS, this.registers.count - first);
        await this.#read(client, { first, count });
      }
    };
    await Promise.all(Array.from({ length: VERIFY_LANES }, lane));
    if (client.over) throw new Error('the connection ended while all blocks were read');
    this.registers.settle();
  }
}
