import { connect, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { formatForeground, Logger } from '../../../src/log.ts';
import { decodeNv, encodeMessage, type NvArea, type NvEntry } from '../../../src/nv.ts';
import { authEntry } from '../../../src/peer/handshake.ts';
import { knock } from '../../../src/peer/knock.ts';
import {
  LISTENER_LIMITS,
  PeerListener,
  type PeerPair,
  type PeerTable,
} from '../../../src/peer/listener.ts';
import type { Role } from '../../../src/resource/role.ts';
import { until, withDeadline } from '../../helper/deadline.ts';

const listener = suite('listener');

interface Bench {
  readonly peers: PeerListener;
  readonly pairs: PeerPair[];
  readonly contacts: string[];
  readonly knocks: string[];
  readonly lines: string[];
  role: Role;
  secret: Uint8Array | null;
  client(): Client;
}

/** One TCP client that keeps what it got. */
class Client {
  readonly socket: Socket;
  got: Buffer = Buffer.alloc(0);
  closed = false;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('data', (bytes) => {
      this.got = Buffer.concat([this.got, bytes]);
    });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
    });
  }

  send(bytes: Buffer): this {
    this.socket.write(bytes);
    return this;
  }

  async answer(): Promise<NvArea> {
    await until('an answer', 3000, () => this.got.length > 5);
    return decodeNv(this.got.subarray(5));
  }

  closing(): Promise<void> {
    return until('the end of the connection', 3000, () => this.closed);
  }
}

function bench(
  body: (bench: Bench) => Promise<void>,
  { admitted = true, halfOpenMs = 500 }: { admitted?: boolean; halfOpenMs?: number } = {},
): () => Promise<void> {
  return withDeadline(15_000, async () => {
    const pairs: PeerPair[] = [];
    const contacts: string[] = [];
    const knocks: string[] = [];
    const lines: string[] = [];
    const clients: Client[] = [];
    const state: { role: Role; secret: Uint8Array | null } = { role: 'secondary', secret: null };
    const table: PeerTable = {
      count: 1,
      admitsAny: () => admitted,
      find: (name) => {
        const { role, secret } = state;
        return name === 'data' ? { role, admits: () => true, secret: () => secret } : undefined;
      },
      admit: (_name, pair) => pairs.push(pair),
      contact: (name) => contacts.push(name),
      knocked: (ip) => knocks.push(ip),
      unknown: () => {},
    };
    const limits = { setupMs: 500, halfOpenMs, goodbyeMs: 300, backlog: 128 };
    const peers = new PeerListener(
      table,
      Logger.root((record) => lines.push(formatForeground(record)), 0),
      limits,
    );
    const host = { kind: 'tcp', text: '', family: 'ipv4', host: '127.0.0.1', port: 0 } as const;
    await peers.listen(host);
    try {
      await body({
        peers,
        pairs,
        contacts,
        knocks,
        lines,
        get role() {
          return state.role;
        },
        set role(role) {
          state.role = role;
        },
        get secret() {
          return state.secret;
        },
        set secret(secret) {
          state.secret = secret;
        },
        client: () => {
          const client = new Client(peers.ports[0] ?? 0);
          clients.push(client);
          return client;
        },
      });
    } finally {
      peers.close();
      for (const { socket } of clients) socket.destroy();
    }
  });
}

const RESOURCE: NvEntry = { name: 'resource', type: 'string', value: 'data' };
const M1 = encodeMessage(1, [RESOURCE, { name: 'version', type: 'uint8', value: 2 }]);

function m2(token: Uint8Array): Buffer {
  return encodeMessage(2, [RESOURCE, { name: 'token', type: 'uint8_array', value: token }]);
}

async function tokenOf(client: Client): Promise<Uint8Array> {
  const token = (await client.answer()).get('token', 'uint8_array');
  assert.is(token?.length, 16);
  return token ?? new Uint8Array();
}

listener(
  'hands on a pair once its second message is good, the token being spent',
  bench(async ({ client, pairs }) => {
    const one = client().send(M1);
    const token = await tokenOf(one);
    const two = client().send(m2(token));
    await until('a pair', 3000, () => pairs.length === 1);
    assert.is(pairs[0]?.alive(), true);
    const again = client().send(m2(token));
    assert.is((await again.answer()).get('errmsg', 'string'), "Token doesn't match.");
    await again.closing();
    assert.equal([one.closed, two.closed, pairs.length], [false, false, 1]);
  }),
);

listener(
  'a first message touches nothing but the one that waits',
  bench(async ({ client, pairs }) => {
    const old = client().send(M1);
    await tokenOf(old);
    const fresh = client().send(M1);
    const token = await tokenOf(fresh);
    await old.closing();
    client().send(m2(token));
    await until('a pair', 3000, () => pairs.length === 1);
  }),
);

listener(
  'a silent, a slow and a half-open client are dropped in time',
  bench(async ({ client }) => {
    const silent = client();
    const slow = client().send(M1.subarray(0, 7));
    const half = client().send(M1);
    const token = await tokenOf(half);
    await Promise.all([silent.closing(), slow.closing(), half.closing()]);
    const late = client().send(m2(token));
    assert.is((await late.answer()).get('errmsg', 'string'), "Token doesn't match.");
    assert.is(LISTENER_LIMITS.halfOpenMs, 20_000);
  }),
);

const EXT: NvEntry = { name: 'ext', type: 'uint32', value: 1 };
const NONCE: NvEntry = { name: 'nonce', type: 'uint8_array', value: Buffer.alloc(16, 5) };
const M1_NONCE = encodeMessage(1, [
  RESOURCE,
  { name: 'version', type: 'uint8', value: 2 },
  EXT,
  NONCE,
]);

/** A second message that is proven with the secret. */
async function proven(secret: Uint8Array, first: Client): Promise<Buffer> {
  const nonceSecondary = (await first.answer()).get('nonce', 'uint8_array') ?? new Uint8Array();
  assert.is(nonceSecondary.length, 16);
  const token = await tokenOf(first);
  const noncePrimary = NONCE.value as Uint8Array;
  const message = m2(token);
  const entry = authEntry({ secret, noncePrimary, nonceSecondary }, message.subarray(5));
  message.writeUInt32LE(message.length - 5 + entry.length, 1);
  return Buffer.concat([message, entry]);
}

listener(
  'with a secret only a proven second message makes a pair, which knows what to answer with',
  bench(async (the) => {
    const { client, pairs, lines } = the;
    the.secret = Buffer.from('right');
    const bare = client().send(M1);
    assert.match((await bare.answer()).get('errmsg', 'string') ?? '', /^Authentication required/);
    const wrong = client().send(M1_NONCE);
    const told = client().send(await proven(Buffer.from('wrong'), wrong));
    const text = 'Authentication failed: the secrets differ.';
    assert.is((await told.answer()).get('errmsg', 'string'), text);
    await wrong.closing(); // it belonged to that message
    assert.ok(lines.some((line) => line.includes(text)));
    assert.is(pairs.length, 0);
    const one = client().send(M1_NONCE);
    client().send(await proven(Buffer.from('right'), one));
    await until('a pair', 3000, () => pairs.length === 1);
    const auth = pairs[0]?.hello.auth;
    assert.equal(Buffer.from(auth?.secret ?? []).toString(), 'right');
    assert.is(lines.join('').includes('right'), false);
    // A recorded message is of no use: the next set-up has another nonce.
    const next = client().send(M1_NONCE);
    const old = await proven(Buffer.from('right'), one);
    await tokenOf(next);
    const replayed = client().send(old);
    assert.is((await replayed.answer()).get('errmsg', 'string'), "Token doesn't match.");
  }),
);

listener(
  'without a secret a peer that has one is named in the log',
  bench(async ({ client, lines }) => {
    await tokenOf(client().send(M1_NONCE));
    assert.ok(lines.some((line) => line.includes('this node has none')));
  }),
);

listener(
  'bytes that nobody asked for drop the connection',
  bench(
    async ({ client, pairs }) => {
      await client()
        .send(Buffer.concat([M1, Buffer.of(0)]))
        .closing();
      const half = client().send(M1);
      await tokenOf(half);
      await half.send(Buffer.of(1)).closing();
      const one = client().send(M1);
      const two = client().send(m2(await tokenOf(one)));
      await until('a pair', 3000, () => pairs.length === 1);
      two.send(Buffer.of(1));
      await Promise.all([one.closing(), two.closing()]);
      assert.is(pairs[0]?.alive(), false);
    },
    { halfOpenMs: 5000 },
  ),
);

listener(
  'a primary is told of by its role, and the contact is passed on',
  bench(async (the) => {
    the.role = 'primary';
    const client = the.client().send(M1);
    const answer = await client.answer();
    const text = 'Remote node acts as primary for the resource and not as secondary.';
    assert.is(answer.get('errmsg', 'string'), text);
    assert.is(answer.get('wait', 'uint8'), 1);
    assert.equal(the.contacts, ['data']);
    await client.closing();
  }),
);

listener(
  'the same refusal is said once a minute, with the role, and another one at once',
  bench(async (the) => {
    for (const [role, times] of [
      ['init', 3],
      ['primary', 2],
    ] as const) {
      the.role = role;
      for (let i = 0; i < times; i += 1) await the.client().send(M1).answer();
    }
    assert.equal(
      the.lines.map((line) => line.replace(/refused: .* as (\w+) for .*\n/, 'refused, $1')),
      [
        '[WARNING] [data] (init) Connection from 127.0.0.1 refused, init',
        '[WARNING] [data] (primary) Connection from 127.0.0.1 refused, primary',
      ],
    );
  }),
);

listener(
  'the name of a resource that is not ours stays in one line, and is no prefix',
  bench(async ({ client, lines }) => {
    const value = 'x] ok\n[INFO] [data] Synchronised.\u001b[2J';
    const forged = client().send(encodeMessage(1, [{ ...RESOURCE, value } as NvEntry]));
    assert.is((await forged.answer()).get('errmsg', 'string'), 'Resource not configured.');
    await until('a line', 3000, () => lines.length > 0);
    const [line = ''] = lines;
    assert.is(line.search(/\p{Cc}/u), line.length - 1, line);
    assert.match(line, /^\[WARNING\] Connection from 127\.0\.0\.1 for resource "x\] ok/);
  }),
);

listener(
  'a knock is a connection without a byte, from any of the addresses that answers',
  bench(async ({ peers, client, knocks }) => {
    const port = peers.ports[0] ?? 0;
    const log = Logger.root(() => {}, 0);
    const at = (host: string) => ({ host, port, family: 4 }) as const;
    await knock([at('127.0.0.99'), at('127.0.0.1')], at('127.0.0.7'), log);
    await until('a knock', 3000, () => knocks.length > 0);
    const spoken = client().send(M1);
    await tokenOf(spoken);
    spoken.socket.end();
    await spoken.closing();
    assert.equal(knocks, ['127.0.0.7']);
    await knock([at('127.0.0.99')], null, log); // nobody there is no error
  }),
);

listener(
  'a refused pair is told on both connections',
  bench(async ({ client, pairs }) => {
    const one = client().send(M1);
    const token = await tokenOf(one);
    one.got = Buffer.alloc(0);
    const two = client().send(m2(token));
    await until('a pair', 3000, () => pairs.length === 1);
    pairs[0]?.refuse('Busy.');
    assert.is((await one.answer()).get('errmsg', 'string'), 'Busy.');
    assert.is((await two.answer()).get('errmsg', 'string'), 'Busy.');
    await Promise.all([one.closing(), two.closing()]);
  }),
);

listener(
  'a stranger is dropped before anything is read',
  bench(
    async ({ client }) => {
      const stranger = client().send(M1);
      await stranger.closing();
      assert.is(stranger.got.length, 0);
    },
    { admitted: false },
  ),
);

listener(
  'one address cannot hold more than its share of connections',
  bench(async ({ client }) => {
    const many = Array.from({ length: 40 }, () => client());
    await until('some to be dropped', 400, () => many.some(({ closed }) => closed));
  }),
);

listener.run();
