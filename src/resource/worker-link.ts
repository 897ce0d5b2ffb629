/**
 * One worker process as its supervisor sees it, whoever has started it: messages, deadlines, end.
 * No role is known here.
 */
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import type { Logger } from '../log.ts';
import type { EngineEvent, EngineStats, EngineTuning } from '../native.ts';
import type { BridgeNote } from './bridge.ts';
import type { Channel } from './channel.ts';
import type { WorkerEnd } from './role.ts';
import { endOf, spawnFailed } from './worker-end.ts';
import { parseWorkerMessage } from './worker-messages.ts';
import type { ParentMessage, WorkerMessage } from './worker-protocol.ts';

export const WORKER_LIMITS = {
  helloMs: 30_000,
  statsMs: 2000,
  /** After SIGTERM, and for a worker that has closed its connection and does not end. */
  killMs: 10_000,
  /** For the last messages of a worker that has ended. */
  lastMessagesMs: 1000,
  stderrLineChars: 1000,
} as const;

export interface WorkerHandlers {
  readonly onEvent: (event: EngineEvent) => void;
  /** Once, after the last event. */
  readonly onEnd: (end: WorkerEnd) => void;
}

/** What the supervisor needs of a worker; a test may bring its own. */
export interface Worker {
  readonly pid: number;
  reconfigure(tuning: EngineTuning): void;
  kick(): void;
  stats(): Promise<EngineStats>;
  /** Asks, then insists: stop message, SIGTERM after `graceMs`, SIGKILL. */
  stop(graceMs: number): void;
  /**
   * The resource is configured so now and has this device, also for a supervisor that comes after
   * this one.
   */
  remember(resource: Resource, bridge: BridgeNote | null): void;
}

/** The process behind a link. */
export interface Running {
  readonly pid: number;
  /** Whether its end is told by `ended`, and not by its connection alone. */
  readonly child: boolean;
  kill(signal: 'SIGTERM' | 'SIGKILL'): void;
}

export interface LinkSettings {
  readonly log: Logger;
  readonly handlers: WorkerHandlers;
  /** Says a thing once in the life of the daemon. */
  readonly once: (text: string) => void;
  /** Null: the worker runs already. */
  readonly start: ParentMessage | null;
  readonly remember: (resource: Resource, bridge: BridgeNote | null) => void;
  /** The process is gone. */
  readonly forget: () => void;
}

export class WorkerLink implements Worker {
  readonly #running: Running;
  readonly #channel: Channel;
  readonly #settings: LinkSettings;
  readonly #asked = new Map<number, (stats: EngineStats | null) => void>();
  #nextId = 1;
  #last: Extract<EngineEvent, { type: 'end' }> | undefined;
  #problem: Error | undefined;
  #over = false;
  #stopping = false;
  #timer: NodeJS.Timeout | undefined;
  #closed: () => void = () => {};

  constructor(running: Running, channel: Channel, settings: LinkSettings) {
    this.#running = running;
    this.#channel = channel;
    this.#settings = settings;
    channel.onLine = (line) => this.#hear(line);
    channel.onClose = () => this.#disconnected();
    if (settings.start === null) return;
    this.#timer = setTimeout(() => {
      settings.log.error('Worker does not answer after its start, killing it.');
      running.kill('SIGKILL');
    }, WORKER_LIMITS.helloMs);
  }

  get pid(): number {
    return this.#running.pid;
  }

  reconfigure(tuning: EngineTuning): void {
    this.#send({ kind: 'reconfigure', tuning });
  }

  kick(): void {
    this.#send({ kind: 'kick' });
  }

  remember(resource: Resource, bridge: BridgeNote | null): void {
    if (!this.#over) this.#settings.remember(resource, bridge);
  }

  stats(): Promise<EngineStats> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const silent = (): void =>
        reject(new HastError('WORKER_ENDED', { message: 'the worker does not answer' }));
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        silent();
      }, WORKER_LIMITS.statsMs);
      this.#asked.set(id, (stats) => {
        clearTimeout(timer);
        this.#asked.delete(id);
        if (stats === null) silent();
        else resolve(stats);
      });
      this.#send({ kind: 'stats', id });
    });
  }

  stop(graceMs: number): void {
    if (this.#over || this.#stopping) return;
    this.#stopping = true;
    this.#send({ kind: 'stop' });
    const { log } = this.#settings;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      log.warning('Worker does not stop, sending SIGTERM.');
      this.#running.kill('SIGTERM');
      this.#timer = setTimeout(() => {
        log.error('Worker does not stop, killing it.');
        this.#running.kill('SIGKILL');
      }, WORKER_LIMITS.killMs);
    }, graceMs);
  }

  /** Something of the process could not be done; told with its end. */
  trouble(error: Error, runs: boolean): void {
    if (runs) this.#problem = error;
    else this.end(spawnFailed(error));
  }

  /** The child is gone; what it said last may still be on its way. */
  async ended(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    if (this.#channel.open) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, WORKER_LIMITS.lastMessagesMs);
        this.#closed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.end(endOf(code, signal, this.#last, this.#problem));
  }

  end(end: WorkerEnd): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#channel.destroy();
    for (const answer of this.#asked.values()) answer(null);
    this.#settings.forget();
    this.#settings.handlers.onEnd(end);
  }

  #disconnected(): void {
    this.#closed();
    if (this.#over) return;
    if (!this.#running.child) {
      // It has ended, but for one that should not have closed its connection.
      this.#running.kill('SIGKILL');
      this.end(endOf(null, null, this.#last));
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#settings.log.error('Worker has closed its connection and does not end, killing it.');
      this.#running.kill('SIGKILL');
    }, WORKER_LIMITS.killMs);
  }

  #send(message: ParentMessage): void {
    // A connection that broke is followed by the worker's end, which tells more.
    if (!this.#over && this.#channel.open) this.#channel.send(message);
  }

  #hear(line: string): void {
    const message = parseWorkerMessage(line);
    if (message !== undefined) {
      this.#receive(message);
      return;
    }
    this.#settings.log.error('Worker says what is no message, killing it.');
    this.#running.kill('SIGKILL');
    this.#channel.destroy();
  }

  #receive(message: WorkerMessage): void {
    const { once, start, handlers } = this.#settings;
    switch (message.kind) {
      case 'hello':
        if (!this.#stopping) clearTimeout(this.#timer);
        for (const what of message.refused) {
          once(`The kernel refused ${what}: workers are confined by the rest only.`);
        }
        // A worker that was asked to stop before it began has nothing to end.
        if (!this.#stopping && start !== null) this.#send(start);
        break;
      case 'engine':
        if (message.event.type === 'end') this.#last = message.event;
        else if (!this.#over) handlers.onEvent(message.event);
        break;
      case 'stats':
        this.#asked.get(message.id)?.(message.stats);
        break;
      case 'adopted':
      case 'busy':
        break; // words of the time before
    }
  }
}
