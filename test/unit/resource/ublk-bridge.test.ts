// The ublk bridge on a driver that is none. What a real kernel does is in test/vm.
import { closeSync, mkdirSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { HastError } from '../../../src/error.ts';
import { UblkBridge, type UblkKernel, ublkMaker } from '../../../src/resource/bridges/ublk.ts';
import { closeLeftOver } from '../../../src/resource/kernel-device.ts';
import { notRoot, unless } from '../../helper/skip.ts';
import { systemError } from '../../helper/system-error.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const ublk = suite('ublk bridge');
const SHAPE = { sizeBytes: 1n << 30n, blockBytes: 512 };
const OWNER = 'hastd data on a';
const NOTE = { kind: 'ublk', device: '/dev/ublkb0', owner: OWNER, link: '/x' } as const;

interface Device {
  owner: bigint;
  state: 'dead' | 'live' | 'quiesced';
}

/** A driver with its devices. */
class FakeDriver implements UblkKernel {
  readonly said: string[] = [];
  readonly devices = new Map<number, Device>();
  /** How often the last worker is found alive. */
  lingering = 0;
  /** What the commands that wait for a worker come to. */
  start: () => Promise<void> = async () => {};
  lacks: HastError | undefined;

  async ublkProbe(): Promise<void> {
    if (this.lacks !== undefined) throw this.lacks;
  }
  async ublkAdd({ owner }: { readonly owner: bigint }): Promise<number> {
    let index = 0;
    while (this.devices.has(index)) index += 1;
    this.devices.set(index, { owner, state: 'dead' });
    this.said.push(`add ${index}`);
    return index;
  }
  async ublkStart(index: number): Promise<void> {
    this.said.push(`start ${index}`);
    await this.start();
    this.#of(index).state = 'live';
  }
  async ublkStartRecovery(index: number): Promise<void> {
    const device = this.#of(index);
    this.lingering -= 1;
    if (this.lingering >= 0) throw systemError('EBUSY');
    device.state = 'quiesced';
    this.said.push(`recover ${index}`);
  }
  async ublkEndRecovery(index: number): Promise<void> {
    this.said.push(`recovered ${index}`);
    await this.start();
    this.#of(index).state = 'live';
  }
  async ublkStop(index: number): Promise<void> {
    this.#of(index).state = 'dead';
    this.said.push(`stop ${index}`);
  }
  async ublkRemove(index: number): Promise<void> {
    this.#of(index);
    this.devices.delete(index);
    this.said.push(`remove ${index}`);
  }
  ublkInfo(index: number): { started: boolean; served: boolean; owner: bigint } {
    const { owner, state } = this.#of(index);
    return { owner, started: state !== 'dead', served: state === 'live' };
  }
  #of(index: number): Device {
    const device = this.devices.get(index);
    if (device === undefined) throw systemError('ENODEV');
    return device;
  }
}

interface Scene {
  readonly driver: FakeDriver;
  readonly places: { readonly sys: string; readonly dev: string };
}

function inScene(body: (scene: Scene) => Promise<void>): () => Promise<void> {
  return () =>
    inTempdir(async (directory) => {
      for (const index of [0, 1]) {
        mkdirSync(`${directory}/sys/class/ublk-char/ublkc${index}`, { recursive: true });
        writeFileSync(`${directory}/ublkc${index}`, '');
      }
      const places = { sys: `${directory}/sys`, dev: directory };
      await body({ driver: new FakeDriver(), places });
    });
}

async function offered(bridge: UblkBridge): Promise<void> {
  for (const fd of (await bridge.offer(SHAPE)).kernelFds) closeSync(fd);
}

const refused = (work: Promise<unknown>): Promise<void> =>
  work.then(
    () => assert.unreachable(),
    (error) => assert.is(error.code, 'DEVICE_BRIDGE'),
  );

ublk(
  'a device from the first worker on, which the next one gets when the first is gone',
  inScene(async ({ driver, places }) => {
    const bridge = new UblkBridge(driver, OWNER, places);
    await offered(bridge);
    assert.is(bridge.device, null);
    await bridge.open();
    assert.is(bridge.device, '/dev/ublkb0');
    driver.lingering = 2;
    await offered(bridge);
    assert.is(bridge.device, '/dev/ublkb0', 'a pause is no loss of the device');
    await bridge.open();
    await bridge.open();
    await bridge.close();
    await bridge.close();
    assert.is(bridge.device, null);
    const life = ['add 0', 'start 0', 'recover 0', 'recovered 0', 'stop 0', 'remove 0'];
    assert.equal(driver.said, life);
  }),
);

ublk(
  'a device that no worker came to serve is made anew, as is one that somebody has ended',
  inScene(async ({ driver, places }) => {
    const bridge = new UblkBridge(driver, OWNER, places);
    await offered(bridge);
    await offered(bridge);
    await bridge.open();
    driver.devices.clear();
    await offered(bridge);
    await bridge.open();
    await driver.ublkStop(0);
    await offered(bridge);
    await bridge.open();
    const anew = ['remove 0', 'add 0', 'start 0'];
    assert.equal(driver.said, ['add 0', ...anew, 'add 0', 'start 0', 'stop 0', ...anew]);
    await bridge.close();
  }),
);

ublk(
  'a worker that does not come to serve is told, and the device kept for the next one',
  inScene(async ({ driver, places }) => {
    const bridge = new UblkBridge(driver, OWNER, places);
    await offered(bridge);
    await bridge.open();
    await offered(bridge);
    driver.start = async () => Promise.reject(systemError('ETIMEDOUT'));
    await refused(bridge.open());
    assert.is(bridge.device, '/dev/ublkb0');
    driver.start = async () => {};
    await offered(bridge);
    await bridge.open();
    assert.equal(driver.said.slice(-2), ['recover 0', 'recovered 0']);
    await bridge.close();
  }),
);

ublk(
  'a close while it begins ends it, and the begin fails',
  inScene(async ({ driver, places }) => {
    const bridge = new UblkBridge(driver, OWNER, places);
    await offered(bridge);
    let go = (): void => {};
    const gone = new Promise<void>((_, reject) => {
      go = () => reject(systemError('ENODEV'));
    });
    driver.start = () => gone;
    const opening = refused(bridge.open());
    await bridge.close();
    go();
    await opening;
    assert.is(bridge.device, null);
    assert.is(driver.devices.size, 0);
  }),
);

ublk(
  'an old device is known by its owner, and not by its number alone; unused ones go',
  inScene(async ({ driver, places }) => {
    const first = new UblkBridge(driver, OWNER, places);
    await offered(first);
    // Its supervisor dies here: nobody knows of it but the driver.
    const other = new UblkBridge(driver, 'hastd data on b', places);
    await offered(other);
    await other.open();
    const second = new UblkBridge(driver, OWNER, places);
    await offered(second);
    await second.open();
    assert.equal(driver.said.slice(-3), ['remove 0', 'add 0', 'start 0']);

    const maker = ublkMaker(driver, places);
    assert.is(maker.find({ ...NOTE, device: '/dev/ublkb1' }), undefined);
    assert.is(maker.find({ ...NOTE, device: '/dev/ublkb2' }), undefined);
    assert.is(maker.find({ ...NOTE, device: '/dev/nbd0' }), undefined);
    assert.is(maker.find(NOTE)?.device, '/dev/ublkb0');
    await closeLeftOver([maker], NOTE);
    assert.equal([...driver.devices.keys()], [1]);
  }),
);

ublk(
  'a device that the last supervisor had not given to its new worker yet waits',
  inScene(async ({ driver, places }) => {
    const before = new UblkBridge(driver, OWNER, places);
    await offered(before);
    await before.open();
    await offered(before);
    assert.ok(before.waits && ublkMaker(driver, places).find(NOTE)?.waits);
    await before.open();
    assert.not(before.waits || ublkMaker(driver, places).find(NOTE)?.waits);
  }),
);

unless(ublk, notRoot())(
  'a driver that has not all that is needed is no choice',
  inScene(async ({ driver, places }) => {
    writeFileSync(`${places.dev}/ublk-control`, '');
    const maker = ublkMaker(driver, places);
    assert.is(await maker.lacking(), undefined);
    driver.lacks = systemError('ENOTSUP');
    assert.match((await maker.lacking()) ?? '', /too old/);
  }),
);

ublk.run();
