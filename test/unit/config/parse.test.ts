// The grammar: what stands where, positions, and nothing but HastError for any text.
import { readdirSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  BLOCKS,
  type Keyword,
  type Level,
  RESERVED,
  SETTINGS,
} from '../../../src/config/keywords.ts';
import { parse } from '../../../src/config/parse.ts';
import { formatConfig } from '../../../src/config/show.ts';
import { HastError } from '../../../src/error.ts';
import { configOf, randomOf } from '../../helper/config.ts';

const GOLDEN = new URL('../../golden/', import.meta.url);
const GRAMMAR = new URL('../../../src/config/hast-conf.peggy', import.meta.url);
const LEVELS: readonly Level[] = ['file', 'node', 'resource', 'resource-node'];

/** A legal value of every statement. */
const VALUES: Readonly<Record<Keyword, string>> = {
  control: '/run/c',
  pidfile: '/run/p',
  listen: '10.0.0.1',
  replication: 'async',
  checksum: 'crc32',
  compression: 'lzf',
  timeout: '5',
  exec: '/bin/e',
  metaflush: 'off',
  name: 'n',
  local: '/dev/l',
  remote: 'none',
  source: '10.0.0.2',
  export: '/run/e',
  device: 'nbd',
  devdir: '/dev/d',
  start: 'last',
  user: 'u',
  statedir: '/var/s',
  demotion: 'refuse',
  events: 'extended',
  secret: '/etc/s',
  sectorsize: '512',
  'export-insecure': 'on',
  'export-owner': 'o',
};

function at(level: Level, statement: string): string {
  switch (level) {
    case 'file':
      return statement;
    case 'node':
      return `on x { ${statement} }`;
    case 'resource':
      return `resource x { ${statement} }`;
    case 'resource-node':
      return `resource x { on y { ${statement} } }`;
  }
}

function accepts(text: string): boolean {
  try {
    parse(text, 'f');
    return true;
  } catch (error) {
    assert.instance(error, HastError);
    return false;
  }
}

const grammar = suite('grammar');

grammar('every statement stands exactly where the table says', () => {
  for (const [keyword, { levels }] of Object.entries(SETTINGS)) {
    for (const level of LEVELS) {
      const text = at(level, `${keyword} ${VALUES[keyword as Keyword]}`);
      assert.is(accepts(text), (levels as readonly Level[]).includes(level), text);
    }
  }
  for (const [keyword, { levels }] of Object.entries(BLOCKS)) {
    for (const level of LEVELS) {
      assert.is(accepts(at(level, `${keyword} z { }`)), levels.includes(level), keyword);
    }
  }
});

grammar('reserved words are those of the grammar and are never a value', () => {
  const text = readFileSync(GRAMMAR, 'utf8');
  const rule = /^Reserved\n((?: {2}[=/].*\n)+)/m.exec(text)?.[1] ?? '';
  const words = [...rule.matchAll(/[A-Z0-9]+/g)].map((match) => match[0].toLowerCase());
  assert.equal(words.sort(), [...RESERVED].sort());
  for (const word of RESERVED) {
    assert.not(accepts(`resource ${word} { }`), word);
    assert.not(accepts(`on ${word} { }`), word);
    assert.not(accepts(`pidfile ${word}`), word);
    assert.not(accepts(`resource a { local ${word} }`), word);
    for (const near of [`${word}1`, `x${word}`, `${word}.`, `${word}-`, word.toUpperCase()]) {
      assert.ok(accepts(`resource ${near} { local ${near} on ${near} { } }`), near);
    }
  }
});

grammar('later words are ordinary wherever no statement can begin', () => {
  const text = readFileSync(GRAMMAR, 'utf8').split('// Contextual words.')[1] ?? '';
  const words = [...text.matchAll(/= @"([a-z-]+)" End/g)].map((match) => match[1] ?? '');
  assert.ok(words.length > 20);
  for (const word of words) {
    const block = `local ${word} name ${word} on ${word} { remote ${word} source ${word} }`;
    assert.ok(accepts(`resource ${word} { ${block} } on ${word} { pidfile ${word} }`), word);
    assert.ok(accepts(`resource a { local ${word} export ${word} } exec ${word}`), word);
  }
});

grammar('a word is one or more of the characters of the table', () => {
  for (let code = 0; code < 256; code++) {
    const character = String.fromCharCode(code);
    const text = `pidfile a${character}b`;
    const separates = '\t\r\n "; '.includes(character) && character !== '';
    if (/^[a-zA-Z0-9._/:[\]-]$/.test(character)) {
      const [setting] = parse(text, 'f').body;
      assert.is(setting?.kind === 'setting' ? setting.value.text : '', `a${character}b`);
    } else if (character === '#') {
      assert.ok(accepts(text));
    } else {
      assert.not(accepts(text), `U+${code}`); // two words, or no word at all
      assert.is(accepts(`pidfile${character}b`), separates, `U+${code}`);
    }
  }
});

grammar('numbers are decimal digits', () => {
  for (const text of ['1', '007', '2147483647']) assert.ok(accepts(`timeout ${text}`));
  for (const text of ['-1', '+1', '1.5', '0x10', '10s', '1_0', 'ten', '']) {
    assert.not(accepts(`timeout ${text}`), text);
  }
  for (const text of ['0512', '1024', '512b']) assert.not(accepts(`sectorsize ${text}`), text);
});

grammar('places count from one, by line feeds', () => {
  const { body } = parse('# one\r\n\n  timeout\n\t7 resource a {\n on b { remote c } }', 'f');
  const [timeout, resource] = body;
  assert.equal(timeout?.at, { line: 3, column: 3 });
  assert.equal(timeout?.kind === 'setting' && timeout.value.at, { line: 4, column: 2 });
  assert.equal(resource?.at, { line: 4, column: 4 });
  assert.equal(resource?.kind === 'resource' && resource.name.at, { line: 4, column: 13 });
  assert.equal(resource?.kind === 'resource' && resource.body[0]?.at, { line: 5, column: 2 });
});

grammar('a syntax error has place, exit code and something to do', () => {
  try {
    parse('timeout 5\n\tlisten {', '/etc/hast.conf');
    assert.unreachable();
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    assert.is(error.code, 'CONFIG_SYNTAX');
    assert.is(error.exit, 78);
    assert.equal(error.at, { file: '/etc/hast.conf', line: 2, column: 9 });
    assert.match(error.message, /^\/etc\/hast\.conf:2:9: `listen` needs an address, but `{`/);
    assert.ok(error.hint);
  }
});

grammar('a large file is read in little time', () => {
  const one = (i: number) =>
    `resource r${i} { local /dev/r${i} on fbsd_h1 { remote 10.0.0.2 } on b { remote none } }\n`;
  const start = Date.now();
  const { body } = parse(Array.from({ length: 5000 }, (_, i) => one(i)).join(''), 'f');
  assert.is(body.length, 5000);
  assert.not(accepts('x'.repeat(3_000_000)));
  assert.not(accepts('{'.repeat(100_000)));
  assert.ok(accepts('#'.repeat(3_000_000)));
  assert.ok(Date.now() - start < 10_000);
});

// ---- Seeds ---------------------------------------------------------------------------------

const files = readdirSync(GOLDEN).filter((file) => file.endsWith('.conf'));
const corpus = files.map((file) => readFileSync(new URL(file, GOLDEN), 'latin1'));
const pieces = [
  ...[...RESERVED, ...Object.keys(SETTINGS), 'auto', 'last', '512', '1', '0', 'x', '/x', ' '],
  ...[
    '{',
    '}',
    '{',
    '}',
    '\n',
    '#',
    '"',
    ';',
    '\r',
    ',',
    '\0',
    '\u00e9',
    '://',
    '[',
    ']',
    ':',
    '::',
  ],
  ...['on fbsd_h1 {', 'resource a {', 'tcp4://', 'uds://', '10.0.0.1', '-', '..', '9'.repeat(40)],
];

/** Gives a Config that survives printing, or a HastError that says where. */
function survives(text: string, what: string): void {
  try {
    const config = configOf(text);
    configOf(formatConfig(config));
  } catch (error) {
    if (!(error instanceof HastError)) throw new Error(`${what}: ${error}`, { cause: error });
    assert.is(error.exit, 78, what);
    if (!/^hast\.conf:\d+:\d+: \S/.test(error.message)) throw new Error(`${what}: ${error}`);
  }
}

grammar('random texts give a configuration or an error', () => {
  for (let seed = 1; seed <= 1500; seed++) {
    const next = randomOf(seed);
    const bytes = Array.from({ length: next(200) }, () => next(256));
    survives(Buffer.from(bytes).toString(seed % 2 === 0 ? 'utf8' : 'latin1'), `bytes ${seed}`);
    const words = Array.from({ length: next(40) }, () => pieces[next(pieces.length)]);
    survives(words.join(next(4) === 0 ? '' : ' '), `words ${seed}`);
  }
});

grammar('changed valid files give a configuration or an error', () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const next = randomOf(seed);
    let text = corpus[next(corpus.length)] ?? '';
    for (let change = 0; change <= next(4); change++) {
      const from = next(text.length + 1);
      const to = Math.min(text.length, from + next(12));
      const piece = [
        pieces[next(pieces.length)],
        String.fromCharCode(next(256)),
        '',
        text.slice(from, to).repeat(2),
      ][next(4)];
      text = text.slice(0, from) + piece + text.slice(to);
    }
    survives(text, `changed ${seed}`);
  }
});

grammar.run();
