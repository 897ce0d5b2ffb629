// Standard output against what the reference printed, and what it says in JSON.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ResourceReport } from '../../../src/control/client.ts';
import type { ResourceStatus } from '../../../src/control/protocol.ts';
import { FORMATTERS } from '../../../src/ctl/output.ts';
import { HastError } from '../../../src/error.ts';
import { decodeBlock } from '../../../src/metadata.ts';
import { resourceOf, workerOf } from '../../helper/fake-daemon.ts';

interface Field {
  readonly name: string;
  readonly value: string | number;
}
interface ControlCase {
  readonly name: string;
  readonly hastctl_arguments?: readonly string[];
  readonly hastctl_stdout?: string;
  readonly messages?: readonly { readonly direction: string; readonly fields: readonly Field[] }[];
}
interface MetadataCase {
  readonly name: string;
  readonly metadata_nonzero_prefix_hex?: string;
  readonly hastctl_dump_stdout?: string;
}

function casesOf<T>(file: string): readonly T[] {
  const url = new URL(`../../vectors/${file}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, 'utf8')).cases;
}

/** The vectors leave the humanised sizes out. */
function withoutSizes(text: string): string {
  return text.replace(/ \([0-9.]+[KMGTPE]?B\)$/gm, '');
}

function unknown(): HastError {
  return new HastError('RESOURCE_UNKNOWN', { exit: 1 });
}

/** What the recorded reply says, in our daemon's words. */
function reportsOf(fields: readonly Field[]): ResourceReport[] {
  const reports: ResourceReport[] = [];
  for (let n = 0; ; n += 1) {
    const value = (key: string) => fields.find(({ name }) => name === `${key}${n}`)?.value;
    const text = (key: string) => String(value(key) ?? '');
    const number = (key: string) => Number(value(key) ?? 0);
    const name = value('resource');
    if (name === undefined) return reports;
    if (value('error') !== undefined) {
      reports.push({ name: String(name), error: unknown() });
      continue;
    }
    const worker = workerOf({
      pid: number('workerpid'),
      status: text('status') as 'complete',
      dirtyBytes: number('dirty'),
      extentBytes: number('extentsize'),
      keepdirty: number('keepdirty'),
      reads: number('stat_read'),
      writes: number('stat_write'),
      deletes: number('stat_delete'),
      flushes: number('stat_flush'),
      activemapUpdates: number('stat_activemap_update'),
      queueIdle: number('idle_queue_size'),
    });
    const status: ResourceStatus = resourceOf(String(name), {
      provname: text('provname'),
      role: text('role') as 'init',
      local: text('localpath'),
      remote: text('remoteaddr'),
      replication: text('replication') as 'memsync',
      worker: value('status') === undefined ? null : worker,
    });
    reports.push({ name: String(name), status });
  }
}

const output = suite('hastctl output');

output("status and list are the reference's to the byte", () => {
  let compared = 0;
  for (const each of casesOf<ControlCase>('control')) {
    const [verb] = each.hastctl_arguments ?? [];
    if (verb !== 'status' && verb !== 'list') continue;
    const reply = each.messages?.find(({ direction }) => direction === 'reply');
    const printed = FORMATTERS.text[verb](reportsOf(reply?.fields ?? []));
    assert.is(withoutSizes(printed), each.hastctl_stdout, each.name);
    compared += 1;
  }
  assert.ok(compared >= 5);
});

output("dump is the reference's to the byte", () => {
  let compared = 0;
  for (const each of casesOf<MetadataCase>('metadata')) {
    if (each.hastctl_dump_stdout === undefined) continue;
    const bytes = Buffer.alloc(4096);
    Buffer.from(each.metadata_nonzero_prefix_hex ?? '', 'hex').copy(bytes);
    const printed = FORMATTERS.text.dump([{ name: 'data', block: decodeBlock(bytes) }]);
    assert.is(withoutSizes(printed), each.hastctl_dump_stdout, each.name);
    compared += 1;
  }
  assert.is(compared, 9);
});

output('sizes are humanised in brackets', () => {
  const status = resourceOf('a', { worker: workerOf({ dirtyBytes: 4194304 }) });
  const printed = FORMATTERS.text.list([{ name: 'a', status }]);
  assert.match(printed, /^ {2}extentsize: 2097152 \(2\.0MB\)$/m);
  assert.match(printed, /^ {2}dirty: 4194304 \(4\.0MB\)$/m);
});

output('without a worker the numbers are 0 and two lines are missing', () => {
  const printed = FORMATTERS.text.list([
    { name: 'a', status: resourceOf('a', { source: 'tcp4://b' }) },
  ]);
  assert.is(
    printed,
    `a:
  role: init
  provname: a
  localpath: /srv/a.img
  extentsize: 0 (0B)
  keepdirty: 0
  remoteaddr: tcp4://10.0.0.2
  sourceaddr: tcp4://b
  replication: memsync
  dirty: 0 (0B)
  statistics:
    reads: 0
    writes: 0
    deletes: 0
    flushes: 0
    activemap updates: 0
    local errors: read: 0, write: 0, delete: 0, flush: 0
    queues: local: 0, send: 0, recv: 0, done: 0, idle: 0
`,
  );
});

output('an error is a row or a line of its own; nothing gives nothing', () => {
  const reports = [{ name: 'nope', error: unknown() }];
  assert.match(
    FORMATTERS.text.status(reports),
    /^Name\tStatus\t Role\t\tComponents\nnope\tERR1\n$/,
  );
  assert.is(FORMATTERS.text.list(reports), 'nope:\n  error: 1\n');
  assert.is(FORMATTERS.text.dump(reports), '');
  assert.is(FORMATTERS.text.status([]), '');
  assert.is(FORMATTERS.text.list([]), '');
});

output('names and paths cannot forge a line', () => {
  const status = resourceOf('a\nb\tc', { local: '/x\u001b[2J' });
  const [, row = ''] = FORMATTERS.text.status([{ name: status.name, status }]).split('\n');
  assert.is(row, 'a?b?c\t-        init           /x?[2J\ttcp4://10.0.0.2');
});

output('JSON says the same, and 64-bit identities exactly', () => {
  const status = resourceOf('a');
  const listed = JSON.parse(
    FORMATTERS.json.list([
      { name: 'a', status },
      { name: 'b', error: unknown() },
    ]),
  );
  assert.equal(listed.resources[0], status);
  assert.is(listed.resources[1].error.exit, 1);
  const fields = {
    resource: 'a',
    datasize: 1024n,
    extentsize: 512,
    keepdirty: 1,
    offset: 4608n,
    resuid: 2n ** 64n - 1n,
    localcnt: 2n,
    remotecnt: 1n,
    prevrole: 'primary',
  } as const;
  const block = { fields, facts: undefined, needsRewrite: false };
  const dumped = JSON.parse(FORMATTERS.json.dump([{ name: 'a', block }]));
  assert.is(dumped.resources[0].resuid, '18446744073709551615');
  assert.is(dumped.resources[0].datasize, 1024);
  assert.is(dumped.resources[0].historyKnown, false);
  assert.is(dumped.resources[0].boot, null);
  const flags = { syncTarget: false, localStale: false, discarded: false };
  const more = { peerStale: true, ahead: true, flushFailed: true, peerBehind: true };
  const boots = { boot: 2n ** 64n - 1n };
  const facts = { generation: 7n, history: [], ...flags, ...more, ...boots };
  const known = JSON.parse(FORMATTERS.json.dump([{ name: 'a', block: { ...block, facts } }]));
  const { peerStale, ahead, flushFailed, peerBehind, boot } = known.resources[0];
  assert.equal({ peerStale, ahead, flushFailed, peerBehind }, more);
  assert.is(boot, '18446744073709551615');
  assert.equal(JSON.parse(FORMATTERS.json.status([])), { resources: [] });
});

output.run();
