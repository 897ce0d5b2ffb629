// A worker with an engine that is none: it does what `HASTD_FAKE` in the environment says, a comma
// list of words or KEY=VALUE.
import { fstatSync } from 'node:fs';
import { createServer } from 'node:net';
import type {
  EngineEvent,
  EngineFunctions,
  EngineHandle,
  EngineSpec,
  EngineStats,
} from '../../src/native.ts';
import { native } from '../../src/native.ts';
import { WorkerBody } from '../../src/resource/worker.ts';
import { WorkerDoor } from '../../src/resource/worker-door.ts';
import { programVersion, titleOf, WORKER_FDS } from '../../src/resource/worker-protocol.ts';

const words = new Map(
  (process.env.HASTD_FAKE ?? '').split(',').map((pair) => {
    const [key = '', value = ''] = pair.split('=');
    return [key, value] as const;
  }),
);
const has = (word: string): boolean => words.has(word);

const STATS: EngineStats = {
  status: 'degraded',
  state: 'degraded',
  reason: 'no peer in this test',
  peerKind: 'none',
  protocolVersion: 2,
  replication: 'memsync',
  syncSource: 'none',
  extentBytes: 2097152,
  keepdirty: 64,
  dirtyBytes: 0,
  syncBytesLeft: 0,
  syncBytesDone: 0,
  syncBytesPerSecond: 0,
  localStale: false,
  clients: has('clients') ? ['pid 4711 (fio)'] : [],
  inFlight: 0,
  reads: 1,
  writes: 2,
  deletes: 3,
  flushes: 4,
  activemapUpdates: 5,
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

let tell: (event: EngineEvent) => void = () => {};

function end(exit: number, code: string, text: string): void {
  tell({ type: 'end', exit, code, text });
}

function log(text: string): void {
  tell({ type: 'log', level: 'info', text });
}

/** Only in tests: workers never say it. */
function tellSecret(secret: Uint8Array | null): void {
  if (secret !== null) log(`secret ${Buffer.from(secret)}`);
}

function begin(spec: EngineSpec): void {
  const second = spec.role === 'secondary' && fstatSync(spec.repliesFd).isSocket();
  const kinds = [
    fstatSync(spec.diskFd).isFile() ? 'file' : '?',
    fstatSync(spec.role === 'primary' ? spec.exportFd : spec.requestsFd).isSocket()
      ? 'socket'
      : '?',
    second ? 'socket' : '-',
  ];
  log(`fake engine as ${spec.role}: ${kinds.join(' ')}`);
  log(`resuid ${spec.hello?.resuid ?? 'none'}`);
  tellSecret(spec.secret);
  if (has('refuse')) end(5, 'ROLE_REFUSED', 'the peer is primary');
  else if (has('fail')) end(66, 'META_UNREADABLE', 'no metadata');
  else if (has('crash')) process.kill(process.pid, 'SIGKILL');
  else if (has('crash-late')) {
    tell({ type: 'ready' });
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50);
  } else if (!has('never-ready')) {
    tell({ type: 'ready' });
    if (!has('alone')) tell({ type: 'event', name: 'connect' });
  }
}

const engine: EngineFunctions = {
  start(spec, onEvent) {
    tell = onEvent;
    setImmediate(() => begin(spec));
    return {} as EngineHandle;
  },
  stop() {
    if (has('stubborn')) return;
    setTimeout(() => end(0, '', ''), Number(words.get('drain') ?? 0));
  },
  reconfigure(_handle, { secret, peers }) {
    log(`peers ${peers.map(({ host }) => host).join(' ')}`);
    tellSecret(secret);
  },
  kick() {},
  stats: () => (has('mute') ? new Promise(() => {}) : Promise.resolve(STATS)),
};

process.title = process.argv[2] ?? '';
const server = createServer().listen({ fd: WORKER_FDS.door });
const door = new WorkerDoor({
  version: words.get('version') ?? programVersion(),
  refused: [],
  admits: () => true,
  orphanMs: Number(words.get('orphan') ?? 0),
  exit: (code) => process.exit(code),
  die: () => process.abort(),
});
const body = new WorkerBody({ engine }, door, ({ resource, role }) => {
  process.title = titleOf(resource, role);
  return native.host.receiveDescriptors(WORKER_FDS.gifts);
});
process.on('SIGTERM', () => body.stop());
if (has('babble')) server.on('connection', (socket) => socket.write('garbage\n'));
else door.serve(server, body);
if (has('parting')) {
  server.once('connection', (socket) => {
    socket.on('close', () => tell({ type: 'event', name: 'syncdone' }));
  });
}
// The first one is of whoever has started it.
if (has('faint')) {
  server.once('connection', () => {
    server.prependListener('connection', () => process.kill(process.pid, 'SIGKILL'));
  });
}
