/**
 * Hook programs (`exec`): one queue per resource, one program at a time, and nobody
 * ever waits for one.
 * Source: docs/hastd.8, "Hooks".
 */
import { spawn as nodeSpawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import type { Logger } from '../log.ts';

export const HOOK_LIMITS = {
  queued: 128,
  /** One event that repeats is passed on once in this time. */
  splitBrainMs: 60_000,
  warnMs: 60_000,
  /** A program that runs longer is worth a line in `status`. */
  noteMs: 5_000,
  /** After this the next event starts even though the program still runs; it is never killed. */
  patienceMs: 600_000,
};

/** What `status` tells of the hooks of one resource. */
export interface HookReport {
  /** Event and arguments of the program that runs now. */
  readonly running: string | null;
  readonly runningSeconds: number;
  /** Events that wait for it. */
  readonly waiting: number;
  /** What was wrong with the last one that has ended; null when it ended well. */
  readonly failure: string | null;
}

/** A started program; `ended` resolves to what was wrong with its end, or null. */
export interface RunningHook {
  readonly ended: Promise<string | null>;
}
export type StartHook = (path: string, args: readonly string[]) => RunningHook;

/**
 * Why a program must not be run as this user; null when it may.
 * @param uid  who runs hastd: the program belongs to that user or to root, and to nobody's pen
 */
export function refuseHook(path: string, uid: number): string | null {
  if (!isAbsolute(path)) return 'its path is not absolute';
  try {
    const found = statSync(path);
    const { mode, uid: owner } = found;
    if (!found.isFile()) return 'it is no file';
    accessSync(path, constants.X_OK);
    if (owner !== 0 && owner !== uid) return 'it is not owned by root';
    if ((mode & 0o022) !== 0) return 'others may write to it';
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Runs without a shell; the environment is the daemon's. */
export function hookStarter(foreground: boolean): StartHook {
  return (path, args) => {
    const child = nodeSpawn(path, args, {
      stdio: foreground ? 'inherit' : 'ignore',
      argv0: path,
      cwd: '/',
    });
    const ended = new Promise<string | null>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => {
        if (signal !== null) resolve(`signal ${signal}`);
        else resolve(code === 0 ? null : `exit code ${code}`);
      });
    });
    return { ended };
  };
}

interface Job {
  readonly path: string;
  readonly args: readonly string[];
}

export class HookQueue {
  readonly #resource: string;
  readonly #start: StartHook;
  readonly #log: () => Logger;
  readonly #clock: () => number;
  readonly #limits: typeof HOOK_LIMITS;
  readonly #waiting: Job[] = [];
  #running: { readonly job: Job; readonly since: number } | undefined;
  #failure: string | null = null;
  #splitBrainAt = Number.NEGATIVE_INFINITY;

  constructor(
    resource: string,
    start: StartHook,
    /** With the role of the moment. */
    log: () => Logger,
    clock: () => number = () => performance.now(),
    limits: Partial<typeof HOOK_LIMITS> = {},
  ) {
    this.#resource = resource;
    this.#start = start;
    this.#log = log;
    this.#clock = clock;
    this.#limits = { ...HOOK_LIMITS, ...limits };
  }

  /** @param path  the resource's `exec`; null: nothing is run */
  run(path: string | null, event: string, ...more: readonly string[]): void {
    if (path === null) return;
    if (event === 'connect') this.#splitBrainAt = Number.NEGATIVE_INFINITY; // the next one is new
    if (event === 'split-brain' && this.#isRepeated()) return;
    // A role is never left out: who listens for it would believe the one before.
    if (event !== 'role' && this.#waiting.length >= this.#limits.queued) {
      this.#failed(`Too many hooks wait, ${event} is left out`);
      return;
    }
    this.#waiting.push({ path, args: [event, this.#resource, ...more] });
    if (this.#running === undefined) void this.#drain();
  }

  report(): HookReport {
    return {
      running: this.#running === undefined ? null : this.#running.job.args.join(' '),
      runningSeconds: this.#runningSeconds(),
      waiting: this.#waiting.length,
      failure: this.#failure,
    };
  }

  /** For `status`; empty when all is well. */
  notes(): string[] {
    const notes: string[] = [];
    const seconds = this.#runningSeconds();
    if (this.#running !== undefined && seconds * 1000 >= this.#limits.noteMs) {
      const waiting = this.#waiting.length;
      const behind = waiting === 0 ? '' : `, ${waiting} more wait for it`;
      notes.push(
        `a hook has been running for ${seconds} s (${lineOf(this.#running.job)})${behind}`,
      );
    }
    if (this.#failure !== null) notes.push(`the last hook failed: ${this.#failure}`);
    return notes;
  }

  #isRepeated(): boolean {
    const now = this.#clock();
    if (now - this.#splitBrainAt < this.#limits.splitBrainMs) return true;
    this.#splitBrainAt = now;
    return false;
  }

  #runningSeconds(): number {
    if (this.#running === undefined) return 0;
    return Math.round((this.#clock() - this.#running.since) / 1000);
  }

  #failed(text: string): void {
    this.#failure = text;
    this.#log().error(`${text}.`);
  }

  async #drain(): Promise<void> {
    for (let job = this.#waiting.shift(); job !== undefined; job = this.#waiting.shift()) {
      this.#running = { job, since: this.#clock() };
      await this.#one(job);
    }
    this.#running = undefined;
  }

  async #one(job: Job): Promise<void> {
    const line = lineOf(job);
    const refused = refuseHook(job.path, process.getuid?.() ?? 0);
    if (refused !== null) {
      this.#failed(`Hook was not run (${line}): ${refused}`);
      return;
    }
    this.#log().debug1(`Running hook (${line}).`);
    const began = this.#clock();
    const warning = setInterval(() => {
      const seconds = Math.round((this.#clock() - began) / 1000);
      this.#log().warning(`Hook has been running for ${seconds} s (${line}).`);
    }, this.#limits.warnMs);
    warning.unref();
    let patience: NodeJS.Timeout | undefined;
    try {
      const { ended } = this.#start(job.path, job.args);
      const reported = ended.then((wrong) => {
        clearInterval(warning);
        if (wrong === null) this.#failure = null;
        else this.#failed(`Hook ended with ${wrong} (${line})`);
      });
      const late = new Promise<void>((resolve) => {
        patience = setTimeout(resolve, this.#limits.patienceMs);
        patience.unref();
      });
      await Promise.race([reported, late]);
    } catch (error) {
      clearInterval(warning);
      const reason = error instanceof Error ? error.message : String(error);
      this.#failed(`Hook cannot be run (${line}): ${reason}`);
    } finally {
      clearTimeout(patience);
    }
  }
}

function lineOf({ path, args }: Job): string {
  return [path, ...args].join(' ');
}
