/**
 * Into the background: a detached child is the daemon; the process that was called passes on what
 * it says and ends when it has started, or with its exit code when it has not.
 */
import { spawn } from 'node:child_process';
import { EXIT } from './exit.ts';
import { formatForeground, relay, type Sink, streamOf } from './log.ts';
import { nodeFlags } from './resource/node-process.ts';

const MARK = 'HASTD_BACKGROUND';
/** Names are resolved and sockets made in this time, or something is very wrong. */
const START_MS = 120_000;

type ChildMessage =
  | { readonly kind: 'log'; readonly stream: 'stdout' | 'stderr'; readonly text: string }
  | { readonly kind: 'started' };

/** Whether this process is the child that becomes the daemon. */
export function isBackgroundChild(): boolean {
  return process.env[MARK] === '1' && process.send !== undefined;
}

function tell(message: ChildMessage): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

/** The child's log until it has started. */
export function relaySink(): Sink {
  return (record) =>
    tell({ kind: 'log', stream: streamOf(record.level), text: formatForeground(record) });
}

/** The caller may go; from now on nobody listens to the child. */
export function releaseCaller(): void {
  delete process.env[MARK];
  if (!process.connected) return;
  process.send?.({ kind: 'started' } satisfies ChildMessage, undefined, undefined, () => {
    if (process.connected) process.disconnect();
  });
}

/** Starts the same program as a daemon. @returns the exit code for the caller */
export function startInBackground(program: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [...nodeFlags(), program, ...args], {
      argv0: 'hastd',
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      env: { ...process.env, [MARK]: '1' },
    });
    const timer = setTimeout(() => {
      relay('stderr', '[ERROR] The daemon did not start in time.\n');
      child.kill('SIGKILL');
    }, START_MS);
    const done = (code: number): void => {
      clearTimeout(timer);
      if (child.connected) child.disconnect();
      child.unref();
      resolve(code);
    };
    child.on('message', (message: ChildMessage) => {
      if (message.kind === 'log') relay(message.stream, message.text);
      else done(EXIT.ok);
    });
    child.on('error', (error) => {
      relay('stderr', `[ERROR] The daemon cannot be started: ${error.message}.\n`);
      done(EXIT.osErr);
    });
    // After the channel's last message.
    child.on('close', (code) => done(code ?? EXIT.software));
  });
}
