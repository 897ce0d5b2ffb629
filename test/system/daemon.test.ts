import {
  chmodSync,
  existsSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as v from 'valibot';
import {
  FailureSchema,
  ReloadAnswerSchema,
  ResourceListSchema,
  ResourceSchema,
} from '../../src/control/protocol.ts';
import { decodeNv, encodeMessage } from '../../src/nv.ts';
import { until, withDeadline } from '../helper/deadline.ts';
import { writeComponent } from '../helper/fake-host.ts';
import { Hastd, type Setup, writeConfig } from '../helper/hastd.ts';
import { freePorts } from '../helper/lane.ts';
import { notRoot, unless } from '../helper/skip.ts';
import { inTempdir } from '../helper/tempdir.ts';

const daemon = suite('hastd');

interface Bench {
  readonly directory: string;
  readonly port: number;
  run(...args: readonly string[]): Hastd;
  tcp(): Socket;
}

function bench(
  body: (bench: Bench) => Promise<void>,
  more: Partial<Setup> = {},
): () => Promise<void> {
  return withDeadline(120_000, () =>
    inTempdir(async (directory) => {
      chmodSync(directory, 0o755);
      const [port] = await freePorts();
      // A folder of its own cannot be known to a test's statements.
      const resource = more.resource?.replace('HOOK', `${directory}/hook`) ?? '';
      writeConfig({ directory, port, ...more, resource });
      writeFileSync(`${directory}/hook`, `#!/bin/sh\necho "$@" >> ${directory}/hook.log\n`);
      chmodSync(`${directory}/hook`, 0o755);
      writeComponent(`${directory}/disk`, 'data');
      const running: Hastd[] = [];
      const sockets: Socket[] = [];
      try {
        await body({
          directory,
          port,
          run: (...args) => {
            const one = new Hastd(directory, ...args);
            running.push(one);
            return one;
          },
          tcp: () => {
            const socket = connect(port, '127.0.0.1');
            socket.on('error', () => {});
            sockets.push(socket);
            return socket;
          },
        });
      } finally {
        for (const socket of sockets) socket.destroy();
        await Promise.all(running.map((one) => one.stop()));
      }
    }),
  );
}

const STARTED = 'Listening on address';

daemon(
  'starts with every resource in init and ends in order',
  bench(async ({ directory, run }) => {
    const hastd = run('-F', '-P', `${directory}/own.pid`);
    await hastd.says(STARTED);
    assert.is(readFileSync(`${directory}/own.pid`, 'utf8'), `${hastd.child.pid}`);
    assert.is(statSync(`${directory}/own.pid`).mode & 0o777, 0o600);
    assert.is(statSync(`${directory}/ctl`).mode & 0o777, 0o600);
    assert.is(readFileSync(`/proc/${hastd.child.pid}/comm`, 'utf8'), 'hastd\n');
    const list = v.parse(ResourceListSchema, (await hastd.ask('GET', '/v1/resources')).json());
    assert.equal(
      list.resources.map(({ name, role, worker }) => ({ name, role, worker })),
      [{ name: 'data', role: 'init', worker: null }],
    );
    assert.match((await hastd.ask('GET', '/metrics')).text, 'hast_role{resource="data"');
    hastd.child.kill('SIGTERM');
    assert.is(await hastd.code(), 0);
    assert.not(existsSync(`${directory}/ctl`));
    assert.not(existsSync(`${directory}/own.pid`));
    assert.match(hastd.output, '[INFO] Started successfully, running protocol version 2.\n');
  }),
);

daemon(
  'a pid file that cannot be had is a warning',
  bench(async ({ directory, run }) => {
    const hastd = run('-F', '-P', `${directory}/none/pid`);
    await hastd.says(STARTED);
    assert.match(hastd.output, `[WARNING] Cannot use the pid file ${directory}/none/pid: `);
    assert.is((await hastd.ask('GET', '/v1/resources')).status, 200);
  }),
);

daemon(
  'refuses bad requests and goes on',
  bench(async ({ run }) => {
    const hastd = run('-F');
    await hastd.says(STARTED);
    for (const [method, path, body, status] of [
      ['GET', '/v1/nothing', undefined, 404],
      ['GET', '/v1/resources/nope', undefined, 404],
      ['PUT', '/v1/resources', undefined, 405],
      ['POST', '/v1/resources/data/role', '{"role":1}', 400],
      ['POST', '/v1/resources/data/role', 'x'.repeat(70_000), 413],
    ] as const) {
      const answer = await hastd.ask(method, path, body);
      assert.is(answer.status, status, path);
      v.parse(FailureSchema, answer.json());
    }
    assert.is((await hastd.ask('GET', '/v1/resources')).status, 200);
  }),
);

daemon(
  'a second one is refused: by the pid file, by the control socket, by the port',
  bench(async ({ directory, run, port }) => {
    const first = run('-F', '-P', `${directory}/own.pid`);
    await first.says(STARTED);
    const samePid = run('-F', '-P', `${directory}/own.pid`);
    assert.is(await samePid.code(), 75);
    assert.match(samePid.output, `(pid ${first.child.pid})`);
    const sameControl = run('-F');
    assert.is(await sameControl.code(), 71);
    assert.match(sameControl.output, `${directory}/ctl`);
    const text = readFileSync(`${directory}/hast.conf`, 'utf8');
    writeFileSync(`${directory}/hast.conf`, text.replace('/ctl\n', '/ctl2\n'));
    const samePort = run('-F');
    assert.is(await samePort.code(), 71);
    assert.match(samePort.output, `127.0.0.1:${port}`);
    assert.not(existsSync(`${directory}/ctl2`));
    assert.is((await first.ask('GET', '/v1/resources')).status, 200);
  }),
);

daemon(
  'a socket left behind by a killed one is replaced',
  bench(async ({ directory, run }) => {
    const first = run('-F');
    await first.says(STARTED);
    first.child.kill('SIGKILL');
    await until('its end', 5000, () => first.ended);
    assert.ok(existsSync(`${directory}/ctl`));
    const second = run('-F');
    await second.says(STARTED);
    assert.is((await second.ask('GET', '/v1/resources')).status, 200);
  }),
);

daemon(
  'garbage and silence on any socket hold up nobody',
  bench(async ({ directory, run, tcp }) => {
    const hastd = run('-F');
    await hastd.says(STARTED);
    for (let i = 0; i < 10; i += 1) {
      tcp(); // silent
      tcp().write(Buffer.from('\u0001\u0034\u0000', 'latin1')); // never finished
      tcp().write(Buffer.alloc(1000, i * 17)); // garbage
      connect(`${directory}/ctl`).on('error', () => {});
    }
    const began = performance.now();
    assert.is((await hastd.ask('GET', '/v1/resources')).status, 200);
    assert.ok(performance.now() - began < 1000);
    assert.is(hastd.ended, false);
  }),
);

/** Sends a first message and gives the fields of the answer. */
async function firstMessage(socket: Socket) {
  let got = Buffer.alloc(0);
  socket.on('data', (bytes) => {
    got = Buffer.concat([got, bytes]);
  });
  socket.write(
    encodeMessage(1, [
      { name: 'resource', type: 'string', value: 'data' },
      { name: 'version', type: 'uint8', value: 2 },
    ]),
  );
  await until('an answer', 5000, () => got.length > 5);
  return decodeNv(got.subarray(5));
}

daemon(
  'a primary is answered by the role, and roles go there and back',
  bench(
    async ({ directory, run, tcp }) => {
      const hastd = run('-F');
      await hastd.says(STARTED);
      const init = await firstMessage(tcp());
      const text = 'Remote node acts as init for the resource and not as secondary.';
      assert.is(init.get('errmsg', 'string'), text);
      const role = (to: string) =>
        hastd.ask('POST', '/v1/resources/data/role', JSON.stringify({ role: to }));
      assert.equal((await role('secondary')).json(), {
        name: 'data',
        previous: 'init',
        role: 'secondary',
        notices: [],
      });
      assert.is((await firstMessage(tcp())).get('token', 'uint8_array')?.length, 16);
      assert.is((await role('init')).status, 200);
      await until('two hooks', 5000, () => {
        const log = `${directory}/hook.log`;
        return existsSync(log) && readFileSync(log, 'utf8').split('\n').length === 3;
      });
      assert.is(
        readFileSync(`${directory}/hook.log`, 'utf8'),
        'role data init secondary\nrole data secondary init\n',
      );
    },
    { resource: 'exec HOOK' },
  ),
);

daemon(
  'a component without metadata is named at once, with the command that helps',
  bench(async ({ directory, run }) => {
    writeFileSync(`${directory}/disk`, Buffer.alloc(65536));
    const hastd = run('-F');
    await hastd.says(STARTED);
    const answer = await hastd.ask('POST', '/v1/resources/data/role', '{"role":"secondary"}');
    const failure = v.parse(FailureSchema, answer.json());
    assert.equal([failure.exit, failure.hint], [6, 'hastctl create data']);
    const status = v.parse(ResourceSchema, (await hastd.ask('GET', '/v1/resources/data')).json());
    assert.is(status.role, 'init');
    assert.match(status.lastError?.message ?? '', 'no HAST metadata');
  }),
);

for (const start of ['secondary', 'last'] as const) {
  daemon(
    `start ${start} takes the role by itself, and never more`,
    bench(
      async ({ run }) => {
        const hastd = run('-F');
        await hastd.says('Role changed from init to secondary.');
        assert.match(hastd.output, '[data] (secondary) Role changed');
      },
      { global: `start ${start}` },
    ),
  );
}

daemon(
  'a reload without a change, or of a bad file, tells so and changes nothing',
  bench(async ({ directory, run }) => {
    const hastd = run('-F');
    await hastd.says(STARTED);
    hastd.child.kill('SIGHUP');
    await hastd.says('Reload: the configuration has not changed.');
    writeFileSync(`${directory}/hast.conf`, 'nonsense');
    hastd.child.kill('SIGHUP');
    await hastd.says('[WARNING] Reload: the configuration stays as it was');
    assert.is((await hastd.ask('GET', '/v1/resources/data')).status, 200);
  }),
);

daemon(
  'a reload goes on with the addresses that it can have',
  bench(async ({ directory, port, run, tcp }) => {
    const hastd = run('-F');
    await hastd.says(STARTED);
    const path = `${directory}/hast.conf`;
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, `${text}listen tcp4://192.0.2.1:${port}\n`);
    const answer = await hastd.ask('POST', '/v1/reload', '');
    const { warnings } = v.parse(ReloadAnswerSchema, answer.json());
    assert.is(warnings.length, 1);
    assert.match(warnings[0] ?? '', `tcp4://192.0.2.1:${port}`);
    assert.match(hastd.output, `[WARNING] ${warnings[0]}`);
    assert.ok((await firstMessage(tcp())).has('errmsg'), 'the other address still answers');
  }),
);

daemon(
  'in the foreground it goes on when nobody reads its log any more, and ends in order',
  bench(async ({ run }) => {
    const hastd = run('-F');
    await hastd.says(STARTED);
    hastd.child.stdout?.destroy();
    hastd.child.stderr?.destroy();
    for (let i = 0; i < 3; ++i) {
      hastd.child.kill('SIGHUP'); // a line that cannot be written
      assert.is((await hastd.ask('POST', '/v1/reload', '')).status, 200);
    }
    hastd.child.kill('SIGTERM');
    assert.is(await hastd.code(), 0);
  }),
);

daemon(
  'goes into the background when it has started, and not before',
  bench(async ({ directory, run }) => {
    const caller = run();
    assert.is(await caller.code(), 0, caller.output);
    const pid = Number(readFileSync(`${directory}/pid`, 'utf8'));
    assert.ok(pid > 0 && pid !== caller.child.pid);
    try {
      assert.is(readlinkSync(`/proc/${pid}/cwd`), '/');
      for (const fd of [0, 1, 2]) assert.is(readlinkSync(`/proc/${pid}/fd/${fd}`), '/dev/null');
      const [, session] = /^\d+ \(.*\) \S+ \d+ \d+ (\d+)/.exec(
        readFileSync(`/proc/${pid}/stat`, 'utf8'),
      ) ?? [''];
      assert.is(Number(session), pid, 'a session of its own');
      assert.is((await caller.ask('GET', '/v1/resources')).status, 200);
      const again = run();
      assert.is(await again.code(), 75);
      assert.match(again.output, `[ERROR] another hastd is running (pid ${pid})`);
      // A reload finds the file by where the caller was, and moves the pid file.
      const text = readFileSync(`${directory}/hast.conf`, 'utf8');
      writeFileSync(`${directory}/hast.conf`, text.replace('/pid\n', '/pid2\n'));
      process.kill(pid, 'SIGHUP');
      await until('the new pid file', 10_000, () => !existsSync(`${directory}/pid`));
      assert.is(readFileSync(`${directory}/pid2`, 'utf8'), `${pid}`);
    } finally {
      process.kill(pid, 'SIGTERM');
    }
    await until('its end', 20_000, () => !existsSync(`/proc/${pid}`));
    assert.not(existsSync(`${directory}/pid2`));
    assert.not(existsSync(`${directory}/ctl`));
  }),
);

daemon(
  'keeps the exit codes of the manual, in the background too',
  bench(async ({ directory, run }) => {
    writeFileSync(`${directory}/hast.conf`, 'nonsense\n');
    assert.is(await run('-F').code(), 78);
    assert.is(await run().code(), 78);
    assert.is(await run('-t').code(), 78);
    assert.is(await run('-c', `${directory}/none`, '-F').code(), 72);
    assert.is(await run('-x').code(), 64);
    const help = run('-h');
    assert.is(await help.code(), 64);
    assert.is(help.output, 'usage: hastd [-dFht] [-c config] [-P pidfile] [-n node]\n');
  }),
);

daemon(
  'prints the configuration as it is in force',
  bench(async ({ directory, run }) => {
    const test = run('-t');
    assert.is(await test.code(), 0);
    writeFileSync(`${directory}/hast.conf`, test.output);
    const again = run('-t');
    assert.is(await again.code(), 0);
    assert.is(again.output, test.output);
  }),
);

daemon(
  'writes its log as JSON where that is asked for',
  bench(async ({ run }) => {
    process.env.HASTD_LOG = 'json';
    try {
      const hastd = run('-F');
      await hastd.says(STARTED);
      const [first = ''] = hastd.output.split('\n').filter((line) => line.includes('Started'));
      assert.is((JSON.parse(first) as { level: string }).level, 'info');
    } finally {
      delete process.env.HASTD_LOG;
    }
  }),
);

unless(daemon, notRoot())(
  'a missing user of the workers is refused before any role is taken',
  bench(async ({ directory, run }) => {
    const text = readFileSync(`${directory}/hast.conf`, 'utf8');
    writeFileSync(`${directory}/hast.conf`, text.replace('nobody', 'no-such-user'));
    const hastd = run('-F');
    assert.is(await hastd.code(), 78);
    assert.match(hastd.output, 'no-such-user');
    assert.match(hastd.output, 'hint: make the user, or name another one');
    writeFileSync(`${directory}/hast.conf`, text.replace('nobody', 'root'));
    assert.is(await run('-F').code(), 78);
    assert.not(existsSync(`${directory}/ctl`));
  }),
);

daemon.run();
