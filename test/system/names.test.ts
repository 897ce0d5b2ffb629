// Which block of hast.conf is ours, on a host that has the names: one of its own, as far as the
// kernel lets a process have it.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import { freePorts } from '../helper/lane.ts';
import { type Ended, noPair, Process, program, runProgram, workerUser } from '../helper/pair.ts';
import { missing, notRoot, unless } from '../helper/skip.ts';
import { inTempdir } from '../helper/tempdir.ts';

const names = suite('node names');
const LIMIT_MS = 60_000;
const FULL = 'store-7.Example.org';
const SHORT = 'store-7';
const ADDRESS = '10.20.30.40';

/** A host with a name and an /etc/hosts of its own; commands there run to their end. */
interface Host {
  readonly directory: string;
  run(...command: readonly string[]): Promise<Ended>;
  hastd(...args: readonly string[]): Promise<Ended>;
}

/** The first process of the host sets it up and is the one that all others join. */
async function withHost(body: (host: Host) => Promise<void>): Promise<void> {
  await inTempdir(async (directory) => {
    const hosts = `127.0.0.1 localhost\n${ADDRESS} ${FULL} ${SHORT}\n`;
    writeFileSync(`${directory}/hosts`, hosts);
    const mount = `mount --bind ${directory}/hosts /etc/hosts`;
    const script = `hostname ${FULL} && ${mount} && echo up && cat`;
    const words = ['--uts', '--mount', '--', 'sh', '-c', script];
    const first = spawn('unshare', words, { stdio: ['pipe', 'pipe', 'inherit'] });
    let up = false;
    first.stdout?.on('data', () => {
      up = true;
    });
    try {
      await until('the host is up', 10_000, () => up);
      const enter = ['--uts', '--mount', `--target=${first.pid}`, '--'];
      const run = (...command: readonly string[]) =>
        runProgram('nsenter', [...enter, ...command], AbortSignal.timeout(LIMIT_MS));
      const hastd = (...args: readonly string[]) =>
        run(process.execPath, ...program('hastd'), '-c', `${directory}/hast.conf`, ...args);
      await body({ directory, run, hastd });
    } finally {
      first.stdin?.end();
      await until('the end of the host', 10_000, () => first.exitCode !== null);
    }
  });
}

function write(directory: string, port: number, blocks: readonly string[]): void {
  const own = (block: string, i: number) => `	on ${block} {
		remote tcp4://192.0.2.${i + 1}
		local /nowhere/${i}
	}
`;
  const text = `control ${directory}/ctl
listen tcp4://127.0.0.1:${port}
user ${workerUser()?.name}
resource data {
${blocks.map(own).join('')}}
`;
  writeFileSync(`${directory}/hast.conf`, text);
}

/** As the system itself tells them. */
async function formsOf({ run }: Host): Promise<readonly string[]> {
  const id = Number.parseInt((await run('hostid')).stdout, 16) >>> 0;
  const machine = readFileSync('/etc/machine-id', 'latin1').trim();
  const dashed = machine.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  return [FULL, SHORT, machine.toUpperCase(), dashed, `hostid${id}`];
}

/** Why there can be no host of its own here; undefined when there can. */
function noHost(): string | undefined {
  if (!existsSync('/etc/machine-id')) return 'there is no /etc/machine-id';
  const { status, stderr } = spawnSync('unshare', ['--uts', '--mount', 'true']);
  return status === 0 ? undefined : `no namespaces of its own for a host: ${stderr}`;
}

const add = unless(
  names,
  notRoot() ?? noHost() ?? noPair() ?? missing('nsenter') ?? missing('hostid') ?? missing('mount'),
);

add(
  'host name, short name, machine id in either form and host id are ours, and nothing like them',
  withDeadline(LIMIT_MS, () =>
    withHost(async (host) => {
      const { directory, hastd } = host;
      const forms = await formsOf(host);
      const inForce = await Promise.all(
        forms.map(async (form, i) => {
          // Each has a file of its own: they run beside each other.
          write(directory, 8457, ['other-1', form]);
          const path = `${directory}/hast.conf.${i}`;
          writeFileSync(path, readFileSync(`${directory}/hast.conf`));
          const { code, stdout, stderr } = await hastd('-t', '-c', path);
          assert.is(code, 0, `${form}: ${stderr}`);
          return /local (\S+)/.exec(stdout)?.[1];
        }),
      );
      assert.equal(
        inForce,
        forms.map(() => '/nowhere/1'),
      );

      write(directory, 8457, [FULL.toLowerCase(), 'store', 'STORE-7', 'localhost', 'hostid1']);
      const { code, stderr } = await hastd('-t');
      assert.is(code, 78);
      const [full, short, machine, ...rest] = forms;
      for (const name of [`${short}, ${full}, `, machine?.toLowerCase() ?? '', ...rest]) {
        assert.match(stderr, name);
      }
    }),
  ),
);

add(
  'a host that gets another name keeps its configuration, and takes a file that knows it',
  withDeadline(LIMIT_MS, () =>
    withHost(async (host) => {
      const { directory, hastd, run } = host;
      const [port] = await freePorts();
      write(directory, port, [SHORT]);
      const ended = hastd('-F', '-P', `${directory}/pid`);
      const file = ['-c', `${directory}/hast.conf`];
      const ctl = (verb: string, ...args: readonly string[]) =>
        run(process.execPath, ...program('hastctl'), verb, ...file, ...args);
      const pidfile = `${directory}/pid`;
      const pid = () => (existsSync(pidfile) ? Number(readFileSync(pidfile, 'latin1')) : 0);
      try {
        await until('a pid', 20_000, () => pid() > 0);
        assert.match((await ctl('list')).stdout, '\n  localpath: /nowhere/0\n');
        await run('hostname', 'renamed.example.org');
        const unknown = await ctl('list');
        assert.is(unknown.code, 78, 'hastctl has the new name, and no block for it');
        const refused = await ctl('reload', '-n', SHORT);
        assert.is(refused.code, 78);
        assert.match(refused.stderr, 'renamed, renamed.example.org');
        assert.match((await ctl('list', '-n', SHORT)).stdout, '\n  localpath: /nowhere/0\n');
        write(directory, port, [SHORT, 'renamed']);
        const reloaded = await ctl('reload');
        assert.is(reloaded.code, 0, reloaded.stderr);
        assert.match((await ctl('list')).stdout, '\n  localpath: /nowhere/1\n');
      } finally {
        if (pid() > 0) new Process(pid()).signal('SIGTERM');
      }
      const { stdout, stderr } = await ended;
      assert.match(stderr, '[WARNING] Reload: the configuration stays as it was');
      assert.match(stdout, '[INFO] Ending.');
    }),
  ),
);

names.run();
