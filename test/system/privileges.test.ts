// What a worker of root's hastd may do, and how the processes are found.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import { type Node, noPair, Pair, runProgram, withPair, workerUser } from '../helper/pair.ts';
import { missing, notRoot, unless } from '../helper/skip.ts';

const privileges = suite('privileges');

/** One word of /proc/PID/status, or the words behind it. */
function statusOf(pid: number, name: string): string {
  const text = readFileSync(`/proc/${pid}/status`, 'latin1');
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)?.[1]?.trim() ?? '';
}

/** What the descriptors of a process lead to, without numbers that change. */
function descriptorsOf(pid: number): Map<number, string> {
  const folder = `/proc/${pid}/fd`;
  return new Map(
    readdirSync(folder)
      .map(Number)
      .map((fd) => [fd, readlinkSync(`${folder}/${fd}`).replace(/\[\d+\]$/, '')]),
  );
}

/** What Node and the engine open for themselves, behind the descriptors that were given. */
const OWN =
  /^(anon_inode:\[(eventpoll|eventfd|io_uring)\]|pipe:|socket:|\/dev\/null|\/dev\/urandom)$/;

async function pgrep(...args: readonly string[]): Promise<number[]> {
  const { stdout } = await runProgram('pgrep', args);
  return stdout.split('\n').filter(Boolean).map(Number);
}

async function mustBeConfined(node: Node): Promise<void> {
  const { pid } = await node.worker();
  const user = workerUser();
  assert.ok(user !== undefined && user.uid !== 0);
  assert.is(statusOf(pid, 'Uid'), Array(4).fill(user?.uid).join('\t'));
  assert.is(statusOf(pid, 'Gid'), Array(4).fill(user?.gid).join('\t'));
  assert.is(statusOf(pid, 'NoNewPrivs'), '1');
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) {
    assert.match(statusOf(pid, set), /^0+$/, set);
  }
  assert.is(statusOf(node.pid, 'Uid'), '0\t0\t0\t0');
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    assert.match(statusOf(Number(task), 'CapEff'), /^0+$/, 'each thread');
    assert.is(statusOf(Number(task), 'Seccomp'), '2', 'each thread');
  }

  // What it was started with; its disk came later. Standard error is a socket pair with some Nodes.
  const wanted = ['/dev/null', '/dev/null', 'pipe:', 'socket:', 'socket:'];
  const disks: string[] = [];
  for (const [fd, to] of descriptorsOf(pid)) {
    const shown = fd === 2 ? to.replace('socket:', 'pipe:') : to;
    if (fd < wanted.length) assert.is(shown, wanted[fd], `descriptor ${fd}`);
    else if (shown.startsWith(node.directory)) disks.push(shown);
    else assert.match(shown, OWN, `descriptor ${fd}`);
  }
  assert.equal(disks, [node.disk]);
  assert.is(readlinkSync(`/proc/${pid}/cwd`), '/');
}

unless(privileges, notRoot() ?? noPair() ?? missing('pgrep'))(
  'workers of root are nobody, can become nobody else, hold what they need, and are found by name',
  withDeadline(60_000, async () => {
    const resource = `title${process.pid}`;
    await withPair(Pair.inSync({ resource }), async ({ a, b }) => {
      await mustBeConfined(a);
      await mustBeConfined(b);

      const [primary, secondary] = await Promise.all([a.worker(), b.worker()]);
      assert.equal(await pgrep('-f', `hastd: ${resource} \\(primary\\)`), [primary.pid]);
      assert.equal(await pgrep('-f', `hastd: ${resource} \\(secondary\\)`), [secondary.pid]);
      for (const args of [['-x', 'hastd'], ['hastd']]) {
        const found = await pgrep(...args);
        for (const node of [a, b]) assert.ok(found.includes(node.pid), `pgrep ${args.join(' ')}`);
      }
      assert.not((await pgrep('-x', 'hastd')).includes(primary.pid), 'only supervisors');
      for (const { socket, control } of [a, b]) {
        assert.is((await runProgram('stat', ['-c', '%a %u', control])).stdout, '600 0\n');
        if (socket === a.socket) {
          assert.is((await runProgram('stat', ['-c', '%a %u', socket])).stdout, '600 0\n');
        }
      }
    });
  }),
);

privileges.run();
