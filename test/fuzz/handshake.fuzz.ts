// Arbitrary bytes of a peer on a new connection: a verdict, or an error of the message; the same
// one however the bytes are cut. What was read survives encoding, and replies are good messages.
import { deepStrictEqual } from 'node:assert';
import { HastError } from '../../src/error.ts';
import { decodeNv, encodeNv, MESSAGE_HEAD_BYTES, type NvArea } from '../../src/nv.ts';
import {
  authEntry,
  judge,
  type KnownResource,
  MessageReader,
  type Pending,
  TOKEN_BYTES,
} from '../../src/peer/handshake.ts';
import { fuzz } from './loop.ts';

const TOKEN = Buffer.from('a0a1a2a3a4a5a6a7a8a9aaabacadaeaf', 'hex');
const CODES: readonly string[] = ['MESSAGE_INVALID', 'NV_INVALID'];
const PENDING: Pending = { token: TOKEN, version: 2, extended: true, auth: null };
const SECRET = Buffer.from('correct horse');
const AUTH = { secret: SECRET, noncePrimary: TOKEN, nonceSecondary: TOKEN };
const secret = () => null;

const TABLE: Readonly<Record<string, KnownResource>> = {
  data: { role: 'secondary', admits: true, pending: PENDING, secret },
  fresh: { role: 'secondary', admits: true, pending: undefined, secret },
  safe: { role: 'secondary', admits: true, pending: undefined, secret: () => SECRET },
  proof: {
    role: 'secondary',
    admits: true,
    pending: { ...PENDING, auth: AUTH },
    secret: () => SECRET,
  },
  first: { role: 'primary', admits: true, pending: undefined, secret },
  idle: { role: 'init', admits: true, pending: PENDING, secret },
  other: { role: 'secondary', admits: false, pending: undefined, secret },
};

const lookup = (name: string) => (Object.hasOwn(TABLE, name) ? TABLE[name] : undefined);

type Outcome = NvArea | HastError | undefined;

/** The message in the bytes, what is wrong with them, or nothing while some are missing. */
function read(bytes: Buffer, piece: number): Outcome {
  const reader = new MessageReader();
  let area: NvArea | undefined;
  try {
    for (let at = 0; at < bytes.length; at += piece) {
      area = reader.push(bytes.subarray(at, at + piece));
    }
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    if (!CODES.includes(error.code)) throw new Error(`the code ${error.code}`, { cause: error });
    return error;
  }
  return area;
}

function kindOf(outcome: Outcome): string {
  if (outcome === undefined) return 'incomplete';
  return outcome instanceof HastError ? 'refused' : 'read';
}

/** Does this area count as the second message of one who knows the secret? */
function counts(bytes: Buffer): boolean {
  const outcome = read(Buffer.concat([headOf(bytes), bytes]), bytes.length + MESSAGE_HEAD_BYTES);
  if (outcome === undefined || outcome instanceof HastError) return false;
  return judge(outcome, lookup, () => TOKEN).kind === 'second';
}

function headOf(area: Buffer): Buffer {
  const head = Buffer.from([2, 0, 0, 0, 0]);
  head.writeUInt32LE(area.length, 1);
  return head;
}

/** Only the proof of exactly these bytes counts; with it, the message behind it is looked at. */
function checkProof(area: NvArea, counted: boolean): void {
  const bytes = Buffer.from(area.bytes);
  const before = bytes.subarray(0, Math.max(0, bytes.length - authEntry(AUTH, bytes).length));
  const right = Buffer.concat([before, authEntry(AUTH, before)]).equals(bytes);
  if (counted && !right) throw new Error('a proof was guessed');
  const signed = Buffer.concat([bytes, authEntry(AUTH, bytes)]);
  counts(signed);
  const at = (bytes[bytes.length - 1] ?? 0) % signed.length;
  signed.writeUInt8((signed[at] ?? 0) ^ 1, at);
  if (counts(signed)) {
    const name = decodeNv(signed).get('resource', 'string');
    if (name === 'proof') throw new Error('a changed message counts');
  }
}

function checkVerdict(area: NvArea): void {
  const verdict = judge(area, lookup, () => TOKEN);
  if (verdict.kind === 'first') deepStrictEqual(verdict.pending.token.length, TOKEN_BYTES);
  if (verdict.kind === 'second' && area.get('token', 'uint8_array') === undefined) {
    throw new Error('a second message without a token');
  }
  const name = area.get('resource', 'string');
  if (name === 'proof') checkProof(area, verdict.kind === 'second');
  if (name === 'safe' && verdict.kind === 'first' && !area.has('nonce')) {
    throw new Error('a first message without a nonce');
  }
  if (verdict.kind !== 'first' && verdict.kind !== 'refuse') return;
  const reply = read(verdict.reply, verdict.reply.length);
  if (kindOf(reply) !== 'read') throw new Error('the reply is no message');
}

function target(input: Buffer): void {
  const whole = read(input, Math.max(1, input.length));
  for (const piece of [1, 7]) deepStrictEqual(kindOf(read(input, piece)), kindOf(whole));
  if (whole === undefined || whole instanceof HastError) return;
  deepStrictEqual(decodeNv(encodeNv(whole.entries)).entries, whole.entries);
  deepStrictEqual(decodeNv(input.subarray(MESSAGE_HEAD_BYTES)).entries, whole.entries);
  checkVerdict(whole);
}

const FIELDS = [
  'resource\0',
  'token\0',
  'version\0',
  'ext\0',
  'virgin\0',
  'data\0',
  'safe\0',
  'proof\0',
  'nonce\0',
  'auth\0',
];
await fuzz('handshake', target, FIELDS);
