// Originals of version 0, 1 and 2 on the other side of a real daemon, in both roles.
import { randomBytes } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import type { NbdClient } from '../helper/nbd.ts';
import {
  type Answer,
  COMMAND,
  OriginalPrimary,
  type OriginalPrimaryFacts,
  OriginalSecondary,
  type Seen,
  VERSIONS,
  type Version,
} from '../helper/original.ts';
import {
  LIMIT_MS,
  MODES,
  type Node,
  noPair,
  Pair,
  type PairOptions,
  withClient,
  withPair,
} from '../helper/pair.ts';
import { CODECS, type Codec, PLAIN } from '../helper/payload.ts';
import { unless } from '../helper/skip.ts';

const peers = suite('old peers');
const add = unless(peers, noPair());

const KIB = 1024;
const MIB = 1024 * KIB;
const EXTENT = 2 * MIB;
const LONGEST = 128 * KIB;
const RESUID = 0x1122334455667788n;
const EINVAL = 22;

/** What a version knows: the first one neither compressed nor hashed. */
function codecsOf(version: Version): readonly Codec[] {
  return version === 0 ? [PLAIN] : CODECS;
}

/** Zeros, what compresses, what does not, and sizes at the edges of both. */
function blocks(): Buffer[] {
  const sizes = [512, 1024, 1536, 4096, LONGEST];
  return sizes.flatMap((size) => {
    const text = Buffer.alloc(size, `${randomBytes(6).toString('hex')} and so on; `);
    return [Buffer.alloc(size), text, randomBytes(size)];
  });
}

function mustBeEqual(what: string, is: Buffer, wanted: Buffer): void {
  if (is.equals(wanted)) return;
  const at = is.findIndex((byte, i) => byte !== wanted[i]);
  assert.unreachable(`${what}: ${is.length} and ${wanted.length} bytes differ at ${at}`);
}

async function good(answer: Promise<Answer>): Promise<Answer> {
  const all = await answer;
  assert.is(all.error, 0);
  return all;
}

async function counters(node: Node): Promise<readonly unknown[]> {
  const { localcnt, remotecnt } = await node.metadata();
  return [Number(localcnt), Number(remotecnt)];
}

// ---- The original as primary ------------------------------------------------------------------

/** A test on `b` alone, our secondary. */
function asSecondary(body: (b: Node, pair: Pair) => Promise<void>, options: PairOptions = {}) {
  return withDeadline(LIMIT_MS, () =>
    withPair(Pair.make({ only: 'b', ...options }), async (pair) => {
      await pair.b.take('secondary');
      await body(pair.b, pair);
    }),
  );
}

/** Connects as soon as the session before has ended. */
async function meet(
  { port }: Node,
  facts: Omit<OriginalPrimaryFacts, 'port'>,
): Promise<OriginalPrimary> {
  return OriginalPrimary.connect({ port, ...facts });
}

/** All that a primary does over one connection. `image` is what the disk then has. */
async function workOver(primary: OriginalPrimary, image: Buffer, memsync: boolean): Promise<void> {
  const written = blocks();
  const step = 2 * LONGEST;
  const answers = await Promise.all(
    written.map((data, i) => {
      data.copy(image, i * step);
      return good(primary.write(i * step, data, memsync));
    }),
  );
  const words = memsync ? ['received', 'done'] : ['done'];
  for (const answer of answers) assert.equal(answer.words, words);
  primary.keepalive();
  await good(primary.flush());
  for (const [i, data] of written.entries()) {
    mustBeEqual(`block ${i}`, (await good(primary.read(i * step, data.length))).data, data);
  }
  // A DELETE is of any length; a request that cannot be is answered once, and harms no other.
  const hole = 6 * EXTENT;
  image.fill(0, hole, hole + 3 * EXTENT);
  await good(primary.write(hole, randomBytes(4 * KIB)));
  await good(primary.delete(hole, 3 * EXTENT));
  const refused = await primary.write(100, randomBytes(512), memsync);
  assert.is(refused.error, EINVAL);
  assert.is(refused.words.length, 1);
  assert.is((await primary.read(image.length, 512)).error, EINVAL);
  assert.ok((await good(primary.read(hole, 4 * KIB))).data.every((byte) => byte === 0));
}

for (const version of VERSIONS) {
  add(
    `an original of version ${version} as primary finds its bytes, and its habits respected`,
    asSecondary(
      async (b) => {
        const image = Buffer.alloc(Number((await b.metadata()).datasize));
        let headVersion: number | undefined;
        for (const [turn, codec] of codecsOf(version).entries()) {
          const virgin = turn === 0;
          const primary = await meet(b, { version, resuid: RESUID, virgin, headVersion });
          // The second time it carries what was agreed on; both are in step.
          headVersion = version;
          const { answer, map } = primary;
          assert.is(Number(answer.get('datasize', 'int64')), image.length);
          assert.is(answer.get('extentsize', 'int32'), EXTENT);
          assert.is(answer.get('syncsrc', 'uint8'), 1);
          assert.equal([answer.has('virgin'), map.length > 0], [virgin, !virgin]);
          assert.ok(map.every((byte) => byte === 0));
          primary.codec = codec;
          await workOver(primary, image, version === 2 && turn % 2 === 0);
          assert.equal(primary.problems, []);
          primary.close();
          await b.when('alone', ({ worker, role }) => worker === null && role === 'secondary');
        }
        mustBeEqual('the disk', await b.data(), image);
        assert.is((await b.metadata()).resuid, RESUID);
        assert.equal(await counters(b), [0, 0], 'a secondary does not change them');
      },
      { compression: 'lzf', checksum: version === 0 ? 'none' : 'sha256' },
    ),
  );
}

add(
  "what an original may not be is refused in HAST's words, as primary",
  asSecondary(async (b) => {
    const refusal = (facts: Partial<OriginalPrimaryFacts>) =>
      OriginalPrimary.connect({ port: b.port, version: 2, resuid: RESUID, ...facts }).then(
        () => 'taken',
        (error: Error) => error.message,
      );
    assert.is(await refusal({ resource: 'other' }), 'Resource not configured.');
    (await meet(b, { version: 2, resuid: RESUID, virgin: true })).close();
    await b.when('alone', ({ worker }) => worker === null);
    assert.is(
      await refusal({ resuid: 5n }),
      `Resource unique ID mismatch (primary=5, secondary=${RESUID}).`,
    );
    await b.when('the refused one gone', ({ worker }) => worker === null);
    await b.take('primary');
    const acts = 'for the resource and not as secondary.';
    assert.is(await refusal({}), `Remote node acts as primary ${acts} (wait)`);
    const client = await b.connect();
    assert.is((await client.write(0, randomBytes(4 * KIB))).error, 0);
    client.destroy();
    await b.take('init');
    assert.is(await refusal({}), `Remote node acts as init ${acts}`);
    await b.take('secondary');
    assert.is(await refusal({ localcnt: 1 }), 'Split-brain condition!');
    const { lastError, role } = await b.status();
    assert.equal([lastError?.code, role], ['PEER_SPLIT_BRAIN', 'secondary']);
    // One that has not written is behind, and is told so.
    const behind = await meet(b, { version: 2, resuid: RESUID });
    assert.is(behind.answer.get('syncsrc', 'uint8'), 2);
    assert.is((behind.map[0] ?? 0) & 1, 1, 'the extent that was written is marked');
    behind.close();
  }),
);

add(
  'a disk larger than its metadata say keeps its first bytes',
  asSecondary(
    async (b) => {
      const block = randomBytes(8 * KIB);
      const first = await meet(b, { version: 2, resuid: RESUID, virgin: true });
      await good(first.write(0, block));
      await good(first.flush());
      first.close();
      await b.when('alone', ({ worker }) => worker === null);
      // The first request of a connection clears the map, which was made for less than the disk.
      const second = await meet(b, { version: 2, resuid: RESUID });
      assert.is(second.map.length, 512);
      mustBeEqual('the data', (await good(second.read(0, block.length))).data, block);
      second.close();
    },
    {
      diskBytes: 1024 * MIB,
      create: ['--layout', 'hast', '-m', '64m', '-e', '64k'],
    },
  ),
);

// ---- The original as secondary ----------------------------------------------------------------

/** A test on `a` alone, our primary, which is to meet an original. */
function asPrimary(
  version: Version,
  body: (a: Node, original: OriginalSecondary, pair: Pair) => Promise<void>,
  options: PairOptions = {},
) {
  return withDeadline(LIMIT_MS, () =>
    withPair(Pair.make({ only: 'a', timeoutSeconds: 5, ...options }), async (pair) => {
      const bytes = Number((await pair.a.metadata()).datasize);
      const original = await OriginalSecondary.make(pair.b.port, version, bytes);
      try {
        await body(pair.a, original, pair);
        assert.equal(original.problems, []);
      } finally {
        original.close();
      }
    }),
  );
}

async function reload(pair: Pair, changes: Partial<PairOptions>): Promise<void> {
  pair.writeConfig({ timeoutSeconds: 5, ...changes });
  await pair.a.reload();
}

async function write(client: NbdClient, at: number, data: Buffer): Promise<void> {
  assert.is((await client.write(at, data)).error, 0);
}

const writesOf = (seen: readonly Seen[]) => seen.filter(({ cmd }) => cmd === COMMAND.write);

/** The compression that the configuration means for these bytes. */
function compressionFor({ compression }: Codec, data: Buffer): string {
  if (compression === 'none') return 'none';
  if (data.every((byte) => byte === 0)) return 'hole';
  const compresses = data.indexOf('and so on') >= 0 && data.length >= 1536;
  return compression === 'lzf' && compresses ? 'lzf' : 'none';
}

/** Every mode and codec over one connection: what the original then has, and how it came. */
async function everySetting(
  pair: Pair,
  original: OriginalSecondary,
  client: NbdClient,
): Promise<void> {
  for (const mode of MODES) {
    for (const codec of codecsOf(original.version)) {
      await reload(pair, { mode, ...codec });
      const from = original.seen.length;
      const written = blocks();
      for (const [i, data] of written.entries()) await write(client, i * 2 * LONGEST, data);
      assert.is((await client.flush()).error, 0);
      const come = writesOf(original.seen.slice(from));
      const what = `${mode}, ${JSON.stringify(codec)}`;
      assert.is(come.length, written.length, what);
      for (const [i, data] of written.entries()) {
        const at = i * 2 * LONGEST;
        mustBeEqual(`${what}: block ${i}`, original.disk.subarray(at, at + data.length), data);
        const compression = compressionFor(codec, data);
        assert.equal(come[i], {
          cmd: COMMAND.write,
          offset: at,
          length: data.length,
          memsync: mode === 'memsync' && original.version === 2,
          codec: { compression, checksum: codec.checksum },
        });
      }
    }
  }
}

for (const version of VERSIONS) {
  add(
    `an original of version ${version} as secondary gets what it knows, in every mode`,
    asPrimary(version, async (a, original, pair) => {
      await reload(pair, { ...PLAIN });
      await a.take('primary');
      assert.is(original.hello?.has('virgin'), true);
      assert.is((await a.inSync()).worker?.protocolVersion, version);
      await withClient(a, async (client) => {
        await everySetting(pair, original, client);
        await reload(pair, { mode: 'memsync', ...PLAIN });

        // A long write comes in pieces, a trim as a DELETE.
        const long = randomBytes(MIB);
        const from = original.seen.length;
        await write(client, 8 * EXTENT, long);
        assert.is((await client.trim(9 * EXTENT, EXTENT)).error, 0);
        const pieces = original.seen.slice(from);
        assert.is(writesOf(pieces).length, MIB / LONGEST);
        assert.is(pieces.at(-1)?.cmd, COMMAND.delete);

        // Written alone: counted once, and copied from the lowest extent on.
        original.busy = Number.POSITIVE_INFINITY;
        original.drop();
        await a.degraded();
        const alone = [randomBytes(LONGEST), randomBytes(LONGEST)] as const;
        await write(client, 11 * EXTENT, alone[1]);
        await write(client, 10 * EXTENT, alone[0]);
        assert.equal(await counters(a), [1, 0]);
        const before = original.seen.length;
        original.busy = 0;
        await a.inSync();
        const copied = writesOf(original.seen.slice(before));
        assert.ok(copied.every(({ memsync }) => !memsync));
        const extents = copied.map(({ offset }) => Math.floor(offset / EXTENT));
        assert.is(extents[0], Math.min(...extents), 'chunks of an extent come in any order');
        assert.ok(original.seen.every(({ cmd }) => cmd <= COMMAND.keepalive));
      });
      assert.equal(await counters(a), [0, 0], 'mirrored at the end of the pass');
      assert.equal([original.localcnt, original.remotecnt], [0, 0]);
      mustBeEqual('both', original.disk, await a.data());
    }),
  );
}

add(
  'a reload leaves an old secondary in fullsync, and the next version 2 gets memsync',
  asPrimary(1, async (a, original, pair) => {
    await a.take('primary');
    await a.inSync();
    const lastWrite = () => writesOf(original.seen).at(-1)?.memsync;
    await withClient(a, async (client) => {
      for (const mode of ['memsync', 'async', 'memsync'] as const) {
        await reload(pair, { mode });
        await write(client, 0, randomBytes(4 * KIB));
        assert.is((await client.flush()).error, 0);
        assert.is(lastWrite(), false, mode);
      }
      // In fullsync: no answer before the peer's.
      original.silent = true;
      let answered = false;
      const slow = write(client, 0, randomBytes(4 * KIB)).then(() => {
        answered = true;
      });
      const { inFlight } = (await a.when('in flight', ({ worker }) => worker?.inFlight === 1))
        .worker ?? { inFlight: 0 };
      assert.equal([inFlight, answered], [1, false]);
      original.silent = false;
      await slow;
      original.version = 2;
      original.drop();
      await a.when('version 2', ({ worker }) => worker?.protocolVersion === 2);
      await a.inSync();
      await write(client, 0, randomBytes(4 * KIB));
      assert.is((await client.flush()).error, 0);
      assert.is(lastWrite(), true);
    });
  }),
);

for (const version of VERSIONS) {
  add(
    `a primary with a new original of version ${version} copies all of it, and both counters are 0`,
    asPrimary(
      version,
      async (a, original) => {
        await a.take('primary');
        await a.inSync();
        await withClient(a, async (client) => {
          for (let at = 0; at < 8 * EXTENT; at += EXTENT) await write(client, at, randomBytes(MIB));
          // Another disk in the place of the one before. It says nothing at the end of a pass.
          original.drop();
          original.disk.fill(0xee);
          original.resuid = 0n;
          const before = original.seen.length;
          await a.when('copying', () => original.seen.length > before);
          assert.is(original.hello?.has('virgin'), false);
          await a.inSync();
        });
        assert.equal(await counters(a), [0, 0]);
        mustBeEqual('both', original.disk, await a.data());
      },
      { compression: version === 0 ? 'none' : 'hole' },
    ),
  );
}

add(
  'a primary that is behind reads from its original, in every mode',
  asPrimary(2, async (a, original, pair) => {
    await a.take('primary');
    await a.inSync();
    for (const [turn, mode] of MODES.entries()) {
      await reload(pair, { mode });
      // The original was primary alone in between, and is not any more.
      await a.take('secondary');
      original.localcnt = turn + 1;
      original.codec = CODECS[turn * 3 + turn] ?? PLAIN;
      for (const extent of [1, 5, 15]) {
        const bytes = randomBytes(EXTENT / 2);
        bytes.fill('text ', 0, EXTENT / 8);
        bytes.copy(original.disk, extent * EXTENT);
        original.map[extent >> 3] = (original.map[extent >> 3] ?? 0) | (1 << (extent & 7));
      }
      const before = original.seen.length;
      await a.take('primary');
      await withClient(a, async (client) => {
        const { error, data } = await client.read(5 * EXTENT, MIB);
        assert.is(error, 0);
        mustBeEqual('a read', data, original.disk.subarray(5 * EXTENT, 5 * EXTENT + MIB));
      });
      await a.inSync();
      const come = original.seen.slice(before);
      assert.ok(come.some(({ cmd }) => cmd === COMMAND.read));
      assert.is(writesOf(come).length, 0);
      assert.equal(await counters(a), [0, turn + 1]);
      mustBeEqual(mode, await a.data(), original.disk);
    }
  }),
);

add(
  'a longer map of an original is taken, and what is marked behind the data means nothing',
  asPrimary(2, async (a, original) => {
    await a.take('primary');
    await a.inSync();
    await withClient(a, (client) => write(client, 3 * EXTENT, randomBytes(4 * KIB)));
    original.drop();
    original.map = Buffer.alloc(4096, 0xff).fill(0, 0, 3);
    original.map[0] = 1 << 3;
    original.disk.fill(0, 3 * EXTENT, 4 * EXTENT);
    await a.when('connected again', ({ worker }) => {
      return original.connects === 2 && worker?.state === 'in-sync';
    });
    mustBeEqual('both', original.disk, await a.data());
  }),
);

add(
  'a primary that had to wait for an original synchronises at once',
  asPrimary(2, async (a, original) => {
    await a.take('primary');
    await a.inSync();
    await a.take('secondary');
    original.busy = 2;
    original.disk.fill(0x11, 0, 4 * KIB);
    original.map[0] = 1;
    await a.take('primary');
    await a.inSync();
    assert.equal([original.busy, original.connects], [0, 2]);
    mustBeEqual('both', original.disk, await a.data());
  }),
);

add(
  'an original that is no match is not connected to, and its reason is told',
  asPrimary(
    2,
    async (a, original) => {
      const wrong: readonly (readonly [Partial<OriginalSecondary>, RegExp])[] = [
        [{ datasize: original.disk.length - 4096 }, /--layout hast/],
        [{ datasize: original.disk.length, extentBytes: EXTENT / 2 }, /extent/],
        [{ extentBytes: EXTENT, resuid: 5n }, /unique ID mismatch/],
      ];
      for (const [change, said] of wrong) {
        Object.assign(original, change);
        await a.take('primary');
        const { notes } = await a.when('a reason', (status) => said.test(status.notes.join()));
        assert.ok(notes.length > 0);
        await a.degraded();
        await withClient(a, (client) => write(client, 0, randomBytes(4 * KIB)));
        await a.take('init');
      }
      // Both wrote alone.
      Object.assign(original, { resuid: (await a.metadata()).resuid, localcnt: 1 });
      await a.take('primary');
      await a.when('split-brain', ({ notes }) => /Split-brain condition!/.test(notes.join()));
      assert.equal(original.seen, [], 'nothing was ever sent to it');
    },
    { timeoutSeconds: 2 },
  ),
);

peers.run();
