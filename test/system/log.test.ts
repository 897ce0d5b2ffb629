// What a person reads in the log: at which level, at which priority, in which words.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { writeConfig } from '../helper/hastd.ts';
import { freePorts } from '../helper/lane.ts';
import { type Node, noPair, Pair, Process, program, withPair } from '../helper/pair.ts';
import { notRoot, unless } from '../helper/skip.ts';
import { inTempdir } from '../helper/tempdir.ts';

const log = suite('log of a pair');
const LIMIT_MS = 60_000;

/** What depends on this machine, not on what happens. */
const OF_THE_MACHINE = /locked|The kernel refused/;

/** Lines of these levels, numbers left out. */
function linesOf({ output }: Node, levels: RegExp): readonly string[] {
  return output
    .split('\n')
    .filter((line) => levels.test(line) && !OF_THE_MACHINE.test(line))
    .map((line) => line.replaceAll(/\d+(\.\d+)*/g, 'N'));
}

const WITHOUT_D = /^\[[A-Z]+\] /;

/** What a primary says of a connection, a synchronisation, a loss and its end. */
const OF_THE_PRIMARY = `[INFO] Started successfully, running protocol version N.
[INFO] Listening on address tcpN://N:N.
[INFO] [data] (primary) Role changed from init to primary.
[INFO] [data] (primary) Connected to the peer (protocol version N, extended).
[INFO] [data] (primary) Synchronisation started. NMB to go.
[INFO] [data] (primary) Synchronisation complete. NMB in Nms (NMB/s).
[WARNING] [data] (primary) Disconnected from the peer: the peer closed the connection.
[INFO] [data] (primary) Connected to the peer (protocol version N, extended).
[INFO] [data] (primary) The nodes are in sync.
[INFO] [data] (primary) Disconnected from the peer: this node ends being primary.
[INFO] [data] (init) Role changed from primary to init.
[INFO] Ending.`;

const OF_THE_SECONDARY = `[INFO] Started successfully, running protocol version N.
[INFO] Listening on address tcpN://N:N.
[INFO] [data] (secondary) Role changed from init to secondary.
[INFO] [data] (secondary) Connection from N.
[INFO] [data] (secondary) Worker was ended, waiting for the primary.
[INFO] [data] (secondary) Connection from N.
[WARNING] [data] (secondary) Disconnected from the primary: the primary closed the connection.
[INFO] Ending.
[INFO] [data] (init) Role changed from secondary to init.`;

async function live({ a, b }: Pair): Promise<void> {
  new Process((await b.stats()).pid).signal('SIGTERM'); // no hook, whose pid is newer
  await until('the loss', 10_000, () => a.output.includes('Disconnected'));
  await until('both in sync', 20_000, () => a.output.includes('The nodes are in sync.'));
  await a.role('init');
  await until('the end', 10_000, () => b.output.includes('Disconnected'));
  await a.stop();
  await b.stop();
}

const add = unless(log, noPair());

add(
  'without -d a person reads what happens to the data, each thing once, with its amounts',
  withDeadline(LIMIT_MS, () =>
    withPair(Pair.inSync(), async (pair) => {
      await live(pair);
      assert.equal(linesOf(pair.a, /./), OF_THE_PRIMARY.split('\n'));
      assert.equal(linesOf(pair.b, /./), OF_THE_SECONDARY.split('\n'));
    }),
  ),
);

add(
  '-d adds set-ups, hooks and processes, -dd who asks for what, and neither takes a line away',
  withDeadline(LIMIT_MS, async () => {
    const statements = 'exec /bin/false'; // which is an error in the log
    await withPair(Pair.make({ statements, hastd: ['-d'] }), async (pair) => {
      const { a, b } = pair;
      b.options = ['-dd'];
      await b.stop();
      await b.start();
      await b.role('secondary');
      await a.role('primary');
      await a.inSync();
      await live(pair);
      const debugged = (node: Node) => linesOf(node, /^\[DEBUG\]/).join('\n');
      for (const text of [debugged(a), debugged(b)]) {
        assert.match(text, /\[DEBUG\]\[N\] \[data\] \(\w+\) Worker started \(pid N\)\./);
        assert.match(
          text,
          /\[data\] \(\w+\) Counters here: local N, remote N; at the peer: N, N\./,
        );
        assert.match(text, /\[data\] \(\w+\) Running hook \(.* role data init \w+\)\./);
        assert.match(text, 'Connection from N.');
      }
      assert.not.match(a.output, '[DEBUG][2]');
      assert.match(
        b.output,
        /\[DEBUG\]\[2\] POST \/v1\/resources\/data\/role by hastctl \(.*\): 200\./,
      );
      const ofHooks = /Hook ended with/;
      const said = (node: Node) => linesOf(node, WITHOUT_D).filter((line) => !ofHooks.test(line));
      assert.equal(said(a), OF_THE_PRIMARY.split('\n'));
      assert.match(a.output, /\[ERROR\] \[data\] \(\w+\) Hook ended with exit code/);
      assert.equal(
        said(b).slice(-OF_THE_SECONDARY.split('\n').length),
        OF_THE_SECONDARY.split('\n'),
      );
    });
  }),
);

// ---- syslog -------------------------------------------------------------------------------------

/** Of /dev: what Node needs. The socket is where the test listens. */
const DEV = `set -e
for each in null zero random urandom; do
  touch "$0/$each"
  mount --bind "/dev/$each" "$0/$each"
done
mount --rbind "$0" /dev
exec "$@"`;

function noMounts(): string | undefined {
  const { status, stderr } = spawnSync('unshare', ['--mount', 'true']);
  return status === 0 ? undefined : `no mount namespace: ${stderr}`;
}

/** hastd in the background, and what it says to syslog: priority and text. */
async function withSyslog(
  body: (directory: string, said: readonly string[], caller: ChildProcess) => Promise<void>,
): Promise<void> {
  await inTempdir(async (directory) => {
    chmodSync(directory, 0o755);
    const dev = `${directory}/dev`;
    spawnSync('mkdir', [dev]);
    const said: string[] = [];
    // What syslog(3) finds no datagram socket at, it takes for a stream: each line ends with a NUL.
    const server = createServer((socket) => {
      let rest = '';
      socket.setEncoding('utf8').on('data', (text: string) => {
        const lines = `${rest}${text}`.split('\0');
        rest = lines.pop() ?? '';
        said.push(...lines);
      });
    });
    await new Promise<void>((resolve) => server.listen(`${dev}/log`, resolve));
    const [port] = await freePorts();
    const config = writeConfig({ directory, port });
    const words = [process.execPath, ...program('hastd'), '-d', '-c', config, '-n', 'a'];
    const caller = spawn('unshare', ['--mount', 'sh', '-c', DEV, dev, ...words]);
    try {
      await body(directory, said, caller);
    } finally {
      server.close();
    }
  });
}

unless(log, notRoot() ?? noPair() ?? noMounts())(
  'syslog has it as a daemon, with the pid, at the priority of its level',
  withDeadline(LIMIT_MS, () =>
    withSyslog(async (directory, said, caller) => {
      await until('it has started', 20_000, () => caller.exitCode !== null);
      assert.is(caller.exitCode, 0);
      const hastd = new Process(Number(readFileSync(`${directory}/pid`, 'latin1')));
      const has = (priority: number, text: string) => {
        const head = new RegExp(`^<${priority}>.* hastd\\[${hastd.pid}\\]: `);
        const line = (one: string) => head.test(one) && one.replace(head, '').startsWith(text);
        return until(`<${priority}> ${text} in ${said}`, 10_000, () => said.some(line));
      };
      try {
        await has(30, 'Started successfully, running protocol version 2.');
        writeFileSync(`${directory}/hast.conf`, 'nonsense');
        hastd.signal('SIGHUP');
        await has(28, 'Reload: the configuration stays as it was: ');
      } finally {
        hastd.signal('SIGTERM');
      }
      await has(30, 'Ending.');
      await until('its end', 20_000, () => !existsSync(`/proc/${hastd.pid}`));
    }),
  ),
);

log.run();
