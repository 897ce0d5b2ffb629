// Arguments as getopt takes them; whatever is wrong ends with the usage text and 64.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseCommandLine, VERBS } from '../../../src/ctl/command-line.ts';
import { USAGE } from '../../../src/ctl/usage.ts';
import { HastError } from '../../../src/error.ts';

function parse(line: string): ReturnType<typeof parseCommandLine> {
  return parseCommandLine(line.split(' ').filter((word) => word !== ''));
}

const WRONG: readonly string[] = [
  '',
  '-h',
  '-d status',
  'start',
  'stop',
  'constructor',
  'status -h',
  'status --help',
  'status -q',
  'status -1',
  'status --jso',
  'status --json=1',
  'status -f',
  'status --interval 2',
  'status --watch --interval 0',
  'status --watch --interval 0.05',
  'status --watch --interval 1e3',
  'status --watch --interval 99999',
  'status --watch=2',
  'list --watch',
  'why',
  'why --json',
  'status -c',
  'list -e 2m',
  'dump --if-unused',
  'create',
  'create -d',
  'create --json a',
  'create --layout round a',
  'create --layout a',
  'role',
  'role primary',
  'role master a',
  'role constructor a',
  'role -e 2m primary a',
];
const BAD_NUMBERS: readonly string[] = [
  ...['x', '-5', '2mb', '2m ', '1.5g', '0x', '08', '+1', '2q', '2 m', 'm', '1e3', '0b11'],
  ...['4g', '4294967296', '99999999999999999999999999', '16e'],
];

const line = suite('hastctl command line');

line('takes options before operands, joined or not', () => {
  assert.equal(parse('status -dd -c/x -n node1 --json a -d'), {
    verb: 'status',
    configPath: '/x',
    debug: 2,
    node: 'node1',
    json: true,
    watchMs: undefined,
    names: ['a', '-d'],
  });
  assert.equal(parse('list -dc /y -- -x').names, ['-x']);
  assert.is(parse('dump').configPath, '/etc/hast.conf');
});

line('watches once a second, or as often as is wanted', () => {
  const msOf = (text: string) => {
    const command = parse(text);
    assert.ok(command.verb === 'status');
    return command.watchMs;
  };
  assert.is(msOf('status --watch data'), 1000);
  assert.is(msOf('status --watch --interval 0.25 data'), 250);
});

line('takes sizes in C notation with a letter', () => {
  const command = parse('create -e 2m -k 0x10 -m 010G -f --layout hast --contents-equal a b');
  assert.equal(command, {
    verb: 'create',
    configPath: '/etc/hast.conf',
    debug: 0,
    node: undefined,
    names: ['a', 'b'],
    extentBytes: 2097152n,
    keepdirty: 16n,
    mediaBytes: 8589934592n,
    force: true,
    layout: 'hast',
    contentsEqual: true,
  });
});

line('takes the role before the names', () => {
  const command = parse('role -f --if-unused secondary all b');
  assert.ok(command.verb === 'role');
  assert.equal(
    [command.role, command.force, command.ifUnused, command.names],
    ['secondary', true, true, ['all', 'b']],
  );
});

line('refuses everything else as wrong usage', () => {
  for (const each of WRONG) {
    try {
      parse(each);
      assert.unreachable(`took: ${each}`);
    } catch (error) {
      assert.ok(error instanceof HastError && error.code === 'USAGE', `${each}: ${error}`);
      assert.is((error as HastError).exit, 64);
    }
  }
});

line('names the option whose number is wrong', () => {
  for (const number of BAD_NUMBERS) {
    for (const option of ['-e', '-k']) {
      try {
        parseCommandLine(['create', option, number, 'a']);
        assert.unreachable(`took ${option} ${number}`);
      } catch (error) {
        assert.ok(error instanceof HastError && error.code === 'USAGE', `${number}: ${error}`);
        assert.match((error as HastError).message, new RegExp(`^${option}: `));
      }
    }
  }
});

line("shows HAST's five lines, and ours in their manner", () => {
  const joined = USAGE.replaceAll('\n\t\t', ' ')
    .split('\n')
    .filter((each) => each !== '');
  assert.is(joined.length, VERBS.length);
  const create =
    'usage: hastctl create [-d] [-c config] [-e extentsize] [-k keepdirty]\n\t\t[-m mediasize]';
  assert.ok(USAGE.startsWith(create));
  for (const [index, verb] of VERBS.entries()) {
    const start = index === 0 ? 'usage: ' : '       ';
    assert.ok(joined[index]?.startsWith(`${start}hastctl ${verb} [-d] [-c config]`), verb);
  }
  assert.match(USAGE, / <init \| primary \| secondary> all \| name \.\.\.$/m);
});

line.run();
