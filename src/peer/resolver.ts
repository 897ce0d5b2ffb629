/**
 * Numbers behind the names of peers: resolved without blocking, kept, refreshed now and then.
 * A lookup that fails keeps what was known.
 */
import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import type { TcpAddress } from '../config/config.ts';
import type { NumericAddress } from '../native.ts';

export interface LookedUp {
  readonly address: string;
  readonly family: number;
}
/** Family 0: both. */
export type Lookup = (host: string, family: 0 | 4 | 6) => Promise<readonly LookedUp[]>;

const LOOKUP_MS = 10_000;
/** A peer that is not known may be one whose number changed; asked about at most this often. */
const REFRESH_MS = 5000;

export const systemLookup: Lookup = (host, family) => lookup(host, { all: true, family });

function familyOf({ family }: TcpAddress): 0 | 4 | 6 {
  if (family === 'any') return 0;
  return family === 'ipv4' ? 4 : 6;
}

/** The address of a socket's other end as the configuration would write it. */
export function plainIp(remoteAddress: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(remoteAddress)?.[1];
  return mapped ?? remoteAddress.replace(/%.*$/, '');
}

interface Known {
  addresses: readonly LookedUp[];
  /** When the last lookup began. */
  asked: number;
  running: Promise<void> | undefined;
}

export class Resolver {
  readonly #lookup: Lookup;
  readonly #known = new Map<string, Known>();
  readonly #onProblem: (host: string, error: unknown) => void;

  constructor(lookup: Lookup, onProblem: (host: string, error: unknown) => void) {
    this.#lookup = lookup;
    this.#onProblem = onProblem;
  }

  /** What is known now, without waiting. */
  current(address: TcpAddress): readonly NumericAddress[] {
    const literal = isIP(address.host);
    const found: readonly LookedUp[] =
      literal === 0
        ? (this.#known.get(keyOf(address))?.addresses ?? [])
        : [{ address: address.host, family: literal }];
    return found.map(({ address: host, family }) => ({
      host,
      port: address.port,
      family: family === 6 ? 6 : 4,
    }));
  }

  /**
   * Asks again unless that was just done; never fails.
   * @returns what is known after it
   */
  async refresh(address: TcpAddress): Promise<readonly NumericAddress[]> {
    if (isIP(address.host) === 0) await this.#ask(address);
    return this.current(address);
  }

  #ask(address: TcpAddress): Promise<void> {
    const key = keyOf(address);
    const known: Known = this.#known.get(key) ?? {
      addresses: [],
      asked: Number.NEGATIVE_INFINITY,
      running: undefined,
    };
    this.#known.set(key, known);
    if (known.running !== undefined) return known.running;
    const now = performance.now();
    if (now - known.asked < REFRESH_MS) return Promise.resolve();
    known.asked = now;
    known.running = this.#once(address, known).finally(() => {
      known.running = undefined;
    });
    return known.running;
  }

  async #once(address: TcpAddress, known: Known): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error('no answer in time')), LOOKUP_MS);
    });
    try {
      const found = await Promise.race([this.#lookup(address.host, familyOf(address)), late]);
      if (found.length > 0) known.addresses = found;
    } catch (error) {
      this.#onProblem(address.host, error);
    } finally {
      clearTimeout(timer);
    }
  }
}

function keyOf(address: TcpAddress): string {
  return `${address.family} ${address.host}`;
}

/** Whether an address of a socket's other end is one of these; spelling does not matter. */
export function isAmong(remoteAddress: string, addresses: readonly NumericAddress[]): boolean {
  const ip = plainIp(remoteAddress);
  const version = isIP(ip);
  if (version === 0) return false;
  const list = new BlockList();
  for (const { host, family } of addresses) list.addAddress(host, family === 6 ? 'ipv6' : 'ipv4');
  return list.check(ip, version === 6 ? 'ipv6' : 'ipv4');
}
