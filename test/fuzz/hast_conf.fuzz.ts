// Arbitrary text as hast.conf(5): a configuration, or an error that says where.
import { LEVEL_NAMES, RESERVED, SETTINGS } from '../../src/config/keywords.ts';
import { HastError } from '../../src/error.ts';
import { configOf } from '../helper/config.ts';
import { fuzz } from './loop.ts';

const FILE = 'hast.conf';
const CODES: readonly string[] = ['CONFIG_SYNTAX', 'CONFIG_MEANING'];

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

function checkError(error: HastError, text: string): void {
  check(CODES.includes(error.code), `the code ${error.code}`);
  const { at } = error;
  if (at === undefined) throw new Error(`no place: ${error.message}`);
  check(at.file === FILE, `the file ${at.file}`);
  const lines = text.split('\n');
  check(at.line >= 1 && at.line <= lines.length, `line ${at.line} of ${lines.length}`);
  const size = lines[at.line - 1]?.length ?? 0;
  check(at.column >= 1 && at.column <= size + 1, `column ${at.column} of ${size}`);
  const prefix = `${FILE}:${at.line}:${at.column}: `;
  check(error.message.startsWith(prefix), `"${error.message}" does not begin with ${prefix}`);
  check(error.exit === 78, `exit ${error.exit}`);
}

function target(input: Buffer): void {
  const text = new TextDecoder().decode(input);
  try {
    const config = configOf(text, {}, FILE);
    const again = configOf(text, {}, FILE);
    check(JSON.stringify(config) === JSON.stringify(again), 'two readings differ');
    const names = config.resources.map(({ name }) => name);
    check(new Set(names).size === names.length, 'a resource is there twice');
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    checkError(error, text);
  }
}

const WORDS = [...new Set([...RESERVED, ...Object.keys(SETTINGS), ...Object.keys(LEVEL_NAMES)])];
const OTHERS = ['{', '}', '\n', ' ', '#', '"', '\t', '0', '-1', '4294967296', '/', '::', '[', ']'];
await fuzz('hast_conf', target, [...WORDS.map((word) => ` ${word} `), ...OTHERS]);
