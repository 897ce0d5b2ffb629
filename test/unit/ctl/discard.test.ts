// hastctl discard on a file: what it refuses, and that it touches nothing but the record.
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { decodeBlock } from '../../../src/metadata.ts';
import { native } from '../../../src/native.ts';
import { fakeDaemon, resourceOf, sendJson } from '../../helper/fake-daemon.ts';
import { configText, type Ended, hastctlHere } from '../../helper/hastctl.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const MIB = 1024 * 1024;
const BLOCK = 4096;

interface Place {
  readonly directory: string;
  readonly image: string;
  run(verb: string, ...args: readonly string[]): Promise<Ended>;
}

/** A component of `data` as a primary left it that had written alone. */
async function placeIn(directory: string): Promise<Place> {
  const image = join(directory, 'data.img');
  writeFileSync(image, Buffer.alloc(4 * MIB));
  const config = join(directory, 'hast.conf');
  writeFileSync(config, configText(directory, { data: image }));
  const place: Place = {
    directory,
    image,
    run: (verb, ...args) => hastctlHere(verb, '-c', config, '-n', 'n', ...args),
  };
  assert.is((await place.run('create', 'data')).exit, 0);
  const { fields } = decodeBlock(readFileSync(image).subarray(0, BLOCK));
  const written = {
    ...fields,
    resuid: 7n,
    localcnt: 3n,
    remotecnt: 1n,
    prevrole: 'primary' as const,
  };
  put(image, native.codec.metadataBlock(written, false));
  return place;
}

function put(image: string, bytes: Buffer): void {
  const fd = openSync(image, 'r+');
  writeSync(fd, bytes, 0, bytes.length, 0);
  closeSync(fd);
}

const discards = suite('hastctl discard');

discards('only what is noted changes, and dump tells it', () =>
  inTempdir(async (directory) => {
    const { image, run } = await placeIn(directory);
    const before = readFileSync(image);
    const first = await run('discard', 'data');
    assert.is(first.exit, 0, first.stderr);
    const after = readFileSync(image);
    assert.ok(
      after.subarray(BLOCK).equals(before.subarray(BLOCK)),
      'map and data are as they were',
    );
    const { fields, facts, needsRewrite } = decodeBlock(after.subarray(0, BLOCK));
    assert.equal(fields, decodeBlock(before.subarray(0, BLOCK)).fields);
    assert.is(needsRewrite, false);
    assert.is(facts?.discarded, true);
    assert.is(facts?.syncTarget, true, 'it is no source meanwhile');
    assert.match((await run('dump', 'data')).stderr, 'given up');
    assert.is((await run('discard', 'data')).exit, 0, 'again: no harm');
    const again = decodeBlock(readFileSync(image).subarray(0, BLOCK));
    assert.equal(again, { fields, facts, needsRewrite });
  }),
);

discards('a component that is not that of the resource is left alone', () =>
  inTempdir(async (directory) => {
    const { image, run } = await placeIn(directory);
    const unknown = await run('discard', 'other');
    assert.is(unknown.exit, 65);
    const { fields } = decodeBlock(readFileSync(image).subarray(0, BLOCK));
    put(image, native.codec.metadataBlock({ ...fields, resource: 'another' }, false));
    const foreign = readFileSync(image);
    const refused = await run('discard', 'data');
    assert.is(refused.exit, 73);
    assert.match(refused.stderr, 'that of the resource another');
    put(image, Buffer.alloc(BLOCK, 1));
    const none = await run('discard', 'data');
    assert.is(none.exit, 65);
    assert.ok(readFileSync(image).subarray(BLOCK).equals(foreign.subarray(BLOCK)));
  }),
);

discards('a primary keeps what it has, a component in use as well', () =>
  inTempdir(async (directory) => {
    const { image, run } = await placeIn(directory);
    const before = readFileSync(image);
    const daemon = await fakeDaemon(join(directory, 'control'), (_request, response) =>
      sendJson(response, 200, resourceOf('data', { role: 'primary' })),
    );
    const primary = await run('discard', 'data');
    await daemon.close();
    assert.is(primary.exit, 73);
    assert.match(primary.stderr, 'hastctl role secondary data first');
    const held = native.host.openComponent(image, true, true);
    const busy = await run('discard', 'data');
    native.host.closeFd(held.fd);
    assert.is(busy.exit, 73);
    assert.match(busy.stderr, 'another process holds its lock');
    assert.ok(readFileSync(image).equals(before));
  }),
);

discards('it wants a name', async () => {
  assert.is((await hastctlHere('discard')).exit, 64);
});

discards.run();
