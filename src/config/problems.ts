import { HastError, type Position } from '../error.ts';
import type { Spot } from './parse.ts';

/** One error of meaning. */
export interface Problem {
  readonly at: Position;
  readonly what: string;
  readonly hint: string | undefined;
}

/** Collects errors of meaning, so that a person sees all of them at once. */
export class Problems {
  readonly #file: string;
  readonly #list: Problem[] = [];

  constructor(file: string) {
    this.#file = file;
  }

  add(at: Spot, what: string, hint?: string): void {
    this.#list.push({ at: { file: this.#file, line: at.line, column: at.column }, what, hint });
  }

  /** @throws HastError CONFIG_MEANING with all in file order; the list is its cause */
  throwIfAny(): void {
    const sorted = this.#list.toSorted(
      (a, b) => a.at.line - b.at.line || a.at.column - b.at.column,
    );
    if (sorted.length === 0) return;
    // A hint that would stand under several problems in a row stands under the last of them.
    const lines = sorted.flatMap(({ at, what, hint }, index) => [
      `${at.file}:${at.line}:${at.column}: ${what}`,
      ...(hint === undefined || sorted[index + 1]?.hint === hint ? [] : [`  ${hint}`]),
    ]);
    throw new HastError('CONFIG_MEANING', {
      message: lines.join('\n'),
      at: sorted[0]?.at,
      cause: sorted,
    });
  }
}
