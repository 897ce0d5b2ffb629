import { ERROR_CODES, type ErrorCode } from './error-codes.ts';

export type { ErrorCode };

/** A place in a configuration file; line and column count from one. */
export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** What the place that failed knows beyond the code. Everything left out comes from the table. */
export interface ErrorDetail {
  readonly message?: string | undefined;
  readonly hint?: string | undefined;
  readonly exit?: number | undefined;
  readonly at?: Position | undefined;
  readonly cause?: unknown;
}

/** A failure a person can act on: what went wrong, what to try, which code the tool ends with. */
export class HastError extends Error {
  override readonly name = 'HastError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly exit: number;
  readonly at: Position | undefined; // only for configuration

  constructor(code: ErrorCode, detail: ErrorDetail = {}) {
    const row = ERROR_CODES[code];
    super(
      detail.message ?? row.message,
      detail.cause === undefined ? undefined : { cause: detail.cause },
    );
    this.code = code;
    this.hint = detail.hint ?? (row.hint === '' ? undefined : row.hint);
    this.exit = detail.exit ?? row.exit;
    this.at = detail.at;
  }
}

/** Whether a word that came over a process border is a code of the table. */
export function isErrorCode(word: string): word is ErrorCode {
  return Object.hasOwn(ERROR_CODES, word);
}

/** What was thrown, as a failure to be told; anything else than ours is a bug. */
export function asHastError(error: unknown): HastError {
  if (error instanceof HastError) return error;
  return new HastError('INTERNAL', { message: String(error), cause: error });
}
