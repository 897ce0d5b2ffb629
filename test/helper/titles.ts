// What the tests of this repository are called, so that pages can name them and be held to it.
import { existsSync, readFileSync } from 'node:fs';

const ROOT = new URL('../../', import.meta.url);

/** A string is the first argument of a call, and what looks like a function follows. */
const TYPESCRIPT = /[\w)]\(\s*(['"`])((?:(?!\1)[^\\\n]|\\.)+)\1,\s*[a-z(]/g;
/** Literals that follow each other are one sentence. */
const CXX = /\bTEST\(\w+,\s*((?:"(?:[^"\\]|\\.)*"\s*)+)\)/g;

function quoted(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** A template stands for many titles: whatever it puts in is any text. */
function pattern(title: string, isTemplate: boolean): RegExp {
  const parts = isTemplate ? title.split(/\$\{[^}]*\}/) : [title];
  return new RegExp(`^${parts.map(quoted).join('.+')}$`);
}

function typescriptTitles(text: string): RegExp[] {
  return [...text.matchAll(TYPESCRIPT)].map(([, quote, title = '']) =>
    pattern(title.replace(/\\(.)/g, '$1'), quote === '`'),
  );
}

function cxxTitles(text: string): RegExp[] {
  return [...text.matchAll(CXX)].map(([, literals = '']) =>
    pattern([...literals.matchAll(/"([^"]*)"/g)].map((match) => match[1]).join(''), false),
  );
}

/** Names of the cases of recorded bytes; those without a name are all replayed. */
function vectorTitles(text: string): RegExp[] {
  const names = text.matchAll(/^ *"name": "([^"]+)",?\n(?! *"type")/gm);
  return [...names].map(([, name = '']) => pattern(name, false));
}

/** The titles of the tests (or cases) of a file; undefined when there is no such file. */
export function titlesOf(file: string): readonly RegExp[] | undefined {
  const url = new URL(file, ROOT);
  if (!existsSync(url)) return undefined;
  const text = readFileSync(url, 'utf8');
  if (file.endsWith('.json')) return vectorTitles(text);
  return file.endsWith('.cc') ? cxxTitles(text) : typescriptTitles(text);
}
