// A small NBD client: newstyle, simple replies, many requests in flight.
import { connect, type Socket } from 'node:net';

const OPTION_MAGIC = Buffer.from('49484156454f5054', 'hex');
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const COMMANDS = { read: 0, write: 1, flush: 3, trim: 4, zeroes: 6 } as const;
type Command = keyof typeof COMMANDS;

export const FUA = 1;
/** Errors as the protocol numbers them. */
export const NBD_ERROR = { io: 5, invalid: 22, shutdown: 108 } as const;

export interface Reply {
  /** 0, or the protocol's number. */
  readonly error: number;
  readonly data: Buffer;
}

interface Waiting {
  readonly bytes: number;
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

/** Bytes as they come, taken in pieces of known length. */
class Inbox {
  readonly #chunks: Buffer[] = [];
  #size = 0;

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
  }

  take(bytes: number): Buffer | undefined {
    if (this.#size < bytes) return undefined;
    const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
    if (all === undefined) return Buffer.alloc(0);
    this.#chunks.length = 0;
    this.#size = 0;
    if (all.length > bytes) this.push(all.subarray(bytes));
    return all.subarray(0, bytes);
  }
}

export class NbdClient {
  readonly size: number;
  /** Resolves when the connection is gone, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #waiting = new Map<bigint, Waiting>();
  readonly #inbox: Inbox;
  #next = 1n;
  #over = false;
  #head: { readonly cookie: bigint; readonly error: number } | undefined;

  private constructor(socket: Socket, inbox: Inbox, size: number) {
    this.#socket = socket;
    this.#inbox = inbox;
    this.size = size;
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#over = true;
        const waiting = [...this.#waiting.values()];
        this.#waiting.clear();
        for (const one of waiting) one.reject(new Error('the connection is gone'));
        resolve();
      });
    });
    socket.on('data', (chunk: Buffer) => {
      inbox.push(chunk);
      this.#read();
    });
  }

  /** @throws Error when nobody listens, or the export is refused */
  static connect(path: string): Promise<NbdClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      const inbox = new Inbox();
      let step = 0;
      const onData = (chunk: Buffer): void => {
        inbox.push(chunk);
        if (step === 0) {
          if (inbox.take(18) === undefined) return;
          step = 1;
          const option = Buffer.concat([OPTION_MAGIC, Buffer.from('0000000100000000', 'hex')]);
          socket.write(Buffer.concat([Buffer.from('00000003', 'hex'), option]));
        }
        const answer = inbox.take(10); // NBD_OPT_EXPORT_NAME: size and flags, no zeroes
        if (answer === undefined) return;
        socket.off('data', onData);
        socket.off('error', reject);
        resolve(new NbdClient(socket, inbox, Number(answer.readBigUInt64BE(0))));
      };
      socket.on('error', reject);
      socket.on('error', () => socket.destroy());
      socket.once('close', () => reject(new Error('closed during the negotiation')));
      socket.on('data', onData);
    });
  }

  get inFlight(): number {
    return this.#waiting.size;
  }

  get over(): boolean {
    return this.#over;
  }

  read(offset: number, length: number): Promise<Reply> {
    return this.#request('read', offset, length);
  }

  write(offset: number, data: Uint8Array, flags = 0): Promise<Reply> {
    return this.#request('write', offset, data.length, data, flags);
  }

  flush(): Promise<Reply> {
    return this.#request('flush', 0, 0);
  }

  trim(offset: number, length: number): Promise<Reply> {
    return this.#request('trim', offset, length);
  }

  /** NBD_CMD_WRITE_ZEROES: may punch a hole. */
  writeZeroes(offset: number, length: number, flags = 0): Promise<Reply> {
    return this.#request('zeroes', offset, length, undefined, flags);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Rejects when the connection ends first. */
  #request(
    command: Command,
    offset: number,
    length: number,
    data?: Uint8Array,
    flags = 0,
  ): Promise<Reply> {
    const cookie = this.#next++;
    const head = Buffer.alloc(28);
    head.writeUInt32BE(REQUEST_MAGIC, 0);
    head.writeUInt16BE(flags, 4);
    head.writeUInt16BE(COMMANDS[command], 6);
    head.writeBigUInt64BE(cookie, 8);
    head.writeBigUInt64BE(BigInt(offset), 16);
    head.writeUInt32BE(length, 24);
    return new Promise((resolve, reject) => {
      if (this.#over) {
        reject(new Error('the connection is gone'));
        return;
      }
      const bytes = command === 'read' ? length : 0;
      this.#waiting.set(cookie, { bytes, resolve, reject });
      this.#socket.write(data === undefined ? head : Buffer.concat([head, data]));
    });
  }

  #read(): void {
    for (;;) {
      if (this.#head === undefined) {
        const reply = this.#inbox.take(16);
        if (reply === undefined) return;
        if (reply.readUInt32BE(0) !== REPLY_MAGIC) {
          this.#socket.destroy(new Error('not an NBD reply'));
          return;
        }
        this.#head = { error: reply.readUInt32BE(4), cookie: reply.readBigUInt64BE(8) };
      }
      const { cookie, error } = this.#head;
      const waiting = this.#waiting.get(cookie);
      if (waiting === undefined) {
        this.#socket.destroy(new Error('a reply to nothing'));
        return;
      }
      const data = this.#inbox.take(error === 0 ? waiting.bytes : 0);
      if (data === undefined) return;
      this.#head = undefined;
      this.#waiting.delete(cookie);
      waiting.resolve({ error, data });
    }
  }
}
