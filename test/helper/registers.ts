// What the blocks of an export may hold. Every block is a register, and all that was asked and
// answered about it must fit into one order: nothing acknowledged is lost, nothing seen goes away.
//
// A write and the reads that saw it are one cluster. It was the content from its first end to its
// last begin, if these come in this order (then it filled a *zone*), or else at one moment between
// its last begin and its first end. An order exists exactly if no two zones overlap and no cluster
// had its moment inside the zone of another one (Gibbons and Korach, "Testing Shared Memories").

/** A write to one block or more. Its number is unique, and is on the disk; zeroes have 0 there. */
export interface Write {
  readonly id: number;
  readonly first: number;
  readonly count: number;
  readonly zero: boolean;
}

interface Version {
  readonly id: number;
  readonly zero: boolean;
  readonly begun: number;
  /** Not later than this it has happened, if at all. */
  ended: number;
  acknowledged: boolean;
  durable: boolean;
  firstReadEnd: number;
  lastReadBegin: number;
}

const IDS_OF_A_FORK = 1 << 22;
let forks = 0;
const NEVER = Number.POSITIVE_INFINITY;

function firstEnd({ ended, firstReadEnd }: Version): number {
  return Math.min(ended, firstReadEnd);
}

function lastBegin({ begun, lastReadBegin }: Version): number {
  return Math.max(begun, lastReadBegin);
}

/** Whether no order has room for both. */
function exclude(one: Version, two: Version): boolean {
  const [end1, end2] = [firstEnd(one), firstEnd(two)];
  const [begin1, begin2] = [lastBegin(one), lastBegin(two)];
  if (end1 >= begin1 && end2 >= begin2) return false;
  if (end1 < begin1 && end2 < begin2) return Math.max(end1, end2) < Math.min(begin1, begin2);
  return end1 < begin2 && end2 < begin1;
}

function original(at: number): Version {
  return {
    id: 0,
    zero: true,
    begun: at,
    ended: at,
    acknowledged: true,
    durable: true,
    firstReadEnd: NEVER,
    lastReadBegin: -1,
  };
}

function describe(version: Version): string {
  const { id, zero, begun, ended, acknowledged, durable, firstReadEnd, lastReadBegin } = version;
  const words = [
    `${zero ? 'zeroes ' : ''}${id}`,
    `${begun}..${ended === NEVER ? '' : ended}`,
    ...(acknowledged ? ['acknowledged'] : []),
    ...(durable ? ['durable'] : []),
    ...(firstReadEnd === NEVER ? [] : [`read by ${firstReadEnd}, last from ${lastReadBegin}`]),
  ];
  return `[${words.join(' ')}]`;
}

export class Registers {
  readonly #blocks: Version[][];
  readonly #open = new Map<number, Write>();
  #clock: number;
  #lastId: number;

  constructor(blocks: number);
  constructor(blocks: Version[][], clock: number, lastId: number);
  constructor(blocks: number | Version[][], clock = 0, lastId = 0) {
    this.#blocks =
      typeof blocks === 'number' ? Array.from({ length: blocks }, () => [original(0)]) : blocks;
    this.#clock = clock;
    this.#lastId = lastId;
  }

  /** How many blocks there are. */
  get count(): number {
    return this.#blocks.length;
  }

  /** The moment that it is now; every event has one of its own. */
  now(): number {
    this.#clock += 1;
    return this.#clock;
  }

  /** A write begins. Zeroes may not be under way together with anything else of their blocks. */
  begin(first: number, count: number, zero = false): Write {
    this.#lastId += 1;
    const write = { id: this.#lastId, first, count, zero };
    this.#add(write, this.now(), NEVER);
    this.#open.set(write.id, write);
    return write;
  }

  #add({ id, first, count, zero }: Write, begun: number, ended: number): void {
    for (let block = first; block < first + count; block += 1) {
      const version = { ...original(begun), id, zero, ended, acknowledged: false, durable: false };
      this.#blocks[block]?.push(version);
    }
  }

  /** It is answered without an error. */
  acknowledge(write: Write, durable = false): void {
    this.#end(write, { acknowledged: true, durable });
  }

  /** It is answered with an error: it has happened by now, or will never. */
  refuse(write: Write): void {
    this.#end(write, { acknowledged: false, durable: false });
  }

  #end({ id, first, count }: Write, how: { acknowledged: boolean; durable: boolean }): void {
    if (!this.#open.delete(id)) return;
    const ended = this.now();
    for (let block = first; block < first + count; block += 1) {
      const version = this.#blocks[block]?.find((one) => one.id === id);
      if (version !== undefined) Object.assign(version, how, { ended });
    }
  }

  /** Who had to answer is gone for good: what is under way has happened by now, or never will. */
  endOpen(): void {
    for (const write of [...this.#open.values()]) this.refuse(write);
  }

  /** A flush that began at this moment, with both nodes connected, has succeeded. */
  flushed(begun: number): void {
    for (const version of this.#blocks.flat()) {
      if (version.acknowledged && version.ended < begun) version.durable = true;
    }
  }

  /** A read from `begun` until now gave the write of this number; 0 for zeroes. */
  read(block: number, id: number, begun: number): void {
    const versions = this.#blocks[block] ?? [];
    // Zeroes are all alike. Between two of them that may both be meant lies nothing that counts.
    const version =
      id === 0 ? versions.findLast(({ zero }) => zero) : versions.find((one) => one.id === id);
    const facts = () => `block ${block}: a read from ${begun} gave ${id}`;
    if (version === undefined || (id !== 0 && version.zero)) {
      throw new Error(`${facts()}, which may not be there: ${versions.map(describe).join(' ')}`);
    }
    version.firstReadEnd = Math.min(version.firstReadEnd, this.now());
    version.lastReadBegin = Math.max(version.lastReadBegin, begun);
    for (const other of versions) {
      if (other === version || (!other.acknowledged && other.firstReadEnd === NEVER)) continue;
      if (!exclude(version, other)) continue;
      throw new Error(`${facts()}, against ${describe(other)}; it is ${describe(version)}`);
    }
  }

  /**
   * What the other node may have if the two are parted at this moment. What begins later here may
   * have reached it, too: `meanwhile` adds that.
   */
  fork(): Registers {
    const blocks = this.#blocks.map((versions) => versions.map((version) => ({ ...version })));
    const copy = new Registers(blocks, this.#clock, this.#lastId);
    for (const write of this.#open.values()) copy.#open.set(write.id, write);
    return copy;
  }

  /** Writes that began at the other one since the fork and may have happened here, until now. */
  meanwhile(other: Registers): void {
    this.#clock = Math.max(this.#clock, other.#clock);
    this.endOpen();
    const ended = this.now();
    for (const [block, versions] of other.#blocks.entries()) {
      for (const { id, zero, begun } of versions) {
        if (id > this.#lastId) this.#add({ id, first: block, count: 1, zero }, begun, ended);
      }
    }
    // No number may be on both disks with two meanings.
    forks += 1;
    this.#lastId = forks * IDS_OF_A_FORK;
  }

  /** Only what was durable is promised from here on: another copy counts. */
  forgetUndurable(): void {
    this.endOpen();
    for (const version of this.#blocks.flat()) {
      if (!version.durable) version.acknowledged = false;
      version.firstReadEnd = NEVER;
      version.lastReadBegin = -1;
    }
  }

  /** After a read of every block with nothing under way: only what was seen can come again. */
  settle(): void {
    if (this.#open.size > 0) throw new Error('writes are under way');
    for (const [block, versions] of this.#blocks.entries()) {
      if (versions.length === 1) continue;
      const last = versions.reduce((x, y) => (x.lastReadBegin > y.lastReadBegin ? x : y));
      const { id, zero } = last;
      const seen = { ...original(last.lastReadBegin), id, zero, durable: last.durable };
      this.#blocks[block] = [seen];
    }
  }
}
