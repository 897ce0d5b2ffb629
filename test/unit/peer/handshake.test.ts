import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../../src/error.ts';
import type { PeerAuth } from '../../../src/native.ts';
import { decodeNv, encodeMessage, encodeNv, type NvArea, type NvEntry } from '../../../src/nv.ts';
import {
  authEntry,
  EXT_OURS,
  judge,
  type KnownResource,
  MessageReader,
  type Pending,
  type Verdict,
} from '../../../src/peer/handshake.ts';
import type { Role } from '../../../src/resource/role.ts';

interface Message {
  readonly connection: number;
  readonly direction: string;
  readonly header_hex: string;
  readonly fields: readonly { readonly name: string; readonly value: unknown }[];
}
interface ErrorCase {
  readonly name: string;
  readonly request_hex: string;
  readonly reply: { readonly header_hex?: string };
}

function vectors<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../../vectors/${name}`, import.meta.url), 'utf8')) as T;
}
const TOKEN = Buffer.from('a0a1a2a3a4a5a6a7a8a9aaabacadaeaf', 'hex');

function read(bytes: Buffer): { area: NvArea; version: number } {
  const reader = new MessageReader();
  const area = reader.push(bytes);
  if (area === undefined) throw new Error('bytes are missing');
  return { area, version: reader.version };
}

/** Resource `data` with the role, open to the peer; resource `other` belongs to another host. */
function table(role: Role, pending?: Pending, secret: () => Uint8Array | null = () => null) {
  return (name: string): KnownResource | undefined => {
    if (name === 'data') return { role, admits: true, pending, secret };
    return name === 'other' ? { role, admits: false, pending: undefined, secret } : undefined;
  };
}

function ask(
  bytes: Buffer,
  role: Role = 'secondary',
  pending?: Pending,
  secret?: () => Uint8Array | null,
): Verdict {
  const { area, version } = read(bytes);
  return judge(area, table(role, pending, secret), () => TOKEN, version);
}

function replyOf(verdict: Verdict): string | undefined {
  return verdict.kind === 'first' || verdict.kind === 'refuse'
    ? verdict.reply.toString('hex')
    : undefined;
}

const handshake = suite('handshake');

for (const { name, request_hex, reply } of vectors<{ cases: ErrorCase[] }>('handshake-errors.json')
  .cases) {
  handshake(`answers as the original, byte for byte: ${name}`, () => {
    const role = /^role-(init|primary)$/.exec(name)?.[1] ?? 'secondary';
    let answer: string | undefined;
    try {
      answer = replyOf(ask(Buffer.from(request_hex, 'hex'), role as Role));
    } catch (error) {
      assert.instance(error, HastError);
    }
    assert.is(answer, reply.header_hex);
  });
}

for (const { name, messages } of vectors<{ sessions: { name: string; messages: Message[] }[] }>(
  'sessions.json',
).sessions) {
  const [m1, r1, m2] = messages;
  if (m1 === undefined || r1?.header_hex === undefined || name.startsWith('primary-')) continue;
  if (name.startsWith('v1-')) continue; // the secondary there is a script of another version
  handshake(`sets up as in the recorded session ${name}`, () => {
    const first = ask(Buffer.from(m1.header_hex, 'hex'));
    assert.is(first.kind, 'first');
    assert.is(replyOf(first), r1.header_hex);
    if (m2 === undefined || first.kind !== 'first') return;
    const second = ask(Buffer.from(m2.header_hex, 'hex'), 'secondary', first.pending);
    assert.is(second.kind, 'second');
    if (second.kind !== 'second') return;
    const value = (field: string) => m2.fields.find((one) => one.name === field)?.value;
    assert.equal(second.hello, {
      version: 2,
      resuid: BigInt(value('resuid') as string),
      localcnt: BigInt(value('localcnt') as string),
      remotecnt: BigInt(value('remotecnt') as string),
      virgin: value('virgin') !== undefined,
      extended: false,
      contentsEqual: false,
      lostCache: false,
      incomplete: false,
      led: false,
      epoch: 0n,
      bootid: 0n,
      generation: 0n,
      generationShared: 0n,
      generationOffered: 0n,
      auth: null,
    });
  });
}

const BROKEN = new Map(
  vectors<{ cases: { name: string; bytes_hex: string | null }[] }>('malformed.json').cases.map(
    ({ name, bytes_hex }) => [name, Buffer.from(bytes_hex ?? '', 'hex')],
  ),
);

function broken(name: string): Buffer {
  const bytes = BROKEN.get(name);
  if (bytes === undefined) throw new Error(`no vector ${name}`);
  return bytes;
}

handshake('who names no version has that of its head, 1 at most', () => {
  const resource: NvEntry = { name: 'resource', type: 'string', value: 'data' };
  for (const [head, version] of [
    [0, 0],
    [1, 1],
    [2, 1],
  ] as const) {
    const verdict = ask(encodeMessage(head, [resource]));
    if (verdict.kind !== 'first') throw new Error(verdict.kind);
    assert.is(verdict.pending.version, version);
    assert.is(verdict.reply[0], version, 'in the head of the answer');
  }
});

handshake('an empty area is a message without fields', () => {
  assert.is(ask(broken('empty-nv')).kind, 'drop');
});

handshake('a length of 4 GiB is refused with its head', () => {
  assert.throws(() => new MessageReader().push(broken('nv-length-4g')), isInvalid);
});

handshake('a length that wraps when rounded is not valid', () => {
  assert.throws(() => read(broken('data-length-wrap')), isInvalid);
});

handshake('a zero token without a first message does not match', () => {
  const verdict = ask(broken('zero-token-without-M1'));
  assert.is(verdict.kind === 'refuse' && verdict.text, "Token doesn't match.");
});

function isInvalid(error: Error): boolean {
  return error instanceof HastError && /^(NV|MESSAGE)_INVALID$/.test(error.code);
}

function first(...more: NvEntry[]): Buffer {
  return encodeMessage(1, [
    { name: 'resource', type: 'string', value: 'data' },
    { name: 'version', type: 'uint8', value: 2 },
    ...more,
  ]);
}
function second(...more: NvEntry[]): Buffer {
  return encodeMessage(2, [
    { name: 'resource', type: 'string', value: 'data' },
    { name: 'token', type: 'uint8_array', value: TOKEN },
    { name: 'resuid', type: 'uint64', value: 7n },
    ...more,
  ]);
}
const EXT: NvEntry = { name: 'ext', type: 'uint32', value: EXT_OURS };
const EPOCH: NvEntry = { name: 'epoch', type: 'uint64', value: 9n };
const BOOT: NvEntry = { name: 'bootid', type: 'uint64', value: 11n };
const GENERATIONS: NvEntry[] = [
  { name: 'gen', type: 'uint64', value: 21n },
  { name: 'genshared', type: 'uint64', value: 22n },
  { name: 'genoffer', type: 'uint64', value: 23n },
];

handshake('extensions hold when announced, answered and confirmed', () => {
  const announced = ask(first(EXT));
  if (announced.kind !== 'first') throw new Error(announced.kind);
  const reply = decodeNv(announced.reply.subarray(5));
  assert.is(reply.get('ext', 'uint32'), EXT_OURS);
  const both = ask(second(EXT, EPOCH, BOOT, ...GENERATIONS), 'secondary', announced.pending);
  if (both.kind !== 'second') throw new Error(both.kind);
  assert.equal([both.hello.extended, both.hello.epoch, both.hello.bootid], [true, 9n, 11n]);
  assert.equal(
    [both.hello.generation, both.hello.generationShared, both.hello.generationOffered],
    [21n, 22n, 23n],
  );
  const silent = ask(second(EPOCH), 'secondary', announced.pending);
  if (silent.kind !== 'second') throw new Error(silent.kind);
  assert.equal([silent.hello.extended, silent.hello.epoch], [false, 0n]);
});

handshake('an original gets no byte of ours, whatever it sends later', () => {
  const plain = ask(first());
  if (plain.kind !== 'first') throw new Error(plain.kind);
  assert.is(plain.reply.includes('ext'), false);
  const late = ask(second(EXT), 'secondary', plain.pending);
  assert.is(late.kind === 'second' && late.hello.extended, false);
});

handshake(
  'a refused second message takes the waiting connection along when it belongs to it',
  () => {
    const pending: Pending = { token: TOKEN, version: 2, extended: false, auth: null };
    const own = ask(second(), 'primary', pending);
    assert.is(own.kind === 'refuse' && own.closePending, true);
    const stranger = ask(second(), 'secondary', { ...pending, token: Buffer.alloc(16) });
    assert.is(stranger.kind === 'refuse' && stranger.closePending, false);
  },
);

const SECRET = Buffer.from('correct horse');
const hasSecret = () => SECRET;
const NONCE: NvEntry = { name: 'nonce', type: 'uint8_array', value: Buffer.alloc(16, 5) };

/** The answer to a first message with a nonce, at a node with the secret. */
function announced(): Pending & { readonly auth: PeerAuth } {
  const verdict = ask(first(EXT, NONCE), 'secondary', undefined, hasSecret);
  if (verdict.kind !== 'first' || verdict.pending.auth === null) throw new Error(verdict.kind);
  const reply = decodeNv(verdict.reply.subarray(5));
  assert.equal(reply.get('nonce', 'uint8_array'), Uint8Array.from(TOKEN));
  return { ...verdict.pending, auth: verdict.pending.auth };
}

function sealed(message: Buffer, auth: PeerAuth): Buffer {
  const area = message.subarray(5);
  const all = Buffer.concat([message, authEntry(auth, area)]);
  all.writeUInt32LE(all.length - 5, 1);
  return all;
}

function refusal(verdict: Verdict): string | undefined {
  return verdict.kind === 'refuse' ? verdict.text : undefined;
}

handshake('with a secret, a first message without nonce or extensions is refused', () => {
  const short: NvEntry = { ...NONCE, value: Buffer.alloc(15) } as NvEntry;
  for (const message of [first(), first(EXT), first(NONCE), first(EXT, short)]) {
    const verdict = ask(message, 'secondary', undefined, hasSecret);
    assert.is(
      refusal(verdict),
      'Authentication required: this node has a secret for the resource, the peer sent none.',
    );
  }
});

handshake('a secret that cannot be read refuses, and tells its path to nobody but us', () => {
  const broken = () => {
    throw new HastError('SECRET_FILE', { message: 'the secret /k is empty' });
  };
  const verdict = ask(first(EXT, NONCE), 'secondary', undefined, broken);
  assert.match(refusal(verdict) ?? '', /^Authentication required: the secret of this node/);
  assert.is(verdict.kind === 'refuse' && verdict.reply.includes('/k'), false);
  assert.match(verdict.kind === 'refuse' ? (verdict.why ?? '') : '', /\/k/);
});

handshake('without a secret, a nonce is noticed and not answered', () => {
  const verdict = ask(first(EXT, NONCE));
  if (verdict.kind !== 'first') throw new Error(verdict.kind);
  assert.is(verdict.strange, true);
  assert.is(decodeNv(verdict.reply.subarray(5)).has('nonce'), false);
});

handshake('a second message is proven as the core does it', () => {
  const auth = { secret: Buffer.from('key'), noncePrimary: Buffer.alloc(16, 1) };
  const entry = authEntry({ ...auth, nonceSecondary: Buffer.alloc(16, 2) }, Buffer.from('abc'));
  assert.is(
    entry.toString('hex'),
    '0a05200000006175746800000000' +
      '1d2391eb4a852c5ea5cf7af9458c5642f8297d75b2afcf80da66d14772883d83',
  );
});

handshake('a second message passes with its proof, and with no bit of it changed', () => {
  const pending = announced();
  const good = sealed(second(EXT, EPOCH), pending.auth);
  const verdict = ask(good, 'secondary', pending);
  assert.is(verdict.kind === 'second' && verdict.hello.auth, pending.auth);
  for (let bit = 5 * 8; bit < good.length * 8; bit += 1) {
    const bad = Buffer.from(good);
    bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    try {
      assert.is.not(ask(bad, 'secondary', pending).kind, 'second', `bit ${bit}`);
    } catch (error) {
      assert.ok(isInvalid(error as Error), `bit ${bit}: ${error}`);
    }
  }
});

handshake('no proof, one of another secret, set-up or message: refused', () => {
  const pending = announced();
  const { auth } = pending;
  const other = { ...auth, secret: Buffer.from('wrong horse') };
  const earlier = { ...auth, nonceSecondary: Buffer.alloc(16, 9) };
  const swapped = {
    ...auth,
    noncePrimary: auth.nonceSecondary,
    nonceSecondary: auth.noncePrimary,
  };
  const moved = Buffer.concat([sealed(second(EXT), auth), encodeNv([EPOCH])]);
  moved.writeUInt32LE(moved.length - 5, 1);
  const wrong = [other, earlier, swapped].map((key) => sealed(second(EXT), key));
  for (const message of [second(EXT), moved, ...wrong]) {
    const verdict = ask(message, 'secondary', pending);
    assert.is(refusal(verdict), 'Authentication failed: the secrets differ.');
    assert.is(verdict.kind === 'refuse' && verdict.closePending, true);
  }
});

handshake('a message is read from any pieces, and nothing may follow it', () => {
  const bytes = first();
  const reader = new MessageReader();
  for (const byte of bytes.subarray(0, -1)) {
    assert.is(reader.push(Buffer.of(byte)), undefined);
  }
  assert.ok(reader.push(bytes.subarray(-1)));
  assert.throws(() => new MessageReader().push(Buffer.concat([bytes, Buffer.of(0)])), isInvalid);
  assert.throws(() => new MessageReader().push(Buffer.of(3)), isInvalid);
});

handshake('random bytes give a verdict or an error of ours, nothing else', () => {
  let seed = 1;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let i = 0; i < 3000; i += 1) {
    const bytes = i % 2 === 0 ? first(EXT) : second(EXT, EPOCH);
    for (let n = random(4); n >= 0; n -= 1) bytes[random(bytes.length)] = random(256);
    try {
      ask(bytes);
    } catch (error) {
      const missing = (error as Error).message === 'bytes are missing';
      assert.ok(missing || isInvalid(error as Error), `${error}`);
    }
  }
});

handshake.run();
