import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from './deadline.ts';
import { missing, notRoot, unless } from './skip.ts';
import { inTempdir } from './tempdir.ts';

/** An export to try clients on; what it holds is overwritten. */
export interface NbdTarget {
  /** Path of the UNIX socket. */
  readonly socket: string;
  /** The export's name; the empty name must mean the same. */
  readonly name: string;
  /** Bytes; at least 64 MiB, a multiple of 1 MiB. */
  readonly size: number;
}

interface Run {
  /** Exit code; -1 when it did not end by itself. */
  readonly code: number;
  readonly signal: NodeJS.Signals | undefined;
  readonly output: string;
}

const MIB = 1 << 20;
const LIMIT_MS = 120_000;

/** Runs a client to its end; standard output and error come together. */
function run(file: string, args: readonly string[], signal: AbortSignal): Promise<Run> {
  // Debian's libnbd is made for Debian's python.
  const env = { ...process.env, PATH: `/usr/bin:${process.env.PATH ?? ''}` };
  return new Promise((resolve) => {
    execFile(file, args, { env, signal, maxBuffer: 64 * MIB }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, signal: error?.signal ?? undefined, output: stdout + stderr });
    });
  });
}

async function mustRun(file: string, args: readonly string[], signal: AbortSignal) {
  const { code, output } = await run(file, args, signal);
  assert.is(code, 0, `${file} ${args.join(' ')}\n${output}`);
  return output;
}

export function uriOf(target: NbdTarget, name = ''): string {
  return `nbd+unix:///${name}?socket=${target.socket}`;
}

/** Runs a script with libnbd's `nbd` module and the connected handle `h`. */
function shell(target: NbdTarget, script: string, signal: AbortSignal): Promise<string> {
  return mustRun('nbdsh', ['--base-allocation', '-u', uriOf(target), '-c', script], signal);
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece);
  return hash.digest('hex');
}

async function writeRandom(path: string, size: number): Promise<void> {
  const file = await open(path, 'w');
  for (let done = 0; done < size; done += MIB) await file.write(randomBytes(MIB));
  await file.close();
}

/** Sends bytes and goes away, or waits until it is sent away. */
function sendRaw(target: NbdTarget, bytes: Uint8Array, leave: boolean): Promise<void> {
  return new Promise((resolve) => {
    const socket = createConnection(target.socket);
    socket.on('error', () => resolve());
    socket.on('close', () => resolve());
    socket.on('data', () => {});
    socket.write(bytes, () => {
      if (leave) socket.destroy();
      else socket.end();
    });
  });
}

function addNbdinfo(test: Test, target: () => NbdTarget): void {
  const add = unless(test, missing('nbdinfo'));
  const info = (signal: AbortSignal, ...args: string[]) => mustRun('nbdinfo', args, signal);

  add(
    'nbdinfo sees size, name, abilities and block sizes',
    withDeadline(LIMIT_MS, async (signal) => {
      const { name, size } = target();
      const uri = uriOf(target());
      assert.is((await info(signal, '--size', uri)).trim(), String(size));
      for (const ability of ['flush', 'fua', 'trim', 'zero', 'cache', 'df', 'multi-conn']) {
        await info(signal, '--can', ability, uri);
      }
      const wrong = await run('nbdinfo', ['--is', 'read-only', uri], signal);
      assert.is(wrong.code, 2);
      const json = JSON.parse(await info(signal, '--json', uriOf(target(), name)));
      const [one] = json.exports;
      assert.is(one['export-size'], size);
      assert.is(one.block_size_maximum, 32 * MIB);
      assert.is(one.block_size_preferred, 4096);
      assert.equal(one.contexts, ['base:allocation']);
      assert.is(json.structured, true);
    }),
  );

  add(
    'nbdinfo lists the export and maps it as data',
    withDeadline(LIMIT_MS, async (signal) => {
      const list = JSON.parse(await info(signal, '--list', '--json', uriOf(target())));
      assert.is(list.exports[0]['export-name'], target().name);
      const map = JSON.parse(await info(signal, '--map', '--json', uriOf(target())));
      assert.is(map[0].offset, 0);
      assert.is(map[0].type, 0);
    }),
  );

  add(
    'nbdinfo is told that another export does not exist',
    withDeadline(LIMIT_MS, async (signal) => {
      const { code, output } = await run('nbdinfo', [uriOf(target(), 'no-such')], signal);
      assert.is(code, 1);
      assert.match(output, 'No such file');
    }),
  );
}

function addNbdcopy(test: Test, target: () => NbdTarget): void {
  const add = unless(test, missing('nbdcopy'));
  const shapes: readonly (readonly string[])[] = [
    [],
    ['--connections=4', '--requests=64', '--request-size=65536'],
    ['--connections=2', '--requests=4', `--request-size=${32 * MIB}`],
    ['--synchronous'],
  ];
  for (const shape of shapes) {
    add(
      `nbdcopy ${shape.join(' ')} brings bytes there and back`,
      withDeadline(LIMIT_MS, (signal) =>
        inTempdir(async (directory) => {
          const there = join(directory, 'there');
          const back = join(directory, 'back');
          await writeRandom(there, target().size);
          await mustRun('nbdcopy', ['--flush', ...shape, there, uriOf(target())], signal);
          await mustRun('nbdcopy', [...shape, uriOf(target()), back], signal);
          assert.is(await hashOf(back), await hashOf(there));
        }),
      ),
    );
  }
}

const EVERY_COMMAND = `
data = bytes(range(256)) * 16
h.pwrite(data, 4096, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 4096) == data
h.flush()
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(4096, 4096) == bytes(4096)
h.pwrite(data, 4096)
h.trim(4096, 4096, nbd.CMD_FLAG_FUA)
h.pread(4096, 4096)
h.cache(65536, 0)
big = (data * 8192)[:32 << 20]
h.pwrite(big, 1 << 20)
assert h.pread(32 << 20, 1 << 20) == big
pieces = []
def piece(part, offset, status, error): pieces.append((offset, len(part)))
h.pread_structured(131072, 512, piece, nbd.CMD_FLAG_DF)
assert pieces == [(512, 131072)], pieces
h.pread_structured(1 << 20, 0, piece)
assert sum([length for (offset, length) in pieces[1:]]) == 1 << 20, pieces
extents = []
def extent(context, offset, entries, error): extents.append((context, entries))
h.block_status(1 << 20, 0, extent)
assert extents == [("base:allocation", [1 << 20, 0])], extents
`;

const WRONG_REQUESTS = `
import errno
h.set_strict_mode(0)
size = h.get_size()
def refused(number, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errnum == number, error
    else:
        raise Exception("not refused")
refused(errno.EINVAL, h.pread, 4096, size)
refused(errno.ENOSPC, h.pwrite, bytes(4096), size)
refused(errno.ENOSPC, h.pwrite, bytes(1 << 20), size - 4096)
refused(errno.EINVAL, h.pwrite, bytes(100), 0)
refused(errno.EINVAL, h.pread, 512, 100)
refused(errno.EINVAL, h.trim, 4096, size)
refused(errno.ENOSPC, h.zero, 4096, size)
refused(errno.EINVAL, h.pread, (32 << 20) + 4096, 0)
refused(errno.EOVERFLOW, h.pread_structured, 1 << 20, 0, lambda *a: None, nbd.CMD_FLAG_DF)
refused(errno.ENOTSUP, h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO)
h.pwrite(bytes(4096), 0)
`;

const FINISH = `
def finish(cookies):
    while cookies:
        cookies = [c for c in cookies if not h.aio_command_completed(c)]
        if cookies: h.poll(-1)
`;

const PIPELINED = `
import random
random.seed(7)
pages = h.get_size() // 4096
places = random.sample(range(pages), min(pages, 3000))
def page(n): return n.to_bytes(8, "big") * 512
${FINISH}cookies = []
for n in places:
    cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(page(n))), n * 4096))
    if len(cookies) >= 200:
        finish(cookies); cookies = []
finish(cookies)
reads = []
for n in places[:400]:
    buffer = nbd.Buffer(4096)
    reads.append((n, buffer, h.aio_pread(buffer, n * 4096)))
finish([c for (n, b, c) in reads])
for (n, buffer, c) in reads:
    assert buffer.to_bytearray() == page(n), n
`;

const SIMPLE_REPLIES = `
${FINISH}
h = nbd.NBD()
h.set_request_structured_replies(False)
h.set_handshake_flags(FLAGS)
h.connect_unix("SOCKET")
assert not h.get_structured_replies_negotiated()
big = bytes(range(251)) * ((8 << 20) // 251 + 1)
big = big[:8 << 20]
h.pwrite(big, 512)
assert h.pread(8 << 20, 512) == big
buffers = [nbd.Buffer(1280 << 10) for i in range(6)]
finish([h.aio_pread(b, 512 + (i << 20)) for (i, b) in enumerate(buffers)])
for (i, b) in enumerate(buffers):
    assert b.to_bytearray() == big[i << 20:(i << 20) + (1280 << 10)], i
h.shutdown()
`;

function addNbdsh(test: Test, target: () => NbdTarget): void {
  const add = unless(test, missing('nbdsh'));
  const scripts: readonly (readonly [string, string])[] = [
    ['nbdsh: every command, up to 32 MiB', EVERY_COMMAND],
    ['nbdsh: wrong requests are refused, and the connection goes on', WRONG_REQUESTS],
    ['nbdsh: hundreds of requests in flight', PIPELINED],
  ];
  for (const [name, script] of scripts) {
    add(
      name,
      withDeadline(LIMIT_MS, async (signal) => {
        await shell(target(), script, signal);
      }),
    );
  }
  for (const flags of ['0', '1', '2', '3']) {
    add(
      `nbdsh: simple replies, after a handshake with flags ${flags}`,
      withDeadline(LIMIT_MS, async (signal) => {
        const script = SIMPLE_REPLIES.replace('FLAGS', flags).replace('SOCKET', target().socket);
        await mustRun('nbdsh', ['-c', script], signal);
      }),
    );
  }
}

function addQemu(test: Test, target: () => NbdTarget): void {
  const add = unless(test, missing('qemu-img'));

  add(
    'qemu-img: info, convert there and back, compare',
    withDeadline(LIMIT_MS, (signal) =>
      inTempdir(async (directory) => {
        const uri = uriOf(target());
        const info = JSON.parse(await mustRun('qemu-img', ['info', '--output=json', uri], signal));
        assert.is(info['virtual-size'], target().size);
        const raw = join(directory, 'raw');
        const qcow = join(directory, 'qcow2');
        await writeRandom(raw, target().size / 2);
        await mustRun('truncate', ['-s', String(target().size), raw], signal);
        const convert = ['convert', '-n', '-m', '16', '-W', '-f', 'raw', '-O', 'raw', raw, uri];
        await mustRun('qemu-img', convert, signal);
        await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, uri], signal);
        await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', uri, qcow], signal);
        await mustRun('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', qcow, uri], signal);
      }),
    ),
  );

  add(
    'qemu-io: patterns, zeroes, discard, FUA and requests in flight',
    withDeadline(LIMIT_MS, async (signal) => {
      const commands = [
        'write -P 0xa5 0 4M',
        'read -P 0xa5 0 4M',
        'write -z 64k 192k',
        'read -P 0 64k 192k',
        'write -f -P 0x11 1M 4k',
        'write -z -u 2M 128k',
        'discard 3M 1M',
        'flush',
        ...Array.from({ length: 12 }, (_, i) => `aio_write -P ${i + 1} ${8 + 2 * i}M 2M`),
        'aio_flush',
        ...Array.from({ length: 12 }, (_, i) => `read -P ${i + 1} ${8 + 2 * i}M 2M`),
        'write -P 0x77 32M 32M',
        'read -P 0x77 32M 32M',
      ];
      const args = commands.flatMap((command) => ['-c', command]);
      const output = await mustRun('qemu-io', ['-f', 'raw', ...args, uriOf(target())], signal);
      assert.not.match(output, 'failed');
      assert.not.match(output, 'verification');
    }),
  );
}

function addFio(test: Test, target: () => NbdTarget): void {
  const add = unless(test, missing('fio'));
  const jobs: readonly (readonly string[])[] = [
    ['--rw=randwrite', '--bs=4k', '--iodepth=32'],
    ['--rw=randwrite', '--bsrange=512-256k', '--iodepth=16', '--bs_unaligned=0'],
    ['--rw=write', '--bs=1m', '--iodepth=8'],
    ['--rw=randrw', '--bs=64k', '--iodepth=8', '--numjobs=1'],
  ];
  for (const job of jobs) {
    add(
      `fio verifies ${job.join(' ')}`,
      withDeadline(LIMIT_MS, (signal) =>
        inTempdir(async (directory) => {
          const fixed = ['--name=verify', '--ioengine=nbd', `--uri=${uriOf(target())}`];
          const size = Math.min(target().size, 64 * MIB);
          const verify = [`--size=${size}`, '--verify=crc32c', '--verify_fatal=1'];
          const aux = [`--aux-path=${directory}`, '--do_verify=1'];
          await mustRun('fio', [...fixed, ...job, ...verify, ...aux], signal);
        }),
      ),
    );
  }
}

function addNbdfuse(test: Test, target: () => NbdTarget): void {
  const add = unless(test, missing('nbdfuse') ?? notRoot());
  add(
    'nbdfuse makes a file of it that can be written and read',
    withDeadline(LIMIT_MS, (signal) =>
      inTempdir(async (directory) => {
        const mount = join(directory, 'mount');
        const file = join(mount, 'nbd');
        const random = join(directory, 'random');
        await mkdir(mount);
        await writeRandom(random, 8 * MIB);
        const ended = run('nbdfuse', [mount, uriOf(target())], signal);
        await until(
          'mounted',
          10_000,
          async () => (await run('test', ['-f', file], signal)).code === 0,
        );
        try {
          const dd = [`of=${file}`, 'bs=1M', 'seek=4', 'conv=notrunc,fsync', 'status=none'];
          await mustRun('dd', [`if=${random}`, ...dd], signal);
          await mustRun('cmp', ['-n', String(8 * MIB), '-i', `0:${4 * MIB}`, random, file], signal);
        } finally {
          await run('umount', [mount], signal);
        }
        assert.is((await ended).code, 0);
      }),
    ),
  );
}

const KILLED = `
import os
for i in range(150):
    h.aio_pread(nbd.Buffer(1 << 20), (i % 32) << 20)
    h.aio_pwrite(nbd.Buffer(1 << 20), (i % 32) << 20)
    if i % 10 == 0: h.poll(0)
os.kill(os.getpid(), 9)
`;

const STILL_WELL = `
for i in range(300):
    data = i.to_bytes(4, "big") * 4096
    h.pwrite(data, (48 << 20) + i * 16384)
    assert h.pread(16384, (48 << 20) + i * 16384) == data
`;

function addBadClients(test: Test, target: () => NbdTarget): void {
  const add = unless(test, missing('nbdsh'));
  add(
    'garbage, half messages and killed clients disturb nobody',
    withDeadline(LIMIT_MS, async (signal) => {
      const well = shell(target(), STILL_WELL, signal);
      const start = Buffer.from('0000000349484156454f50540000000100000000', 'hex');
      const write = Buffer.from('256095130000000100000000000000010000000000000000', 'hex');
      for (let i = 0; i < 40; ++i) {
        await sendRaw(target(), randomBytes(1 + i * 97), i % 2 === 0);
        const half = Buffer.concat([start, write, Buffer.from('00100000', 'hex')]);
        await sendRaw(target(), half.subarray(0, 5 + i * 2), i % 3 === 0);
        await sendRaw(target(), Buffer.concat([half, randomBytes(i * 5000)]), i % 2 === 1);
        await sendRaw(target(), Buffer.concat([start, randomBytes(4096)]), false);
      }
      for (let i = 0; i < 5; ++i) {
        const { signal: end } = await run('nbdsh', ['-u', uriOf(target()), '-c', KILLED], signal);
        assert.is(end, 'SIGKILL');
      }
      await well;
      await shell(target(), STILL_WELL, signal);
    }),
  );
}

/**
 * Adds tests that run NBD clients against an export: libnbd's tools, QEMU's, fio, and bad ones.
 * @param target  asked when a test runs, so that the server may be started by `test.before`
 */
export function addNbdClientTests(test: Test, target: () => NbdTarget): void {
  addNbdinfo(test, target);
  addNbdcopy(test, target);
  addNbdsh(test, target);
  addQemu(test, target);
  addFio(test, target);
  addNbdfuse(test, target);
  addBadClients(test, target);
}
