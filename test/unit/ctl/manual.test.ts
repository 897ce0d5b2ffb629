// hastctl(8), the usage text and the parser name the same options.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { optionsOf, VERBS } from '../../../src/ctl/command-line.ts';
import { USAGE } from '../../../src/ctl/usage.ts';
import { ERROR_CODES } from '../../../src/error-codes.ts';
import { missing, unless } from '../../helper/skip.ts';

const MANUAL = new URL('../../../docs/hastctl.8', import.meta.url).pathname;
const text = readFileSync(MANUAL, 'utf8');

/** The options of each subcommand in the synopsis, as `-e extentsize`. */
function synopsis(verb: string): string[] {
  const part = new RegExp(`^\\.Cm ${verb}\\n((?:\\.(?!Nm).*\\n)*)`, 'm').exec(text)?.[1] ?? '';
  return [...part.matchAll(/^\.Op Fl (\S+)(?: (?:Ar|Cm) (.*))?$/gm)].map(([, name = '', value]) =>
    value === undefined ? `-${name}` : `-${name} ${value.replaceAll(' ', '')}`,
  );
}

function fromCode(verb: (typeof VERBS)[number]): string[] {
  return optionsOf(verb).options.map(({ flags, argChoices }) =>
    argChoices === undefined
      ? flags.replace(/[<>]/g, '')
      : flags.replace(/<.*>/, argChoices.join('|')),
  );
}

function fromUsage(verb: string): string[] {
  const lines = USAGE.replaceAll('\n\t\t', ' ').split('\n');
  const line = lines.find((each) => each.includes(` ${verb} `)) ?? '';
  return [...line.matchAll(/\[(--?[^\]]+)\]/g)].map((match) => match[1] ?? '');
}

const manual = suite('hastctl(8)');

manual('the synopsis and the usage text have the options of the code', () => {
  for (const verb of VERBS) {
    assert.equal(synopsis(verb).sort(), fromCode(verb).sort(), verb);
    assert.equal(fromUsage(verb).sort(), fromCode(verb).sort(), verb);
  }
});

manual('every option is described', () => {
  const described = new Set([...text.matchAll(/^\.It Fl (\S+)/gm)].map((match) => `-${match[1]}`));
  const options = VERBS.flatMap((verb) => fromCode(verb).map((flags) => flags.split(' ')[0] ?? ''));
  assert.equal([...described].sort(), [...new Set(options)].sort());
});

manual('describes the exit codes in use', () => {
  const described = [...text.matchAll(/^\.It (\d+)$/gm)].map((match) => Number(match[1]));
  const codes = ['USAGE', 'RESOURCE_UNKNOWN', 'DISK_OPEN', 'CTL_EXCHANGE', 'INTERNAL'] as const;
  const more = [
    'CTL_CONNECT',
    'CONFIG_FILE',
    'CREATE_REFUSED',
    'META_WRITE',
    'CONFIG_SYNTAX',
  ] as const;
  for (const code of [...codes, ...more]) {
    assert.ok(described.includes(ERROR_CODES[code].exit), code);
  }
  for (const exit of [0, 1, 5, 6, 255]) assert.ok(described.includes(exit), String(exit));
});

unless(manual, missing('mandoc'))('is clean mdoc', () => {
  const { stdout } = spawnSync('mandoc', ['-Tlint', MANUAL], { encoding: 'utf8' });
  // Whether the other manuals are installed is not a fault of this one.
  const complaints = stdout.split('\n').filter((line) => line !== '' && !line.includes('Xr '));
  assert.equal(complaints, []);
});

manual.run();
