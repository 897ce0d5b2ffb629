// What golden files cannot say: the command line, the kernel, the host, reading files, printing.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DEMOTIONS, DEVICES, EVENTS, REPLICATIONS, STARTS } from '../../../src/config/config.ts';
import { DEFAULTS } from '../../../src/config/defaults.ts';
import { type HostReader, matchesNode, nodeNames } from '../../../src/config/node-names.ts';
import { hostFamilies, hostNames, readConfig } from '../../../src/config/read.ts';
import { formatConfig, formatConfigJson } from '../../../src/config/show.ts';
import { HastError } from '../../../src/error.ts';
import { configOf, errorOf, TEST_NAMES, withoutPlaces } from '../../helper/config.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const GOLDEN = new URL('../../golden/', import.meta.url);
const ONE = 'resource a { local /dev/a on left { remote none } on right { remote 10.0.0.1 } }';

const resolving = suite('resolving a configuration');

resolving('-n names this node and nothing else does', () => {
  assert.is(configOf(ONE, { node: 'left' }).resources[0]?.remote, 'none');
  const right = configOf(ONE, { node: 'right' }).resources[0];
  assert.is(right?.node, 'right');
  assert.match(errorOf(ONE, { node: 'fbsd_h1' }).message, /this node is: fbsd_h1;/);
  assert.match(errorOf('resource a { on fbsd_h1 { } }', { node: 'x' }).message, /node is: x;/);
});

resolving('-P wins over every pidfile and has a limit', () => {
  const text = 'pidfile /a on fbsd_h1 { pidfile /b }';
  assert.is(configOf(text).pidfile, '/b');
  assert.is(configOf(text, { pidfile: '/c' }).pidfile, '/c');
  const error = errorOf(text, { pidfile: `/${'p'.repeat(1023)}` });
  assert.is(error.exit, 78);
  assert.match(error.message, /^-P: /);
});

resolving('the addresses listened on by default are those the kernel has', () => {
  const texts = (ipv4: boolean, ipv6: boolean) =>
    configOf('', { families: { ipv4, ipv6 } }).listen.map(({ text }) => text);
  assert.equal(texts(true, true), ['tcp4://0.0.0.0:8457', 'tcp6://[::]:8457']);
  assert.equal(texts(true, false), ['tcp4://0.0.0.0:8457']);
  assert.equal(texts(false, true), ['tcp6://[::]:8457']);
  const error = errorOf('', { families: { ipv4: false, ipv6: false } });
  assert.is(error.code, 'CONFIG_NETWORK');
  assert.is(error.exit, 75);
  const given = configOf('listen 10.0.0.1', { families: { ipv4: false, ipv6: false } });
  assert.is(given.listen.length, 1);
});

resolving('defaults are the first words of their statements or those of the spec', () => {
  assert.is(DEFAULTS.device, DEVICES[0]);
  assert.is(DEFAULTS.start, STARTS[0]);
  assert.is(DEFAULTS.demotion, DEMOTIONS[0]);
  assert.is(DEFAULTS.events, EVENTS[0]);
  assert.is(DEFAULTS.replication, REPLICATIONS[1]);
});

resolving('errors of meaning come together, in file order, with their places', () => {
  const error = errorOf('timeout 0\nresource b { }\nresource a/ { on fbsd_h1 { } }');
  assert.is(error.code, 'CONFIG_MEANING');
  assert.is(error.exit, 78);
  assert.equal(error.at, { file: 'hast.conf', line: 1, column: 9 });
  const places = error.message.split('\n').filter((line) => line.startsWith('hast.conf:'));
  assert.equal(
    places.map((line) => line.split(':')[1]),
    ['1', '2', '3', '3', '3'],
  );
});

resolving('a configuration survives printing and JSON', () => {
  for (const file of readdirSync(GOLDEN).filter((name) => name.endsWith('.json'))) {
    const text = readFileSync(new URL(file.replace(/json$/, 'conf'), GOLDEN), 'utf8');
    const config = configOf(text);
    const printed = formatConfig(config);
    const again = configOf(printed);
    assert.equal(withoutPlaces(again), withoutPlaces(config), file);
    assert.is(formatConfig(again), printed, file);
    assert.equal(JSON.parse(formatConfigJson(config)), withoutPlaces(config), file);
    assert.equal(JSON.parse(JSON.stringify(config)), config, file);
  }
});

resolving.run();

// ---- Names of the host ---------------------------------------------------------------------

function host(hostname: string, files: Readonly<Record<string, string | Buffer>> = {}): HostReader {
  return {
    hostname: () => hostname,
    file: (path) => {
      const content = files[path];
      return content === undefined ? undefined : Buffer.from(content);
    },
  };
}

const PRODUCT = '/sys/class/dmi/id/product_uuid';
const MACHINE = '3d1219c7c4c5404aaa1f6d2a48adfda4';
const MACHINE_DASHED = '3d1219c7-c4c5-404a-aa1f-6d2a48adfda4';

const names = suite('names of the host');

names('go from the most specific on', () => {
  const all = host('h1.example.org', {
    [PRODUCT]: '4C4C4544-0051-3510-8052-B4C04F4A4D31\n',
    '/etc/machine-id': `${MACHINE}\n`,
    '/etc/hostid': Buffer.from([0x01, 0x00, 0x00, 0x80]),
  });
  assert.equal(nodeNames(all), [
    'h1.example.org',
    'h1',
    '4C4C4544-0051-3510-8052-B4C04F4A4D31',
    MACHINE,
    MACHINE_DASHED,
    'hostid2147483649',
  ]);
});

names('are as few as the host can tell', () => {
  assert.equal(nodeNames(host('h1')), ['h1']);
  const odd = host('h1', {
    [PRODUCT]: '00000000-0000-0000-0000-000000000000',
    '/etc/machine-id': 'uninitialized\n',
    '/etc/hostid': 'abc',
    '/etc/hosts': '# 10.0.0.9 h1\n::1 h1\n10.0.0.8 h10\nx.0.0.1 h1',
  });
  assert.equal(nodeNames(odd), ['h1']);
});

names('take the host id from the hosts file as gethostid(3) does', () => {
  const hosts = '127.0.0.1 localhost\n127.0.1.1\th1.example.org h1 # me\n';
  // 127.0.1.1 read as a little-endian number, its halves swapped
  assert.equal(nodeNames(host('h1', { '/etc/hosts': hosts })), ['h1', `hostid${0x007f0101}`]);
});

names('are missing only with the host name', () => {
  try {
    nodeNames(host(''));
    assert.unreachable();
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    assert.is(error.code, 'CONFIG_HOST');
    assert.is(error.exit, 78);
  }
});

names('match exactly, UUIDs in either case', () => {
  const all = ['h1.example.org', 'h1', MACHINE, MACHINE_DASHED, 'hostid7'];
  for (const name of [...all, MACHINE.toUpperCase(), MACHINE_DASHED.toUpperCase()]) {
    assert.ok(matchesNode(name, all), name);
  }
  for (const name of ['H1', 'h1.example', 'h2', 'HOSTID7', 'hostid07', MACHINE.slice(1)]) {
    assert.not(matchesNode(name, all), name);
  }
});

names('of this very host are there', () => {
  assert.ok(hostNames().length > 0);
  assert.ok(hostFamilies().ipv4 || hostFamilies().ipv6);
});

names.run();

// ---- Files ---------------------------------------------------------------------------------

async function fileError(path: string): Promise<HastError> {
  try {
    await readConfig(path, TEST_NAMES);
  } catch (error) {
    if (error instanceof HastError) return error;
    throw error;
  }
  throw new Error(`read: ${path}`);
}

const reading = suite('reading hast.conf');

reading('gives the configuration or says which file is wrong', () =>
  inTempdir(async (directory) => {
    const path = join(directory, 'hast.conf');
    writeFileSync(
      path,
      '\ufefftimeout 7 # \u00e9\nresource a { local b on fbsd_h1 { remote none } }',
    );
    const config = await readConfig(path, TEST_NAMES);
    assert.is(config.resources[0]?.timeoutSeconds, 7);
    assert.equal(config.resources[0]?.position, { file: path, line: 2, column: 1 });
    writeFileSync(path, 'timeout x');
    const error = await fileError(path);
    assert.is(error.code, 'CONFIG_SYNTAX');
    assert.ok(error.message.startsWith(`${path}:1:9: `));
  }),
);

reading('names path and system error of what cannot be read', () =>
  inTempdir(async (directory) => {
    const missing = await fileError(join(directory, 'none'));
    assert.is(missing.code, 'CONFIG_FILE');
    assert.is(missing.exit, 72);
    assert.is(missing.message, `${join(directory, 'none')}: ENOENT: no such file or directory`);
    mkdirSync(join(directory, 'folder'));
    const folder = await fileError(join(directory, 'folder'));
    assert.is(folder.exit, 72);
    assert.match(folder.message, /folder: EISDIR: /);
  }),
);

reading('ends with a file without end', async () => {
  const error = await fileError('/dev/zero');
  assert.is(error.code, 'CONFIG_FILE');
  assert.match(error.message, /^\/dev\/zero: the file is larger than/);
});

reading.run();
