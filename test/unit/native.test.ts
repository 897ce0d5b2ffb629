// The addon's door: every function with wrong arguments, and what the system calls promise.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../src/error.ts';
import { ERROR_CODES } from '../../src/error-codes.ts';
import { LIMITS } from '../../src/limits.ts';
import { errnoName, native } from '../../src/native.ts';
import { until, withDeadline } from '../helper/deadline.ts';
import { missing, notRoot, unless } from '../helper/skip.ts';
import { inTempdir } from '../helper/tempdir.ts';

const { host, codec, kernel } = native;

/** The system's error behind what `body` throws; fails when it throws nothing or anything else. */
function errnoOf(body: () => unknown): string | undefined {
  try {
    body();
  } catch (error) {
    assert.instance(error, HastError);
    assert.is((error as HastError).code, 'SYSTEM');
    return errnoName(error);
  }
  return assert.unreachable('nothing was thrown') as never;
}

const door = suite('native');

door('every function answers wrong arguments with a TypeError or a HastError', () => {
  const takesNothing = ['confine', 'limits', 'socketPair', 'streamPair', 'ublkProbe'];
  const wrong: unknown[][] = [
    [],
    [undefined, undefined, undefined, undefined],
    [null, null, null, null],
    [{}, {}, {}, {}],
    [Symbol('x'), Symbol('x')],
    [-1, -1, -1, -1],
    [1e300, 1e300, 1e300, 1e300],
    [Number.NaN, Number.NaN, Number.NaN, Number.NaN],
    [2n ** 64n, 2n ** 64n, 2n ** 64n],
    ['a\0b', 'a\0b', 'a\0b', 'a\0b'],
    [() => {}, () => {}, () => {}],
    [
      {
        get mediaBytes() {
          throw new TypeError('from a getter');
        },
      },
      true,
    ],
  ];
  for (const group of [host, codec, kernel]) {
    for (const [name, call] of Object.entries(group)) {
      if (takesNothing.includes(name)) continue;
      for (const args of wrong) {
        try {
          (call as (...args: unknown[]) => unknown)(...args);
          assert.unreachable(`${name} took ${args.map(String)}`);
        } catch (error) {
          assert.ok(
            error instanceof TypeError || error instanceof HastError,
            `${name}: ${error} for ${args.map(String)}`,
          );
        }
      }
    }
  }
  assert.throws(() => host.openComponent('/', 1 as never, true), /argument 2 must be a boolean/);
  assert.throws(() => host.readAt(0, 0n, 1.5), /argument 3 must be an integer from 0 to/);
  assert.throws(() => host.writeAt(0, 0n, 'x' as never), /argument 3 must be a Buffer/);
});

door('bounds and exit codes are the same in both languages', () => {
  const there = codec.limits();
  for (const [name, value] of Object.entries(LIMITS)) assert.is(there[name], value, name);
  const exits = Object.entries(ERROR_CODES).map(([code, { exit }]) => [`exit.${code}`, exit]);
  for (const [name, exit] of exits) assert.is(there[String(name)], exit, String(name));
  assert.is(Object.keys(there).length, Object.keys(LIMITS).length + exits.length);
});

// ---- Components -----------------------------------------------------------------------------

door('opens a regular file and tells what it is', () =>
  inTempdir((directory) => {
    const path = join(directory, 'a');
    writeFileSync(path, Buffer.alloc(8192, 1));
    const component = host.openComponent(path, true, false);
    assert.is(component.sizeBytes, 8192n);
    assert.is(component.sectorBytes, 512);
    assert.is(component.blockDevice, false);
    assert.ok([512, 1024, 2048, 4096].includes(component.granuleBytes));
    const { ino } = statSync(path);
    assert.match(component.device, new RegExp(`^file:\\d+:\\d+:${ino}$`));
    const flags = readFileSync(`/proc/self/fdinfo/${component.fd}`, 'utf8');
    assert.ok((Number.parseInt(/flags:\s+(\d+)/.exec(flags)?.[1] ?? '', 8) & 0o2000000) !== 0);
    host.closeFd(component.fd);
    assert.is(
      errnoOf(() => host.closeFd(component.fd)),
      'EBADF',
    );
  }),
);

door('reads and writes whole areas or fails', () =>
  inTempdir((directory) => {
    const path = join(directory, 'a');
    writeFileSync(path, Buffer.alloc(8192, 1));
    const { fd } = host.openComponent(path, true, false);
    host.writeAt(fd, 4096n, Buffer.alloc(4096, 7));
    host.flush(fd);
    assert.equal(host.readAt(fd, 4096n, 4096), Buffer.alloc(4096, 7));
    assert.equal(host.readAt(fd, 0n, 4096), Buffer.alloc(4096, 1));
    assert.is(
      errnoOf(() => host.readAt(fd, 4096n, 8192)),
      'EIO',
    );
    assert.is(host.readAt(fd, 0n, 0).length, 0);
    host.closeFd(fd);
    const readOnly = host.openComponent(path, false, false);
    assert.is(
      errnoOf(() => host.writeAt(readOnly.fd, 0n, Buffer.alloc(4096))),
      'EBADF',
    );
    host.closeFd(readOnly.fd);
  }),
);

door('refuses what is neither a block device nor a file, without touching it', () =>
  inTempdir((directory) => {
    const open = (path: string) => errnoOf(() => host.openComponent(path, true, true));
    assert.is(open(directory), 'EISDIR');
    assert.is(open(join(directory, 'none')), 'ENOENT');
    assert.is(open('/dev/null'), 'EINVAL');
  }),
);

unless(door, missing('flock'))(
  'a second process holding the lock is told, and let go of',
  withDeadline(20_000, () =>
    inTempdir(async (directory) => {
      const path = join(directory, 'a');
      writeFileSync(path, Buffer.alloc(4096));
      const holder = spawn('flock', [path, 'sh', '-c', 'echo held; cat'], {
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      await new Promise((resolve) => holder.stdout.once('data', resolve));
      assert.is(
        errnoOf(() => host.openComponent(path, true, true)),
        'EAGAIN',
      );
      const other = host.openComponent(path, false, false);
      assert.is(host.flock(other.fd), false);
      holder.stdin.end();
      await new Promise((resolve) => holder.once('close', resolve));
      assert.is(host.flock(other.fd), true);
      assert.is(
        errnoOf(() => host.openComponent(path, true, true)),
        'EAGAIN',
      );
      host.closeFd(other.fd);
    }),
  ),
);

door(
  'a process is signalled by its descriptor, and by nothing else once it has ended',
  withDeadline(20_000, async () => {
    const child = spawn('sleep', ['60']);
    const fd = host.pidfdOpen(child.pid ?? 0);
    try {
      assert.is(host.pidfdSignal(fd, 0), true);
      assert.is(host.pidfdSignal(fd, 15), true);
      const [, signal] = await once(child, 'exit');
      assert.is(signal, 'SIGTERM');
      assert.is(host.pidfdSignal(fd, 9), false);
      assert.is(
        errnoOf(() => host.pidfdOpen(child.pid ?? 0)),
        'ESRCH',
      );
    } finally {
      host.closeFd(fd);
      child.kill('SIGKILL');
    }
  }),
);

door('descriptors go to whoever has the other end, whole or not at all', () =>
  inTempdir((directory) => {
    const [one, other] = host.socketPair();
    const path = join(directory, 'a');
    writeFileSync(path, 'mine');
    const file = openSync(path, 'r');
    try {
      assert.is(
        errnoOf(() => host.receiveDescriptors(other)),
        'EAGAIN',
      );
      host.sendDescriptors(one, [file, file]);
      closeSync(file);
      const got = host.receiveDescriptors(other);
      assert.is(got.length, 2);
      for (const fd of got) {
        assert.is(readFileSync(`/proc/self/fd/${fd}`, 'utf8'), 'mine');
        assert.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'), /flags:\s*02/);
        closeSync(fd);
      }
      assert.is(
        errnoOf(() => host.sendDescriptors(one, [file])),
        'EBADF',
      );
      assert.throws(() => host.sendDescriptors(one, []), TypeError);
    } finally {
      closeSync(one);
      closeSync(other);
    }
  }),
);

// ---- Sockets --------------------------------------------------------------------------------

door(
  'a UNIX socket has its mode whatever the umask, and answers',
  withDeadline(20_000, () =>
    inTempdir(async (directory) => {
      const path = join(directory, 's');
      const before = process.umask(0o777);
      let fd: number;
      let after: number;
      try {
        fd = host.listenUnix(path, 0o640, -1, -1);
      } finally {
        after = process.umask(before);
      }
      assert.is(after, 0o777, 'the umask is as it was');
      assert.is(statSync(path).mode & 0o777, 0o640);
      const server = createServer();
      await new Promise<void>((resolve) => server.listen({ fd }, resolve));
      const accepted = new Promise<number>((resolve) => {
        server.on('connection', (socket) => {
          const handle = (socket as unknown as { _handle: { fd: number } })._handle;
          resolve(host.peerCredentials(handle.fd).pid);
          socket.destroy();
        });
      });
      const client = connect(path);
      assert.is(await accepted, process.pid);
      client.destroy();
      // It is in use, so nobody else may take it.
      assert.is(
        errnoOf(() => host.listenUnix(path, 0o600, -1, -1)),
        'EADDRINUSE',
      );
      await new Promise((resolve) => server.close(resolve));
    }),
  ),
);

door('a dead socket is replaced, anything else is not', () =>
  inTempdir((directory) => {
    const path = join(directory, 's');
    host.closeFd(host.listenUnix(path, 0o600, -1, -1));
    host.closeFd(host.listenUnix(path, 0o600, -1, -1));
    const file = join(directory, 'f');
    writeFileSync(file, 'precious');
    assert.is(
      errnoOf(() => host.listenUnix(file, 0o600, -1, -1)),
      'EEXIST',
    );
    assert.is(readFileSync(file, 'utf8'), 'precious');
    assert.is(
      errnoOf(() => host.listenUnix(join(directory, 'no/s'), 0o600, -1, -1)),
      'ENOENT',
    );
    assert.throws(() => host.listenUnix(`/${'x'.repeat(107)}`, 0o600, -1, -1), /107 bytes/);
  }),
);

door('listens on numeric addresses only', () => {
  host.closeFd(host.listenTcp('127.0.0.1', 0));
  assert.throws(() => host.listenTcp('localhost', 0), /numeric/);
  assert.throws(() => host.listenTcp('127.0.0.1', 65536), /integer from 0 to 65535/);
});

door('sockets of the two families do not exclude each other', () => {
  let six: number;
  try {
    six = host.listenTcp('::1', 0);
  } catch {
    return; // no IPv6 here
  }
  host.closeFd(six);
});

// ---- The process ----------------------------------------------------------------------------

door('finds users', () => {
  assert.equal(host.lookupUser('root'), { uid: 0, gid: 0 });
  assert.is(host.lookupUser('nobody-of-this-name'), null);
});

door('sets the name that ps shows', () => {
  const before = readFileSync('/proc/self/comm', 'utf8').trim();
  host.setTitle('hastd: a long title');
  assert.is(readFileSync('/proc/self/comm', 'utf8'), 'hastd: a long t\n');
  host.setTitle(before);
});

door('tells what the kernel refuses', () => {
  assert.type(host.setIoFlusher(false), 'boolean');
  assert.is(host.setMemlockLimit(0n), true);
});

door(
  'a confined process opens no path, runs nothing, signals nobody, connects by TCP alone',
  () => {
    const script = `
    import { execFileSync } from 'node:child_process';
    import { readFileSync, writeSync } from 'node:fs';
    import { readFile } from 'node:fs/promises';
    import { connect, createServer } from 'node:net';
    import { native } from ${JSON.stringify(new URL('../../src/native.ts', import.meta.url).href)};
    const tried = {};
    const of = (error) => error === undefined ? 'done' : (error.code ?? error.message);
    const note = (what, work) => {
      try {
        work();
        tried[what] = 'done';
      } catch (error) {
        tried[what] = of(error);
      }
    };
    const dial = (to) =>
      new Promise((resolve) => connect(to).on('connect', resolve).on('error', resolve));
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.on('listening', resolve));
    const refused = native.host.confine();
    note('open', () => readFileSync('/etc/passwd'));
    tried.later = of(await readFile('/etc/passwd').then(() => {}, (error) => error));
    note('run', () => execFileSync('/bin/true'));
    note('signal', () => process.kill(process.ppid, 0));
    tried.unix = of(await dial('/tmp/none'));
    tried.tcp = of(await dial({ host: '127.0.0.1', port: server.address().port }));
    note('limit', () => { if (native.host.setMemlockLimit(1n << 60n)) throw new Error('raised'); });
    writeSync(1, JSON.stringify({ refused, tried }));
    process.stdin.resume();`;
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '-e', script],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    return withDeadline(30_000, async () => {
      try {
        await until('the end of its tries', 20_000, () => output.endsWith('}}'));
        const { refused, tried } = JSON.parse(output) as { refused: string[]; tried: object };
        assert.equal(
          refused.filter((what) => what !== 'landlock'),
          [],
        );
        assert.equal(tried, {
          open: 'ENOENT',
          later: 'ENOENT',
          run: 'EPERM',
          signal: 'EPERM',
          unix: 'EPERM',
          tcp: 'done',
          limit: 'done',
        });
        const status = readFileSync(`/proc/${child.pid}/status`, 'latin1');
        assert.match(status, /^NoNewPrivs:\s+1$/m);
        assert.match(status, /^Seccomp:\s+2$/m);
        const limits = readFileSync(`/proc/${child.pid}/limits`, 'latin1');
        assert.match(limits, /core file size\s+0\s+0/);
      } finally {
        child.kill('SIGKILL');
      }
    })();
  },
);

unless(door, process.getuid?.() === 0 ? 'root may write everywhere' : undefined)(
  'a file that may not be written is told by its errno',
  () =>
    inTempdir((directory) => {
      const path = join(directory, 'a');
      closeSync(openSync(path, 'w'));
      chmodSync(path, 0o400);
      assert.is(
        errnoOf(() => host.openComponent(path, true, false)),
        'EACCES',
      );
    }),
);

unless(door, notRoot())('a socket can be given to another user', () =>
  inTempdir((directory) => {
    const path = join(directory, 's');
    host.closeFd(host.listenUnix(path, 0o600, 12345, 54321));
    const { uid, gid, mode } = statSync(path);
    assert.equal([uid, gid, mode & 0o777], [12345, 54321, 0o600]);
  }),
);

door.run();
