// A link that can be cut: a TCP relay on loopback.
import { connect, createServer, type Server, type Socket } from 'node:net';

export class Relay {
  readonly port: number;
  readonly #server: Server;
  readonly #target: number;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #open = true;
  #silent = false;

  private constructor(server: Server, port: number, target: number) {
    this.#server = server;
    this.port = port;
    this.#target = target;
    server.on('connection', (near: Socket) => this.#join(near));
  }

  /** @param target  the port of 127.0.0.1 that it leads to */
  static make(target: number): Promise<Relay> {
    return new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true });
      server.once('error', reject);
      server.listen(0, '127.0.0.1', () => {
        const address = server.address();
        const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
        resolve(new Relay(server, port, target));
      });
    });
  }

  get connections(): number {
    return this.#pairs.size;
  }

  /** Ends every connection at once, and every new one until `heal`. */
  cut(): void {
    this.#open = false;
    for (const pair of [...this.#pairs]) for (const socket of pair) socket.resetAndDestroy();
  }

  /** Forwards nothing any more, and closes nothing: what a pulled cable looks like. */
  silence(): void {
    this.#silent = true;
    for (const [near, far] of this.#pairs) {
      near.pause();
      far.pause();
    }
  }

  /** New connections get through. Those that were silent are over: their bytes are lost. */
  heal(): void {
    if (this.#silent) for (const pair of [...this.#pairs]) for (const one of pair) one.destroy();
    this.#silent = false;
    this.#open = true;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #join(near: Socket): void {
    near.on('error', () => near.destroy());
    if (!this.#open) {
      near.resetAndDestroy();
      return;
    }
    const far = connect({ port: this.#target, host: '127.0.0.1', noDelay: true });
    const pair = [near, far] as const;
    this.#pairs.add(pair);
    far.on('error', () => far.destroy());
    for (const [from, to] of [pair, [far, near] as const]) {
      from.on('data', (bytes: Buffer) => {
        if (this.#silent) return;
        if (!to.write(bytes)) from.pause();
      });
      to.on('drain', () => {
        if (!this.#silent) from.resume();
      });
      from.on('end', () => to.end());
      from.on('close', () => {
        this.#pairs.delete(pair);
        to.destroy();
      });
    }
    if (this.#silent) near.pause();
  }
}
