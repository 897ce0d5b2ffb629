import { LEVEL_NAMES, type Level, RESERVED, SETTINGS, statementRow } from './keywords.ts';

/** What a person is told about a place that is not in the language. */
export interface Explanation {
  readonly what: string;
  readonly hint: string | undefined;
}

const WORD_CHARACTERS = 'letters, digits and . - _ / : [ ]';
const TOKEN = /#[^\n]*|[a-zA-Z0-9._/:[\]-]+|[{}]|\n|./gsu;
const FIRST_TOKEN = new RegExp(`^(?:${TOKEN.source})`, 'su');
const WORD = /^[a-zA-Z0-9._/:[\]-]+$/;

interface Before {
  /** The last two tokens in front of the place, the nearer one first. */
  readonly last: string | undefined;
  readonly beforeLast: string | undefined;
  /** Whether the last one touches the place. */
  readonly touches: boolean;
  /** Blocks that are still open, as `resource disk0` and the line of it. */
  readonly open: readonly { readonly title: string; readonly line: number }[];
}

/** Reads everything in front of `offset`, which the grammar has found to be good. */
function lookBack(text: string, offset: number): Before {
  const words: string[] = [];
  const open: { title: string; line: number }[] = [];
  let line = 1;
  let end = -1;
  for (const match of text.slice(0, offset).matchAll(TOKEN)) {
    const token = match[0];
    if (token === '\n') line += 1;
    else if (token === '{') open.push({ title: words.slice(-2).join(' '), line });
    else if (token === '}') open.pop();
    if (token !== '{' && token !== '}' && !WORD.test(token)) continue;
    words.push(token);
    if (words.length > 2) words.shift();
    end = match.index + token.length;
  }
  return { last: words.at(-1), beforeLast: words.at(-2), touches: end === offset, open };
}

function tokenAt(text: string, offset: number): string {
  return text.slice(offset).match(FIRST_TOKEN)?.[0] ?? '';
}

function codePoint(character: string): string {
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;
}

/** A character as it can be shown: printable, or by number only. */
function show(character: string): string {
  return /^[\x21-\x7e]$/.test(character)
    ? `\`${character}\``
    : /^[\p{L}\p{N}\p{P}\p{S}]$/u.test(character)
      ? `\`${character}\` (${codePoint(character)})`
      : codePoint(character);
}

/** Number of single-letter changes between two short words; stops counting at 3. */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return Math.min(3, row[b.length] ?? 3);
}

function nearest(word: string, candidates: readonly string[]): string | undefined {
  const lower = word.toLowerCase();
  const ranked = candidates
    .map((candidate) => ({ candidate, far: distance(lower, candidate) }))
    .filter(({ candidate, far }) => far < 3 && far < candidate.length - 1)
    .sort((a, b) => a.far - b.far);
  return ranked[0]?.candidate;
}

/** The level can be told by the statements that are legal in it. */
function levelOf(expected: readonly string[]): Level {
  if (expected.includes('resource')) return 'file';
  if (expected.includes('on')) return 'resource';
  return expected.includes('remote') ? 'resource-node' : 'node';
}

function strayCharacter(character: string, before: Before): Explanation {
  const what = `the character ${show(character)} cannot stand here`;
  if (character === '=') return { what, hint: 'write the value behind the keyword, without `=`' };
  if (character === ',') return { what, hint: 'write one value only; `listen` can be repeated' };
  if (before.touches || character === "'") {
    return { what, hint: `words are made of ${WORD_CHARACTERS}; there is no quoting` };
  }
  return { what, hint: `words are made of ${WORD_CHARACTERS}; comments begin with #` };
}

function unexpectedStatement(
  found: string,
  before: Before,
  expected: readonly string[],
): Explanation {
  const level = levelOf(expected);
  if (found === '{') return { what: 'this { belongs to no block', hint: 'blocks: on, resource' };
  if (found === '}')
    return { what: 'this } closes nothing', hint: 'remove it, or look for a { above' };
  if (found === '') {
    const block = before.open.at(-1);
    return {
      what: 'the file ends inside of a block',
      hint: `add the } of \`${block?.title}\` in line ${block?.line}`,
    };
  }
  const row = statementRow(found);
  if (row !== undefined) {
    const places = row.levels.map((l) => LEVEL_NAMES[l]).join(', or ');
    return {
      what: `\`${found}\` cannot stand ${LEVEL_NAMES[level]}`,
      hint: `it stands ${places}`,
    };
  }
  const near = nearest(found, [...Object.keys(SETTINGS), 'on', 'resource']);
  const what = `\`${found}\` is not a statement`;
  if (near !== undefined) return { what, hint: `did you mean \`${near}\`?` };
  const previous = before.beforeLast;
  if (previous !== undefined && before.last !== undefined && statementRow(previous)) {
    return {
      what: `\`${previous}\` takes one word, and \`${found}\` follows it`,
      hint: 'a value cannot hold blanks, and there is no quoting',
    };
  }
  return { what, hint: 'hast.conf(5) lists the statements' };
}

function unexpectedValue(found: string, before: Before, expected: readonly string[]): Explanation {
  const keyword = before.last ?? '';
  const wants = statementRow(keyword)?.wants ?? 'a value';
  const seen = found === '' ? 'the file ends' : `\`${found}\` stands`;
  const what = `\`${keyword}\` needs ${wants}, but ${seen} here`;
  if (RESERVED.has(found) && expected.includes('a word')) {
    return { what, hint: `\`${found}\` is a keyword and cannot be a value: choose another word` };
  }
  if (/^[0-9]+$/.test(found) && expected.includes('a word')) {
    return { what, hint: 'a word of digits only is a number: add a letter' };
  }
  if (expected.includes('a number')) {
    return { what, hint: 'write digits only, without sign and unit' };
  }
  const near = nearest(found, expected);
  return { what, hint: near === undefined ? undefined : `did you mean \`${near}\`?` };
}

/**
 * Says in plain words what is wrong at `offset` and what to do.
 *
 * @param expected  the names of all tokens that the grammar would have taken there
 */
export function explain(text: string, offset: number, expected: readonly string[]): Explanation {
  const before = lookBack(text, offset);
  const found = tokenAt(text, offset);
  if (found !== '' && found !== '{' && found !== '}' && !WORD.test(found)) {
    return strayCharacter(found, before);
  }
  if (expected.includes('}') || expected.includes('the end of file')) {
    return unexpectedStatement(found, before, expected);
  }
  if (expected.includes('{')) {
    const seen = found === '' ? 'the file ends' : `\`${found}\` stands`;
    return {
      what: `\`${before.beforeLast} ${before.last}\` needs a block, but ${seen} here`,
      hint: 'write { here; a name is one word, without blanks',
    };
  }
  return unexpectedValue(found, before, expected);
}
