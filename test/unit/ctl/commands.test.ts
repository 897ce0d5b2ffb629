// role, status and list against a daemon that a test plays.
import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlClient } from '../../../src/control/client.ts';
import { parseCommandLine } from '../../../src/ctl/command-line.ts';
import { list } from '../../../src/ctl/commands/list.ts';
import { role } from '../../../src/ctl/commands/role.ts';
import { status } from '../../../src/ctl/commands/status.ts';
import { why } from '../../../src/ctl/commands/why.ts';
import type { Context } from '../../../src/ctl/context.ts';
import { FORMATTERS } from '../../../src/ctl/output.ts';
import { formatForeground, Logger, streamOf } from '../../../src/log.ts';
import { configOf } from '../../helper/config.ts';
import { withDeadline } from '../../helper/deadline.ts';
import {
  fakeDaemon,
  fakeSocket,
  resourceOf,
  sendJson,
  whyAnswerOf,
  workerOf,
} from '../../helper/fake-daemon.ts';
import { configText, hastctl, hastctlHere } from '../../helper/hastctl.ts';
import { inTempdir } from '../../helper/tempdir.ts';

interface Seen {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line in this process, against the socket at `path`. */
async function run(line: string, path: string): Promise<Seen> {
  const command = parseCommandLine(line.split(' '));
  const seen = { stdout: '', stderr: '' };
  const sink = (record: Parameters<typeof formatForeground>[0]) => {
    seen[streamOf(record.level)] += formatForeground(record);
  };
  const context: Context = {
    config: configOf(''),
    client: new ControlClient(path, { answerSeconds: 2, roleAnswerSeconds: 2 }),
    log: Logger.root(sink, command.debug),
    format: FORMATTERS['json' in command && command.json ? 'json' : 'text'],
    print: (text) => {
      seen.stdout += text;
    },
  };
  const call = { role, status, list, why }[command.verb as 'role'] as (
    command: unknown,
    context: Context,
  ) => Promise<number>;
  return { exit: await call(command, context), ...seen };
}

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

function against(answer: Answer, body: (path: string) => Promise<void>): () => Promise<void> {
  return withDeadline(30_000, () =>
    inTempdir(async (directory) => {
      const daemon = await fakeDaemon(join(directory, 'control'), answer);
      try {
        await body(daemon.path);
      } finally {
        await daemon.close();
      }
    }),
  );
}

const RESOURCES = [
  resourceOf('a', { role: 'primary', worker: workerOf({ status: 'complete', pid: 5 }) }),
  resourceOf('b', {
    role: 'secondary',
    notes: ['no primary has connected yet: run hastctl role primary b on the peer'],
    lastError: { code: 'DISK_OPEN', message: 'it could not be opened', exit: 66 },
  }),
];
const listing: Answer = (_request, response) => sendJson(response, 200, { resources: RESOURCES });

/** Roles change with success, but for names with a meaning. */
const changing: Answer = (request, response, body) => {
  const name = /^\/v1\/resources\/(.*)\/role$/.exec(request.url ?? '')?.[1];
  if (name === undefined) return listing(request, response, body);
  const failures: Readonly<Record<string, [number, string, number]>> = {
    gone: [404, 'RESOURCE_UNKNOWN', 65],
    refused: [409, 'ROLE_REFUSED', 5],
    failed: [500, 'ROLE_FAILED', 6],
  };
  const failure = failures[name];
  if (failure !== undefined) {
    const [httpStatus, code, exit] = failure;
    sendJson(response, httpStatus, { code, message: `${name} it was`, hint: 'do this', exit });
    return;
  }
  const notices = name === 'noticed' ? ['started degraded'] : [];
  const { role: wanted } = JSON.parse(body);
  sendJson(response, 200, {
    name,
    previous: name === 'same' ? wanted : 'init',
    role: wanted,
    notices,
  });
};

const commands = suite('hastctl commands');

commands(
  'status: all, some in their order, unknown ones as ERR1 with exit 1',
  against(listing, async (path) => {
    const header = 'Name\tStatus\t Role\t\tComponents\n';
    const a = 'a\tcomplete primary        /srv/a.img\ttcp4://10.0.0.2\n';
    const b = 'b\t-        secondary      /srv/b.img\ttcp4://10.0.0.2\n';
    for (const line of ['status', 'status all', 'status all nope']) {
      const { exit, stdout, stderr } = await run(line, path);
      assert.equal([exit, stdout], [0, header + a + b]);
      assert.match(stderr, /^\[WARNING\] \[b\] no primary has connected yet/m);
    }
    assert.is((await run('status --json', path)).stderr, '');
    assert.is((await run('status b a b', path)).stdout, header + b + a + b);
    const unknown = await run('status a nope all', path);
    assert.is(unknown.exit, 1);
    assert.is(unknown.stdout, `${header + a}nope\tERR1\nall\tERR1\n`);
    assert.match(unknown.stderr, /^\[ERROR\] \[nope\] .* knows no such resource \(.*\)$/m);
  }),
);

commands(
  'list: why a resource is as it is goes to stderr, never between the lines of stdout',
  against(listing, async (path) => {
    const seen = await run('list', path);
    assert.is(seen.exit, 0);
    assert.is(
      seen.stdout,
      FORMATTERS.text.list(RESOURCES.map((r) => ({ name: r.name, status: r }))),
    );
    assert.match(seen.stderr, /^\[WARNING\] \[b\] no primary has connected yet/m);
    assert.match(seen.stderr, /^\[WARNING\] \[b\] last failure: it could not be opened$/m);
    const json = await run('list --json b nope', path);
    assert.is(json.exit, 1);
    assert.is(json.stderr, '');
    const [b, nope] = JSON.parse(json.stdout).resources;
    assert.is(b.notes.length, 1);
    assert.is(nope.error.code, 'RESOURCE_UNKNOWN');
  }),
);

const explaining: Answer = (request, response, body) => {
  const name = /^\/v1\/resources\/(.*)\/why$/.exec(request.url ?? '')?.[1];
  if (name === undefined) return listing(request, response, body);
  if (name !== 'nope') return sendJson(response, 200, whyAnswerOf(name));
  const failure = { code: 'RESOURCE_UNKNOWN', message: 'no such', exit: 65 };
  return sendJson(response, 404, failure);
};

commands(
  'why: one, several or all, and an unknown one with exit 1',
  against(explaining, async (path) => {
    const one = await run('why a', path);
    assert.is(one.exit, 0);
    assert.match(
      one.stdout,
      /^a on alpha: secondary, waiting\n {2}it waits\n\nHow it came about\n/,
    );
    const titles = (text: string) => text.match(/^\w+ on alpha/gm);
    assert.equal(titles((await run('why all', path)).stdout), ['a on alpha', 'b on alpha']);
    const some = await run('why b nope a', path);
    assert.is(some.exit, 1);
    assert.equal(titles(some.stdout), ['b on alpha', 'a on alpha']);
    assert.match(some.stderr, /^\[ERROR\] \[nope\] .* knows no such resource/m);
    const { resources } = JSON.parse((await run('why --json a nope', path)).stdout);
    assert.equal(resources[0], whyAnswerOf('a'));
    assert.is(resources[1].error.exit, 1);
  }),
);

commands(
  'status and list of no resources print nothing',
  against(
    (_request, response) => sendJson(response, 200, { resources: [] }),
    async (path) => {
      assert.equal(await run('status', path), { exit: 0, stdout: '', stderr: '' });
      assert.equal(await run('list all', path), { exit: 0, stdout: '', stderr: '' });
      assert.equal(await run('role init all', path), { exit: 0, stdout: '', stderr: '' });
    },
  ),
);

commands(
  'role: silent on success, more with -d and -dd',
  against(changing, async (path) => {
    assert.equal(await run('role primary a same', path), { exit: 0, stdout: '', stderr: '' });
    const once = await run('role -d primary a same', path);
    assert.is(once.stdout, '[DEBUG][1] [a] role changed: init -> primary\n');
    const twice = await run('role -dd primary same', path);
    assert.is(twice.stdout, '[DEBUG][2] [same] role unchanged: primary\n');
    const noticed = await run('role primary noticed', path);
    assert.equal(noticed, {
      exit: 0,
      stdout: '',
      stderr: '[WARNING] [noticed] started degraded\n',
    });
  }),
);

commands(
  'role: the first failure in the order of the names decides, the others are done and told',
  against(changing, async (path) => {
    const exit = async (line: string) => (await run(`role primary ${line}`, path)).exit;
    assert.is(await exit('a gone'), 1);
    assert.is(await exit('refused gone failed'), 5);
    assert.is(await exit('a failed refused'), 6);
    const { stderr } = await run('role primary gone refused failed', path);
    assert.is(stderr.split('\n').length, 4);
    assert.match(stderr, /^\[ERROR\] \[refused\] refused it was \(do this\)$/m);
  }),
);

commands('role: all at the same time, and a leading all means every resource', async () => {
  const waiting: (() => void)[] = [];
  const asked: string[] = [];
  const answer: Answer = (request, response, body) => {
    asked.push(`${request.method} ${request.url}`);
    if (request.method === 'GET') return listing(request, response, body);
    waiting.push(() => changing(request, response, body));
    // Nobody is answered before everybody has asked.
    if (waiting.length === 2) for (const go of waiting) go();
  };
  await against(answer, async (path) => {
    assert.is((await run('role secondary all nonsense', path)).exit, 0);
    assert.equal(asked.sort(), [
      'GET /v1/resources',
      'POST /v1/resources/a/role',
      'POST /v1/resources/b/role',
    ]);
  })();
});

commands(
  'role: -f and --if-unused are asked for',
  against(
    (request, response, body) => {
      assert.equal(JSON.parse(body), { role: 'init', force: true, ifUnused: true });
      changing(request, response, body);
    },
    async (path) => assert.is((await run('role -f --if-unused init a', path)).exit, 0),
  ),
);

// ---- The real command -----------------------------------------------------------------------

commands(
  'the real command: output, exit codes, and one message when nobody is there',
  withDeadline(120_000, () =>
    inTempdir(async (directory) => {
      const file = join(directory, 'hast.conf');
      writeFileSync(file, configText(directory, { a: `${directory}/a.img` }));
      const options = ['-c', file, '-n', 'n'];

      const away = await hastctl('role', ...options, 'primary', 'a', 'b');
      assert.is(away.exit, 71);
      assert.is(away.stdout, '');
      assert.match(away.stderr, /^\[ERROR\] the daemon cannot be reached at .*: ENOENT \(.*\)\n$/);

      const daemon = await fakeDaemon(join(directory, 'control'), changing);
      try {
        const seen = await hastctl('status', ...options, 'a', 'nope');
        assert.is(seen.exit, 1);
        assert.match(seen.stdout, /^Name\t.*\na\tcomplete .*\nnope\tERR1\n$/);
        assert.is((await hastctlHere('role', ...options, 'primary', 'refused')).exit, 5);
      } finally {
        await daemon.close();
      }
      const garbage = await fakeSocket(join(directory, 'control'), (socket) => socket.end('?'));
      try {
        const seen = await hastctlHere('list', ...options);
        assert.equal([seen.exit, seen.stdout], [69, '']);
      } finally {
        await garbage.close();
      }
      const used = await hastctlHere('role', 'primary');
      assert.equal([used.exit, used.stdout], [64, '']);
      assert.match(used.stderr, /^hastctl: role needs .*\nusage: hastctl create /);
      const bare = await hastctl();
      assert.equal([bare.exit, bare.stdout], [64, '']);
      assert.match(bare.stderr, /^usage: hastctl create /);
      const missing = await hastctlHere('status', '-c', join(directory, 'none'));
      assert.is(missing.exit, 72);
      const node = await hastctlHere('status', '-c', file, '-n', 'other');
      assert.is(node.exit, 78);
    }),
  ),
);

commands.run();
