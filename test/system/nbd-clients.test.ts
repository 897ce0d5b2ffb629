import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../helper/deadline.ts';
import { addNbdClientTests } from '../helper/nbd-clients.ts';
import { makeTempdir } from '../helper/tempdir.ts';

// The NBD gate alone, over memory: what foreign clients say to it.

const built = ['out/test-asan/nbd_null', 'out/test/nbd_null'].find((path) => existsSync(path));
const SIZE = 64 << 20;

const clients = suite('nbd clients');

if (built === undefined) {
  const reason = 'nbd_null is not built (scripts/build-test)';
  process.stdout.write(`skipped "nbd clients": ${reason}\n`);
  clients.skip(reason, () => {});
} else {
  const directory = makeTempdir();
  const socket = join(directory, 'nbd');
  let server: ChildProcess | undefined;
  let output = '';

  clients.before(async () => {
    const args = [socket, '--memory', '--size', String(SIZE), '--name', 'disk'];
    server = spawn(built, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [server.stdout, server.stderr]) {
      stream?.on('data', (text) => {
        output += text;
      });
    }
    await until('nbd_null ready', 10_000, () => output.includes('ready'));
  });

  clients.after(() => {
    server?.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  });

  addNbdClientTests(clients, () => ({ socket, name: 'disk', size: SIZE }));

  clients('the server has survived it all and ends in order', async () => {
    assert.is(server?.exitCode, null, output);
    server?.kill('SIGTERM');
    const [code] = server === undefined ? [1] : await once(server, 'exit');
    assert.is(code, 0, output);
    assert.match(output, 'requests a system call');
  });
}

clients.run();
