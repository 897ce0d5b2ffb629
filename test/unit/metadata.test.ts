// The reading twin of the metadata codec, against the reference's blocks and our own records.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { crc32c } from '../../src/crc32c.ts';
import { HastError } from '../../src/error.ts';
import { type BlockFields, decodeBlock, misfit } from '../../src/metadata.ts';
import { native } from '../../src/native.ts';
import { encodeNv } from '../../src/nv.ts';
import { randomOf } from '../helper/config.ts';

interface Case {
  readonly name: string;
  readonly exit_status: number;
  readonly fields?: readonly { readonly name: string; readonly value: string | number }[];
  readonly metadata_nonzero_prefix_hex: string;
}

const url = new URL('../vectors/metadata.json', import.meta.url);
const cases: readonly Case[] = JSON.parse(readFileSync(url, 'utf8')).cases;
const made = cases.filter(({ exit_status }) => exit_status === 0);

function blockOf({ metadata_nonzero_prefix_hex }: Case): Buffer {
  const block = Buffer.alloc(4096);
  Buffer.from(metadata_nonzero_prefix_hex, 'hex').copy(block);
  return block;
}

const FIELDS: BlockFields = {
  resource: 'data',
  datasize: 1073737216n,
  extentsize: 2097152,
  keepdirty: 64,
  offset: 4608n,
  resuid: 0x1122334455667788n,
  localcnt: 3n,
  remotecnt: 2n,
  prevrole: 'primary',
};

function areaOf(fields: BlockFields): Buffer {
  return encodeNv([
    { name: 'resource', type: 'string', value: fields.resource },
    { name: 'datasize', type: 'uint64', value: fields.datasize },
    { name: 'extentsize', type: 'uint32', value: fields.extentsize },
    { name: 'keepdirty', type: 'uint32', value: fields.keepdirty },
    { name: 'offset', type: 'uint64', value: fields.offset },
    { name: 'resuid', type: 'uint64', value: fields.resuid },
    { name: 'localcnt', type: 'uint64', value: fields.localcnt },
    { name: 'remotecnt', type: 'uint64', value: fields.remotecnt },
    { name: 'prevrole', type: 'string', value: fields.prevrole },
  ]);
}

/** A record as docs/on-disk.md describes it: the test's own words for the format. */
function recordOf(fields: BlockFields, sequence: bigint, flags: number): Buffer {
  const record = Buffer.alloc(660);
  const area = areaOf(fields);
  record.write('hastdrec', 'latin1');
  record.writeUInt32LE(1, 8);
  record.writeUInt32LE(flags, 12);
  record.writeBigUInt64LE(sequence, 16);
  createHash('sha256').update(area).digest().copy(record, 24);
  record.writeBigUInt64LE(77n, 56);
  record.writeBigUInt64LE(66n, 64);
  record.writeBigUInt64LE(55n, 128);
  record.writeUInt32LE(area.length, 140);
  area.copy(record, 144);
  record.writeUInt32LE(crc32c(record.subarray(0, 656)), 656);
  return record;
}

const KNOWN = 4;

function compose(sector: Buffer, first?: Buffer, second?: Buffer): Buffer {
  const block = Buffer.alloc(4096);
  sector.copy(block);
  first?.copy(block, 1024);
  second?.copy(block, 2560);
  return block;
}

const metadata = suite('metadata');

metadata('reads every block of the reference', () => {
  assert.is(made.length, 9);
  for (const each of made) {
    const { fields, facts, needsRewrite } = decodeBlock(blockOf(each));
    for (const { name, value } of each.fields ?? []) {
      assert.is(String(fields[name as keyof BlockFields]), String(value), `${each.name} ${name}`);
    }
    assert.is(facts, undefined);
    assert.is(needsRewrite, false);
  }
});

metadata('reads what the core writes, with and without a record', () => {
  for (const equal of [false, true]) {
    const block = decodeBlock(native.codec.metadataBlock(FIELDS, equal));
    assert.equal(block.fields, FIELDS);
    assert.is(block.facts !== undefined, equal);
    assert.is(block.needsRewrite, false);
  }
});

metadata('trusts the newest record when the sector equals it, the older one, or is torn', () => {
  const older = { ...FIELDS, localcnt: 2n };
  const [recordNew, recordOld] = [recordOf(FIELDS, 8n, KNOWN | 1), recordOf(older, 7n, KNOWN)];
  const torn = areaOf(FIELDS);
  torn[0] = 0;
  for (const [sector, needsRewrite] of [
    [areaOf(FIELDS), false],
    [areaOf(older), true],
    [torn, true],
  ] as const) {
    for (const block of [
      compose(sector, recordNew, recordOld),
      compose(sector, recordOld, recordNew),
    ]) {
      const read = decodeBlock(block);
      assert.equal(read.fields, FIELDS);
      assert.is(read.needsRewrite, needsRewrite);
      assert.equal(read.facts, {
        generation: 77n,
        history: [66n],
        syncTarget: true,
        localStale: false,
        discarded: false,
        peerStale: false,
        ahead: false,
        flushFailed: false,
        peerBehind: false,
        boot: 55n,
      });
    }
  }
});

metadata('each flag of a record is read by itself', () => {
  for (const [flag, name] of [
    [1, 'syncTarget'],
    [2, 'localStale'],
    [8, 'peerStale'],
    [16, 'ahead'],
    [32, 'discarded'],
    [64, 'flushFailed'],
    [128, 'peerBehind'],
  ] as const) {
    const { facts } = decodeBlock(compose(areaOf(FIELDS), recordOf(FIELDS, 8n, KNOWN | flag)));
    const on = Object.entries(facts ?? {}).filter(([, value]) => value === true);
    assert.equal(on, [[name, true]]);
  }
});

metadata('drops its records when somebody else wrote the sector since', () => {
  const foreign = { ...FIELDS, localcnt: 9n };
  const read = decodeBlock(compose(areaOf(foreign), recordOf(FIELDS, 8n, KNOWN | 3)));
  assert.equal(read, { fields: foreign, facts: undefined, needsRewrite: false });
});

metadata('ignores a record with any bit changed', () => {
  const record = recordOf(FIELDS, 8n, KNOWN);
  for (let bit = 0; bit < record.length * 8; bit += 7) {
    const changed = Buffer.from(record);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.is(decodeBlock(compose(areaOf(FIELDS), changed)).facts, undefined, `bit ${bit}`);
  }
});

metadata('a record that says it knows nothing gives fields only', () => {
  const read = decodeBlock(compose(Buffer.alloc(0), recordOf(FIELDS, 8n, 0)));
  assert.equal(read, { fields: FIELDS, facts: undefined, needsRewrite: true });
});

metadata('refuses a block without all nine fields of the right types', () => {
  const area = areaOf(FIELDS);
  const broken = [
    Buffer.alloc(4096),
    Buffer.alloc(4096, 0xff),
    compose(area.subarray(0, area.length - 24)),
    compose(areaOf({ ...FIELDS, prevrole: 'master' as 'init' })),
    compose(areaOf({ ...FIELDS, resource: '' })),
    Buffer.alloc(512),
  ];
  for (const block of broken) {
    assert.throws(
      () => decodeBlock(block),
      (error: unknown) => error instanceof HastError && error.code === 'META_INVALID',
    );
  }
});

metadata('random changes give a block or a HastError', () => {
  const whole = compose(areaOf(FIELDS), recordOf(FIELDS, 8n, KNOWN), recordOf(FIELDS, 7n, KNOWN));
  for (let seed = 0; seed < 2000; seed += 1) {
    const random = randomOf(seed);
    const block = Buffer.from(whole);
    for (let i = random(20); i >= 0; i -= 1) block[random(3300)] = random(256);
    try {
      decodeBlock(block);
    } catch (error) {
      assert.instance(error, HastError, `seed ${seed}: ${error}`);
    }
  }
});

metadata('says why fields cannot fit a component', () => {
  const GIB = 2n ** 30n;
  const check = (changes: Partial<BlockFields>, size = GIB, sector = 512) =>
    misfit({ ...FIELDS, ...changes }, size, sector);
  assert.is(check({}), undefined);
  assert.match(check({ offset: 4096n }) ?? '', /outside/);
  assert.match(check({ offset: GIB + 512n }) ?? '', /outside/);
  assert.match(check({ offset: 4609n }) ?? '', /sector/);
  assert.match(check({}, GIB, 4096) ?? '', /sector/);
  assert.match(check({ datasize: 0n }) ?? '', /smaller/);
  assert.match(check({}, GIB - 1n) ?? '', /smaller/);
  assert.match(check({ extentsize: 3072 }) ?? '', /power of two/);
  assert.match(check({ extentsize: 256 }) ?? '', /power of two/);
  assert.match(check({ keepdirty: 0 }) ?? '', /keepdirty/);
  assert.match(check({ extentsize: 512 }) ?? '', /room for the map/);
});

metadata.run();
