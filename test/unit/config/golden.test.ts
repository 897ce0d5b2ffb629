// Every test/golden/NAME.conf gives NAME.json (resolved for the host of the tests) or NAME.err
// (what a person reads). GOLDEN=write writes those that are missing or different; read them then.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../../src/error.ts';
import { configOf } from '../../helper/config.ts';

const FOLDER = new URL('../../golden/', import.meta.url);
const WRITE = process.env.GOLDEN === 'write';

interface Outcome {
  readonly ending: 'json' | 'err';
  readonly text: string;
}

function outcome(name: string): Outcome {
  const conf = readFileSync(new URL(`${name}.conf`, FOLDER), 'utf8');
  try {
    const config = configOf(conf, {}, `${name}.conf`);
    return { ending: 'json', text: `${JSON.stringify(config, null, 2)}\n` };
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    const hint = error.hint === undefined ? '' : `${error.hint}\n`;
    return { ending: 'err', text: `${error.code} ${error.exit}\n${error.message}\n${hint}` };
  }
}

function write(name: string, { ending, text }: Outcome): void {
  for (const other of ['json', 'err']) rmSync(new URL(`${name}.${other}`, FOLDER), { force: true });
  writeFileSync(new URL(`${name}.${ending}`, FOLDER), text);
}

const golden = suite('golden configurations');
const files = readdirSync(FOLDER);
const names = files.filter((file) => file.endsWith('.conf')).map((file) => file.slice(0, -5));

for (const name of names) {
  golden(name, () => {
    const is = outcome(name);
    if (WRITE) write(name, is);
    const wanted = new URL(`${name}.${is.ending}`, FOLDER);
    assert.ok(existsSync(wanted), `gives .${is.ending}:\n${is.text}`);
    assert.is(is.text, readFileSync(wanted, 'utf8'));
  });
}

golden('every outcome belongs to a configuration, and every configuration has one', () => {
  const outcomes = files.filter((file) => !file.endsWith('.conf'));
  assert.equal(outcomes.map((file) => file.replace(/\.[a-z]+$/, '')).sort(), [...names].sort());
});

golden.run();
