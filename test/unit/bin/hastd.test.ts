import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OPTIONS, readArguments, USAGE } from '../../../src/bin/hastd-arguments.ts';
import { missing, unless } from '../../helper/skip.ts';

const manual = suite('hastd(8)');
const PATH = new URL('../../../docs/hastd.8', import.meta.url).pathname;
const text = readFileSync(PATH, 'utf8');

manual('describes exactly the options there are', () => {
  const letters = Object.values(OPTIONS).map(({ short }) => short);
  const described = [...text.matchAll(/^\.It Fl (\w)\b/gm)].map((match) => match[1]);
  assert.equal(described.sort(), [...letters].sort());
  for (const letter of letters) assert.match(USAGE, new RegExp(`-\\w*${letter}`));
  const synopsis = [...text.matchAll(/^\.Op Fl (\w+)/gm)].map((match) => match[1]).join('');
  assert.equal([...synopsis].sort(), [...letters].sort());
});

unless(manual, missing('mandoc'))('is clean mdoc', () => {
  const { stdout } = spawnSync('mandoc', ['-Tlint', '-Wall', PATH], { encoding: 'utf8' });
  const complaints = stdout.split('\n').filter((line) => !/not found: Xr|^$/.test(line));
  assert.equal(complaints, []);
});

manual('options may stand together, as getopt has it', () => {
  const read = (...args: string[]) => readArguments(args, '/etc/hast');
  assert.equal(read('-ddF', '-ca.conf', '-P', 'pid', '-n', 'a', 'ignored'), {
    config: '/etc/hast/a.conf',
    debug: 2,
    foreground: true,
    pidfile: '/etc/hast/pid',
    node: 'a',
    test: false,
  });
  const plain = read();
  assert.is(typeof plain === 'string' ? plain : plain.config, '/etc/hast.conf');
  for (const wrong of [['-h'], ['-x'], ['-c'], ['-n', ''], ['--nothing'], ['-tFz']]) {
    assert.type(read(...wrong), 'string', wrong.join(' '));
  }
  assert.is(read('-h'), '');
  assert.match(String(read('-x')), /-x/);
});

manual.run();
