// The failover scripts on a machine of paper: what they call, in which order, and when not.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../../helper/deadline.ts';
import { FAILOVER, Stage } from '../../helper/failover-stage.ts';
import { runProgram } from '../../helper/pair.ts';
import { missing, unless } from '../../helper/skip.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const failover = suite('failover scripts');
const add = unless(failover, missing('flock') ?? missing('timeout'));
const LIMIT_MS = 60_000;

function onStage(
  body: (stage: Stage) => Promise<void>,
  resources: readonly string[] = ['data'],
  more = '',
) {
  return withDeadline(LIMIT_MS, () =>
    inTempdir((directory) => body(new Stage(directory, resources, more))),
  );
}

const UP = [
  'role primary data',
  'taken primary data',
  'adapter up data',
  'fsck -t ext4 -p /dev/fake/data',
  'mount -t ext4 -o noatime /dev/fake/data mnt/data',
  'service start first',
  'service start second',
];
const SERVICES_DOWN = ['service stop second', 'service stop first'];

add(
  'all ways of calling it that are in use mean the same',
  onStage(
    async (stage) => {
      stage.set('secondary-worker'); // so that becoming primary ends soon, and is told apart
      const ways: Readonly<Record<string, readonly (readonly string[])[]>> = {
        primary: [
          ['primary'],
          ['master'],
          ['MASTER', '1@em0'],
          ['1@em0', 'MASTER'],
          ['INSTANCE', 'data', 'MASTER', '100'],
          ['GROUP', 'all', 'MASTER'],
        ],
        secondary: [
          ['secondary'],
          ['slave'],
          ['backup'],
          ['BACKUP', '1@em0'],
          ['INIT', '1@em0'],
          ['1@em0', 'INIT'],
          ['INSTANCE', 'data', 'BACKUP', '100'],
          ['INSTANCE', 'data', 'FAULT', '100'],
          ['INSTANCE', 'data', 'STOP', '100'],
        ],
      };
      for (const [role, calls] of Object.entries(ways)) {
        for (const args of calls) {
          const { code, stderr } = await stage.switch(...args);
          assert.match(stderr, `becoming ${role} of: data`, args.join(' '));
          assert.is(code, role === 'primary' ? 1 : 0, stderr);
        }
      }
      for (const wrong of [[], ['promote'], ['MASTER', 'a', 'b', 'c', 'd']]) {
        assert.is((await stage.switch(...wrong)).code, 64);
      }
    },
    ['data'],
    'worker_seconds=0',
  ),
);

add(
  'only the virtual addresses that are named decide',
  onStage(
    async (stage) => {
      for (const other of ['2@em0', '11@em0', '1@em1']) {
        const { code, stderr } = await stage.switch('MASTER', other);
        assert.is(code, 0);
        assert.match(stderr, 'none of our business');
      }
      assert.equal(stage.calls(), []);
      assert.is((await stage.switch('MASTER', '1@em0')).code, 0);
      assert.is((await stage.switch('INSTANCE', 'web', 'BACKUP', '1')).code, 0);
      assert.is(stage.calls().length, UP.length + 7);
    },
    ['data'],
    "vhids='1@em0 web'",
  ),
);

add(
  'primary: role, device, check, mount, services; again: nothing that is there already',
  onStage(async (stage) => {
    const { code, stderr } = await stage.switch('primary');
    assert.is(code, 0, stderr);
    assert.equal(stage.calls(), UP);
    assert.is((await stage.switch('primary')).code, 0);
    assert.equal(
      stage.calls(),
      UP.filter((call) => !/^(fsck|mount)/.test(call)),
    );
  }),
);

add(
  'secondary beside its peer: services, file system, device, then the role; again: no harm',
  onStage(async (stage) => {
    await stage.switch('primary');
    stage.calls();
    const { code, stderr } = await stage.switch('secondary');
    assert.is(code, 0, stderr);
    const role = ['role secondary data', 'taken secondary data', 'adapter down data'];
    assert.equal(stage.calls(), [
      ...SERVICES_DOWN,
      'umount mnt/data',
      'adapter down data',
      ...role,
    ]);
    assert.is((await stage.switch('secondary')).code, 0);
    assert.equal(stage.calls(), [...SERVICES_DOWN, ...role]);
  }),
);

add(
  'without its peer the role goes before services and file system, which write nothing alone',
  onStage(async (stage) => {
    await stage.switch('primary');
    stage.calls();
    stage.set('status', 'degraded');
    assert.is((await stage.switch('secondary')).code, 0);
    const role = ['role secondary data', 'taken secondary data'];
    assert.equal(stage.calls(), [
      ...role,
      ...SERVICES_DOWN,
      ...role, // once more: no change
      'umount mnt/data',
      'adapter down data',
    ]);
  }),
);

add(
  'a file system in use is taken away after the role, by force',
  onStage(async (stage) => {
    await stage.switch('primary');
    stage.calls();
    stage.set('conf', `${readFileSync(`${stage.directory}/conf`, 'utf8')}busy_seconds=1\n`);
    stage.set('busy');
    assert.is((await stage.switch('secondary')).code, 0);
    const calls = stage.calls();
    assert.ok(calls.includes('fuser -k -M -m mnt/data'));
    const forced = calls.findIndex((call) => /^umount -[fl] mnt/.test(call));
    assert.ok(forced > calls.indexOf('taken secondary data'), calls.join('\n'));
    assert.ok(calls.lastIndexOf('adapter down data') > forced);
  }),
);

add(
  'demotion refuse in hast.conf does not keep a node primary that has lost its address',
  onStage(async (stage) => {
    stage.set('refuse.secondary');
    assert.is((await stage.switch('secondary')).code, 0);
    const roles = stage.calls().filter((call) => !/^(service|adapter)/.test(call));
    assert.equal(roles, ['role secondary data', 'role -f secondary data', 'taken secondary data']);
  }),
);

add(
  'a MASTER that is gone again at once changes nothing',
  onStage(
    async (stage) => {
      const master = stage.switch('MASTER', '1@em0');
      await until('it waits', 10_000, () => existsRun(stage, 'holder'));
      const backup = stage.switch('BACKUP', '1@em0');
      const ended = await Promise.all([master, backup]);
      assert.equal(
        ended.map(({ code }) => code),
        [0, 0],
      );
      assert.not.ok(stage.calls().some((call) => /primary|mount/.test(call)));
    },
    ['data'],
    'promote_delay=30',
  ),
);

add(
  'a BACKUP ends a promotion that is under way, and what it left is put back',
  onStage(async (stage) => {
    stage.set('hang.fsck');
    const master = stage.switch('MASTER', '1@em0');
    await until('it checks', 20_000, () => stage.has('fsck'));
    const { code, stderr } = await stage.switch('BACKUP', '1@em0');
    assert.is(code, 0, stderr);
    assert.is((await master).code, 0);
    const calls = stage.calls();
    assert.ok(calls.includes('taken secondary data'));
    assert.not.ok(calls.some((call) => /^mount|start/.test(call)));
  }),
);

add(
  'the newest of many calls wins',
  onStage(async (stage) => {
    const states = ['MASTER', 'BACKUP', 'MASTER', 'BACKUP', 'MASTER'];
    const running: ReturnType<Stage['switch']>[] = [];
    for (const state of states) {
      running.push(stage.switch(state, '1@em0'));
      const role = state === 'MASTER' ? 'primary' : 'secondary';
      await until(state, 10_000, () => {
        return existsRun(stage, 'wanted') && readFileSync(wanted(stage), 'utf8') === `${role}\n`;
      });
    }
    const ended = await Promise.all(running);
    assert.equal(
      ended.map(({ code }) => code),
      [0, 0, 0, 0, 0],
    );
    assert.is(readFileSync(`${stage.directory}/role.data`, 'utf8'), 'primary\n');
    assert.is(stage.calls().at(-1), 'service start second');
  }),
);

function wanted(stage: Stage): string {
  return `${stage.directory}/run/wanted`;
}

function existsRun(stage: Stage, name: string): boolean {
  return statSync(`${stage.directory}/run/${name}`, { throwIfNoEntry: false }) !== undefined;
}

add(
  'a refused role primary mounts nothing and starts nothing',
  onStage(async (stage) => {
    stage.set('refuse.primary');
    const { code, stderr } = await stage.switch('primary');
    assert.is(code, 1);
    assert.match(stderr, 'data: role primary was not taken (hastctl: exit status 5)');
    assert.equal(stage.calls(), ['role primary data']);
  }),
);

add(
  'as long as the worker of the secondary runs, no role is asked for',
  onStage(
    async (stage) => {
      stage.set('secondary-worker');
      const first = await stage.switch('primary');
      assert.is(first.code, 1);
      assert.match(first.stderr, 'the worker of the secondary does not end');
      assert.equal(stage.calls(), []);
    },
    ['data'],
    'worker_seconds=1',
  ),
);

add(
  'no service before everything is mounted, and none when something is not',
  onStage(
    async (stage) => {
      stage.set('fsck.exit', '1'); // repaired
      assert.is((await stage.switch('primary')).code, 0);
      const calls = stage.calls();
      const service = calls.indexOf('service start first');
      const mounts = calls.flatMap((call, i) => (call.startsWith('mount') ? [i] : []));
      assert.ok(mounts.length === 2 && mounts.every((at) => at < service));
      await stage.switch('secondary');
      stage.calls();
      stage.set('fsck.exit', '4'); // not to be repaired without a person
      const { code, stderr } = await stage.switch('primary');
      assert.is(code, 1);
      assert.match(stderr, 'no service is started');
      assert.not.ok(stage.calls().some((call) => /^(service start|mount)/.test(call)));
    },
    ['data', 'mail'],
  ),
);

const EIGHT = ['r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7', 'r8'];
add(
  'eight resources change at the same time',
  onStage(async (stage) => {
    stage.set('slow');
    assert.is((await stage.switch('primary')).code, 0);
    const calls = stage.calls().filter((call) => /^(role|taken)/.test(call));
    assert.is(calls.length, 16);
    const before = calls.findIndex((call) => call.startsWith('taken'));
    assert.ok(before >= 6, `only ${before} were asked for before the first was taken`);
  }, EIGHT),
);

add(
  'the fence decides before anything is changed',
  onStage(async (stage) => {
    const fence = `fence=${stage.directory}/bin/fence\n`;
    const conf = readFileSync(`${stage.directory}/conf`, 'utf8');
    stage.set('conf', conf + fence);
    stage.set('fence.fails');
    assert.is((await stage.switch('primary')).code, 1);
    assert.equal(stage.calls(), ['fence data']);
    stage.unset('fence.fails');
    assert.is((await stage.switch('primary')).code, 0);
    assert.equal(stage.calls(), ['fence data', ...UP]);
  }),
);

add(
  'whatever hangs has an end, and cannot keep the role',
  onStage(
    async (stage) => {
      await stage.switch('primary');
      stage.calls();
      stage.set('hang.umount');
      stage.set('hang.service');
      const began = performance.now();
      const { code } = await stage.switch('secondary');
      assert.is(code, 1, 'the file system is still there, and that is said');
      assert.ok(performance.now() - began < 40_000);
      const calls = stage.calls();
      assert.ok(calls.includes('taken secondary data'), calls.join('\n'));
      stage.unset('hang.umount');
      stage.unset('hang.service');
      stage.set('hang.primary');
      const hanging = await stage.switch('primary');
      assert.is(hanging.code, 1);
      assert.match(hanging.stderr, 'role primary was not taken');
    },
    ['data'],
    'umount_seconds=1 busy_seconds=1 service_seconds=1 role_seconds=1',
  ),
);

add(
  'an event before hastd is not lost: boot takes secondary and says so, or makes up for it',
  onStage(
    async (stage) => {
      stage.set('dead');
      assert.is((await stage.switch('MASTER', '1@em0')).code, 69);
      assert.is((await stage.switch('boot')).code, 69);
      stage.unset('dead');
      const { code, stderr } = await stage.switch('boot');
      assert.is(code, 0, stderr);
      assert.match(stderr, 'MASTER came before hastd did');
      assert.equal(stage.calls(), ['role secondary data', 'taken secondary data']);
      // Started again by hand: a role that is there stays.
      stage.set('role.data', 'primary\n');
      await stage.switch('boot');
      assert.equal(stage.calls(), []);
      stage.unset('role.data');
      stage.set('conf', `${readFileSync(`${stage.directory}/conf`, 'utf8')}boot_promote=yes\n`);
      assert.is((await stage.switch('boot')).code, 0);
      assert.equal(stage.calls(), ['role secondary data', 'taken secondary data', ...UP]);
      // The newest event counts, not the first.
      await stage.switch('BACKUP', '1@em0');
      stage.calls();
      stage.unset('role.data');
      await stage.switch('boot');
      assert.equal(stage.calls(), ['role secondary data', 'taken secondary data']);
    },
    ['data'],
    'boot_seconds=1',
  ),
);

add(
  'ucarp: exactly one of the nodes is this one, and the scripts hold it up for nothing',
  onStage(
    async (stage) => {
      for (const [addresses, wrong] of [
        ['10.0.0.9', '0'],
        ['10.0.0.1\n10.0.0.2', '2'],
      ]) {
        stage.set('addresses', `${addresses}\n`);
        const { code, stderr } = await stage.run('ucarp-hast');
        assert.is(code, 1);
        assert.match(stderr, `${wrong} of the addresses`);
      }
      stage.set('addresses', '127.0.0.1\n10.0.0.2\n');
      assert.is((await stage.run('ucarp-hast')).code, 0);
      assert.equal(stage.calls(), [
        'ucarp --interface=eth0 --srcip=10.0.0.2 --vhid=7 --passfile=/pw --addr=10.0.0.100 ' +
          `--shutdown --upscript=${FAILOVER}ucarp-up --downscript=${FAILOVER}ucarp-down`,
      ]);
      stage.set('hang.fsck');
      assert.is((await stage.run('ucarp-up', 'eth0', '10.0.0.100')).code, 0);
      await until('a promotion', 20_000, () => stage.has('fsck'));
      assert.is((await stage.run('ucarp-down', 'eth0', '10.0.0.100')).code, 0);
      await until('put back', 20_000, () => stage.has('taken secondary'));
      await until('the end of both', 20_000, () => stage.has('adapter down'));
      const calls = stage.calls();
      assert.equal(
        calls.filter((call) => call.startsWith('ip')),
        ['ip addr replace 10.0.0.100/32 dev eth0', 'ip addr del 10.0.0.100/32 dev eth0'],
      );
      assert.not.ok(calls.some((call) => call.startsWith('mount')));
    },
    ['data'],
    `ucarp_nodes='10.0.0.1 10.0.0.2' ucarp_interface=eth0 ucarp_vhid=7
ucarp_address=10.0.0.100 ucarp_password_file=/pw`,
  ),
);

const SCRIPTS = ['carp-hast-switch', 'hast-nbd-device', 'ucarp-hast', 'ucarp-up', 'ucarp-down'];

failover('no script creates metadata or forces a node to be primary', () => {
  for (const name of SCRIPTS) {
    const code = readFileSync(`${FAILOVER}${name}`, 'utf8').replaceAll(/^\s*#.*$/gm, '');
    assert.not.match(code, /\bcreate\b|role (-f|--force) primary/, name);
  }
});

failover('what is meant to be run can be run, and the manual names it', () => {
  const manual = readFileSync(`${FAILOVER}README.md`, 'utf8');
  const files = readdirSync(FAILOVER).concat(readdirSync(`${FAILOVER}examples`));
  for (const name of files) {
    if (['README.md', 'examples'].includes(name)) continue;
    assert.match(manual, name);
  }
  for (const name of SCRIPTS) assert.is(statSync(`${FAILOVER}${name}`).mode & 0o777, 0o755, name);
});

failover('the example for devd takes its events, and those of no other', () => {
  const example = readFileSync(`${FAILOVER}examples/devd-hast.conf`, 'utf8');
  const pattern = (word: string) =>
    new RegExp(`^${new RegExp(`^\\s*match "${word}"\\s+"(.*)";`, 'm').exec(example)?.[1]}$`);
  assert.match('1@em0', pattern('subsystem'));
  assert.match('12@vlan0.7', pattern('subsystem'));
  assert.not.match('em0', pattern('subsystem'));
  for (const type of ['MASTER', 'BACKUP', 'INIT']) assert.match(type, pattern('type'));
  assert.match(example, /action ".*carp-hast-switch \$type \$subsystem &"/);
});

unless(failover, missing('shellcheck'))(
  'shellcheck finds nothing',
  withDeadline(LIMIT_MS, async (signal) => {
    const files = [...SCRIPTS, 'examples/hast_failover'].map((name) => `${FAILOVER}${name}`);
    const { code, stdout } = await runProgram('shellcheck', files, signal);
    assert.is(code, 0, stdout);
  }),
);

failover.run();
