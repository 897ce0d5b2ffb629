/** How the end of a worker is told: pure. */

import { HastError, isErrorCode } from '../error.ts';
import { ERROR_CODES } from '../error-codes.ts';
import type { EngineEvent } from '../native.ts';
import { isUnknown, type WorkerEnd } from './role.ts';

const REFUSED = ERROR_CODES.ROLE_REFUSED.exit;

/**
 * From the process's status and the engine's last event, when there was one. Both numbers are null
 * for a process that is no child of ours.
 */
export function endOf(
  exit: number | null,
  signal: string | null,
  last: Extract<EngineEvent, { type: 'end' }> | undefined,
  problem?: Error,
): WorkerEnd {
  const code = last?.code ?? '';
  const refused = isErrorCode(code) && ERROR_CODES[code].exit === REFUSED;
  const text = last?.text ?? problem?.message ?? '';
  if (signal !== null) return { exit: null, signal, code: 'WORKER_ENDED', text, refused: false };
  return { exit: last?.exit ?? exit, signal: null, code, text, refused };
}

/** A start that did not come to an engine, as the end it is. */
export function endOfError(error: unknown): WorkerEnd {
  if (error instanceof HastError) {
    const { code, message, exit, hint } = error;
    const end = { exit, signal: null, code, text: message, refused: exit === REFUSED };
    return hint === undefined ? end : { ...end, hint };
  }
  const text = error instanceof Error ? error.message : String(error);
  return { exit: ERROR_CODES.INTERNAL.exit, signal: null, code: 'INTERNAL', text, refused: false };
}

export function spawnFailed(error: Error): WorkerEnd {
  return endOfError(new HastError('WORKER_SPAWN', { message: error.message, cause: error }));
}

/** Somebody asked for the end before anything had begun. */
export const ENDED_IN_ORDER: WorkerEnd = {
  exit: 0,
  signal: null,
  code: '',
  text: '',
  refused: false,
};

/**
 * Without a full stop. A worker that was killed has said nothing; a person still wants to read
 * something.
 */
export function saidOf({ text, signal, exit }: WorkerEnd): string {
  if (text !== '') return text.replace(/\.$/, '');
  if (isUnknown({ exit, signal })) return 'the worker ended, and nobody knows how';
  return signal === null ? `the worker ended with ${exit}` : `the worker was ended by ${signal}`;
}
