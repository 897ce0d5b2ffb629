// Garbage at every border of a running hastd: each gets an error, nothing is lost, nothing dies.
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeMessage, type NvEntry } from '../../src/nv.ts';
import { until, withDeadline } from '../helper/deadline.ts';
import { FakePrimary, FakeSecondary, text, u8, u32, u64, Wire } from '../helper/fake-peer.ts';
import type { NbdClient } from '../helper/nbd.ts';
import { type Node, noPair, Pair, type PairOptions, withPair } from '../helper/pair.ts';
import { unless } from '../helper/skip.ts';
import { StampedWriter } from '../helper/writer.ts';

const malformed = suite('malformed');
const add = unless(malformed, noPair());

const LIMIT_MS = 120_000;
const KIB = 1024;
const MIB = 1024 * KIB;

function vectors<T>(name: string): T {
  const path = new URL(`../vectors/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

function story(
  body: (pair: Pair) => Promise<void>,
  make: (options: PairOptions) => Promise<Pair> = Pair.inSync,
) {
  return withDeadline(LIMIT_MS, () => withPair(make({ timeoutSeconds: 2 }), body));
}

/** What must go on whatever is sent: workers, their connection, and the client's writes. */
async function undisturbed(pair: Pair, body: (client: NbdClient) => Promise<void>): Promise<void> {
  const { a, b } = pair;
  const workers = (await Promise.all([a.stats(), b.stats()])).map(({ pid }) => pid);
  const client = await a.connect();
  const writer = new StampedWriter(8 * MIB, 'answered');
  writer.start(client, 8, 100);
  try {
    await body(client);
    const { answered } = writer;
    await until('writes go on', 10_000, () => writer.answered > answered + 100);
  } finally {
    await writer.stop();
  }
  await a.when('in sync', ({ worker }) => worker?.state === 'in-sync', 1000);
  const now = (await Promise.all([a.stats(), b.stats()])).map(({ pid }) => pid);
  assert.equal(now, workers, 'no worker was changed');
  await writer.flush(client);
  await writer.verify(client);
  client.destroy();
  await pair.mustBeEqual();
}

add(
  'a bad configuration ends with 78, and the daemon that runs does not care',
  story(async (pair) => {
    const { a } = pair;
    const good = readFileSync(a.config, 'utf8');
    await undisturbed(pair, async () => {
      for (const bad of ['nonsense', good.replaceAll('}', ''), randomBytes(5000), `${good}{`]) {
        const before = a.output.length;
        writeFileSync(a.config, bad);
        const { code, stderr } = await a.daemon('-F');
        assert.is(code, 78, stderr);
        assert.match(stderr, a.config);
        a.signal('SIGHUP');
        await until('reload', 10_000, () => {
          return a.output.includes('Reload: the configuration stays as it was', before);
        });
      }
      writeFileSync(a.config, good);
    });
  }),
);

// ---- Metadata ---------------------------------------------------------------------------------

function readBlock(path: string): Buffer {
  const fd = openSync(path, 'r');
  const block = Buffer.alloc(4096);
  readSync(fd, block, 0, block.length, 0);
  closeSync(fd);
  return block;
}

function writeBlock(path: string, block: Uint8Array): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, block, 0, block.length, 0);
  closeSync(fd);
}

function metadata(changes: Partial<Record<string, NvEntry>>): Buffer {
  const fields: NvEntry[] = [
    text('resource', 'data'),
    u64('datasize', 33 * MIB),
    u32('extentsize', 2 * MIB),
    u32('keepdirty', 64),
    u64('offset', MIB),
    u64('resuid', 0),
    u64('localcnt', 0),
    u64('remotecnt', 0),
    text('prevrole', 'init'),
  ];
  const area = encodeMessage(
    2,
    fields.map((field) => changes[field.name] ?? field),
  ).subarray(5);
  return Buffer.concat([area, Buffer.alloc(4096 - area.length)]);
}

const BAD_METADATA: readonly (readonly [string, Buffer])[] = [
  ['zeros', Buffer.alloc(4096)],
  ['ones', Buffer.alloc(4096, 0xff)],
  ['text', Buffer.alloc(4096, 'no metadata at all ')],
  [
    'a string without end',
    Buffer.concat([Buffer.from([17, 9, 5, 0, 0, 0]), Buffer.alloc(4090, 65)]),
  ],
  ['another resource', metadata({ resource: text('resource', 'other') })],
  ['an offset beyond the disk', metadata({ offset: u64('offset', 2n ** 50n) })],
  ['an offset in the metadata', metadata({ offset: u64('offset', 0) })],
  ['a size beyond the disk', metadata({ datasize: u64('datasize', 2n ** 60n) })],
  ['no size', metadata({ datasize: u64('datasize', 0) })],
  ['extents of 0 bytes', metadata({ extentsize: u32('extentsize', 0) })],
  ['extents of 3 bytes', metadata({ extentsize: u32('extentsize', 3) })],
  ['an unknown role', metadata({ prevrole: text('prevrole', 'king') })],
  ['a number of the wrong width', metadata({ extentsize: u64('extentsize', 2 * MIB) })],
];

add(
  'metadata that is not good is refused with a text by both roles, and the daemon goes on',
  story(async ({ a, resource }) => {
    const good = readBlock(a.disk);
    const random = Array.from({ length: 3 }, (_, i) => [`random ${i}`, randomBytes(4096)] as const);
    for (const [name, block] of [...BAD_METADATA, ...random]) {
      writeBlock(a.disk, block);
      for (const role of ['secondary', 'primary']) {
        const { status, text: body } = await a.ask('POST', '/role', JSON.stringify({ role }));
        assert.is(status, 500, `${name}, ${role}: ${body}`);
        const failure = JSON.parse(body) as { exit: number; message: string };
        assert.is(failure.exit, 6);
        assert.match(failure.message, /^\S.{10,}/, name);
        assert.is((await a.status()).role, 'init');
      }
    }
    const { code, stderr } = await a.hastctl('role', 'secondary', resource);
    assert.is(code, 6);
    assert.match(stderr, 'metadata');
    assert.is((await a.hastctl('dump', resource)).code, 255);
    writeBlock(a.disk, good);
    await a.role('secondary');
    await a.role('primary');
  }, Pair.make),
);

// ---- The set-up -------------------------------------------------------------------------------

/** Sends bytes to the port, then ends, resets or waits. */
function throwAt(
  port: number,
  bytes: Uint8Array,
  manner: 'end' | 'reset' | 'wait',
): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => socket.destroy());
    socket.on('data', () => {});
    socket.on('close', () => resolve(socket));
    socket.write(bytes, () => {
      if (manner === 'end') socket.end();
      if (manner === 'reset') socket.resetAndDestroy();
      if (manner === 'wait') resolve(socket);
    });
  });
}

function setUpGarbage(): Uint8Array[] {
  const { cases } = vectors<{ cases: { bytes_hex: string | null }[] }>('malformed');
  const areas = vectors<{ cases: { nv_hex: string }[] }>('nv-validate').cases;
  const first = encodeMessage(1, [text('resource', 'data'), u8('version', 2)]);
  const token = { name: 'token', type: 'uint8_array', value: randomBytes(16) } as const;
  const short = { name: 'token', type: 'uint8_array', value: randomBytes(15) } as const;
  return [
    ...cases.flatMap(({ bytes_hex }) => (bytes_hex === null ? [] : Buffer.from(bytes_hex, 'hex'))),
    ...areas.map(({ nv_hex }) => {
      const area = Buffer.from(nv_hex, 'hex');
      const head = Buffer.from([1, 0, 0, 0, 0]);
      head.writeUInt32LE(area.length, 1);
      return Buffer.concat([head, area]);
    }),
    ...Array.from({ length: 20 }, (_, i) => randomBytes(1 + i * i * 7)),
    Buffer.concat([first, randomBytes(100)]),
    first.subarray(0, 20),
    encodeMessage(1, [text('resource', 'x'.repeat(200))]),
    encodeMessage(2, [text('resource', 'data'), token, u64('resuid', 1), u64('localcnt', 9)]),
    encodeMessage(2, [text('resource', 'data'), short]),
    Buffer.from('GET / HTTP/1.1\r\nHost: hastd\r\n\r\n'),
  ];
}

add(
  'garbage at the port of the peers, the recorded cases among it, disturbs no replication',
  story(async (pair) => {
    await undisturbed(pair, async () => {
      const waiting: Socket[] = [];
      for (const { port } of [pair.a, pair.b]) {
        for (const bytes of setUpGarbage()) {
          await throwAt(port, bytes, 'end');
          await throwAt(port, bytes, 'reset');
          waiting.push(await throwAt(port, bytes, 'wait'));
        }
      }
      // A first message alone touches nothing, and is answered though garbage waits.
      for (const one of waiting) one.destroy();
      const wire = await Wire.connect(pair.b.port);
      wire.send(encodeMessage(1, [text('resource', 'data'), u8('version', 2)]));
      assert.is((await wire.message()).get('token', 'uint8_array')?.length, 16);
      wire.destroy();
    });
  }),
);

// ---- A primary that sends garbage -------------------------------------------------------------

type Garbage = readonly [name: string, send: (primary: FakePrimary) => void];

function request(
  cmd: number,
  offset: number | bigint,
  length: number | bigint,
  more: NvEntry[] = [],
) {
  const fields = [u8('cmd', cmd), u64('seq', 900), u64('offset', offset), u64('length', length)];
  return encodeMessage(2, [...fields, ...more]);
}

const GARBAGE: readonly Garbage[] = [
  ['random bytes', (p) => p.requests.send(randomBytes(3000))],
  ['zeros', (p) => p.requests.send(Buffer.alloc(200))],
  ['a message of version 3', (p) => p.requests.send(Buffer.from([3, 0, 0, 0, 0]))],
  ['a message of 4 GiB', (p) => p.requests.send(Buffer.from([2, 255, 255, 255, 255]))],
  ['a message of no field', (p) => p.requests.send(Buffer.from([2, 0, 0, 0, 0]))],
  ['no command', (p) => p.requests.send(encodeMessage(2, [u64('seq', 1)]))],
  ['command 77', (p) => p.requests.send(request(77, 0, 4096))],
  ['an extension that was not agreed on', (p) => p.requests.send(request(9, 0, 4096))],
  ['a READ beyond the end', (p) => p.requests.send(request(1, 2n ** 40n, 4096))],
  ['a READ that wraps', (p) => p.requests.send(request(1, 2n ** 64n - 512n, 4096))],
  ['a READ of half a sector', (p) => p.requests.send(request(1, 100, 200))],
  ['a READ of 1 GiB', (p) => p.requests.send(request(1, 0, 2 ** 30))],
  ['a READ of nothing', (p) => p.requests.send(request(1, 0, 0))],
  ['a WRITE without a payload', (p) => p.requests.send(request(2, 0, 4096))],
  [
    'a WRITE beyond the end',
    (p) =>
      p.requests.send(
        Buffer.concat([request(2, 2n ** 40n, 512, [u32('size', 512)]), randomBytes(512)]),
      ),
  ],
  [
    'a WRITE whose payload is too long',
    (p) =>
      p.requests.send(Buffer.concat([request(2, 0, 512, [u32('size', 1024)]), randomBytes(1024)])),
  ],
  [
    'a WRITE of an unknown compression',
    (p) => {
      const more = [text('compression', 'zip'), u32('size', 100)];
      p.requests.send(Buffer.concat([request(2, 0, 512, more), randomBytes(100)]));
    },
  ],
  [
    'a WRITE of broken LZF',
    (p) => {
      const more = [text('compression', 'lzf'), u32('size', 100)];
      p.requests.send(Buffer.concat([request(2, 0, 512, more), randomBytes(100)]));
    },
  ],
  [
    'a WRITE with a wrong checksum',
    (p) => {
      const hash = { name: 'hash', type: 'uint8_array', value: randomBytes(4) } as const;
      const more = [text('checksum', 'crc32'), hash, u32('size', 512)];
      p.requests.send(Buffer.concat([request(2, 0, 512, more), randomBytes(512)]));
    },
  ],
  [
    'half a payload, then the end',
    (p) => {
      p.requests.send(Buffer.concat([request(2, 0, 4096, [u32('size', 4096)]), randomBytes(2000)]));
      p.requests.socket.end();
    },
  ],
  ['bytes on the wrong connection', (p) => p.replies.send(randomBytes(500))],
  ['a DELETE of everything and more', (p) => p.requests.send(request(3, 0, 2n ** 63n))],
];

add(
  'a primary that sends garbage is sent away: the secondary stays one, and its data stays',
  story(async ({ b }) => {
    await b.role('secondary');
    const facts = { port: b.port, resource: 'data', resuid: 77n };
    const block = randomBytes(64 * KIB);
    let tried = 0;
    const meet = async (): Promise<FakePrimary> => {
      let primary: FakePrimary | undefined;
      await until('a session', 10_000, async () => {
        primary = await FakePrimary.connect(facts).catch(() => undefined);
        return primary !== undefined;
      });
      if (primary === undefined) throw new Error('no session');
      return primary;
    };
    const first = await meet();
    const written = await first.request(2, 0, block.length, block);
    assert.is(written.reply.get('error', 'int16'), undefined);
    first.destroy();
    for (const [name, send] of GARBAGE) {
      const primary = await meet();
      const { data } = await primary.request(1, 0, block.length);
      assert.ok(data.equals(block), `before ${name} the data is there`);
      send(primary);
      // Either the connection ends, or the request is answered with an error.
      await Promise.race([
        primary.replies.message().then(
          (reply) => {
            assert.ok((reply.get('error', 'int16') ?? 0) !== 0, `${name} was answered`);
            return reply;
          },
          () => undefined,
        ),
        name === 'bytes on the wrong connection' ? undefined : primary.requests.end(),
      ]);
      primary.destroy();
      tried += 1;
    }
    const last = await meet();
    assert.ok((await last.request(1, 0, block.length)).data.equals(block), 'the data is there');
    last.destroy();
    assert.is((await b.status()).role, 'secondary');
    assert.is(tried, GARBAGE.length);
  }, Pair.make),
);

add(
  'a payload that never comes whole writes nothing, and ends the session after some seconds',
  story(async ({ b }) => {
    await b.role('secondary');
    const facts = { port: b.port, resource: 'data', resuid: 78n, extended: true };
    const primary = await FakePrimary.connect(facts);
    const half = Buffer.concat([request(2, 0, 4096, [u32('size', 4096)]), randomBytes(2000)]);
    primary.requests.send(half);
    await primary.requests.end(10_000);
    primary.destroy();
    await b.when('no session', ({ worker, role }) => worker === null && role === 'secondary');
    const area = Buffer.alloc(4096);
    const fd = openSync(b.disk, 'r');
    readSync(fd, area, 0, area.length, MIB);
    closeSync(fd);
    assert.ok(area.every((byte) => byte === 0));
  }, Pair.make),
);

// ---- A secondary that answers with garbage ----------------------------------------------------

const TOKEN = { name: 'token', type: 'uint8_array', value: Buffer.alloc(16, 7) } as const;
const GOOD_FIRST = encodeMessage(2, [u8('version', 2), TOKEN]);

function second(changes: Readonly<Record<string, NvEntry>> = {}): Buffer {
  const fields: NvEntry[] = [
    { name: 'datasize', type: 'int64', value: BigInt(33 * MIB) },
    { name: 'extentsize', type: 'int32', value: 2 * MIB },
    u64('localcnt', 0),
    u64('remotecnt', 0),
    u8('syncsrc', 1),
    u32('mapsize', 0),
  ];
  return encodeMessage(
    2,
    fields.map((field) => changes[field.name] ?? field),
  );
}

/** What is said first on connection 1, then as the second answer, then on connection 2. */
type Answers = readonly [name: string, ...answers: readonly Uint8Array[]];

const ANSWERS: readonly Answers[] = [
  ['nothing but the end'],
  ['random bytes', randomBytes(4000)],
  ['a message of 4 GiB', Buffer.from([2, 255, 255, 255, 255])],
  ['a message of no field', Buffer.from([2, 0, 0, 0, 0])],
  ['no token', encodeMessage(2, [u8('version', 2)])],
  ['a short token', encodeMessage(2, [u8('version', 2), { ...TOKEN, value: Buffer.alloc(15) }])],
  ['version 9', encodeMessage(2, [u8('version', 9), TOKEN])],
  ['a long refusal', encodeMessage(2, [text('errmsg', 'no '.repeat(3000))])],
  ['random bytes as the second answer', GOOD_FIRST, randomBytes(4000)],
  ['an empty second answer', GOOD_FIRST, Buffer.from([2, 0, 0, 0, 0])],
  [
    'another size',
    GOOD_FIRST,
    second({ datasize: { name: 'datasize', type: 'int64', value: 4096n } }),
  ],
  [
    'no extents',
    GOOD_FIRST,
    second({ extentsize: { name: 'extentsize', type: 'int32', value: 0 } }),
  ],
  ['an unknown source', GOOD_FIRST, second({ syncsrc: u8('syncsrc', 9) })],
  ['a map of 1 GiB', GOOD_FIRST, second({ mapsize: u32('mapsize', 2 ** 30) })],
  ['a map that never comes', GOOD_FIRST, second({ mapsize: u32('mapsize', 512) })],
  ['random bytes as replies', GOOD_FIRST, second(), randomBytes(4000)],
  ['a reply to nothing', GOOD_FIRST, second(), encodeMessage(2, [u64('seq', 4711)])],
  ['a reply without a number', GOOD_FIRST, second(), encodeMessage(2, [u8('x', 1)])],
  ['a reply of version 3', GOOD_FIRST, second(), Buffer.from([3, 0, 0, 0, 0])],
];

/** The primary tries again as soon as its peer is heard of. */
async function callOn(node: Node): Promise<void> {
  const wire = await Wire.connect(node.port);
  wire.send(encodeMessage(1, [text('resource', 'data'), u8('version', 2)]));
  await wire.message().catch(() => undefined);
  wire.destroy();
}

add(
  'a secondary that answers with garbage leaves the primary degraded and serving',
  story(async ({ a, b }) => {
    await b.stop();
    await a.role('primary');
    const { pid } = await a.stats();
    const client = await a.connect();
    const writer = new StampedWriter(8 * MIB, 'answered');
    writer.start(client, 8, 100);
    const fake = await FakeSecondary.make(b.port);
    try {
      for (const [name, ...answers] of ANSWERS) {
        let over = false;
        let said = 0;
        fake.onConnection = async (wire) => {
          const message = await wire.message();
          const hasToken = message.get('token', 'uint8_array') !== undefined;
          if (!hasToken) {
            firstWire = wire;
            if (answers[0] !== undefined) wire.send(answers[0]);
            said += 1;
          } else {
            if (answers[1] !== undefined) firstWire?.send(answers[1]);
            if (answers[2] !== undefined) wire.send(answers[2]);
            said += 1;
          }
          if (said >= answers.length - (answers.length > 1 ? 1 : 0)) {
            wire.socket.end();
            over = true;
          }
        };
        let firstWire: Wire | undefined;
        await until(`${name}: an attempt`, 20_000, async () => {
          if (!over) await callOn(a);
          return over;
        });
        fake.onConnection = (wire) => wire.destroy();
        firstWire?.socket.end();
        const { answered } = writer;
        await until(`${name}: writes go on`, 15_000, () => writer.answered > answered + 50);
        await a.when(name, ({ worker }) => worker?.state === 'degraded');
      }
      assert.is((await a.stats()).pid, pid, 'the same worker as before');
      await writer.stop();
      await writer.verify(client);
    } finally {
      fake.close();
      await writer.stop().catch(() => {});
      client.destroy();
    }
    await b.start();
    await b.role('secondary');
    await a.inSync();
  }, Pair.make),
);

// ---- The control socket -----------------------------------------------------------------------

/** Sends bytes to the control socket. @returns what was answered until it was closed */
function tellControl(node: Node, bytes: Uint8Array, end: boolean): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(node.control);
    let answer = '';
    socket.on('error', () => socket.destroy());
    socket.setEncoding('latin1').on('data', (part: string) => {
      answer += part;
      socket.end();
    });
    socket.on('close', () => resolve(answer));
    socket.write(bytes, () => {
      if (end) socket.end();
    });
  });
}

add(
  'garbage, huge and slow requests at the control socket hold up neither status nor writes',
  story(async (pair) => {
    const { a } = pair;
    const path = '/v1/resources/data/role';
    const post = (body: string) =>
      `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    await undisturbed(pair, async () => {
      const garbage: readonly (string | Buffer)[] = [
        randomBytes(10_000),
        'GET',
        'GET / HTTP/9.9\r\n\r\n',
        `GET /${'a'.repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
        `GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(20_000)}\r\n`,
        'GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n',
        'GET /v1/resources/../../etc HTTP/1.1\r\nHost: x\r\n\r\n',
        post('{'),
        post('[]'),
        post('{"role":"king"}'),
        post('{"role":"init","more":1}'),
        post(`{"role":"${'x'.repeat(200_000)}"}`),
        post('{"__proto__":{"role":"init"}}'),
        `POST ${path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`,
      ];
      for (const bytes of garbage) {
        const answer = await tellControl(a, Buffer.from(bytes), true);
        assert.not.match(answer, /^HTTP\/1\.1 [235]/);
      }
      const slow = Array.from({ length: 50 }, (_, i) => {
        const socket = connect(a.control);
        socket.on('error', () => socket.destroy());
        socket.write(i % 2 === 0 ? '' : post('{"role":"init"}').slice(0, -3));
        return socket;
      });
      const began = performance.now();
      assert.is((await a.status()).role, 'primary');
      assert.ok(performance.now() - began < 2000);
      // More than are admitted: they come and go, and the next one is answered.
      const many = Array.from({ length: 200 }, () => connect(a.control).on('error', () => {}));
      for (const socket of [...slow, ...many]) socket.destroy();
      await until('an answer', 10_000, async () => {
        const status = await a.status().catch(() => undefined);
        return status?.role === 'primary';
      });
    });
  }),
);

malformed.run();
