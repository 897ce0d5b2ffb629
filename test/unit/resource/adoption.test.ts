// Workers without a supervisor, and what another one makes of them.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { HastError } from '../../../src/error.ts';
import { Logger } from '../../../src/log.ts';
import { native } from '../../../src/native.ts';
import { adoptWorkers, type Found } from '../../../src/resource/adoption.ts';
import type { BridgeNote } from '../../../src/resource/bridge.ts';
import { DeviceClaims } from '../../../src/resource/component.ts';
import { nodeFlags } from '../../../src/resource/node-process.ts';
import { ResourceSet } from '../../../src/resource/set.ts';
import type { Supervisor, SupervisorDeps } from '../../../src/resource/supervisor.ts';
import { WorkerFolder } from '../../../src/resource/worker-folder.ts';
import { encodeMessage, programVersion, titleOf } from '../../../src/resource/worker-protocol.ts';
import { until, withDeadline } from '../../helper/deadline.ts';
import { makeFakeHost, writeComponent } from '../../helper/fake-host.ts';
import { resourceIn } from '../../helper/resource.ts';
import { inTempdir } from '../../helper/tempdir.ts';
import { SPEC } from '../../helper/worker-spec.ts';

const adoption = suite('adoption');
const { host } = native;
const ENTRY = fileURLToPath(new URL('../../helper/fake-worker.ts', import.meta.url));
const CLEAN = { exit: 0, signal: null, code: '', text: '', refused: false };

interface Bench {
  readonly directory: string;
  readonly folder: WorkerFolder;
  readonly lines: string[];
  readonly hooks: string[];
  /** A worker that serves and whose supervisor has gone. */
  orphan(words: string): Promise<ChildProcess>;
  /** What a new supervisor has of it. */
  adopt(ms?: number): Promise<Supervisor>;
  /** Devices that were not given to their workers yet. */
  readonly waiting: Set<string>;
  /** Devices that were ended. */
  readonly left: readonly (string | undefined)[];
  readonly find: (ms?: number) => Promise<Found>;
}

function bench(
  body: (bench: Bench) => Promise<void>,
  secret: (directory: string) => string | null = () => null,
): () => Promise<void> {
  return withDeadline(60_000, () =>
    inTempdir(async (directory) => {
      const children: ChildProcess[] = [];
      const sets: ResourceSet[] = [];
      const lines: string[] = [];
      const hooks: string[] = [];
      const fakes = makeFakeHost();
      const folder = WorkerFolder.open(`${directory}/workers`, programVersion());
      const log = Logger.root(({ level, text }) => lines.push(`${level} ${text}`), 0);
      const resource = resourceIn(directory, { secret: secret(directory) });
      writeComponent(resource.local, 'data');
      const deps: SupervisorDeps = {
        host: fakes,
        claims: new DeviceClaims(),
        bridges: [],
        log,
        launch: () => assert.unreachable('nothing is started here') as never,
        startHook: (_path, args) => {
          hooks.push(args.join(' '));
          return { ended: Promise.resolve(null) };
        },
        workers: () => 1,
        dropPeer: () => {},
        resolve: () => Promise.resolve({ peers: [], source: null }),
        knock: () => {},
        emit: () => {},
      };
      const left: (string | undefined)[] = [];
      const leaveDevice = async (note: BridgeNote | null) => void left.push(note?.device);
      const waiting = new Set<string>();
      const waits = ({ device }: BridgeNote) => waiting.has(device);
      const find = (ms = 5000) =>
        adoptWorkers({ host, folder, log, once: () => {}, leaveDevice, waits, ms });
      try {
        await body({
          directory,
          folder,
          lines,
          hooks,
          orphan: async (words) => {
            folder.write({ role: 'primary', device: 'file:1', bridge: null, resource });
            const path = folder.socketOf('data');
            const door = host.listenUnix(path, 0o600, -1, -1);
            const [ours, theirs] = host.socketPair();
            const disk = openSync(resource.local, 'r+');
            host.sendDescriptors(ours, [disk, door]);
            const fds = [door, theirs, disk, ours];
            const child = spawn(
              process.execPath,
              [...nodeFlags(), ENTRY, 'hastd: data (primary)'],
              {
                argv0: titleOf('data', 'primary').padEnd(80),
                stdio: ['ignore', 'ignore', 'inherit', door, theirs],
                env: { ...process.env, HASTD_FAKE: `alone,orphan=20000,${words}` },
              },
            );
            children.push(child);
            for (const fd of fds) closeSync(fd);
            const first = connect(path);
            let said = '';
            first.setEncoding('utf8').on('data', (text) => {
              said += text;
            });
            first.on('error', () => {});
            first.write(encodeMessage({ kind: 'start', spec: SPEC, debug: 0 }));
            const sign = words.includes('babble') ? 'garbage' : 'resuid';
            await until('a worker that runs', 10_000, () => said.includes(sign));
            if (words === '') await until('ready', 10_000, () => said.includes('"ready"'));
            first.destroy();
            return child;
          },
          waiting,
          left,
          find,
          adopt: async (ms = 5000) => {
            const found = await find(ms);
            const set = new ResourceSet([resource], deps);
            sets.push(set);
            set.adopt(found);
            const supervisor = set.get('data');
            if (supervisor === undefined) throw new Error('no supervisor');
            return supervisor;
          },
        });
      } finally {
        await Promise.all(sets.map((set) => set.close()));
        for (const child of children) child.kill('SIGKILL');
        fakes.dispose();
      }
    }),
  );
}

const ended = async (child: ChildProcess): Promise<void> => {
  await until('the end of the worker', 10_000, () => {
    return child.exitCode !== null || child.signalCode !== null;
  });
};

adoption(
  'a worker that serves is a primary again, tells what it has kept, and can be ended',
  bench(async ({ orphan, adopt, hooks, folder, lines }) => {
    const child = await orphan('parting');
    const subject = await adopt();
    assert.is(subject.role, 'primary');
    assert.is(subject.workerPid, child.pid);
    assert.ok(lines.includes(`info Adopted the running worker (pid ${child.pid}).`));
    assert.is((await subject.status()).worker?.writes, 2);
    await until('what was kept', 3000, () => hooks.includes('syncdone data'));
    assert.not(hooks.some((line) => line.startsWith('role')));
    await subject.changeRole({ role: 'init', force: false, ifUnused: false });
    await ended(child);
    assert.is(child.exitCode, 0);
    assert.equal(folder.notes(), []);
    assert.is((await subject.status()).lastError, null);
  }),
);

adoption(
  'one that is not ready yet is being started, and its start has an end',
  bench(async ({ orphan, adopt }) => {
    await orphan('never-ready');
    const subject = await adopt();
    assert.is(subject.state.phase, 'starting');
    assert.is(subject.role, 'primary');
  }),
);

for (const [what, words, wanted, signal] of [
  ['a stopped one is killed when the time is over', 'stopped', 'it does not answer', 'SIGKILL'],
  ['one that babbles is killed', 'babble', 'it says what is no message', 'SIGKILL'],
  ['one that dies meanwhile is gone', 'faint', 'it closed the connection', 'SIGKILL'],
  ['one of another version is told to end', 'version=0', 'of another version', null],
] as const) {
  adoption(
    `${what}, and the role is init`,
    bench(async ({ orphan, adopt, lines, folder }) => {
      const child = await orphan(words);
      if (words === 'stopped') child.kill('SIGSTOP');
      const began = performance.now();
      const subject = await adopt(1000);
      assert.ok(performance.now() - began < 3000);
      assert.is(subject.role, 'init');
      assert.match((await subject.status()).lastError?.message ?? '', wanted);
      assert.ok(lines.some((line) => line.startsWith('error') && line.includes(wanted)));
      await ended(child);
      assert.is(child.signalCode, signal);
      assert.equal(folder.notes(), []);
    }),
  );
}

adoption(
  'a worker that has ended is no error, and a note that cannot be read ends its worker',
  bench(async ({ orphan, adopt, folder, lines, directory }) => {
    const first = await orphan('');
    first.kill('SIGKILL');
    await ended(first);
    const subject = await adopt();
    assert.equal([subject.role, (await subject.status()).lastError], ['init', null]);
    assert.not(lines.some((line) => line.startsWith('error')));
    const second = await orphan('');
    const [key = ''] = folder.notes().map((found) => found.key);
    writeFileSync(`${directory}/workers/${key}.json`, '{"version":');
    assert.is((await adopt()).role, 'init');
    await ended(second);
    assert.is(second.exitCode, CLEAN.exit);
    assert.equal(readdirSync(`${directory}/workers`), []);
  }),
);

const DEVICE = { kind: 'nbd', device: '/dev/nbd9', owner: 'hastd data on a', link: '/x' } as const;

/** As if the worker had a device. */
function withDevice(folder: WorkerFolder): void {
  const note = folder.notes()[0]?.note;
  if (note === undefined || note === null) throw new Error('no note');
  folder.write({ ...note, bridge: DEVICE });
}

adoption(
  'the device of a worker that has ended, or does not answer, is ended',
  bench(async ({ orphan, find, folder, left }) => {
    for (const words of ['', 'babble']) {
      const child = await orphan(words);
      withDevice(folder);
      if (words === '') {
        child.kill('SIGKILL');
        await ended(child);
      }
      const { lost } = await find();
      assert.equal(
        lost.map(({ bridge }) => bridge),
        words === '' ? [] : [null],
      );
    }
    assert.equal(left, [DEVICE.device, DEVICE.device]);
  }),
);

adoption(
  'a worker of another version that has a device is killed, and its device waits for the next',
  bench(async ({ orphan, find, folder, left, lines }) => {
    const child = await orphan('version=0');
    withDevice(folder);
    const { lost } = await find();
    assert.equal(lost[0]?.bridge, DEVICE);
    await ended(child);
    assert.is(child.signalCode, 'SIGKILL');
    assert.equal(left, []);
    assert.ok(lines.some((line) => line.includes('replaced under its device')));
  }),
);

adoption(
  'a worker that the last supervisor had not given its device yet is killed, and another gets it',
  bench(async ({ orphan, find, folder, waiting, left }) => {
    const child = await orphan('');
    withDevice(folder);
    waiting.add(DEVICE.device);
    const { adopted, lost } = await find();
    assert.is(adopted.length, 0);
    assert.equal(lost[0]?.bridge, DEVICE);
    await ended(child);
    assert.is(child.signalCode, 'SIGKILL');
    assert.equal(left, []);
  }),
);

adoption(
  'who listens there and is no worker is not killed',
  bench(async ({ adopt, folder, directory, lines }) => {
    folder.write({
      role: 'primary',
      device: 'file:1',
      bridge: null,
      resource: resourceIn(directory, {}),
    });
    const server = createServer((socket) => socket.on('error', () => {}).write('garbage\n'));
    server.listen(folder.socketOf('data'));
    await once(server, 'listening');
    try {
      assert.is((await adopt()).role, 'init'); // and this process is still here
      assert.ok(lines.some((line) => line.includes('it says what is no message')));
    } finally {
      server.close();
    }
  }),
);

adoption(
  'the worker keeps its secret while the file cannot be read, and its peers while none are known',
  bench(
    async ({ orphan, adopt, lines, directory }) => {
      await orphan('');
      const subject = await adopt();
      assert.ok(lines.some((line) => line.includes('The old secret is kept')));
      const told = () => lines.filter((line) => line.startsWith('info peers'));
      const peers = [{ host: '127.0.0.1', port: 1, family: 4 }] as const;
      subject.readdress({ peers, source: null });
      writeFileSync(`${directory}/key`, 'two\n', { mode: 0o600 });
      subject.contact();
      await until('the secret', 3000, () => lines.includes('info secret two'));
      assert.equal(told(), ['info peers 127.0.0.1']);
    },
    (directory) => `${directory}/key`,
  ),
);

adoption('the folder is made for us alone, or refused', () =>
  inTempdir((directory) => {
    const path = `${directory}/workers`;
    const folder = WorkerFolder.open(path, 'x');
    folder.move(`${directory}/elsewhere`);
    assert.not(existsSync(path));
    folder.write({
      role: 'primary',
      device: 'd',
      bridge: null,
      resource: resourceIn(directory, {}),
    });
    assert.is(folder.notes().length, 1);
    folder.remove();
    assert.ok(existsSync(`${directory}/elsewhere`), 'something is in it');
    folder.forget('data');
    folder.remove();
    assert.not(existsSync(`${directory}/elsewhere`));
    const before = process.umask(0);
    try {
      rmSync(path, { force: true });
      WorkerFolder.open(path, 'x');
    } finally {
      process.umask(before);
    }
    for (const wrong of ['/dev/null', `${directory}/none/workers`, '/tmp']) {
      assert.throws(
        () => WorkerFolder.open(wrong, 'x'),
        (error: HastError) => error.code === 'DAEMON_FOLDER',
      );
    }
  }),
);

adoption.run();
