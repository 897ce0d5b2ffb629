import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../../src/error.ts';
import type {
  EngineEvent,
  EngineFunctions,
  EngineHandle,
  EngineSpec,
  EngineStats,
} from '../../../src/native.ts';
import { WorkerBody } from '../../../src/resource/worker.ts';
import type { WorkerMessage } from '../../../src/resource/worker-protocol.ts';
import { SPEC } from '../../helper/worker-spec.ts';

const worker = suite('worker');

function bench(start?: () => never) {
  const did: string[] = [];
  const sent: WorkerMessage[] = [];
  const specs: EngineSpec[] = [];
  let onEvent: (event: EngineEvent) => void = () => {};
  const engine: EngineFunctions = {
    start(spec, on) {
      start?.();
      specs.push(spec);
      onEvent = on;
      return {} as EngineHandle;
    },
    stop: () => did.push('stop'),
    reconfigure: () => did.push('reconfigure'),
    kick: () => did.push('kick'),
    stats: () => Promise.resolve({ writes: 7 } as EngineStats),
  };
  const body = new WorkerBody(
    { engine },
    {
      send: (message) => void sent.push(message),
      finish(message, code) {
        sent.push(message);
        did.push(`exit ${code}`);
      },
    },
    ({ role }) => (role === 'primary' ? [14, 15] : [14, 15, 16]),
  );
  return { body, did, sent, specs, event: (event: EngineEvent) => onEvent(event) };
}

worker('knows the descriptors by their order and the role', () => {
  const primary = bench();
  primary.body.receive({ kind: 'start', spec: SPEC, debug: 0 });
  const fds = ({ diskFd, exportFd, requestsFd, repliesFd }: EngineSpec) => [
    diskFd,
    exportFd,
    requestsFd,
    repliesFd,
  ];
  assert.equal(primary.specs.map(fds), [[14, 15, -1, -1]]);
  const secondary = bench();
  secondary.body.receive({ kind: 'start', spec: { ...SPEC, role: 'secondary' }, debug: 0 });
  assert.equal(secondary.specs.map(fds), [[14, -1, 15, 16]]);
});

worker('passes events on in order and ends with the code of the last', () => {
  const { body, did, sent, event } = bench();
  body.receive({ kind: 'start', spec: SPEC, debug: 0 });
  event({ type: 'ready' });
  event({ type: 'log', level: 'debug1', text: 'nobody has asked for it' });
  event({ type: 'end', exit: 66, code: 'META_UNREADABLE', text: 'gone' });
  assert.equal(
    sent.map((message) => message.kind === 'engine' && message.event.type),
    ['ready', 'end'],
  );
  assert.equal(did, ['exit 66']);
});

worker('an exception in JavaScript is told and the engine goes on', () => {
  const { body, did, sent } = bench();
  body.receive({ kind: 'start', spec: SPEC, debug: 0 });
  body.fault(new Error('oops'));
  assert.equal(did, []);
  const [message] = sent;
  assert.ok(message?.kind === 'engine' && message.event.type === 'log');
  body.receive({ kind: 'kick' });
  body.receive({ kind: 'stop' });
  assert.equal(did, ['kick', 'stop']);
});

worker('without an engine a stop is the end', () => {
  const { body, did } = bench();
  body.stop();
  assert.equal(did, ['exit 0']);
});

worker('an engine that cannot start ends with its error', () => {
  const { body, did, sent } = bench(() => {
    throw new HastError('DISK_OPEN', { message: 'no disk' });
  });
  body.receive({ kind: 'start', spec: SPEC, debug: 0 });
  assert.equal(did, ['exit 66']);
  const [message] = sent;
  assert.equal(message?.kind === 'engine' && message.event, {
    type: 'end',
    exit: 66,
    code: 'DISK_OPEN',
    text: 'no disk',
  });
});

worker('answers with numbers of the engine', async () => {
  const { body, sent } = bench();
  body.receive({ kind: 'stats', id: 1 });
  body.receive({ kind: 'start', spec: SPEC, debug: 0 });
  body.receive({ kind: 'stats', id: 2 });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(sent, [{ kind: 'stats', id: 2, stats: { writes: 7 } as EngineStats }]);
});

worker.run();
