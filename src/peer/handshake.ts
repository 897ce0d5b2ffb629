/**
 * What a secondary answers to the first two messages of a primary: pure decisions over bytes.
 * Sockets, timers and tables are the listener's. Source: docs/wire.md, "set-up".
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { HastError } from '../error.ts';
import type { PeerAuth, PeerHello } from '../native.ts';
import {
  decodeMessageHead,
  decodeNv,
  encodeMessage,
  MESSAGE_HEAD_BYTES,
  type NvArea,
  type NvEntry,
} from '../nv.ts';
import type { Role } from '../resource/role.ts';

export const TOKEN_BYTES = 16;
export const NONCE_BYTES = 16;
/** Highest version spoken here, and the version byte of messages about no resource. */
export const VERSION = 2;
/** Bit of `ext` in the messages of the set-up: the extensions of this implementation. */
export const EXT_OURS = 1;
/** Bit of `ext` in the second message: a virgin created with the promise of equal contents. */
const EXT_CONTENTS_EQUAL = 2;
/** Bit of `ext` in the second message: the primary's machine went down since it took writes. */
const EXT_LOST_CACHE = 4;
/** Bit of `ext` in the second message: the primary's copy is stale or half written. */
const EXT_INCOMPLETE = 8;
/** Bit of `ext` in the second message: the primary was primary when its machine went down. */
const EXT_LED = 16;

/** Constants of the protocol, compared byte by byte by other implementations. */
export const REFUSAL = {
  notConfigured: 'Resource not configured.',
  noAccess: 'No access to the resource.',
  token: "Token doesn't match.",
  unauthenticated:
    'Authentication required: this node has a secret for the resource, the peer sent none.',
  secretUnreadable: 'Authentication required: the secret of this node cannot be read.',
  unproven: 'Authentication failed: the secrets differ.',
  role: (role: Role) => `Remote node acts as ${role} for the resource and not as secondary.`,
} as const;

/** A connection 1 that waits for its connection 2. */
export interface Pending {
  readonly token: Uint8Array;
  readonly version: number;
  readonly extended: boolean;
  /** What the second message has to be proven with; null: there is no secret. */
  readonly auth: PeerAuth | null;
}

/** What the table of resources says of a name, for one peer address. */
export interface KnownResource {
  readonly role: Role;
  /** The peer's address is one of this resource's `remote`. */
  readonly admits: boolean;
  readonly pending: Pending | undefined;
  /**
   * The secret as it is now; null: none.
   * @throws HastError SECRET_FILE
   */
  readonly secret: () => Uint8Array | null;
}

export type Verdict =
  | { readonly kind: 'drop'; readonly why: string }
  | {
      readonly kind: 'refuse';
      readonly resource: string;
      readonly text: string;
      readonly reply: Buffer;
      /** We are primary too: the peer may retry, and its being there is news for our worker. */
      readonly contact: boolean;
      /** The refused message belongs to the connection 1 that waits: it goes too. */
      readonly closePending: boolean;
      /** More for our own log, not for the peer. */
      readonly why?: string;
    }
  | {
      readonly kind: 'first';
      readonly resource: string;
      readonly pending: Pending;
      readonly reply: Buffer;
      /** It has a secret and this node has none: that will be its end. */
      readonly strange: boolean;
    }
  | { readonly kind: 'second'; readonly resource: string; readonly hello: PeerHello };

export function encodeRefusal(text: string, wait = false): Buffer {
  const entries: NvEntry[] = [{ name: 'errmsg', type: 'string', value: text }];
  if (wait) entries.push({ name: 'wait', type: 'uint8', value: 1 });
  return encodeMessage(VERSION, entries);
}

export function encodeFirstReply({ version, token, extended, auth }: Pending): Buffer {
  const entries: NvEntry[] = [
    { name: 'version', type: 'uint8', value: version },
    { name: 'token', type: 'uint8_array', value: token },
  ];
  if (extended) entries.push({ name: 'ext', type: 'uint32', value: EXT_OURS });
  if (auth !== null) {
    entries.push({ name: 'nonce', type: 'uint8_array', value: auth.nonceSecondary });
  }
  return encodeMessage(version, entries);
}

function announcesOurs(area: NvArea): boolean {
  return ((area.get('ext', 'uint32') ?? 0) & EXT_OURS) !== 0;
}

function sameToken(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The second message's facts. Absent numbers are 0, as everywhere in the protocol. */
function readHello(area: NvArea, pending: Pending): PeerHello {
  const number = (name: string): bigint => area.get(name, 'uint64') ?? 0n;
  const extended = pending.extended && announcesOurs(area);
  const bits = extended ? (area.get('ext', 'uint32') ?? 0) : 0;
  const ours = (name: string): bigint => (extended ? number(name) : 0n);
  return {
    version: pending.version,
    resuid: number('resuid'),
    localcnt: number('localcnt'),
    remotecnt: number('remotecnt'),
    virgin: area.has('virgin'),
    extended,
    contentsEqual: (bits & EXT_CONTENTS_EQUAL) !== 0,
    lostCache: (bits & EXT_LOST_CACHE) !== 0,
    incomplete: (bits & EXT_INCOMPLETE) !== 0,
    led: (bits & EXT_LED) !== 0,
    epoch: ours('epoch'),
    bootid: ours('bootid'),
    generation: ours('gen'),
    generationShared: ours('genshared'),
    generationOffered: ours('genoffer'),
    auth: pending.auth,
  };
}

// ---- Authentication -------------------------------------------------------------------------

/** The last entry of a proven message, all but its 32 bytes. */
const AUTH_HEAD = Buffer.from('0a0520000000' + '6175746800000000', 'hex');

/** The entry `auth` behind these bytes of a second message. */
export function authEntry(auth: PeerAuth, before: Uint8Array): Buffer {
  const { secret, noncePrimary, nonceSecondary } = auth;
  const hmac = createHmac('sha256', secret).update('hastd M2\0', 'latin1');
  const hash = hmac.update(noncePrimary).update(nonceSecondary).update(before).digest();
  return Buffer.concat([AUTH_HEAD, hash]);
}

/** Does the second message end with the proof that its sender knows the secret? */
function isProven({ bytes }: NvArea, auth: PeerAuth | null): boolean {
  if (auth === null) return true;
  const at = bytes.length - AUTH_HEAD.length - 32;
  if (at < 0) return false;
  return timingSafeEqual(bytes.subarray(at), authEntry(auth, bytes.subarray(0, at)));
}

/**
 * The version for both. Peers before version 2 do not know the field, and only the first of them
 * have a 0 in their heads.
 */
function commonVersion(area: NvArea, headVersion: number): number {
  const offered = area.get('version', 'uint8') ?? 0;
  return offered === 0 ? Math.min(headVersion, 1) : Math.min(offered, VERSION);
}

/** What a first message is answered; nothing of it is believed. */
function judgeFirst(
  area: NvArea,
  { secret: readSecret }: KnownResource,
  random: () => Uint8Array,
  headVersion: number,
): Pending | { readonly text: string; readonly why?: string } {
  const version = commonVersion(area, headVersion);
  const extended = version === VERSION && announcesOurs(area);
  let secret: Uint8Array | null;
  try {
    secret = readSecret();
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    return { text: REFUSAL.secretUnreadable, why: `${error.message}; ${error.hint ?? ''}` };
  }
  if (secret === null) return { token: random(), version, extended, auth: null };
  const noncePrimary = area.get('nonce', 'uint8_array');
  if (!extended || noncePrimary?.length !== NONCE_BYTES) return { text: REFUSAL.unauthenticated };
  const auth = { secret, noncePrimary, nonceSecondary: random() };
  return { token: random(), version, extended, auth };
}

/**
 * Checks 3 to 8 of the set-up, in their order, then the proof of the secret.
 * @param random  gives 16 fresh random bytes; asked only for a first message that is good
 * @param headVersion  the version byte of the message
 */
export function judge(
  area: NvArea,
  lookup: (resource: string) => KnownResource | undefined,
  random: () => Uint8Array,
  headVersion = 1,
): Verdict {
  const resource = area.get('resource', 'string');
  if (resource === undefined) return { kind: 'drop', why: 'no resource is named' };
  // Present as anything else than an array of bytes, it is as good as absent.
  const token = area.get('token', 'uint8_array');
  if (token !== undefined && token.length !== TOKEN_BYTES) {
    return { kind: 'drop', why: `a token of ${token.length} bytes` };
  }
  const known = lookup(resource);
  const pending = known?.pending;
  const matches = token !== undefined && pending !== undefined && sameToken(token, pending.token);
  const refuse = (text: string, { wait = false, why = '' } = {}): Verdict => ({
    kind: 'refuse',
    resource,
    text,
    reply: encodeRefusal(text, wait),
    contact: wait,
    closePending: matches,
    ...(why === '' ? {} : { why }),
  });

  if (known === undefined) return refuse(REFUSAL.notConfigured);
  if (!known.admits) return refuse(REFUSAL.noAccess);
  if (known.role !== 'secondary') {
    return refuse(REFUSAL.role(known.role), { wait: known.role === 'primary' });
  }
  if (token !== undefined) {
    if (!matches || pending === undefined) return refuse(REFUSAL.token);
    if (!isProven(area, pending.auth)) return refuse(REFUSAL.unproven);
    return { kind: 'second', resource, hello: readHello(area, pending) };
  }
  const fresh = judgeFirst(area, known, random, headVersion);
  if ('text' in fresh) return refuse(fresh.text, fresh);
  const strange = fresh.auth === null && area.has('nonce');
  return { kind: 'first', resource, pending: fresh, reply: encodeFirstReply(fresh), strange };
}

/** Collects the bytes of exactly one message; anything after it is an error. */
export class MessageReader {
  readonly #chunks: Uint8Array[] = [];
  #size = 0;
  /** Of the whole message; known once its head is there. */
  #wanted: number | undefined;
  /** What its head says; known with the message. */
  version = 1;

  /**
   * @returns the message's area, or undefined while bytes are missing
   * @throws HastError MESSAGE_INVALID, NV_INVALID: drop the connection
   */
  push(chunk: Uint8Array): NvArea | undefined {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    this.#wanted ??= this.#readHead();
    if (this.#wanted === undefined || this.#size < this.#wanted) return undefined;
    if (this.#size > this.#wanted) {
      throw new HastError('MESSAGE_INVALID', { message: 'bytes follow a message of the set-up' });
    }
    return decodeNv(Buffer.concat(this.#chunks).subarray(MESSAGE_HEAD_BYTES));
  }

  #readHead(): number | undefined {
    const bytes = Buffer.concat(this.#chunks);
    if (bytes.length < MESSAGE_HEAD_BYTES) {
      // The version byte alone may already be wrong.
      decodeMessageHead(Buffer.concat([bytes.subarray(0, 1), Buffer.alloc(MESSAGE_HEAD_BYTES)]));
      return undefined;
    }
    const { version, length } = decodeMessageHead(bytes);
    this.version = version;
    return MESSAGE_HEAD_BYTES + length;
  }
}
