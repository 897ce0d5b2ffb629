// hast.conf(5) and the grammar say the same.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DEFAULTS, LIMITS } from '../../../src/config/defaults.ts';
import { BLOCKS, RESERVED, SETTINGS } from '../../../src/config/keywords.ts';
import { configOf } from '../../helper/config.ts';
import { missing, unless } from '../../helper/skip.ts';

const MANUAL = new URL('../../../docs/hast.conf.5', import.meta.url);
const GRAMMAR = new URL('../../../src/config/hast-conf.peggy', import.meta.url);

const text = readFileSync(MANUAL, 'utf8');
const keywords = [...readFileSync(GRAMMAR, 'utf8').matchAll(/= @"([a-z0-9-]+)" End/g)].map(
  (match) => match[1] ?? '',
);

/** The words that the manual sets as keywords, less punctuation and schemes. */
const marked = new Set(
  [...text.matchAll(/\bCm ([^\n]*)/g)]
    .flatMap((match) => (match[1] ?? '').replace(/\b(Ar|No|Oc|Op) .*/, '').split(/[\s,;|.]+/))
    .filter((word) => word !== '' && !word.endsWith('://') && word !== 'Cm'),
);

function examples(): readonly string[] {
  return [...text.matchAll(/^\.Bd [^\n]*\n(.*?)^\.Ed$/gms)]
    .map((match) => match[1] ?? '')
    .filter((example) => !example.includes('STATEMENT'));
}

const manual = suite('hast.conf(5)');

manual('names every keyword of the grammar, and no other', () => {
  assert.ok(keywords.length > 45);
  assert.equal(
    keywords.filter((word) => !marked.has(word)),
    [],
    'in the grammar only',
  );
  assert.equal(
    [...marked].filter((word) => !keywords.includes(word)),
    [],
    'in the manual only',
  );
});

manual('describes every statement once, with its levels', () => {
  const items = [...text.matchAll(/^\.It Cm ([a-z-]+) (?:Ar|Cm)(.*?)(?=^\.(?:It|El|Pp))/gms)];
  const rows = { ...SETTINGS, ...BLOCKS };
  for (const [keyword, { levels }] of Object.entries(rows)) {
    const found = items.filter((item) => item[1] === keyword);
    assert.is(found.length, 1, keyword);
    const line = /^Levels?: (.*)\.$/m.exec(found[0]?.[2] ?? '')?.[1];
    assert.is(line, levels.join(', '), keyword);
  }
});

manual('lists the reserved words', () => {
  const list = /^These words are keywords everywhere.*?^All other/ms.exec(text)?.[0] ?? '';
  const words = [...list.matchAll(/^\.Cm (.*)$/gm)].flatMap((m) => (m[1] ?? '').split(/[ ,.]+/));
  assert.equal(words.filter((word) => word !== '').sort(), [...RESERVED].sort());
});

manual('names the defaults and the bounds', () => {
  for (const value of Object.values(DEFAULTS)) {
    if (typeof value === 'string') assert.ok(text.includes(value), value);
  }
  assert.match(text, new RegExp(`^Default: ${DEFAULTS.timeoutSeconds}\\.$`, 'm'));
  for (const bound of [
    ...[LIMITS.text, LIMITS.socketPath, LIMITS.resourceName, LIMITS.providerName],
    ...[LIMITS.timeoutAccepted, LIMITS.timeoutUsed],
  ]) {
    assert.match(text, new RegExp(`\\b${bound}\\b`));
  }
});

manual('has examples that both of their nodes accept without a warning', () => {
  assert.is(examples().length, 3);
  for (const example of examples()) {
    const nodes = new Set([...example.matchAll(/^\s*on (\S+) \{$/gm)].map((m) => m[1] ?? ''));
    assert.is(nodes.size, 2);
    for (const node of nodes) {
      const { resources, warnings } = configOf(example, { node });
      assert.ok(resources.length > 0);
      assert.equal(warnings, []);
    }
  }
});

unless(manual, missing('mandoc'))('is clean mdoc', () => {
  const { stdout } = spawnSync('mandoc', ['-Tlint', MANUAL.pathname], { encoding: 'utf8' });
  // Whether the other manuals are installed is not a fault of this one.
  const complaints = stdout.split('\n').filter((line) => line !== '' && !line.includes('Xr '));
  assert.equal(complaints, []);
});

manual.run();
