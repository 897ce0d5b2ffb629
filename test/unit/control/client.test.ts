// The asking end of the control socket against daemons that behave in every way but the right one.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlClient, inParallel } from '../../../src/control/client.ts';
import type { RoleRequest } from '../../../src/control/protocol.ts';
import { HastError } from '../../../src/error.ts';
import { withDeadline } from '../../helper/deadline.ts';
import {
  type FakeDaemon,
  fakeDaemon,
  fakeSocket,
  resourceOf,
  sendJson,
  workerOf,
} from '../../helper/fake-daemon.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const LIMITS = { answerSeconds: 0.3, roleAnswerSeconds: 0.6 };
const ROLE: RoleRequest = { role: 'primary', force: false, ifUnused: false };

async function errorOf(promise: Promise<unknown>): Promise<HastError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, HastError, String(error));
    return error as HastError;
  }
  return assert.unreachable('no error') as never;
}

/** A test with a fake daemon at a fresh socket. */
function against(
  start: (path: string) => Promise<FakeDaemon>,
  body: (client: ControlClient) => Promise<void>,
): () => Promise<void> {
  return withDeadline(20_000, () =>
    inTempdir(async (directory) => {
      const daemon = await start(join(directory, 'control'));
      try {
        await body(new ControlClient(daemon.path, LIMITS));
      } finally {
        await daemon.close();
      }
    }),
  );
}

const client = suite('control client');

client(
  'asks for all resources, one, and a role',
  against(
    (path) =>
      fakeDaemon(path, ({ method, url, headers }, response, body) => {
        if (url === '/v1/resources') {
          sendJson(response, 200, { resources: [resourceOf('a'), resourceOf('b')] });
        } else if (url === '/v1/resources/a%2Fb') {
          sendJson(response, 200, resourceOf('a/b', { worker: workerOf({ pid: 7 }) }));
        } else {
          assert.is(`${method} ${url}`, 'POST /v1/resources/a/role');
          assert.is(headers['content-type'], 'application/json');
          assert.equal(JSON.parse(body), ROLE);
          sendJson(response, 200, { name: 'a', previous: 'init', role: 'primary', notices: ['x'] });
        }
      }),
    async (control) => {
      assert.equal(
        (await control.resources()).map(({ name }) => name),
        ['a', 'b'],
      );
      assert.is((await control.resource('a/b')).worker?.pid, 7);
      assert.equal((await control.setRole('a', ROLE)).notices, ['x']);
    },
  ),
);

client(
  'one resource that cannot be understood does not hide the others',
  against(
    (path) =>
      fakeDaemon(path, (_request, response) =>
        sendJson(response, 200, { resources: [{ name: 'bad', role: 3 }, resourceOf('good')] }),
      ),
    async (control) => {
      const [bad, good] = await control.resources();
      assert.ok(bad !== undefined && 'error' in bad && bad.error.code === 'CTL_EXCHANGE');
      assert.ok(good !== undefined && 'status' in good);
    },
  ),
);

client(
  'a failure keeps its code, its words and its exit',
  against(
    (path) =>
      fakeDaemon(path, (_request, response) =>
        sendJson(response, 409, {
          code: 'ROLE_REFUSED',
          message: 'the peer is primary',
          hint: 'role -f',
          exit: 5,
        }),
      ),
    async (control) => {
      const { code, message, hint, exit } = await errorOf(control.setRole('a', ROLE));
      assert.equal(
        [code, message, hint, exit],
        ['ROLE_REFUSED', 'the peer is primary', 'role -f', 5],
      );
    },
  ),
);

client(
  'a failure with an unknown code or a senseless exit ends with 69',
  against(
    (path) =>
      fakeDaemon(path, (_request, response) =>
        sendJson(response, 500, { code: 'SOMETHING_NEW', message: 'odd', exit: 0 }),
      ),
    async (control) => {
      const { code, message, exit } = await errorOf(control.resource('a'));
      assert.equal([code, message, exit], ['CTL_EXCHANGE', 'odd', 69]);
    },
  ),
);

client('nobody there: 71', () =>
  inTempdir(async (directory) => {
    const none = await errorOf(new ControlClient(join(directory, 'none')).resources());
    assert.equal([none.code, none.exit], ['CTL_CONNECT', 71]);
    const file = join(directory, 'file');
    writeFileSync(file, '');
    const refused = await errorOf(new ControlClient(file).resources());
    assert.equal([refused.code, refused.exit], ['CTL_CONNECT', 71]);
  }),
);

client(
  'a silent daemon: 69 at the deadline',
  against(
    (path) => fakeSocket(path, () => {}),
    async (control) => {
      const start = Date.now();
      const { code, exit } = await errorOf(control.resources());
      assert.equal([code, exit], ['CTL_EXCHANGE', 69]);
      assert.ok(Date.now() - start < 5000);
      assert.is((await errorOf(control.setRole('a', ROLE))).exit, 69);
    },
  ),
);

client(
  'a daemon that stops in the middle of its answer: 69 at the deadline',
  against(
    (path) =>
      fakeSocket(path, (socket) =>
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"resources"'),
      ),
    async (control) => assert.is((await errorOf(control.resources())).exit, 69),
  ),
);

const GARBAGE: Readonly<Record<string, string>> = {
  'bytes that are not HTTP': '\0\x01\x02\x03\xff\xfe\r\n\r\n',
  'an answer that ends early': 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"resour',
  'no answer at all': '',
  'a huge header': `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`,
  'text that is not JSON': 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>',
  'JSON of another shape': 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[1,2]',
  'a failure of another shape': 'HTTP/1.1 500 Oops\r\nconnection: close\r\n\r\n{"error":1}',
  'a failure without body': 'HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\n',
  'a redirection': 'HTTP/1.1 302 Found\r\nlocation: /x\r\nconnection: close\r\n\r\n',
};
for (const [what, bytes] of Object.entries(GARBAGE)) {
  client(
    `${what}: 69`,
    against(
      (path) => fakeSocket(path, (socket) => socket.end(bytes, 'latin1')),
      async (control) => {
        const { code, exit } = await errorOf(control.resources());
        assert.equal([code, exit], ['CTL_EXCHANGE', 69]);
      },
    ),
  );
}

client(
  'an endless answer: 69 without taking all memory',
  against(
    (path) =>
      fakeDaemon(path, (_request, response) => {
        const part = Buffer.alloc(1024 * 1024, 0x20);
        const more = () => {
          while (!response.destroyed && response.write(part));
        };
        response.on('drain', more);
        more();
      }),
    async (control) => {
      const patient = await errorOf(control.resources());
      assert.equal([patient.code, patient.exit], ['CTL_EXCHANGE', 69]);
    },
  ),
);

client('works on many at a time and keeps their order', async () => {
  let running = 0;
  let most = 0;
  const results = await inParallel([...Array(100).keys()], async (item) => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, item % 3));
    running -= 1;
    return item * 2;
  });
  assert.equal(
    results,
    [...Array(100).keys()].map((item) => item * 2),
  );
  assert.ok(most > 1 && most <= 32);
});

client.run();
