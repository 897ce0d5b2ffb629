// Originals of any version, played by a test over TCP. They take and send what FreeBSD's hastd of
// that version does, and nothing else: a field, a command or a byte that it does not know is an
// error, which the test finds in `problems`.
import { randomBytes } from 'node:crypto';
import { encodeMessage, type NvArea, type NvEntry } from '../../src/nv.ts';
import { until } from './deadline.ts';
import { FakeSecondary, text, u8, u32, u64, Wire } from './fake-peer.ts';
import { type Codec, PAYLOAD_FIELDS, PLAIN, pack, unpack } from './payload.ts';

export type Version = 0 | 1 | 2;
export const VERSIONS: readonly Version[] = [0, 1, 2];

/** The largest request that an original takes. */
const REQUEST_BYTES_MAX = 131_072;
export const COMMAND = { read: 1, write: 2, delete: 3, flush: 4, keepalive: 5 } as const;
const EINVAL = 22;

function mustKnow(area: NvArea, names: readonly string[]): void {
  const strange = area.entries.map(({ name }) => name).filter((name) => !names.includes(name));
  if (strange.length > 0) throw new Error(`an original does not know ${strange.join(', ')}`);
}

function mustBe(what: string, is: unknown, wanted: unknown): void {
  if (is !== wanted) throw new Error(`${what} is ${is} instead of ${wanted}`);
}

const flag = (name: string): NvEntry => ({ name, type: 'int8', value: 1 });

// ---- As a primary -----------------------------------------------------------------------------

export interface OriginalPrimaryFacts {
  readonly port: number;
  readonly version: Version;
  readonly resource?: string;
  readonly resuid: bigint;
  readonly virgin?: boolean;
  readonly localcnt?: number;
  readonly remotecnt?: number;
  /** Version in the head of the first message: what was agreed on last. */
  readonly headVersion?: number | undefined;
}

export interface Answer {
  readonly error: number;
  /** Words that came: `received` and `done`, in their order. */
  readonly words: readonly string[];
  readonly data: Buffer;
}

interface Waiting {
  readonly cmd: number;
  readonly length: number;
  readonly words: string[];
  resolve(answer: Answer): void;
}

export class OriginalPrimary {
  /** The secondary's second answer. */
  readonly answer: NvArea;
  readonly map: Buffer;
  readonly problems: string[] = [];
  /** What the next requests are sent with. */
  codec: Codec = PLAIN;
  readonly #requests: Wire;
  readonly #replies: Wire;
  readonly #version: Version;
  readonly #waiting = new Map<bigint, Waiting>();
  #next = 1n;

  private constructor(wires: readonly [Wire, Wire], version: Version, answer: NvArea, map: Buffer) {
    [this.#requests, this.#replies] = wires;
    this.#version = version;
    this.answer = answer;
    this.map = map;
    void this.#read().catch((error: Error) => {
      if (this.#waiting.size > 0) this.problems.push(error.message);
    });
  }

  /** @throws Error with the secondary's words when it refuses */
  static async connect(facts: OriginalPrimaryFacts): Promise<OriginalPrimary> {
    const { port, version, resource = 'data' } = facts;
    const requests = await Wire.connect(port);
    const offer = version < 2 ? [] : [u8('version', version)];
    const head = facts.headVersion ?? Math.min(version, 1);
    requests.send(encodeMessage(head, [text('resource', resource), ...offer]));
    const first = await requests.packet();
    const refused = first.area.get('errmsg', 'string');
    if (refused !== undefined) {
      const wait = first.area.get('wait', 'uint8') === 1 ? ' (wait)' : '';
      throw new Error(`${refused}${wait}`);
    }
    mustKnow(first.area, ['version', 'token']);
    mustBe('the version agreed on', first.version, version);
    const token = first.area.get('token', 'uint8_array');
    if (token?.length !== 16) throw new Error('no token');
    const replies = await Wire.connect(port);
    replies.send(
      encodeMessage(version, [
        text('resource', resource),
        { name: 'token', type: 'uint8_array', value: token },
        ...(facts.virgin === true ? [flag('virgin')] : []),
        u64('resuid', facts.resuid),
        u64('localcnt', facts.localcnt ?? 0),
        u64('remotecnt', facts.remotecnt ?? 0),
      ]),
    );
    const second = await requests.packet();
    const { area } = second;
    const sizes = ['datasize', 'extentsize', 'localcnt', 'remotecnt'];
    mustKnow(area, [...sizes, 'errmsg', 'virgin', 'syncsrc', 'mapsize', ...PAYLOAD_FIELDS]);
    mustBe('the version of the answer', second.version, version);
    const why = area.get('errmsg', 'string');
    if (why !== undefined) throw new Error(why);
    const mapBytes = area.get('mapsize', 'uint32') ?? 0;
    const bytes = await requests.bytes(area.get('size', 'uint32') ?? 0);
    const map = mapBytes === 0 ? bytes : unpack(area, bytes, mapBytes);
    return new OriginalPrimary([requests, replies], version, area, map);
  }

  async #read(): Promise<void> {
    for (;;) {
      const { version, area } = await this.#replies.packet();
      mustBe('the version of a reply', version, this.#version);
      mustKnow(area, ['seq', 'received', 'error', ...PAYLOAD_FIELDS]);
      const seq = area.get('seq', 'uint64') ?? 0n;
      const waiting = this.#waiting.get(seq);
      if (waiting === undefined) throw new Error(`a reply to nothing: ${seq}`);
      const error = area.get('error', 'int16') ?? 0;
      waiting.words.push(area.has('received') ? 'received' : 'done');
      if (area.has('received') && error === 0) continue;
      const bytes = await this.#replies.bytes(area.get('size', 'uint32') ?? 0);
      const isRead = waiting.cmd === COMMAND.read && error === 0;
      const data = isRead ? unpack(area, bytes, waiting.length) : bytes;
      this.#waiting.delete(seq);
      waiting.resolve({ error, words: waiting.words, data });
    }
  }

  #request(cmd: number, offset: number, length: number, more: NvEntry[] = [], payload?: Buffer) {
    const seq = this.#next++;
    const fields = [u8('cmd', cmd), u64('seq', seq), u64('offset', offset), u64('length', length)];
    return new Promise<Answer>((resolve) => {
      this.#waiting.set(seq, { cmd, length, words: [], resolve });
      this.#requests.send(encodeMessage(this.#version, [...fields, ...more]));
      if (payload !== undefined) this.#requests.send(payload);
    });
  }

  write(offset: number, data: Buffer, memsync = false): Promise<Answer> {
    const { fields, bytes } = pack(data, this.codec);
    const tagged = memsync ? [u8('memsync', 1), ...fields] : fields;
    return this.#request(COMMAND.write, offset, data.length, tagged, bytes);
  }
  read(offset: number, length: number): Promise<Answer> {
    return this.#request(COMMAND.read, offset, length);
  }
  delete(offset: number, length: number): Promise<Answer> {
    return this.#request(COMMAND.delete, offset, length);
  }
  flush(): Promise<Answer> {
    return this.#request(COMMAND.flush, 0, 0);
  }
  keepalive(): void {
    this.#requests.send(encodeMessage(this.#version, [u8('cmd', COMMAND.keepalive)]));
  }

  /** The end of the role, as a killed worker leaves it. */
  close(): void {
    this.#requests.destroy();
    this.#replies.destroy();
  }
}

// ---- As a secondary ---------------------------------------------------------------------------

export interface Seen {
  readonly cmd: number;
  readonly offset: number;
  readonly length: number;
  readonly memsync: boolean;
  readonly codec: Codec;
}

export class OriginalSecondary {
  readonly disk: Buffer;
  readonly problems: string[] = [];
  /** Requests in the order of their arrival. */
  readonly seen: Seen[] = [];
  version: Version;
  codec: Codec = PLAIN;
  resuid = 0n;
  localcnt = 0;
  remotecnt = 0;
  map: Buffer;
  extentBytes = 2 << 20;
  /** What it says of its size; that of its disk. */
  datasize: number;
  /** Refuses that many first messages, as one that is still primary does. */
  busy = 0;
  /** No request is answered as long as this is set. */
  silent = false;
  connects = 0;
  /** The primary's second message. */
  hello: NvArea | undefined;
  readonly #server: FakeSecondary;
  #first: Wire | undefined;
  #second: Wire | undefined;
  #token = Buffer.alloc(16);
  #unclean = false;

  private constructor(server: FakeSecondary, version: Version, bytes: number) {
    this.#server = server;
    this.version = version;
    this.disk = Buffer.alloc(bytes);
    this.datasize = bytes;
    this.map = Buffer.alloc(512);
    server.onConnection = (wire) =>
      this.#serve(wire).catch((error: Error) => {
        if (error.message !== 'the connection ended') this.problems.push(error.message);
        this.drop();
      });
  }

  /** One whose disk was just created. */
  static async make(port: number, version: Version, bytes: number): Promise<OriginalSecondary> {
    return new OriginalSecondary(await FakeSecondary.make(port), version, bytes);
  }

  close(): void {
    this.#server.close();
  }
  /** The connection is lost. */
  drop(): void {
    this.#first?.destroy();
    this.#second?.destroy();
  }

  async #serve(wire: Wire): Promise<void> {
    const { version, area } = await wire.packet();
    if (area.has('token')) return this.#answerSecond(wire, version, area);
    this.drop();
    this.#first = wire;
    mustBe('the resource', area.get('resource', 'string'), 'data');
    mustBe('the offer', area.get('version', 'uint8'), 2);
    if (this.busy > 0) {
      this.busy -= 1;
      const role = 'Remote node acts as primary for the resource and not as secondary.';
      wire.send(encodeMessage(2, [text('errmsg', role), u8('wait', 1)]));
      wire.socket.end();
      return;
    }
    this.#token = randomBytes(16);
    const token: NvEntry = { name: 'token', type: 'uint8_array', value: this.#token };
    const chosen = this.version < 2 ? [] : [u8('version', this.version)];
    wire.send(encodeMessage(this.version, [...chosen, token]));
  }

  /** What it decides by the counters: source, and whether its map is the whole one. */
  #decide(localcnt: number, remotecnt: number): { source: 1 | 2; all: boolean } | string {
    const newer = this.localcnt > remotecnt;
    if (newer && localcnt > this.remotecnt) return 'Split-brain condition!';
    const all = this.localcnt < remotecnt || localcnt < this.remotecnt;
    return { source: newer ? 2 : 1, all };
  }

  async #answerSecond(wire: Wire, version: number, area: NvArea): Promise<void> {
    mustKnow(area, ['resource', 'token', 'virgin', 'resuid', 'localcnt', 'remotecnt']);
    mustBe('the version of the second message', version, this.version);
    mustBe(
      'the token',
      Buffer.from(area.get('token', 'uint8_array') ?? []).equals(this.#token),
      true,
    );
    this.#second = wire;
    this.hello = area;
    const number = (name: string) => Number(area.get(name, 'uint64'));
    const resuid = area.get('resuid', 'uint64') ?? 0n;
    const isNew = this.resuid === 0n;
    const decided = isNew
      ? { source: 1, all: !area.has('virgin') }
      : this.#decide(number('localcnt'), number('remotecnt'));
    if (isNew) this.resuid = resuid;
    const facts: NvEntry[] = [
      { name: 'datasize', type: 'int64', value: BigInt(this.datasize) },
      { name: 'extentsize', type: 'int32', value: this.extentBytes },
      u64('localcnt', this.localcnt),
      u64('remotecnt', this.remotecnt),
    ];
    const refused =
      resuid === this.resuid
        ? decided
        : `Resource unique ID mismatch (primary=${resuid}, secondary=${this.resuid}).`;
    if (typeof refused === 'string') {
      this.#first?.send(encodeMessage(this.version, [...facts, text('errmsg', refused)]));
      this.drop();
      return;
    }
    const map = refused.all ? Buffer.alloc(this.map.length, 0xff) : this.map;
    const hasMap = !isNew || refused.all;
    const { fields, bytes } = pack(map, this.codec);
    this.#first?.send(
      encodeMessage(this.version, [
        ...facts,
        ...(isNew ? [flag('virgin')] : []),
        u8('syncsrc', refused.source),
        u32('mapsize', hasMap ? map.length : 0),
        ...(hasMap ? fields : []),
      ]),
    );
    if (hasMap) this.#first?.send(bytes);
    this.connects += 1;
    this.#unclean = true;
    await this.#serveRequests();
  }

  async #serveRequests(): Promise<void> {
    const [first, second] = [this.#first, this.#second];
    if (first === undefined || second === undefined) throw new Error('a connection is missing');
    for (;;) {
      const { version, area } = await first.packet();
      mustBe('the version of a request', version, this.version);
      const range = ['cmd', 'seq', 'offset', 'length'];
      const memsync = this.version < 2 ? [] : ['memsync'];
      mustKnow(area, [...range, ...memsync, ...PAYLOAD_FIELDS]);
      const bytes = await first.bytes(area.get('size', 'uint32') ?? 0);
      await until('an answer', 60_000, () => !this.silent || first.closed);
      this.#carryOut(area, bytes, second);
    }
  }

  #carryOut(area: NvArea, bytes: Buffer, replies: Wire): void {
    const cmd = area.get('cmd', 'uint8') ?? 0;
    if (cmd === COMMAND.keepalive) {
      if (this.version < 1) throw new Error('version 0 does not know KEEPALIVE');
      this.#note(area, cmd, 0, 0);
      return;
    }
    const number = (name: string) => Number(area.get(name, 'uint64'));
    const [offset, length] = [number('offset'), number('length')];
    const seq = area.get('seq', 'uint64') ?? 0n;
    if (seq === 0n) throw new Error('a request without a number');
    this.#note(area, cmd, offset, length);
    const say = (...more: NvEntry[]) => {
      replies.send(encodeMessage(this.version, [u64('seq', seq), ...more]));
    };
    const tooLong = cmd !== COMMAND.delete && length > REQUEST_BYTES_MAX;
    if (cmd !== COMMAND.flush && (length === 0 || tooLong || offset + length > this.disk.length)) {
      this.problems.push(`request ${cmd} of ${length} bytes at ${offset}`);
      say({ name: 'error', type: 'int16', value: EINVAL });
      return;
    }
    if (this.#unclean) this.map = Buffer.alloc(this.map.length);
    this.#unclean = false;
    if (cmd === COMMAND.write) {
      const data = unpack(area, bytes, length);
      if (area.has('memsync')) say(flag('received'));
      data.copy(this.disk, offset);
    }
    if (cmd === COMMAND.delete) this.disk.fill(0, offset, offset + length);
    if (cmd !== COMMAND.read) {
      say();
      return;
    }
    const sent = pack(this.disk.subarray(offset, offset + length), this.codec);
    say(...sent.fields);
    replies.send(sent.bytes);
  }

  #note(area: NvArea, cmd: number, offset: number, length: number): void {
    const codec = {
      compression: area.get('compression', 'string') ?? 'none',
      checksum: area.get('checksum', 'string') ?? 'none',
    } as Codec;
    this.seen.push({ cmd, offset, length, memsync: area.has('memsync'), codec });
  }
}
