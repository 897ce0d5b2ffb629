/**
 * Hook programs (`exec`): one queue per resource, one program at a time, and nobody
 * ever waits for one.
 * Source: docs/hastd.8, "Hooks".
 */
import { spawn as nodeSpawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import type { Logger } from '../log.ts';
import { withReason } from '../log.ts';

export const HOOK_LIMITS = {
  queued: 128,
  /** One event that repeats is passed on once in this time. */
  splitBrainMs: 60_000,
  warnMs: 60_000,
  /** After this the next event starts even though the program still runs; it is never killed. */
  patienceMs: 600_000,
} as const;

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
    const { mode, uid: owner } = statSync(path);
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

export class HookQueue {
  readonly #resource: string;
  readonly #start: StartHook;
  readonly #log: Logger;
  readonly #clock: () => number;
  readonly #waiting: (readonly [path: string, args: readonly string[]])[] = [];
  #running = false;
  #splitBrainAt = Number.NEGATIVE_INFINITY;

  constructor(
    resource: string,
    start: StartHook,
    log: Logger,
    clock: () => number = () => performance.now(),
  ) {
    this.#resource = resource;
    this.#start = start;
    this.#log = log;
    this.#clock = clock;
  }

  /** @param path  the resource's `exec`; null: nothing is run */
  run(path: string | null, event: string, ...more: readonly string[]): void {
    if (path === null) return;
    if (event === 'split-brain') {
      const now = this.#clock();
      if (now - this.#splitBrainAt < HOOK_LIMITS.splitBrainMs) return;
      this.#splitBrainAt = now;
    }
    if (this.#waiting.length >= HOOK_LIMITS.queued) {
      this.#log.warning(`Too many hooks wait, ${event} is left out.`);
      return;
    }
    this.#waiting.push([path, [event, this.#resource, ...more]]);
    if (!this.#running) void this.#drain();
  }

  async #drain(): Promise<void> {
    this.#running = true;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      await this.#one(...next);
    }
    this.#running = false;
  }

  async #one(path: string, args: readonly string[]): Promise<void> {
    const line = [path, ...args].join(' ');
    const refused = refuseHook(path, process.getuid?.() ?? 0);
    if (refused !== null) {
      this.#log.error(`Hook was not run (${line}): ${refused}.`);
      return;
    }
    this.#log.debug1(`Running hook (${line}).`);
    const began = this.#clock();
    const warning = setInterval(() => {
      const seconds = Math.round((this.#clock() - began) / 1000);
      this.#log.warning(`Hook has been running for ${seconds} s (${line}).`);
    }, HOOK_LIMITS.warnMs);
    warning.unref();
    let patience: NodeJS.Timeout | undefined;
    try {
      const { ended } = this.#start(path, args);
      const reported = ended.then((wrong) => {
        clearInterval(warning);
        if (wrong !== null) this.#log.error(`Hook ended with ${wrong} (${line}).`);
      });
      const late = new Promise<void>((resolve) => {
        patience = setTimeout(resolve, HOOK_LIMITS.patienceMs);
        patience.unref();
      });
      await Promise.race([reported, late]);
    } catch (error) {
      clearInterval(warning);
      this.#log.error(withReason(`Hook cannot be run (${line})`, error));
    } finally {
      clearTimeout(patience);
    }
  }
}
