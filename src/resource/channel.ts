/** One connection between a supervisor and a worker: bounded lines, in order. */
import type { Socket } from 'node:net';
import {
  CHANNEL_LIMITS,
  encodeMessage,
  type ParentMessage,
  type WorkerMessage,
} from './worker-protocol.ts';

const NEWLINE = 10;

export class Channel {
  readonly #socket: Socket;
  #parts: Buffer[] = [];
  #held = 0;
  onLine: (line: string) => void = () => {};
  /** Once, after the last line. */
  onClose: () => void = () => {};

  /** Nothing is read before `resume`. */
  constructor(socket: Socket) {
    this.#socket = socket;
    socket.pause();
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    // Told by the end that follows.
    socket.on('error', () => {});
    socket.on('close', () => this.onClose());
    socket.pause();
  }

  get open(): boolean {
    return !this.#socket.destroyed;
  }

  /** The other side does not read. */
  get full(): boolean {
    return this.#socket.writableLength > CHANNEL_LIMITS.waitingBytes;
  }

  resume(): void {
    this.#socket.resume();
  }

  pause(): void {
    this.#socket.pause();
  }

  /** `sent` is called when the message has left, or cannot leave any more. */
  send(message: ParentMessage | WorkerMessage, sent: () => void = () => {}): void {
    this.#socket.write(encodeMessage(message), () => sent());
  }

  /** What was sent still goes out. */
  end(): void {
    this.#socket.end();
    this.#socket.resume();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    for (let at = rest.indexOf(NEWLINE); at >= 0; at = rest.indexOf(NEWLINE)) {
      const line = Buffer.concat([...this.#parts, rest.subarray(0, at)]);
      this.#parts = [];
      this.#held = 0;
      rest = rest.subarray(at + 1);
      this.onLine(line.toString());
      if (!this.open) return;
    }
    this.#held += rest.length;
    if (this.#held > CHANNEL_LIMITS.lineBytes) this.destroy();
    else if (rest.length > 0) this.#parts.push(rest);
  }
}
