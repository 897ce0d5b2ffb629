/**
 * A secondary makes itself heard: one connection to the peer, closed without a byte. The listener
 * there takes it as news for a primary that waits before its next attempt.
 */
import { connect } from 'node:net';
import type { Logger } from '../log.ts';
import type { NumericAddress } from '../native.ts';

const KNOCK_MS = 2000;

/** Tries the addresses in turn until one takes the connection. Never fails. */
export async function knock(
  peers: readonly NumericAddress[],
  source: NumericAddress | null,
  log: Logger,
  limitMs = KNOCK_MS,
): Promise<void> {
  const end = performance.now() + limitMs;
  for (const peer of peers) {
    const left = end - performance.now();
    if (left <= 0 || (await knockAt(peer, source, log, left))) return;
  }
}

function knockAt(
  { host, port, family }: NumericAddress,
  source: NumericAddress | null,
  log: Logger,
  ms: number,
): Promise<boolean> {
  return new Promise((resolve) => {
    let open = false;
    // Any port: that of source is soon wanted by a worker.
    const from = source?.family === family ? { localAddress: source.host } : {};
    const socket = connect({ host, port, family, ...from }).unref();
    const timer = setTimeout(() => socket.destroy(), ms).unref();
    socket.once('connect', () => {
      open = true;
      socket.end();
    });
    socket.resume();
    socket.once('error', (error) => log.debug1(`Knocking at the peer: ${error.message}.`));
    socket.once('close', () => {
      clearTimeout(timer);
      resolve(open);
    });
  });
}
