import { HastError } from '../error.ts';
import { SyntaxError as GrammarError, parse as parseGrammar } from './grammar.js';
import type { Keyword } from './keywords.ts';
import { explain } from './syntax.ts';

/** A place in the file; both count from one, columns in UTF-16 units. */
export interface Spot {
  readonly line: number;
  readonly column: number;
}

export interface Word {
  readonly text: string;
  readonly at: Spot;
}

export interface Setting {
  readonly kind: 'setting';
  readonly keyword: Keyword;
  readonly value: Word;
  readonly at: Spot;
}

/** `on NODE { ... }`. The grammar has made sure that only settings of its level stand in it. */
export interface NodeBlock {
  readonly kind: 'on';
  readonly name: Word;
  readonly body: readonly Setting[];
  readonly at: Spot;
}

export interface ResourceBlock {
  readonly kind: 'resource';
  readonly name: Word;
  readonly body: readonly (Setting | NodeBlock)[];
  readonly at: Spot;
}

export type Statement = Setting | NodeBlock | ResourceBlock;

/** A file as written, before anything is known about this host. `file` is its name in messages. */
export interface ConfigTree {
  readonly file: string;
  readonly body: readonly Statement[];
}

/**
 * Reads the text of a hast.conf(5).
 *
 * @param file  its name in messages
 * @throws HastError CONFIG_SYNTAX at the first place that is not in the language
 */
export function parse(text: string, file: string): ConfigTree {
  try {
    return { file, body: parseGrammar(text) as readonly Statement[] };
  } catch (error) {
    if (!(error instanceof GrammarError)) throw error;
    const { line, column, offset } = error.location.start;
    const expected = error.expected ?? [];
    const words = expected.flatMap((e) => (e.type === 'other' ? [e.description] : []));
    const { what, hint } = explain(text, offset, words);
    throw new HastError('CONFIG_SYNTAX', {
      message: `${file}:${line}:${column}: ${what}`,
      hint,
      at: { file, line, column },
    });
  }
}
