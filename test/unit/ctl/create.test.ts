// create and dump on real files and devices; where bytes count, by running the real command.
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { native } from '../../../src/native.ts';
import { withDeadline } from '../../helper/deadline.ts';
import { fakeDaemon, fakeSocket, resourceOf, sendJson } from '../../helper/fake-daemon.ts';
import { configText, type Ended, hastctl, hastctlAs, hastctlHere } from '../../helper/hastctl.ts';
import { missing, notRoot, unless } from '../../helper/skip.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const MIB = 1024 * 1024;

interface Case {
  readonly name: string;
  readonly provider_size: string;
  readonly hastctl_create_options: readonly string[];
  readonly resource: string;
  readonly exit_status: number;
  readonly metadata_nonzero_prefix_hex?: string;
  readonly activemap_length?: number;
  readonly hastctl_dump_stdout?: string;
}
const url = new URL('../../vectors/metadata.json', import.meta.url);
const CASES: readonly Case[] = JSON.parse(readFileSync(url, 'utf8')).cases;

/** Where the reference leaves a defect, ours refuses: a remainder below a sector, an abort. */
const REFUSED: Readonly<Record<string, number>> = { 'odd-size': 65, 'extent-3072': 65 };

/** A place with one resource `data` on `data.img`, and the command to run on it. */
class Place {
  readonly directory: string;
  readonly image: string;
  readonly #file: string;

  constructor(directory: string, size = 16 * MIB, locals: Record<string, string> = {}) {
    this.directory = directory;
    this.image = join(directory, 'data.img');
    this.#file = join(directory, 'hast.conf');
    writeFileSync(this.image, '');
    truncateSync(this.image, size);
    this.configure({ data: this.image, ...locals });
  }

  configure(locals: Record<string, string>): void {
    writeFileSync(this.#file, configText(this.directory, locals));
  }

  /** Without a process of its own. */
  run(verb: string, ...args: readonly string[]): Promise<Ended> {
    return hastctlHere(verb, '-c', this.#file, '-n', 'n', ...args);
  }

  /** The real command. */
  command(verb: string, ...args: readonly string[]): Promise<Ended> {
    return hastctl(verb, '-c', this.#file, '-n', 'n', ...args);
  }

  /** Bytes of the image. */
  bytes(offset: number, length: number): Buffer {
    const fd = openSync(this.image, 'r');
    const bytes = Buffer.alloc(length);
    const got = readSync(fd, bytes, 0, length, offset);
    closeSync(fd);
    return bytes.subarray(0, got);
  }

  put(offset: number, bytes: Buffer | string): void {
    const fd = openSync(this.image, 'r+');
    writeSync(fd, Buffer.from(bytes as Buffer), 0, undefined, offset);
    closeSync(fd);
  }
}

const SILENT = { exit: 0, stdout: '', stderr: '' };

/** The command ended with `exit`, printed nothing regular, and said this. */
function ended(result: Ended, exit: number, said: RegExp): void {
  assert.match(result.stderr, said);
  assert.equal([result.exit, result.stdout], [exit, '']);
}

const create = suite('hastctl create');

function inPlace(
  name: string,
  body: (place: Place) => Promise<void>,
  add: (name: string, body: () => Promise<void>) => void = create,
): void {
  add(
    name,
    withDeadline(120_000, () => inTempdir((directory) => body(new Place(directory)))),
  );
}

// ---- Bytes ----------------------------------------------------------------------------------

for (const each of CASES) {
  const exit = REFUSED[each.name] ?? each.exit_status;
  const outcome = exit === 0 ? 'to the byte' : `ends with ${exit}`;
  create(
    `--layout hast: ${each.name} ${outcome}`,
    withDeadline(120_000, () =>
      inTempdir(async (directory) => {
        const place = new Place(directory, Number(each.provider_size));
        place.configure({ [each.resource]: place.image });
        const map = each.activemap_length ?? 512;
        place.put(4096, Buffer.alloc(map + 512, 0xee));
        const options = each.hastctl_create_options;
        const result = await place.command('create', '--layout', 'hast', ...options, each.resource);
        if (exit !== 0) {
          ended(result, exit, new RegExp(`^\\[ERROR\\] \\[${each.resource}\\] .*\\(.*\\)\\n$`));
          assert.equal(place.bytes(0, 4096), Buffer.alloc(4096));
          return;
        }
        assert.equal(result, SILENT);
        const prefix = Buffer.from(each.metadata_nonzero_prefix_hex ?? '', 'hex');
        assert.equal(place.bytes(0, prefix.length), prefix);
        const rest = 4096 - prefix.length + map;
        assert.equal(place.bytes(prefix.length, rest), Buffer.alloc(rest));
        // Behind the map not one byte is touched.
        assert.equal(place.bytes(4096 + map, 512), Buffer.alloc(512, 0xee));
        const dumped = await place.run('dump');
        assert.is(dumped.stderr, '');
        const text = dumped.stdout.replace(/ \([0-9.]+[KMGTPE]?B\)$/gm, '');
        assert.is(text, each.hastctl_dump_stdout);
      }),
    ),
  );
}

inPlace('aligned by default: the data begins at a multiple of 1 MiB', async (place) => {
  place.put(4096, Buffer.alloc(MIB, 0xee));
  assert.equal(await place.run('create', '-m', '8m', 'data'), SILENT);
  const { stdout } = await place.run('dump', '--json', 'data');
  const [data] = JSON.parse(stdout).resources;
  assert.is(data.localoff, MIB);
  assert.is(data.datasize, 7 * MIB);
  assert.is(data.historyKnown, false);
  assert.equal(place.bytes(4096, MIB - 4096), Buffer.alloc(MIB - 4096));
  assert.equal(place.bytes(MIB, 4096), Buffer.alloc(4096, 0xee));
});

inPlace('--contents-equal leaves a record that dump shows', async (place) => {
  assert.equal(await place.run('create', '--contents-equal', 'data'), SILENT);
  const { stdout } = await place.run('dump', '--json');
  const [data] = JSON.parse(stdout).resources;
  assert.equal([data.historyKnown, data.syncTarget, data.localStale], [true, false, false]);
});

// ---- Refusals -------------------------------------------------------------------------------

inPlace('over its own metadata: allowed, its counters are told', async (place) => {
  assert.equal(await place.run('create', 'data'), SILENT);
  const fields = {
    resource: 'data',
    datasize: BigInt(15 * MIB),
    extentsize: 2 * MIB,
    keepdirty: 64,
    offset: BigInt(MIB),
    resuid: 77n,
    localcnt: 5n,
    remotecnt: 4n,
    prevrole: 'primary',
  } as const;
  place.put(0, native.codec.metadataBlock(fields, false));
  const told = /^\[WARNING\] \[data\] .*resuid 77, localcnt 5, remotecnt 4, prevrole primary\n$/;
  ended(await place.run('create', 'data'), 0, told);
});

inPlace('over anything else: 73 with its name, until -f', async (place) => {
  place.configure({ other: place.image });
  assert.equal(await place.run('create', 'other'), SILENT);
  place.configure({ data: place.image });
  const before = place.bytes(0, 8192);
  const refusal = await place.run('create', 'data');
  ended(refusal, 73, /holds the HAST resource other \(resuid 0, .*\) \(.*create -f/);
  assert.equal(place.bytes(0, 8192), before);
  ended(await place.run('create', '-f', 'data'), 0, /^\[WARNING\] .* resource other: resuid 0/);

  place.put(0, Buffer.alloc(4096));
  place.put(1080, Buffer.from([0x53, 0xef]));
  ended(await place.run('create', 'data'), 73, /holds an ext2 file system \(create -f/);
  assert.equal(await place.run('create', '-f', 'data'), SILENT);
  assert.match((await place.run('dump', 'data')).stdout, /^resource: data\n/);
});

inPlace('an unknown name: 65, the others are made, the first failure decides', async (place) => {
  const result = await place.run('create', 'nope', 'data');
  ended(result, 65, /^\[ERROR\] \[nope\] hast\.conf names no such resource \(it names data\)\n$/);
  assert.is((await place.run('dump', 'data')).exit, 0);
  ended(await place.run('create', 'all'), 65, /^\[ERROR\] \[all\] hast\.conf names no such/);
});

inPlace('sizes of 0 are those that nobody named', async (place) => {
  const sizes = async (...args: readonly string[]) => {
    assert.is((await place.run('create', ...args, 'data')).exit, 0);
    return (await place.run('dump')).stdout;
  };
  assert.is(await sizes('-m', '0', '-e', '0', '-k', '0'), await sizes());
});

inPlace('what cannot be opened: 66', async (place) => {
  mkdirSync(join(place.directory, 'folder'));
  for (const [local, said] of [
    [join(place.directory, 'none'), /ENOENT|No such file/],
    [join(place.directory, 'folder'), /must be a block device or a regular file/],
    ['/dev/null', /must be a block device or a regular file/],
  ] as const) {
    place.configure({ data: local });
    ended(await place.run('create', 'data'), 66, said);
  }
});

inPlace('sizes that cannot be: 65, and nothing is written', async (place) => {
  const said = /^\[ERROR\] \[data\] .*\(.*\)\n$/;
  for (const args of [
    ['-m', '17m'],
    ['-m', '1000'],
    ['-m', '8388609'],
    ['-m', '4096'],
    ['-m', '2m'],
    ['-e', '256'],
    ['-e', '1000'],
    ['-e', '3072'],
    ['-e', '2g'],
    ['-k', '0xffffffff'],
  ]) {
    ended(await place.run('create', ...args, 'data'), 65, said);
  }
  assert.equal(place.bytes(0, 8192), Buffer.alloc(8192));
});

inPlace(
  'a lock that a second process holds: waited for up to a second, then 73',
  async (place) => {
    const hold = async (script: string) => {
      const holder = spawn('flock', [place.image, 'sh', '-c', `echo held; ${script}`], {
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      await new Promise((resolve) => holder.stdout.once('data', resolve));
      return { holder, gone: new Promise((resolve) => holder.once('close', resolve)) };
    };
    const long = await hold('cat');
    const start = Date.now();
    const result = await place.run('create', '-f', 'data');
    ended(result, 73, /another process holds its lock \(.*hastctl role init data/);
    assert.ok(Date.now() - start >= 1000);
    assert.equal(place.bytes(0, 4096), Buffer.alloc(4096));
    // dump needs no lock.
    ended(await place.run('dump', 'data'), 255, /no valid HAST metadata/);
    long.holder.stdin.end();
    await long.gone;
    assert.equal(await place.run('create', 'data'), SILENT);
  },
  unless(create, missing('flock')),
);

inPlace('a running daemon is asked for the role', async (place) => {
  const path = join(place.directory, 'control');
  let role: 'init' | 'secondary' = 'secondary';
  let known = true;
  const daemon = await fakeDaemon(path, (_request, response) => {
    if (known) sendJson(response, 200, resourceOf('data', { role }));
    else sendJson(response, 404, { code: 'RESOURCE_UNKNOWN', message: 'no', exit: 1 });
  });
  try {
    const refusal = /the role of data is secondary \(hastctl role init data first\)/;
    ended(await place.run('create', 'data'), 73, refusal);
    ended(await place.run('create', '-f', 'data'), 73, refusal);
    known = false;
    assert.equal(await place.run('create', 'data'), SILENT);
    known = true;
    role = 'init';
    assert.is((await place.run('create', 'data')).exit, 0);
  } finally {
    await daemon.close();
  }
  const broken = await fakeSocket(path, (socket) => socket.end('?'));
  try {
    ended(await place.run('create', 'data'), 73, /does not say which role data has/);
  } finally {
    await broken.close();
  }
});

/** The user to be without privileges as: `nobody`, or oneself. */
const PLAIN = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};

function plainReason(): string | undefined {
  if (PLAIN.uid === undefined) return undefined;
  const script = 'require(process.argv[1])';
  const addon = new URL('../../../package.json', import.meta.url).pathname;
  const { status } = spawnSync(process.execPath, ['-e', script, addon], PLAIN);
  return status === 0 ? undefined : 'the installation is not readable for an unprivileged user';
}

inPlace(
  'a file or a folder that this user may not write: 66, nothing is changed',
  async (place) => {
    const asPlain = (verb: string) =>
      hastctlAs(PLAIN, verb, '-c', join(place.directory, 'hast.conf'), '-n', 'n', 'data');
    chmodSync(place.image, 0o444);
    chmodSync(place.directory, 0o555);
    ended(await asPlain('create'), 66, /Permission denied/);
    ended(await asPlain('dump'), 255, /no valid HAST metadata/);
    chmodSync(place.image, 0);
    ended(await asPlain('dump'), 255, /Permission denied/);
    chmodSync(place.directory, 0o700);
  },
  unless(create, plainReason()),
);

// ---- Block devices --------------------------------------------------------------------------

/** A loop device of the image with sectors of that size, or why there can be none. */
function loopReason(): string | undefined {
  const reason = notRoot() ?? missing('losetup') ?? missing('mkfs.ext4');
  if (reason !== undefined) return reason;
  return spawnSync('losetup', ['-f']).status === 0 ? undefined : 'there is no free loop device';
}

inPlace(
  'a block device with sectors of 4096 bytes; mounted, it is refused by name',
  async (place) => {
    const { stdout } = spawnSync('losetup', ['-b', '4096', '-f', '--show', place.image], {
      encoding: 'utf8',
    });
    const device = stdout.trim();
    const mounted = join(place.directory, 'mnt');
    try {
      place.configure({ data: device });
      assert.equal(await place.run('create', '--layout', 'hast', 'data'), SILENT);
      const dumped = await place.run('dump', 'data');
      assert.match(dumped.stdout, /^ {4}localoff: 8192$/m);
      assert.match(dumped.stdout, /^ {4}datasize: 16769024 /m);
      assert.is(dumped.stderr, '');
      ended(await place.run('create', '-e', '2048', 'data'), 65, /less than the sector size/);

      mkdirSync(mounted);
      assert.is(spawnSync('mkfs.ext4', ['-qF', device]).status, 0);
      ended(await place.run('create', 'data'), 73, /holds an ext4 file system/);
      assert.is(spawnSync('mount', [device, mounted]).status, 0);
      ended(
        await place.run('create', '-f', 'data'),
        73,
        new RegExp(`is mounted on ${mounted} \\(`),
      );
    } finally {
      spawnSync('umount', [mounted]);
      spawnSync('losetup', ['-d', device]);
    }
  },
  unless(create, loopReason()),
);

inPlace(
  'a file whose direct I/O takes 4096 bytes: what is behind the map stays',
  async (place) => {
    truncateSync(place.image, 64 * MIB);
    const { stdout } = spawnSync('losetup', ['-b', '4096', '-f', '--show', place.image], {
      encoding: 'utf8',
    });
    const device = stdout.trim();
    const mounted = join(place.directory, 'mnt');
    mkdirSync(mounted);
    try {
      spawnSync('mkfs.ext4', ['-qF', '-b', '4096', device]);
      assert.is(spawnSync('mount', [device, mounted]).status, 0);
      const inner = join(mounted, 'inner.img');
      writeFileSync(inner, Buffer.alloc(16 * MIB, 0xee));
      place.configure({ data: inner });
      assert.equal(await place.run('create', '--layout', 'hast', 'data'), SILENT);
      const bytes = readFileSync(inner);
      assert.equal(bytes.subarray(4096, 4608), Buffer.alloc(512));
      assert.equal(bytes.subarray(4608, 8192), Buffer.alloc(8192 - 4608, 0xee));
      assert.is((await place.run('dump', 'data')).exit, 0);
    } finally {
      spawnSync('umount', [mounted]);
      spawnSync('losetup', ['-d', device]);
    }
  },
  unless(create, loopReason()),
);

// ---- dump -----------------------------------------------------------------------------------

inPlace(
  'dump: 255 for what cannot be read, 65 for a name, the others are printed',
  async (place) => {
    const second = join(place.directory, 'second.img');
    const empty = join(place.directory, 'empty.img');
    writeFileSync(second, Buffer.alloc(8 * MIB));
    writeFileSync(empty, '');
    const locals = { data: place.image, second, empty, gone: join(place.directory, 'gone') };
    place.configure(locals);
    assert.equal(await place.run('create', 'data', 'second'), SILENT);

    const all = await place.run('dump');
    assert.is(all.exit, 255);
    assert.equal(all.stdout.match(/^resource: .*$/gm), ['resource: data', 'resource: second']);
    assert.match(all.stderr, /^\[ERROR\] \[empty\] .*0 bytes.*\n\[ERROR\] \[gone\] .*No such file/);
    const one = await place.run('dump', 'nope', 'data', 'gone');
    assert.is(one.exit, 65);
    assert.match(one.stdout, /^resource: data\n/);
    assert.is((await place.run('dump', 'all', 'data')).exit, 65);

    const json = JSON.parse((await place.run('dump', '--json')).stdout).resources;
    assert.equal(
      json.map((each: { resource: string }) => each.resource),
      ['data', 'second', 'empty', 'gone'],
    );
    assert.is(json[3].error.exit, 255);

    place.configure({ other: place.image });
    ended(await place.run('dump'), 255, /the metadata is that of resource data/);
    place.configure({ data: place.image });
    truncateSync(place.image, 8 * MIB);
    const shrunk = await place.run('dump');
    assert.is(shrunk.exit, 0);
    assert.match(shrunk.stderr, /the component is smaller than the data/);
  },
);

create.run();
