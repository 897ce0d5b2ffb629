// Suites run beside each other. Each has a lane, with what others must not take from it meanwhile.
import { createServer } from 'node:net';

/** 0 where a suite runs by itself. */
export const LANE = Number(process.env.HASTD_TEST_LANE ?? 0);

/** Below those that the kernel gives to connections, which might take one that is free a moment. */
const FIRST_PORT = 20_000;
const PORTS_PER_LANE = 1000;

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(false);
      else reject(error);
    });
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Two ports of 127.0.0.1, one behind the other, that were free a moment ago. */
export async function freePorts(): Promise<readonly [number, number]> {
  for (;;) {
    const pair = Math.floor((Math.random() * PORTS_PER_LANE) / 2);
    const port = FIRST_PORT + (LANE % 10) * PORTS_PER_LANE + 2 * pair;
    if ((await canListen(port)) && (await canListen(port + 1))) return [port, port + 1];
  }
}

/** The same things in another order for each lane, so that each takes another one first. */
export function inOrderOfLane<T>(all: readonly T[]): T[] {
  const first = LANE % Math.max(1, all.length);
  return [...all.slice(first), ...all.slice(0, first)];
}
