// Nodes that a test plays: a primary that sets up a pair of connections, a secondary that answers.
import { connect, createServer, type Server, type Socket } from 'node:net';
import {
  decodeMessageHead,
  decodeNv,
  encodeMessage,
  MESSAGE_HEAD_BYTES,
  type NvArea,
  type NvEntry,
} from '../../src/nv.ts';
import { until } from './deadline.ts';

const WAIT_MS = 10_000;

export const u8 = (name: string, value: number): NvEntry => ({ name, type: 'uint8', value });
export const u32 = (name: string, value: number): NvEntry => ({ name, type: 'uint32', value });
export const u64 = (name: string, value: number | bigint): NvEntry => ({
  name,
  type: 'uint64',
  value: BigInt(value),
});
export const text = (name: string, value: string): NvEntry => ({ name, type: 'string', value });

/** One end of a connection: collects what comes. */
export class Wire {
  readonly socket: Socket;
  #got = Buffer.alloc(0);
  closed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => socket.destroy());
    socket.on('end', () => {
      this.closed = true;
    });
    socket.on('close', () => {
      this.closed = true;
    });
    socket.on('data', (bytes: Buffer) => {
      this.#got = Buffer.concat([this.#got, bytes]);
    });
  }

  static async connect(port: number): Promise<Wire> {
    const wire = new Wire(connect({ port, host: '127.0.0.1', noDelay: true }));
    await until('a connection', WAIT_MS, () => wire.closed || wire.socket.readyState === 'open');
    return wire;
  }

  send(bytes: Uint8Array): void {
    if (!this.closed) this.socket.write(bytes);
  }

  /** @throws Error when the connection ends first */
  async bytes(count: number): Promise<Buffer> {
    await until(`${count} bytes`, WAIT_MS, () => this.#got.length >= count || this.closed);
    if (this.#got.length < count) throw new Error('the connection ended');
    const taken = this.#got.subarray(0, count);
    this.#got = this.#got.subarray(count);
    return taken;
  }

  /** The version byte of the next message, and its area. */
  async packet(): Promise<{ version: number; area: NvArea }> {
    const { version, length } = decodeMessageHead(await this.bytes(MESSAGE_HEAD_BYTES));
    return { version, area: decodeNv(await this.bytes(length)) };
  }

  async message(): Promise<NvArea> {
    return (await this.packet()).area;
  }

  async end(ms = WAIT_MS): Promise<void> {
    await until('the end of the connection', ms, () => this.closed);
  }

  destroy(): void {
    this.socket.destroy();
  }
}

export interface FakePrimaryFacts {
  readonly port: number;
  readonly resource: string;
  readonly resuid: bigint;
  readonly extended?: boolean;
}

/** A primary of version 2 whose disk was never written to. */
export class FakePrimary {
  readonly requests: Wire;
  readonly replies: Wire;
  /** The secondary's second message. */
  readonly answer: NvArea;
  #seq = 1n;

  private constructor(requests: Wire, replies: Wire, answer: NvArea) {
    this.requests = requests;
    this.replies = replies;
    this.answer = answer;
  }

  /** @throws Error with the other side's text when refused */
  static async connect(facts: FakePrimaryFacts): Promise<FakePrimary> {
    const { port, resource, resuid, extended = false } = facts;
    const ext = extended ? [u32('ext', 1)] : [];
    const requests = await Wire.connect(port);
    requests.send(encodeMessage(1, [text('resource', resource), u8('version', 2), ...ext]));
    const first = await requests.message();
    const token = first.get('token', 'uint8_array');
    if (token === undefined) throw new Error(first.get('errmsg', 'string') ?? 'no token');
    const replies = await Wire.connect(port);
    replies.send(
      encodeMessage(2, [
        text('resource', resource),
        { name: 'token', type: 'uint8_array', value: token },
        { name: 'virgin', type: 'int8', value: 1 },
        u64('resuid', resuid),
        u64('localcnt', 0),
        u64('remotecnt', 0),
        ...ext,
        ...(extended ? [u64('epoch', 1), u64('bootid', 1)] : []),
      ]),
    );
    const answer = await requests.message();
    const refused = answer.get('errmsg', 'string');
    if (refused !== undefined) throw new Error(refused);
    const map = answer.get('size', 'uint32') ?? 0;
    await requests.bytes(map);
    return new FakePrimary(requests, replies, answer);
  }

  /** Sends one request and gives its reply, with the payload of a READ. */
  async request(
    cmd: number,
    offset: number,
    length: number,
    payload?: Uint8Array,
  ): Promise<{ reply: NvArea; data: Buffer }> {
    const seq = this.#seq++;
    const size = payload === undefined ? [] : [u32('size', payload.length)];
    const fields = [u8('cmd', cmd), u64('seq', seq), u64('offset', offset), u64('length', length)];
    this.requests.send(encodeMessage(2, [...fields, ...size]));
    if (payload !== undefined) this.requests.send(payload);
    const reply = await this.replies.message();
    const data = await this.replies.bytes(reply.get('size', 'uint32') ?? 0);
    return { reply, data };
  }

  destroy(): void {
    this.requests.destroy();
    this.replies.destroy();
  }
}

/** Listens where the secondary should be. Each connection is given to `onConnection`. */
export class FakeSecondary {
  readonly port: number;
  readonly #server: Server;
  readonly #wires = new Set<Wire>();
  /** What the test does with a new connection. */
  onConnection: (wire: Wire) => void | Promise<void> = (wire) => wire.destroy();
  connections = 0;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
    server.on('connection', (socket: Socket) => {
      this.connections += 1;
      const wire = new Wire(socket);
      this.#wires.add(wire);
      void (async () => this.onConnection(wire))().catch(() => wire.destroy());
    });
  }

  static make(port: number): Promise<FakeSecondary> {
    return new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true, allowHalfOpen: true });
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => resolve(new FakeSecondary(server, port)));
    });
  }

  close(): void {
    for (const wire of this.#wires) wire.destroy();
    this.#server.close();
  }
}
