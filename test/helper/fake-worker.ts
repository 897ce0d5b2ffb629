// A worker without an engine: speaks the worker's messages and does what its resource's name says.
// `HASTD_FAKE` in the environment: a comma list of KEY=VALUE that overrides it.
import { fstatSync } from 'node:fs';
import type { EngineEvent, EngineStats } from '../../src/native.ts';
import {
  type ParentMessage,
  WORKER_FDS,
  type WorkerMessage,
} from '../../src/resource/worker-protocol.ts';

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

function send(message: WorkerMessage, done: () => void = () => {}): void {
  process.send?.(message, () => done());
}

function tell(event: EngineEvent): void {
  send({ kind: 'engine', event });
}

function end(exit: number, code: string, text: string): void {
  const event: EngineEvent = { type: 'end', exit, code, text };
  send({ kind: 'engine', event }, () => process.exit(exit));
}

/** Only in tests: workers never say it. */
function tellSecret(secret: Uint8Array | null): void {
  if (secret === null) return;
  tell({ type: 'log', level: 'info', text: `secret ${Buffer.from(secret)}` });
}

let started = false;

function start(message: Extract<ParentMessage, { kind: 'start' }>): void {
  started = true;
  const { spec } = message;
  const second = spec.role === 'secondary' && fstatSync(WORKER_FDS.second).isSocket();
  const kinds = [
    fstatSync(WORKER_FDS.disk).isFile() ? 'file' : '?',
    fstatSync(WORKER_FDS.first).isSocket() ? 'socket' : '?',
    second ? 'socket' : '-',
  ];
  tell({ type: 'log', level: 'info', text: `fake engine as ${spec.role}: ${kinds.join(' ')}` });
  tell({ type: 'log', level: 'info', text: `resuid ${spec.hello?.resuid ?? 'none'}` });
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

function stop(): void {
  if (has('stubborn')) return;
  setTimeout(() => end(0, '', ''), Number(words.get('drain') ?? 0));
}

process.on('SIGTERM', stop);
process.on('disconnect', () => process.exit(0));
process.on('message', (raw) => {
  const message = raw as ParentMessage;
  if (message.kind === 'start') start(message);
  else if (message.kind === 'stop') stop();
  else if (message.kind === 'reconfigure') tellSecret(message.tuning.secret);
  else if (message.kind === 'stats' && started && !has('mute')) {
    send({ kind: 'stats', id: message.id, stats: STATS });
  }
});
process.title = process.argv[2] ?? '';
send({ kind: 'hello', refused: [] });
