/**
 * The child's side: one engine, made of the parent's message, and what it tells passed on.
 * JavaScript here never stops I/O: the engine has a thread of its own.
 */
import { HastError } from '../error.ts';
import type { EngineEvent, EngineHandle, EngineSpec, LogLevel, NativeModule } from '../native.ts';
import type { ParentMessage, WorkerMessage, WorkerRun, WorkerSpec } from './worker-protocol.ts';

/** The way to the supervisor and out of the process. */
export interface WorkerPort {
  send(message: WorkerMessage): void;
  /** Sends the last message and ends with `code`. */
  finish(message: WorkerMessage, code: number): void;
}

/**
 * What the process does when it learns what it is for.
 * @returns the descriptors that came for it: the disk; the export and the kernel's connections, or
 * both connections of the peer
 */
export type Prepare = (spec: WorkerSpec) => readonly number[];

function withDescriptors(spec: WorkerSpec, fds: readonly number[]): EngineSpec {
  const [diskFd = -1, first = -1, ...rest] = fds;
  const none = { exportFd: -1, kernelFds: [], requestsFd: -1, repliesFd: -1 };
  if (spec.role === 'primary') {
    return { ...spec, ...none, diskFd, exportFd: first, kernelFds: rest };
  }
  return { ...spec, ...none, diskFd, requestsFd: first, repliesFd: rest[0] ?? -1 };
}

function debugOf(level: LogLevel): number {
  return level === 'debug2' ? 2 : level === 'debug1' ? 1 : 0;
}

export class WorkerBody {
  readonly #native: Pick<NativeModule, 'engine'>;
  readonly #port: WorkerPort;
  readonly #prepare: Prepare;
  #engine: EngineHandle | undefined;
  #run: WorkerRun | null = null;
  #debug = 0;

  constructor(native: Pick<NativeModule, 'engine'>, port: WorkerPort, prepare: Prepare) {
    this.#native = native;
    this.#port = port;
    this.#prepare = prepare;
  }

  /** What it does; null before `start`. */
  get run(): WorkerRun | null {
    return this.#run;
  }

  receive(message: ParentMessage): void {
    const { engine } = this.#native;
    switch (message.kind) {
      case 'start':
        this.#debug = message.debug;
        this.#start(message.spec);
        break;
      case 'adopt':
        break; // the door has done all there is to do
      case 'stop':
        this.stop();
        break;
      case 'reconfigure':
        if (this.#engine !== undefined) engine.reconfigure(this.#engine, message.tuning);
        break;
      case 'kick':
        if (this.#engine !== undefined) engine.kick(this.#engine);
        break;
      case 'stats':
        if (this.#engine !== undefined) void this.#answerStats(this.#engine, message.id);
        break;
    }
  }

  /** Drains and ends; without an engine there is nothing to drain. */
  stop(): void {
    if (this.#run === null) {
      this.#on({ type: 'end', exit: 0, code: '', text: '' });
      return;
    }
    this.#run = { ...this.#run, stopping: true };
    if (this.#engine !== undefined) this.#native.engine.stop(this.#engine);
  }

  /** Something here went wrong that the engine has no part in: it goes on. */
  fault(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#tell({ type: 'log', level: 'error', text: `Uncaught in the worker: ${text}` });
  }

  #start(spec: WorkerSpec): void {
    if (this.#run !== null) return;
    this.#run = { role: spec.role, ready: false, connected: false, stopping: false };
    try {
      const whole = withDescriptors(spec, this.#prepare(spec));
      this.#engine = this.#native.engine.start(whole, (event) => this.#on(event));
    } catch (error) {
      const known = error instanceof HastError ? error : new HastError('INTERNAL');
      const text = error instanceof Error ? error.message : String(error);
      this.#on({ type: 'end', exit: known.exit, code: known.code, text });
    }
  }

  #on(event: EngineEvent): void {
    if (event.type === 'end') {
      this.#port.finish({ kind: 'engine', event }, event.exit);
      return;
    }
    this.#note(event);
    // An idle worker says some every ten seconds, and a supervisor may have many workers.
    if (event.type !== 'log' || debugOf(event.level) <= this.#debug) this.#tell(event);
  }

  #note(event: EngineEvent): void {
    if (this.#run === null) return;
    if (event.type === 'ready') this.#run = { ...this.#run, ready: true };
    if (event.type !== 'event') return;
    if (event.name === 'connect') this.#run = { ...this.#run, connected: true };
    if (event.name === 'disconnect') this.#run = { ...this.#run, connected: false };
  }

  #tell(event: EngineEvent): void {
    this.#port.send({ kind: 'engine', event });
  }

  async #answerStats(engine: EngineHandle, id: number): Promise<void> {
    try {
      const stats = await this.#native.engine.stats(engine);
      this.#port.send({ kind: 'stats', id, stats });
    } catch {
      // An engine that ends has no numbers; the parent's deadline answers for it.
    }
  }
}
