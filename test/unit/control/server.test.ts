import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as v from 'valibot';
import {
  CONTROL_LIMITS,
  EventSchema,
  FailureSchema,
  HistoryEntrySchema,
  type ReloadAnswer,
  ReloadAnswerSchema,
  ResourceListSchema,
  ResourceSchema,
  type ResourceStatus,
  RoleAnswerSchema,
  type RoleRequest,
  StepSchema,
  WhySchema,
} from '../../../src/control/protocol.ts';
import { ControlServer } from '../../../src/control/server.ts';
import { HastError } from '../../../src/error.ts';
import { native } from '../../../src/native.ts';
import { until, withDeadline } from '../../helper/deadline.ts';
import { resourceOf, whyAnswerOf } from '../../helper/fake-daemon.ts';
import { type Answer, ask } from '../../helper/http.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const server = suite('control server');

const WORKER: NonNullable<ResourceStatus['worker']> = {
  pid: 7,
  status: 'complete',
  state: 'in-sync',
  reason: '',
  peerKind: 'ours',
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
  clients: ['pid 9 (fio)'],
  inFlight: 0,
  reads: 1,
  writes: 2,
  deletes: 3,
  flushes: 4,
  activemapUpdates: 5,
  readErrors: 6,
  writeErrors: 7,
  deleteErrors: 8,
  flushErrors: 9,
  queueLocal: 10,
  queueSend: 11,
  queueRecv: 12,
  queueDone: 13,
  queueIdle: 14,
};

const RELOADED: ReloadAnswer = {
  resources: [
    { name: 'data', change: 'in-place', statements: ['timeout'], error: null },
    {
      name: 'spare',
      change: 'restarted',
      statements: ['local'],
      error: { code: 'META_UNREADABLE', message: 'no disk', exit: 66 },
    },
  ],
  statements: ['listen'],
  warnings: ['a word'],
};

function statusOf(name: string): ResourceStatus {
  return resourceOf(name, {
    role: name === 'data' ? 'primary' : 'init',
    worker: name === 'data' ? WORKER : null,
  });
}

interface Bench {
  readonly control: ControlServer;
  readonly path: string;
  readonly asked: RoleRequest[];
  readonly askers: string[];
  readonly problems: string[];
  readonly answers: string[];
  ask(method: string, url: string, body?: string): Promise<Answer>;
  open(): Socket;
}

function bench(body: (bench: Bench) => Promise<void>, admitted = true): () => Promise<void> {
  return withDeadline(30_000, () =>
    inTempdir(async (directory) => {
      const path = `${directory}/ctl`;
      const asked: RoleRequest[] = [];
      const askers: string[] = [];
      const problems: string[] = [];
      const answers: string[] = [];
      const sockets: Socket[] = [];
      let reloads = 0;
      const names = ['data', 'spare', 'a b'];
      const control = new ControlServer({
        admits: () => admitted,
        nameOf: () => 'root, pid 1',
        onProblem: (text) => problems.push(text),
        onAnswer: (text) => answers.push(text),
        backend: {
          names: () => names,
          status: (name) => Promise.resolve(statusOf(name)),
          why: (name) => Promise.resolve(whyAnswerOf(name)),
          reload: () => {
            reloads += 1;
            if (reloads > 1) return Promise.reject(new HastError('CONFIG_MEANING'));
            return Promise.resolve(RELOADED);
          },
          changeRole: (name, request, by) => {
            asked.push(request);
            askers.push(by);
            if (request.role === 'primary') {
              const error = new HastError('ROLE_REFUSED', {
                message: 'peer is primary',
                hint: '-f',
              });
              return Promise.reject(error);
            }
            if (name === 'spare') return Promise.reject(new TypeError('a bug'));
            return Promise.resolve({ name, previous: 'init', role: request.role, notices: [] });
          },
        },
      });
      await control.listen(native.host.listenUnix(path, 0o600, -1, -1));
      try {
        await body({
          control,
          path,
          asked,
          askers,
          problems,
          answers,
          ask: (method, url, text) => ask(path, method, url, text),
          open: () => {
            const socket = connect(path);
            socket.on('error', () => {});
            sockets.push(socket);
            return socket;
          },
        });
      } finally {
        for (const socket of sockets) socket.destroy();
        control.close();
      }
    }),
  );
}

function isFailure(answer: Answer, status: number, code: string): void {
  assert.is(answer.status, status);
  const failure = v.parse(FailureSchema, answer.json());
  assert.is(failure.code, code);
}

server(
  'answers with the shapes of the protocol',
  bench(async ({ ask: call }) => {
    const list = v.parse(ResourceListSchema, (await call('GET', '/v1/resources')).json());
    assert.equal(
      list.resources.map(({ name }) => name),
      ['data', 'spare', 'a b'],
    );
    const one = v.parse(ResourceSchema, (await call('GET', '/v1/resources/data?x=1')).json());
    assert.is(one.worker?.pid, 7);
    v.parse(ResourceSchema, (await call('GET', '/v1/resources/a%20b')).json());
    const why = v.parse(WhySchema, (await call('GET', '/v1/resources/data/why')).json());
    assert.equal(why, whyAnswerOf('data'));
    const body = '{"role":"secondary","force":true}';
    const role = await call('POST', '/v1/resources/data/role', body);
    assert.is(role.status, 200);
    assert.is(v.parse(RoleAnswerSchema, role.json()).role, 'secondary');
  }),
);

server(
  'fills in what a role request leaves out, and tells who asked for what',
  bench(async ({ ask: call, asked, askers, answers }) => {
    await call('POST', '/v1/resources/data/role', '{"role":"init"}');
    assert.equal(asked, [{ role: 'init', force: false, ifUnused: false }]);
    assert.equal(askers, ['a client (root, pid 1)']);
    await call('GET', `/v1/${'x'.repeat(500)}`);
    await until('both are told', 3000, () => answers.length === 2);
    const [role, unknown = ''] = answers;
    assert.is(role, 'POST /v1/resources/data/role by a client (root, pid 1): 200.');
    assert.match(unknown, /^GET \/v1\/x{196} by .*: 404\.$/);
  }),
);

server(
  'tells failures in one shape',
  bench(async ({ ask: call, problems, asked }) => {
    isFailure(await call('GET', '/v1/nothing'), 404, 'HTTP_NOT_FOUND');
    isFailure(await call('GET', '/v1/resources/none'), 404, 'RESOURCE_UNKNOWN');
    isFailure(await call('DELETE', '/v1/resources'), 405, 'HTTP_METHOD');
    isFailure(await call('GET', '/v1/resources/%ff'), 400, 'HTTP_BAD_REQUEST');
    const role = (text: string) => call('POST', '/v1/resources/data/role', text);
    isFailure(await role('{'), 400, 'HTTP_BAD_REQUEST');
    isFailure(await role('[]'), 400, 'HTTP_BAD_REQUEST');
    isFailure(await role('{"role":"boss"}'), 400, 'HTTP_BAD_REQUEST');
    isFailure(await role('{"role":"init","extra":1}'), 400, 'HTTP_BAD_REQUEST');
    isFailure(await role(' '.repeat(CONTROL_LIMITS.bodyBytes + 1)), 413, 'HTTP_TOO_LARGE');
    assert.equal(asked, []);
    const refused = await role('{"role":"primary"}');
    isFailure(refused, 409, 'ROLE_REFUSED');
    assert.equal(refused.json(), {
      code: 'ROLE_REFUSED',
      message: 'peer is primary',
      hint: '-f',
      exit: 5,
    });
    const unknown = await call('POST', '/v1/resources/none/role', '{"role":"init"}');
    assert.is(v.parse(FailureSchema, unknown.json()).exit, 1);
    assert.equal(problems, []);
    isFailure(await call('POST', '/v1/resources/spare/role', '{"role":"init"}'), 500, 'INTERNAL');
    assert.match(problems[0] ?? '', 'a bug');
  }),
);

server(
  'survives what is not HTTP, and a head over the cap',
  bench(async ({ open, ask: call }) => {
    for (const [bytes, status] of [
      ['\u0000\u0001garbage\r\n\r\n', '400'],
      [`GET / HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, '413'],
    ] as const) {
      const socket = open();
      let got = '';
      socket.setEncoding('utf8').on('data', (text: string) => {
        got += text;
      });
      socket.write(bytes);
      await until('an answer', 5000, () => got.startsWith(`HTTP/1.1 ${status}`));
    }
    open().write('POST /v1/resources/data/role HTTP/1.1\r\ncontent-length: 10\r\n\r\n{');
    open(); // says nothing
    assert.is((await call('GET', '/v1/resources')).status, 200);
  }),
);

server(
  'lets nobody in who is not admitted',
  bench(async ({ ask: call }) => {
    let code = '';
    await call('GET', '/v1/resources').catch((error: NodeJS.ErrnoException) => {
      code = error.code ?? '';
    });
    assert.match(code, /^(ECONNRESET|EPIPE)$/);
  }, false),
);

server(
  'metrics are Prometheus text',
  bench(async ({ ask: call }) => {
    const { text, headers } = await call('GET', '/metrics');
    assert.match(headers['content-type'] ?? '', 'version=0.0.4');
    for (const line of text.trimEnd().split('\n')) {
      assert.match(line, /^(# (HELP|TYPE) hast_\w+ .+|hast_\w+\{[^}]*\} -?\d+(\.\d+)?)$/);
    }
    assert.match(text, 'hast_role{resource="data",role="primary"} 1\n');
    assert.match(text, 'hast_requests_total{resource="data",operation="flush"} 4\n');
    assert.match(text, 'hast_local_errors_total{resource="data",operation="write"} 7\n');
    assert.match(text, 'hast_queue_requests{resource="data",queue="idle"} 14\n');
  }),
);

server(
  'events reach a reader, and a reader that sleeps is told of its gap',
  bench(async ({ open, control }) => {
    const awake = open();
    const asleep = open();
    const got: string[] = ['', ''];
    awake.setEncoding('utf8').on('data', (text: string) => {
      got[0] += text;
    });
    for (const socket of [awake, asleep]) {
      socket.write('GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n');
    }
    await until('the head', 5000, () => got[0]?.includes('text/event-stream') === true);
    await new Promise((resolve) => setTimeout(resolve, 100));
    asleep.pause();
    const detail = { filler: 'x'.repeat(4000) };
    for (let i = 0; i < 3000; i += 1) {
      control.emit({ time: new Date().toISOString(), resource: 'data', event: `e${i}`, detail });
      if (i % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await until('the last event', 10_000, () => got[0]?.includes('"e2999"') === true);
    asleep.setEncoding('utf8').on('data', (text: string) => {
      got[1] += text;
    });
    asleep.resume();
    await until('the gap', 10_000, () => got[1]?.includes('"event":"gap"') === true);
    const line = /^data: (.*"gap".*)$/m.exec(got[1] ?? '')?.[1] ?? '';
    const marker = v.parse(EventSchema, JSON.parse(line));
    assert.ok(Number(marker.detail?.missed) > 0);
  }),
);

server(
  'a reload is answered with what changed, or with why nothing did',
  bench(async ({ ask: call }) => {
    const { status, json } = await call('POST', '/v1/reload');
    assert.is(status, 200);
    assert.equal(v.parse(ReloadAnswerSchema, json()), RELOADED);
    isFailure(await call('POST', '/v1/reload'), 422, 'CONFIG_MEANING');
  }),
);

server(
  'another socket takes over, and who is connected is still answered',
  bench(async ({ control, path, ask: call, open }) => {
    const events = open();
    let got = '';
    events.setEncoding('utf8').on('data', (text: string) => {
      got += text;
    });
    events.write('GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n');
    await until('the head', 3000, () => got.includes('200 OK'));
    await control.listen(native.host.listenUnix(`${path}2`, 0o600, -1, -1));
    assert.is((await ask(`${path}2`, 'GET', '/v1/resources')).status, 200);
    control.emit({ time: 'now', resource: 'data', event: 'moved' });
    await until('the event', 3000, () => got.includes('"moved"'));
    const refused = await call('GET', '/v1/resources').catch((error: Error) => error.message);
    assert.match(String(refused), 'ECONNREFUSED');
  }),
);

// ---- docs/openapi.json ------------------------------------------------------------------------

interface Operation {
  readonly responses: Readonly<Record<string, unknown>>;
}
interface OpenApi {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, { properties: Record<string, unknown> }>>;
  };
}
const api = JSON.parse(
  readFileSync(new URL('../../../docs/openapi.json', import.meta.url), 'utf8'),
) as OpenApi;
const manual = readFileSync(new URL('../../../docs/control.md', import.meta.url), 'utf8');

server(
  'the description names exactly the paths, methods and answers there are',
  bench(async ({ ask: call }) => {
    for (const [template, methods] of Object.entries(api.paths)) {
      assert.match(manual, template);
      const path = template.replace('{name}', 'data');
      for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH']) {
        if (template === '/v1/events' && method === 'GET') continue; // has no end
        const body = method === 'POST' ? '{"role":"init"}' : undefined;
        const { status } = await call(method, path, body);
        const described = methods[method.toLowerCase()];
        if (described === undefined) assert.is(status, 405, `${method} ${path}`);
        else
          assert.ok(Object.hasOwn(described.responses, `${status}`), `${method} ${path} ${status}`);
      }
    }
    const resources = ['', '/{name}', '/{name}/role', '/{name}/why'];
    const routes = [
      ...resources.map((path) => `/v1/resources${path}`),
      '/v1/reload',
      '/v1/events',
      '/metrics',
    ];
    assert.equal(Object.keys(api.paths).sort(), routes.sort());
  }),
);

server('the description names exactly the fields there are', () => {
  const shapes: Readonly<Record<string, object>> = {
    Resource: statusOf('data'),
    Worker: WORKER,
    Failure: FailureSchema.entries,
    RoleAnswer: RoleAnswerSchema.entries,
    ReloadAnswer: ReloadAnswerSchema.entries,
    Event: EventSchema.entries,
    Why: WhySchema.entries,
    HistoryEntry: HistoryEntrySchema.entries,
    Step: StepSchema.entries,
    RoleRequest: { role: '', force: false, ifUnused: false },
  };
  for (const [name, shape] of Object.entries(shapes)) {
    const described = Object.keys(api.components.schemas[name]?.properties ?? {});
    assert.equal(described.sort(), Object.keys(shape).sort(), name);
  }
});

server.run();
