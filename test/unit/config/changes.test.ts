// What a changed statement asks for, by the role.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { changesOf, globalsThatDiffer } from '../../../src/config/changes.ts';
import type { Config, Resource } from '../../../src/config/config.ts';
import { parse } from '../../../src/config/parse.ts';
import { resolve } from '../../../src/config/resolve.ts';

const changes = suite('changes');

const ROLES = ['init', 'secondary', 'primary'] as const;

function configOf(resource: string, global = '', on = 'remote 10.0.0.2'): Config {
  const text = `${global}\nresource data {\n ${resource}\n on a { local /dev/x\n ${on} }\n}\n`;
  const host = { families: { ipv4: true, ipv6: true } };
  return resolve(parse(text, 'hast.conf'), ['a'], host);
}

function one({ resources: [resource] }: Config): Resource {
  if (resource === undefined) throw new Error('no resource');
  return resource;
}

function ways(before: Config, after: Config): readonly string[] {
  return ROLES.map((role) => changesOf(one(before), one(after), role).way);
}

changes('what a primary takes as it runs restarts a secondary', () => {
  for (const [statement, word] of [
    ['replication async', 'replication'],
    ['checksum sha256', 'checksum'],
    ['compression none', 'compression'],
    ['timeout 7', 'timeout'],
    ['exec /bin/true', 'exec'],
    ['metaflush off', 'metaflush'],
  ] as const) {
    const [before, after] = [configOf(''), configOf(statement)];
    assert.equal(ways(before, after), ['in-place', 'restart', 'in-place'], statement);
    assert.equal(changesOf(one(before), one(after), 'primary').words, [word]);
  }
  for (const on of ['remote 10.0.0.3', 'remote none', 'remote 10.0.0.2\n source 10.0.0.1']) {
    assert.equal(ways(configOf(''), configOf('', '', on)), ['in-place', 'restart', 'in-place'], on);
  }
});

changes('what a worker is made of restarts both', () => {
  for (const statement of ['name other', 'sectorsize 4096', 'export uds:///tmp/x']) {
    assert.equal(
      ways(configOf(''), configOf(statement)),
      ['in-place', 'restart', 'restart'],
      statement,
    );
  }
  const other = { ...one(configOf('')), local: '/dev/y' };
  assert.is(changesOf(one(configOf('')), other, 'secondary').way, 'restart');
});

changes('what the parent alone needs restarts nothing', () => {
  for (const statement of ['start secondary', 'demotion refuse', 'events extended']) {
    const after = configOf(statement);
    assert.equal(ways(configOf(''), after), ['in-place', 'in-place', 'in-place'], statement);
  }
});

changes('another place in the file is no change, and several are told in one order', () => {
  assert.equal(ways(configOf(''), configOf('\n\n')), ['none', 'none', 'none']);
  const { words, way } = changesOf(
    one(configOf('timeout 5\n replication async')),
    one(configOf('replication memsync\n name x\n timeout 6')),
    'primary',
  );
  assert.equal([way, ...words], ['restart', 'name', 'replication', 'timeout', 'export']);
});

changes('global statements', () => {
  const after = configOf('', 'control uds:///tmp/c\nlisten tcp4://127.0.0.1:1\npidfile /tmp/p');
  assert.equal(globalsThatDiffer(configOf(''), after), ['control', 'pidfile', 'listen']);
  assert.equal(globalsThatDiffer(after, after), []);
});

changes.run();
