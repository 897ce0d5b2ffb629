import { existsSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Resource } from '../../../src/config/config.ts';
import { HastError } from '../../../src/error.ts';
import { Logger } from '../../../src/log.ts';
import { native } from '../../../src/native.ts';
import type { BridgeMaker } from '../../../src/resource/bridge.ts';
import { DeviceClaims } from '../../../src/resource/component.ts';
import { workerLauncher } from '../../../src/resource/process.ts';
import { Spares } from '../../../src/resource/spares.ts';
import { type Newcomer, Supervisor } from '../../../src/resource/supervisor.ts';
import { WorkerFolder } from '../../../src/resource/worker-folder.ts';
import { programVersion } from '../../../src/resource/worker-protocol.ts';
import { until, withDeadline } from '../../helper/deadline.ts';
import { type FakeHost, makeFakeHost, writeComponent } from '../../helper/fake-host.ts';
import { resourceIn } from '../../helper/resource.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const supervisor = suite('supervisor');
const ENTRY = fileURLToPath(new URL('../../helper/fake-worker.ts', import.meta.url));

interface Bench {
  readonly subject: Supervisor;
  readonly host: FakeHost;
  readonly directory: string;
  readonly lines: string[];
  readonly hooks: string[];
  readonly events: string[];
  /** Of the kernel's devices: none, unless a test puts one there. */
  readonly bridges: BridgeMaker[];
  role(role: 'init' | 'primary' | 'secondary', options?: Options): Promise<readonly string[]>;
  another(name: string, local: string): Supervisor;
  newcomer(): Promise<Fake>;
}
interface Options {
  readonly force?: boolean;
  readonly ifUnused?: boolean;
}
interface Fake extends Newcomer {
  readonly refused: string[];
  readonly far: readonly Socket[];
}

/** Two connections of a primary, as the listener would hand them over. */
async function makePair(): Promise<Fake> {
  const near: Socket[] = [];
  const server = createServer((socket) => near.push(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const far = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
  for (const socket of far) socket.on('error', () => {}).resume();
  await until('two connections', 3000, () => near.length === 2);
  server.close();
  const [requests, replies] = near;
  if (requests === undefined || replies === undefined) throw new Error('no connections');
  const refused: string[] = [];
  const release = (): void => {
    for (const socket of near) socket.destroy();
  };
  return {
    requests,
    replies,
    far,
    refused,
    release,
    hello: {
      version: 2,
      resuid: 2n ** 63n,
      localcnt: 0n,
      remotecnt: 0n,
      virgin: false,
      extended: false,
      contentsEqual: false,
      lostCache: false,
      incomplete: false,
      led: false,
      epoch: 0n,
      bootid: 0n,
      generation: 0n,
      generationShared: 0n,
      generationOffered: 0n,
      auth: null,
    },
    alive: () => near.every(({ destroyed }) => !destroyed),
    refuse: (text) => {
      refused.push(text);
      release();
    },
  };
}

function bench(
  fake: string,
  body: (bench: Bench) => Promise<void>,
  more: Partial<Resource> | ((directory: string) => Partial<Resource>) = {},
): () => Promise<void> {
  return withDeadline(60_000, () =>
    inTempdir(async (directory) => {
      process.env.HASTD_FAKE = fake;
      const lines: string[] = [];
      const hooks: string[] = [];
      const events: string[] = [];
      const fakes: Fake[] = [];
      const bridges: BridgeMaker[] = [];
      const host = makeFakeHost();
      writeComponent(`${directory}/disk`, 'data');
      const log = Logger.root(({ level, text }) => lines.push(`${level} ${text}`), 0);
      const folder = WorkerFolder.open(`${directory}/workers`, programVersion());
      const common = {
        host: { ...native.host, setIoFlusher: () => true },
        folder: () => folder,
        once: () => {},
      };
      const spare = { ...common, entry: ENTRY, user: () => null, log };
      const spares = new Spares(spare, () => 0);
      const deps = {
        host,
        claims: new DeviceClaims(),
        bridges,
        log,
        launch: workerLauncher({ ...common, spares }),
        startHook: (_path: string, args: readonly string[]) => {
          hooks.push(args.join(' '));
          return { ended: Promise.resolve(null) };
        },
        workers: () => 1,
        dropPeer: () => events.push('drop-peer'),
        resolve: () => Promise.resolve({ peers: [], source: null }),
        knock: () => events.push('knock'),
        emit: (_resource: string, event: string) => events.push(event),
        startMs: 4000,
      };
      const subject = new Supervisor(
        resourceIn(directory, typeof more === 'function' ? more(directory) : more),
        deps,
      );
      const others: Supervisor[] = [];
      try {
        await body({
          subject,
          host,
          directory,
          lines,
          hooks,
          events,
          bridges,
          role: async (role, { force = false, ifUnused = false } = {}) =>
            (await subject.changeRole({ role, force, ifUnused })).notices,
          another: (name, local) => {
            const other = new Supervisor(resourceIn(directory, { name, local }), deps);
            others.push(other);
            return other;
          },
          newcomer: async () => {
            const pair = await makePair();
            fakes.push(pair);
            return pair;
          },
        });
      } finally {
        delete process.env.HASTD_FAKE;
        await Promise.all([subject, ...others].map((one) => one.close()));
        for (const { far, release } of fakes) {
          release();
          for (const socket of far) socket.destroy();
        }
        host.dispose();
      }
    }),
  );
}

async function failure(work: Promise<unknown>): Promise<HastError> {
  try {
    await work;
  } catch (error) {
    assert.instance(error, HastError);
    return error as HastError;
  }
  throw new Error('it was expected to fail');
}

supervisor(
  'a primary is answered when it serves, shown by its title, and given back',
  bench('', async ({ subject, host, directory, lines, hooks, role }) => {
    const notices = await role('primary');
    assert.equal(notices, ['no peer in this test']);
    assert.is(subject.role, 'primary');
    assert.ok(lines.includes('info fake engine as primary: file socket -'), lines.join('\n'));
    assert.ok(existsSync(`${directory}/run/data.nbd`));
    assert.is(host.open.size, 0, 'the parent has closed its copies');
    const status = await subject.status();
    assert.is(status.worker?.pid, subject.workerPid);
    assert.is(status.worker?.writes, 2);
    await role('init');
    assert.is(subject.workerPid, 0);
    assert.not(existsSync(`${directory}/run/data.nbd`));
    await until('all hooks', 3000, () => hooks.length === 3);
    assert.equal(hooks, ['role data init primary', 'connect data', 'role data primary init']);
  }),
);

supervisor(
  'the device is there when a primary is answered, and gone when another role is',
  bench(
    '',
    async ({ subject, directory, role, bridges }) => {
      const said: string[] = [];
      let letGo = (): void => {};
      const gone = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const device = { device: null as string | null, kind: 'nbd', waits: false } as const;
      const bridge = {
        ...device,
        owner: '',
        offer: async () => ({ kernelFds: [] }),
        open: async () => {
          Object.assign(bridge, { device: '/dev/nbd3' });
        },
        close: async () => {
          said.push('device ends');
          await gone;
        },
      };
      const maker = { kind: 'nbd', lacking: async () => undefined } as const;
      bridges.push({ ...maker, make: () => bridge, find: () => undefined });
      await role('primary');
      assert.is((await subject.status()).device, `${directory}/hast/data`);
      const answered = role('init').then(() => said.push('role answered'));
      await until('the worker is gone', 10_000, () => subject.workerPid === 0 && said.length > 0);
      await new Promise((resolve) => setImmediate(resolve));
      said.push('device gone');
      letGo();
      await answered;
      assert.equal(said, ['device ends', 'device gone', 'role answered']);
      assert.is((await subject.status()).device, null);
    },
    (directory) => ({ device: 'nbd', devdir: `${directory}/hast` }),
  ),
);

supervisor(
  'the folder of an export stays ours, its socket alone is given away',
  bench(
    '',
    async ({ directory, role, host }) => {
      const before = process.umask(0o077);
      try {
        await role('primary');
      } finally {
        process.umask(before);
      }
      const { mode, uid } = statSync(`${directory}/run`);
      assert.equal([mode & 0o777, uid], [0o711, process.getuid?.()]);
      assert.equal(host.unix, [[0o600, 12345, 54321]]);
    },
    { exportOwner: 'other' },
  ),
);

supervisor(
  'a refusal leaves the role, tells why and exits 5',
  bench('refuse', async ({ subject, role }) => {
    const { code, exit, message, hint } = await failure(role('primary'));
    assert.is(hint, undefined, 'the engine says itself what to do');
    assert.equal([code, exit, message], ['ROLE_REFUSED', 5, 'the peer is primary']);
    const { role: now, lastError } = await subject.status();
    assert.is(now, 'init');
    assert.is(lastError?.message, 'the peer is primary');
  }),
);

supervisor(
  'a failure is answered with exit 6 and kept until the next role',
  bench('fail', async ({ subject, role }) => {
    const { code, exit } = await failure(role('primary'));
    assert.equal([code, exit], ['ROLE_FAILED', 6]);
    assert.equal((await subject.status()).lastError, {
      code: 'META_UNREADABLE',
      message: 'no metadata',
      exit: 66,
    });
    await role('secondary');
    assert.is((await subject.status()).lastError, null);
  }),
);

supervisor(
  'a start that never becomes ready is given up',
  bench('never-ready', async ({ subject, role }) => {
    assert.is((await failure(role('primary'))).code, 'ROLE_FAILED');
    await until('the old role', 10_000, () => subject.state.phase === 'init');
  }),
);

supervisor(
  'a crashed worker is started again with the same role',
  bench('', async ({ subject, role, lines }) => {
    await role('primary');
    const before = subject.workerPid;
    process.kill(before, 'SIGKILL');
    await until('another worker that serves', 10_000, () => {
      const { phase } = subject.state;
      return phase === 'primary' && subject.workerPid !== before;
    });
    assert.ok(lines.some((line) => line.includes('signal SIGKILL')));
    assert.is(subject.role, 'primary');
  }),
);

supervisor(
  'crashes in a row back off and can be left',
  bench('crash-late', async ({ subject, role }) => {
    await role('primary');
    await until('a pause', 20_000, () => {
      const { state } = subject;
      return state.phase === 'backoff' && state.crashes >= 2;
    });
    await role('init');
    assert.is(subject.role, 'init');
  }),
);

supervisor(
  'a stubborn worker is killed in the end',
  bench(
    'stubborn',
    async ({ subject, role }) => {
      await role('primary');
      const pid = subject.workerPid;
      const began = performance.now();
      const change = role('init');
      process.kill(pid, 'SIGKILL'); // what the escalation does after its deadlines
      await change;
      assert.ok(performance.now() - began < 5000);
      assert.is(subject.role, 'init');
    },
    { timeoutSeconds: 1 },
  ),
);

supervisor(
  'both roles look at the component first, and say the same',
  bench('', async ({ subject, directory, events, role, host, another }) => {
    writeComponent(`${directory}/disk`, 'other');
    const wrong = await failure(role('secondary'));
    assert.match(wrong.message, 'holds the metadata of resource other');
    assert.is(wrong.hint, 'hastctl create data');
    const { message, hint } = await failure(role('primary'));
    assert.equal([message, hint], [wrong.message, wrong.hint]);
    writeComponent(`${directory}/disk`, 'data');
    host.locked.add(`${directory}/disk`);
    setTimeout(() => host.locked.clear(), 200);
    assert.not(events.includes('knock'));
    await role('secondary');
    await role('secondary');
    assert.is(events.filter((event) => event === 'knock').length, 1, 'the peer hears of it');
    assert.is(subject.role, 'secondary');
    assert.is(host.open.size, 0);
    writeComponent(`${directory}/disk.link`, 'twin');
    const twin = another('twin', `${directory}/disk.link`);
    const request = { role: 'secondary', force: false, ifUnused: false } as const;
    assert.match((await failure(twin.changeRole(request))).message, 'resource data uses');
  }),
);

supervisor(
  'a component that stays locked is an error after half the timeout',
  bench('', async ({ directory, role, host }) => {
    host.locked.add(`${directory}/disk`);
    const began = performance.now();
    const { message } = await failure(role('primary'));
    assert.match(message, 'the lock is held by another process');
    assert.ok(performance.now() - began >= 1000);
  }),
);

supervisor(
  'a pair of connections gets a worker, the newest one the place of the one before',
  bench('drain=300', async ({ subject, role, newcomer, lines }) => {
    await role('secondary');
    const first = await newcomer();
    subject.admit(first);
    await until('a worker', 10_000, () => lines.some((line) => line.includes('resuid')));
    assert.ok(lines.includes('info fake engine as secondary: file socket socket'));
    assert.ok(lines.includes(`info resuid ${2n ** 63n}`));
    assert.is(first.alive(), false, 'the parent has closed its copies');
    assert.is(
      first.far.some(({ destroyed }) => destroyed),
      false,
      'and the connections live on',
    );
    const old = subject.workerPid;
    const open = await failure(role('primary'));
    assert.is(open.code, 'ROLE_REFUSED');
    assert.match(open.hint ?? '', '-f');
    const second = await newcomer();
    subject.admit(second);
    await until('the next worker', 10_000, () => ![0, old].includes(subject.workerPid));
    assert.equal(second.refused, []);
    await until('the end of the first pair', 3000, () =>
      first.far.every(({ destroyed }) => destroyed),
    );
  }),
);

supervisor(
  'a newcomer is refused when the old session does not end in time',
  bench('stubborn', async ({ subject, role, newcomer, lines }) => {
    await role('secondary');
    subject.admit(await newcomer());
    await until('a worker', 10_000, () => lines.some((line) => line.includes('resuid')));
    const pid = subject.workerPid;
    const second = await newcomer();
    subject.admit(second);
    await until('a refusal', 5000, () => second.refused.length === 1);
    assert.is(subject.workerPid, pid);
    process.kill(pid, 'SIGKILL');
    await until('its end', 5000, () => subject.state.phase === 'secondary');
  }),
);

supervisor(
  'nobody is admitted by another role',
  bench('', async ({ subject, newcomer }) => {
    const pair = await newcomer();
    subject.admit(pair);
    assert.is(pair.refused.length, 1);
  }),
);

supervisor(
  'if-unused refuses while a client has the provider open, and names it',
  bench('clients', async ({ subject, role }) => {
    await role('primary');
    const { code, message } = await failure(role('init', { ifUnused: true }));
    assert.is(code, 'ROLE_REFUSED');
    assert.match(message, 'pid 4711 (fio)');
    assert.is(subject.role, 'primary');
    await role('init');
  }),
);

supervisor(
  'demotion refuse does so by itself, and -f overrules it',
  bench(
    'clients',
    async ({ role }) => {
      await role('primary');
      assert.is((await failure(role('secondary'))).code, 'ROLE_REFUSED');
      await role('secondary', { force: true });
    },
    { demotion: 'refuse' },
  ),
);

supervisor(
  'a worker that does not answer costs status its numbers, nothing more',
  bench('mute', async ({ subject, role }) => {
    await role('primary');
    const status = await subject.status();
    assert.is(status.worker, null);
    assert.is(status.role, 'primary');
    assert.ok(status.notes.some((note) => note.includes('does not answer')));
  }),
);

supervisor(
  'a role needs a secret that can be read; a primary that serves keeps the one it has',
  bench(
    'alone',
    async ({ subject, directory, role, lines }) => {
      for (const wanted of ['secondary', 'primary'] as const) {
        assert.match((await failure(role(wanted))).message, `${directory}/key cannot be read`);
        assert.is(subject.role, 'init');
      }
      writeFileSync(`${directory}/key`, 'one\n', { mode: 0o600 });
      await role('primary');
      const told = (secret: string) => lines.filter((line) => line === `info secret ${secret}`);
      await until('the secret', 3000, () => told('one').length === 1);
      rmSync(`${directory}/key`);
      const before = subject.workerPid;
      process.kill(before, 'SIGKILL');
      await until('another worker with it', 10_000, () => told('one').length === 2);
      assert.ok(lines.some((line) => line.startsWith('warning The old secret is kept')));
      writeFileSync(`${directory}/key`, 'two\n', { mode: 0o600 });
      subject.contact();
      await until('the new secret', 3000, () => told('two').length === 1);
    },
    (directory) => ({ secret: `${directory}/key` }),
  ),
);

supervisor.run();
