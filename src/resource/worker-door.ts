/**
 * The worker's end of its UNIX socket: who is its supervisor, what is told to whom, and how it ends
 * when nobody is. See docs/decisions/0008.
 */
import type { Server, Socket } from 'node:net';
import { Channel } from './channel.ts';
import type { WorkerBody, WorkerPort } from './worker.ts';
import { decodeParentMessage, type ParentMessage, type WorkerMessage } from './worker-protocol.ts';

export const DOOR_LIMITS = {
  /** Connections at a time, the supervisor's included. */
  connections: 8,
  /** How long a newcomer waits for the end of the one before, which may be gone already. */
  yieldMs: 1000,
  /** What is kept while there is no supervisor; the oldest log lines go first. */
  kept: 256,
  /** Without a supervisor: until it ends in order, and from then on until it ends anyhow. */
  orphanMs: 20_000,
  drainMs: 10_000,
  /** For the last word to leave. */
  exitMs: 1000,
} as const;

export interface DoorSettings {
  readonly version: string;
  readonly refused: readonly string[];
  /** Whether this process may be heard. */
  readonly admits: (socket: Socket) => boolean;
  readonly orphanMs: number;
  readonly exit: (code: number) => void;
  /** The end, whatever is still open. */
  readonly die: () => void;
}

const isLog = (message: WorkerMessage): boolean =>
  message.kind === 'engine' && message.event.type === 'log';

export class WorkerDoor implements WorkerPort {
  readonly #settings: DoorSettings;
  readonly #connections = new Set<Channel>();
  readonly #kept: WorkerMessage[] = [];
  #supervisor: Channel | undefined;
  #body: WorkerBody | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Nobody came in time: from here on nobody can hold the end up. */
  #ending = false;

  constructor(settings: DoorSettings) {
    this.#settings = settings;
  }

  /** From now on whoever connects is heard. */
  serve(server: Server, body: WorkerBody): void {
    this.#body = body;
    server.on('connection', (socket) => this.#welcome(socket));
    // Whoever has started it is about to connect.
    this.#orphaned(DOOR_LIMITS.orphanMs);
  }

  send(message: WorkerMessage): void {
    const { kept } = DOOR_LIMITS;
    if (this.#supervisor !== undefined) {
      if (!isLog(message) || !this.#supervisor.full) this.#supervisor.send(message);
      return;
    }
    if (message.kind === 'stats') return;
    this.#kept.push(message);
    if (this.#kept.length > kept) this.#kept.splice(Math.max(this.#kept.findIndex(isLog), 0), 1);
  }

  finish(message: WorkerMessage, code: number): void {
    const { exit } = this.#settings;
    if (this.#supervisor === undefined) {
      exit(code);
      return;
    }
    setTimeout(() => exit(code), DOOR_LIMITS.exitMs);
    this.#supervisor.send(message, () => exit(code));
  }

  #welcome(socket: Socket): void {
    const { admits, version, refused } = this.#settings;
    if (this.#connections.size >= DOOR_LIMITS.connections || !admits(socket)) {
      socket.destroy();
      return;
    }
    const channel = new Channel(socket);
    this.#connections.add(channel);
    channel.onClose = () => this.#closed(channel);
    channel.onLine = (line) => {
      const message = decodeParentMessage(line);
      if (message === undefined) channel.destroy();
      else this.#hear(channel, message);
    };
    channel.send({ kind: 'hello', version, refused, run: this.#body?.run ?? null });
    channel.resume();
  }

  #hear(channel: Channel, message: ParentMessage): void {
    if (this.#supervisor === undefined) this.#take(channel, message);
    if (this.#supervisor === channel) this.#body?.receive(message);
    else this.#wait(channel, message);
  }

  /** The first good line makes a supervisor. */
  #take(channel: Channel, { kind }: ParentMessage): void {
    this.#supervisor = channel;
    if (!this.#ending) clearTimeout(this.#timer);
    if (kind === 'adopt') channel.send({ kind: 'adopted', run: this.#body?.run ?? null });
    for (const message of this.#kept.splice(0)) channel.send(message);
  }

  /** The other one may be dead, and its end not read yet. */
  #wait(channel: Channel, first: ParentMessage): void {
    const held = [first];
    const { onLine, onClose } = channel;
    channel.onLine = (line) => {
      const message = decodeParentMessage(line);
      if (message === undefined || held.length >= DOOR_LIMITS.kept) channel.destroy();
      else held.push(message);
    };
    const other = this.#supervisor;
    const end = performance.now() + DOOR_LIMITS.yieldMs;
    const timer = setInterval(() => {
      if (this.#supervisor === other && performance.now() < end) return;
      clearInterval(timer);
      if (this.#supervisor !== undefined) {
        channel.send({ kind: 'busy' });
        channel.end();
        return;
      }
      channel.onLine = onLine;
      for (const message of held) this.#hear(channel, message);
    }, 10);
    channel.onClose = () => {
      clearInterval(timer);
      onClose();
    };
  }

  #closed(channel: Channel): void {
    this.#connections.delete(channel);
    if (this.#supervisor !== channel) return;
    this.#supervisor = undefined;
    // One that does nothing yet is of no use to anybody.
    if (this.#body?.run === null) this.#body.stop();
    else this.#orphaned(this.#settings.orphanMs);
  }

  #orphaned(ms: number): void {
    if (this.#ending) return;
    this.#timer = setTimeout(() => {
      this.#ending = true;
      this.#body?.stop();
      this.#timer = setTimeout(() => this.#settings.die(), DOOR_LIMITS.drainMs);
    }, ms);
  }
}
