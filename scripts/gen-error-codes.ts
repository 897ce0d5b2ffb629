// Makes src/error-codes.ts of src-native/base/error_codes.def, the one table of errors.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const FROM = new URL('../src-native/base/error_codes.def', import.meta.url);
const TO = new URL('../src/error-codes.ts', import.meta.url);

interface Row {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  readonly exit: number;
}

function readTable(text: string): Row[] {
  const code = text.replaceAll(/^\s*\/\/.*$/gm, '');
  const string = String.raw`("(?:[^"\\\n]|\\.)*")`;
  const row = new RegExp(
    String.raw`HAST_ERROR\(\s*([A-Z][A-Z0-9_]*)\s*,\s*${string}\s*,\s*${string}\s*,\s*(\d+)\s*\)`,
    'g',
  );
  const rows: Row[] = [];
  const rest = code.replaceAll(row, (_all, word: string, message: string, hint: string, exit) => {
    rows.push({ code: word, message: JSON.parse(message), hint: JSON.parse(hint), exit: +exit });
    return '';
  });
  if (rest.trim() !== '') {
    throw new Error(`error_codes.def: not a row: ${rest.trim().split('\n')[0]}`);
  }
  const words = rows.map((r) => r.code);
  const twice = words.find((word, index) => words.indexOf(word) !== index);
  if (twice !== undefined) throw new Error(`error_codes.def: ${twice} is there twice`);
  return rows;
}

const lines = readTable(readFileSync(FROM, 'utf8')).map(
  ({ code, ...row }) => `  ${code}: ${JSON.stringify(row)},`,
);
const text = `// Made by scripts/gen-error-codes.ts of src-native/base/error_codes.def: edit that.

interface Row {
  readonly message: string;
  readonly hint: string;
  readonly exit: number;
}

const TABLE = {
${lines.join('\n')}
} as const satisfies Record<string, Row>;

export type ErrorCode = keyof typeof TABLE;

export const ERROR_CODES: Readonly<Record<ErrorCode, Row>> = TABLE;
`;

// Written only when it differs, so that builds that look at times have nothing to do.
if (!existsSync(TO) || readFileSync(TO, 'utf8') !== text) writeFileSync(TO, text);
