/**
 * Accepts primaries: one bounded message per connection under one deadline, then the pair is handed
 * on. Nothing a peer does, or does not do, holds up anybody else.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import type { TcpAddress } from '../config/config.ts';
import { HastError } from '../error.ts';
import type { Logger } from '../log.ts';
import type { PeerHello } from '../native.ts';
import type { Role } from '../resource/role.ts';
import {
  encodeRefusal,
  judge,
  MessageReader,
  type Pending,
  TOKEN_BYTES,
  type Verdict,
} from './handshake.ts';
import { plainIp } from './resolver.ts';

/** A pair of connections whose second message was good. */
export interface PeerPair {
  readonly requests: Socket;
  readonly replies: Socket;
  readonly hello: PeerHello;
  alive(): boolean;
  refuse(text: string): void;
  release(): void;
}

export interface PeerTableEntry {
  readonly role: Role;
  admits(ip: string): boolean;
  /** @throws HastError SECRET_FILE */
  secret(): Uint8Array | null;
}

/** The table of resources, as a peer's messages meet it. */
export interface PeerTable {
  readonly count: number;
  /** Whether the address is the `remote` of any resource. */
  admitsAny(ip: string): boolean;
  /** Undefined: not configured. */
  find(resource: string): PeerTableEntry | undefined;
  admit(resource: string, pair: PeerPair): void;
  contact(resource: string): void;
  /** Somebody at this address came and went without a word: a peer that is there again. */
  knocked(ip: string): void;
  /** An address that nobody is known by: names may have new numbers. */
  unknown(ip: string): void;
}

export interface ListenerLimits {
  readonly setupMs: number;
  readonly halfOpenMs: number;
  readonly goodbyeMs: number;
  readonly backlog: number;
}
export const LISTENER_LIMITS: ListenerLimits = {
  setupMs: 20_000,
  halfOpenMs: 20_000,
  goodbyeMs: 5000,
  // The original has 8; a node with many resources would lose a second to each overflow.
  backlog: 128,
};
const PENDING_BASE = 16;
const PENDING_PER_RESOURCE = 4;
const SAID_MS = 60_000;
const SHOWN_NAME_CHARS = 127;
const NO_SECRET_TEXT =
  'has a secret for the resource, and this node has none: configure the same file on both nodes.';

interface HalfOpen extends Pending {
  readonly socket: Socket;
  readonly timer: NodeJS.Timeout;
}

/** Listening on other addresses, begun. */
export interface Relistening {
  /** Closes what is not wanted any more. @returns what could not be opened */
  commit(): Promise<readonly HastError[]>;
  undo(): void;
}

export class PeerListener {
  readonly #table: PeerTable;
  readonly #log: Logger;
  readonly #limits: ListenerLimits;
  /** By the text of the address. */
  readonly #servers = new Map<string, Server>();
  /** Connections that have not been handed on, by address. */
  readonly #open = new Map<Socket, string>();
  readonly #halfOpen = new Map<string, HalfOpen>();
  /** Refusals, by resource; '' stands for those that concern none. */
  readonly #said = new Map<string, { readonly line: string; readonly at: number }>();
  #unknownLogged = Number.NEGATIVE_INFINITY;

  constructor(table: PeerTable, log: Logger, limits: ListenerLimits = LISTENER_LIMITS) {
    this.#table = table;
    this.#log = log;
    this.#limits = limits;
  }

  /** @throws HastError DAEMON_LISTEN */
  async listen(address: TcpAddress): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => {
        reject(
          new HastError('DAEMON_LISTEN', {
            message: `cannot listen on ${address.text}: ${cause.message}`,
            cause,
          }),
        );
      });
      const { backlog } = this.#limits;
      const { host, port } = address;
      server.listen({ host, port, backlog, ipv6Only: address.family === 'ipv6' }, resolve);
    });
    server.on('error', (error) => this.#log.warning(`Accepting peers: ${error.message}.`));
    this.#servers.set(address.text, server);
  }

  /**
   * Begins to listen on these addresses too, as far as that is possible now.
   * @throws HastError DAEMON_LISTEN when none of them can be used; then all is as it was
   */
  async begin(addresses: readonly TcpAddress[]): Promise<Relistening> {
    const before = [...this.#servers.keys()];
    const failed: { readonly address: TcpAddress; readonly error: HastError }[] = [];
    for (const address of addresses) {
      if (this.#servers.has(address.text)) continue;
      try {
        await this.listen(address);
      } catch (error) {
        failed.push({ address, error: error as HastError });
      }
    }
    const wanted = new Set(addresses.map(({ text }) => text));
    const gone = before.filter((text) => !wanted.has(text));
    const undo = () => this.#stop([...this.#servers.keys()].filter((t) => !before.includes(t)));
    // What is about to be closed may be in the way: a wildcard, most often.
    const hopeless = ({ error }: { readonly error: HastError }) =>
      gone.length === 0 || (error.cause as NodeJS.ErrnoException).code !== 'EADDRINUSE';
    if (failed.length === addresses.length && failed.every(hopeless)) {
      undo();
      throw failed[0]?.error ?? new HastError('DAEMON_LISTEN', { message: 'nothing to listen on' });
    }
    return { undo, commit: () => this.#commit(gone, failed) };
  }

  async #commit(
    gone: readonly string[],
    failed: readonly { readonly address: TcpAddress; readonly error: HastError }[],
  ): Promise<readonly HastError[]> {
    this.#stop(gone);
    const problems: HastError[] = [];
    for (const { address } of failed) {
      await this.listen(address).catch((error: HastError) => problems.push(error));
    }
    return problems;
  }

  /** Connections that were accepted go on. */
  #stop(texts: readonly string[]): void {
    for (const text of texts) {
      this.#servers.get(text)?.close();
      this.#servers.delete(text);
    }
  }

  /** Ports really bound, for `listen` with a name or port of the system's choice. */
  get ports(): readonly number[] {
    return [...this.#servers.values()].flatMap((server) => {
      const address = server.address();
      return address === null || typeof address === 'string' ? [] : [address.port];
    });
  }

  close(): void {
    for (const server of this.#servers.values()) server.close();
    for (const socket of this.#open.keys()) socket.destroy();
  }

  /** Closes the connection 1 that waits for this resource, if there is one. */
  drop(resource: string): void {
    this.#takeHalfOpen(resource)?.socket.destroy();
  }

  // ---- One connection -------------------------------------------------------------------------

  #accept(socket: Socket): void {
    const ip = plainIp(socket.remoteAddress ?? '');
    socket.on('error', () => socket.destroy());
    if (!this.#table.admitsAny(ip)) {
      this.#unknown(ip);
      socket.destroy();
      return;
    }
    const most = PENDING_BASE + PENDING_PER_RESOURCE * this.#table.count;
    const same = [...this.#open.values()].filter((other) => other === ip).length;
    if (same >= most || this.#open.size >= most * 2) {
      this.#log.debug1(`Too many connections of ${ip} wait, one is dropped.`);
      socket.destroy();
      return;
    }
    this.#log.debug1(`Connection from ${ip}.`);
    this.#open.set(socket, ip);
    socket.once('close', () => this.#open.delete(socket));
    const timer = setTimeout(() => {
      this.#log.debug1(`${ip} did not finish the set-up in time.`);
      socket.destroy();
    }, this.#limits.setupMs);
    socket.once('close', () => clearTimeout(timer));

    const reader = new MessageReader();
    let heard = false;
    socket.once('end', () => {
      if (!heard) this.#table.knocked(ip);
    });
    const onData = (chunk: Buffer): void => {
      heard = true;
      try {
        const area = reader.push(chunk);
        if (area === undefined) return;
        socket.off('data', onData);
        clearTimeout(timer);
        const verdict = judge(
          area,
          (resource) => this.#lookup(resource, ip),
          () => randomBytes(TOKEN_BYTES),
          reader.version,
        );
        this.#obey(verdict, socket, ip);
      } catch (error) {
        const why = error instanceof HastError ? error.message : String(error);
        this.#log.warning(`Connection from ${ip} dropped: ${why}.`);
        socket.destroy();
      }
    };
    socket.on('data', onData);
  }

  #lookup(resource: string, ip: string) {
    const found = this.#table.find(resource);
    if (found === undefined) return undefined;
    return {
      role: found.role,
      admits: found.admits(ip),
      pending: this.#halfOpen.get(resource),
      secret: () => found.secret(),
    };
  }

  #obey(verdict: Verdict, socket: Socket, ip: string): void {
    switch (verdict.kind) {
      case 'drop':
        this.#log.warning(`Connection from ${ip} dropped: ${verdict.why}.`);
        socket.destroy();
        break;
      case 'refuse': {
        this.#logRefusal(verdict, ip);
        this.#goodbye(socket, verdict.reply);
        if (verdict.closePending) this.drop(verdict.resource);
        if (verdict.contact) this.#table.contact(verdict.resource);
        break;
      }
      case 'first':
        if (verdict.strange) this.#about(verdict.resource).warning(`${ip} ${NO_SECRET_TEXT}`);
        this.#keep(verdict.resource, verdict.pending, socket, ip);
        socket.write(verdict.reply);
        break;
      case 'second': {
        const first = this.#takeHalfOpen(verdict.resource);
        if (first === undefined) {
          socket.destroy();
          break;
        }
        this.#about(verdict.resource).info(`Connection from ${ip}.`);
        this.#table.admit(verdict.resource, this.#pair(first.socket, socket, verdict.hello));
        break;
      }
    }
  }

  /** A name that is not ours is text of a stranger, no prefix. */
  #logRefusal(
    { resource, text, why }: { resource: string; text: string; why?: string },
    ip: string,
  ): void {
    if (this.#table.find(resource) !== undefined) {
      const more = why === undefined ? '' : ` (${why})`;
      const line = `Connection from ${ip} refused: ${text}${more}`;
      this.#about(resource).log(this.#levelOf(resource, line), line);
      return;
    }
    const name = JSON.stringify(resource.slice(0, SHOWN_NAME_CHARS));
    const line = `Connection from ${ip} for resource ${name} refused: ${text}`;
    this.#log.log(this.#levelOf('', line), line);
  }

  #about(resource: string): Logger {
    return this.#log.child(resource, this.#table.find(resource)?.role);
  }

  /** A primary tries again and again: the same is a warning once a minute. */
  #levelOf(about: string, line: string): 'warning' | 'debug1' {
    const now = performance.now();
    const said = this.#said.get(about);
    if (said?.line === line && now - said.at < SAID_MS) return 'debug1';
    this.#said.set(about, { line, at: now });
    return 'warning';
  }

  /** The newest first message wins; nothing else changes by it. */
  #keep(resource: string, pending: Pending, socket: Socket, ip: string): void {
    this.drop(resource);
    const timer = setTimeout(() => {
      this.#about(resource).debug1(`${ip} did not open its second connection in time.`);
      socket.destroy();
    }, this.#limits.halfOpenMs);
    const entry: HalfOpen = { ...pending, socket, timer };
    this.#halfOpen.set(resource, entry);
    // Before the second reply there is nothing to say on this connection.
    socket.on('data', () => socket.destroy());
    socket.once('close', () => {
      clearTimeout(timer);
      if (this.#halfOpen.get(resource) === entry) this.#halfOpen.delete(resource);
    });
  }

  /** A token is good for one use. */
  #takeHalfOpen(resource: string): HalfOpen | undefined {
    const entry = this.#halfOpen.get(resource);
    if (entry === undefined) return undefined;
    clearTimeout(entry.timer);
    this.#halfOpen.delete(resource);
    return entry;
  }

  #pair(requests: Socket, replies: Socket, hello: PeerHello): PeerPair {
    const both = [requests, replies];
    replies.on('data', () => replies.destroy());
    for (const socket of both) {
      // One without the other is of no use.
      socket.once('close', () => {
        for (const other of both) other.destroy();
      });
    }
    return {
      requests,
      replies,
      hello,
      alive: () => both.every((socket) => !socket.destroyed && socket.readyState === 'open'),
      // The primary waits for the answer to its second message on the first connection.
      refuse: (text) => {
        for (const socket of both) this.#goodbye(socket, encodeRefusal(text));
      },
      release: () => {
        for (const socket of both) socket.destroy();
      },
    };
  }

  #goodbye(socket: Socket, reply: Buffer): void {
    if (socket.destroyed) return;
    // Read on, and away: closing with unread bytes would take the reply back.
    socket.on('data', () => {});
    socket.end(reply);
    const timer = setTimeout(() => socket.destroy(), this.#limits.goodbyeMs);
    socket.once('close', () => clearTimeout(timer));
  }

  #unknown(ip: string): void {
    this.#table.unknown(ip);
    const now = performance.now();
    if (now - this.#unknownLogged < SAID_MS) return;
    this.#unknownLogged = now;
    this.#log.warning(`Connection from ${ip} dropped: no resource has this remote address.`);
  }
}
