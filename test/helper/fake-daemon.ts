import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createRawServer, type Server, type Socket } from 'node:net';
import type { ResourceStatus, Why, WorkerStatus } from '../../src/control/protocol.ts';

/** Something that listens on a control socket; `close` ends it and all its connections. */
export interface FakeDaemon {
  readonly path: string;
  close(): Promise<void>;
}

async function listening(server: Server, path: string): Promise<FakeDaemon> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    path,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** Answers every HTTP request with `answer`. */
export function fakeDaemon(
  path: string,
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void,
): Promise<FakeDaemon> {
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (part: string) => {
      body += part;
    });
    request.on('end', () => answer(request, response, body));
  });
  return listening(server, path);
}

/** Does with every connection what it likes. */
export function fakeSocket(path: string, connected: (socket: Socket) => void): Promise<FakeDaemon> {
  return listening(createRawServer(connected), path);
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

const IDLE_WORKER: WorkerStatus = {
  pid: 1,
  status: 'degraded',
  state: 'degraded',
  reason: '',
  peerKind: 'none',
  protocolVersion: 0,
  replication: 'memsync',
  syncSource: 'none',
  extentBytes: 2097152,
  keepdirty: 64,
  dirtyBytes: 0,
  syncBytesLeft: 0,
  syncBytesDone: 0,
  syncBytesPerSecond: 0,
  localStale: false,
  clients: [],
  inFlight: 0,
  reads: 0,
  writes: 0,
  deletes: 0,
  flushes: 0,
  activemapUpdates: 0,
  readErrors: 0,
  writeErrors: 0,
  deleteErrors: 0,
  flushErrors: 0,
  queueLocal: 0,
  queueSend: 0,
  queueRecv: 0,
  queueDone: 0,
  queueIdle: 256,
};

export function workerOf(changes: Partial<WorkerStatus> = {}): WorkerStatus {
  return { ...IDLE_WORKER, ...changes };
}

export function resourceOf(name: string, changes: Partial<ResourceStatus> = {}): ResourceStatus {
  return {
    name,
    provname: name,
    role: 'init',
    local: `/srv/${name}.img`,
    remote: 'tcp4://10.0.0.2',
    source: null,
    export: `uds:///var/run/hast/${name}.nbd`,
    device: null,
    replication: 'memsync',
    checksum: 'none',
    compression: 'hole',
    notes: [],
    lastError: null,
    hooks: { running: null, runningSeconds: 0, waiting: 0, failure: null },
    worker: null,
    ...changes,
  };
}

export function whyAnswerOf(name: string, changes: Partial<Why> = {}): Why {
  return {
    name,
    node: 'alpha',
    role: 'secondary',
    state: 'waiting',
    now: ['it waits'],
    history: [],
    data: { complete: null, text: 'unknown' },
    ifThisNodeDies: 'nothing is lost',
    ifPeerDies: 'something is lost',
    next: { text: 'wait', steps: [] },
    ...changes,
  };
}
