// The device of a resource: which bridge it gets, its link, and the NBD bridge on a kernel that is
// none. What a real kernel does is in test/vm.
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../../src/error.ts';
import { Logger } from '../../../src/log.ts';
import { type Bridge, type BridgeMaker, chooseBridge } from '../../../src/resource/bridge.ts';
import { NbdBridge, type NbdKernel, nbdMaker } from '../../../src/resource/bridges/nbd.ts';
import { makeLink, removeLink } from '../../../src/resource/device-link.ts';
import { closeLeftOver, KernelDevice } from '../../../src/resource/kernel-device.ts';
import { resourceIn } from '../../helper/resource.ts';
import { notRoot, unless } from '../../helper/skip.ts';
import { systemError } from '../../helper/system-error.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const device = suite('kernel device');
const SHAPE = { sizeBytes: 1n << 30n, blockBytes: 512 };

/** A kernel with one device, whose sockets are numbers: the worker's end is one more than ours. */
class FakeKernel implements NbdKernel {
  readonly said: string[] = [];
  readonly open = new Set<number>();
  /** How many connections it does not take, since it holds the one before for alive. */
  blind = 0;
  refuses: Error | undefined;
  #next = 100;
  readonly #gone = new Set<number>();

  streamPair(): readonly [number, number] {
    const ours = this.#next;
    this.#next += 2;
    this.open.add(ours).add(ours + 1);
    return [ours, ours + 1];
  }
  closeFd(fd: number): void {
    assert.ok(this.open.delete(fd), `${fd} is open`);
  }
  hungUp(fd: number): boolean {
    assert.not(this.open.has(fd - 1), 'asked after our end was closed');
    return this.#gone.has(fd);
  }
  nbdConnect({ sizeBytes, backend }: { sizeBytes: bigint; backend: string }): number {
    if (this.refuses !== undefined) throw this.refuses;
    this.said.push(`connect ${sizeBytes} ${backend}`);
    return 3;
  }
  nbdReconnect(index: number, _backend: string, socket: number): void {
    if (this.refuses !== undefined) throw this.refuses;
    this.said.push(`reconnect ${index}`);
    if (this.blind > 0) {
      this.blind -= 1;
      this.#gone.add(socket + 1);
    }
  }
  nbdDisconnect(index: number): void {
    this.said.push(`disconnect ${index}`);
  }
}

interface Scene {
  readonly kernel: FakeKernel;
  readonly places: { readonly sys: string; readonly dev: string };
  readonly queue: string;
  readonly directory: string;
}

function inScene(body: (scene: Scene) => Promise<void>): () => Promise<void> {
  return () =>
    inTempdir(async (directory) => {
      const queue = `${directory}/sys/block/nbd3/queue`;
      mkdirSync(queue, { recursive: true });
      mkdirSync(`${directory}/dev`);
      mkdirSync(`${directory}/sys/module/nbd`, { recursive: true });
      writeFileSync(`${directory}/dev/nbd3`, '');
      writeFileSync(`${queue}/io_timeout`, '30000\n');
      writeFileSync(`${directory}/sys/block/nbd3/backend`, 'hastd data on a\n');
      const places = { sys: `${directory}/sys`, dev: `${directory}/dev` };
      await body({ kernel: new FakeKernel(), places, queue, directory });
    });
}

device(
  'NBD: a device from the first worker on, which the next one gets when the first is gone',
  inScene(async ({ kernel, places, queue }) => {
    const bridge = new NbdBridge(kernel, 'hastd data on a', places);
    const { kernelFds } = await bridge.offer(SHAPE);
    assert.is(bridge.device, null);
    await bridge.open();
    assert.is(bridge.device, '/dev/nbd3');
    assert.is(readFileSync(`${queue}/io_timeout`, 'utf8'), '2000');
    assert.not(existsSync(`${queue}/max_sectors_kb`), 'made nothing that the kernel has not');
    kernel.closeFd(kernelFds[0] ?? -1);

    kernel.blind = 2;
    const again = await bridge.offer(SHAPE);
    await bridge.open();
    kernel.closeFd(again.kernelFds[0] ?? -1);
    await bridge.close();
    await bridge.close();
    assert.is(bridge.device, null);
    assert.is(readFileSync(`${queue}/io_timeout`, 'utf8'), '30000');
    const tries = ['reconnect 3', 'reconnect 3', 'reconnect 3'];
    assert.equal(kernel.said, ['connect 1073741824 hastd data on a', ...tries, 'disconnect 3']);
    assert.is(kernel.open.size, 0);
  }),
);

device(
  'NBD: a device that somebody has disconnected is made anew',
  inScene(async ({ kernel, places }) => {
    const bridge = new NbdBridge(kernel, 'hastd data on a', places);
    for (let worker = 0; worker < 2; worker += 1) {
      const { kernelFds } = await bridge.offer(SHAPE);
      kernel.refuses = undefined;
      await bridge.open();
      kernel.closeFd(kernelFds[0] ?? -1);
      kernel.refuses = systemError('EINVAL');
    }
    await bridge.close();
    assert.is(kernel.said.filter((line) => line.startsWith('connect')).length, 2);
    assert.is(kernel.open.size, 0);
  }),
);

device(
  'NBD: what the kernel refuses is told, and nothing stays open',
  inScene(async ({ kernel, places }) => {
    const bridge = new NbdBridge(kernel, 'hastd data on a', places);
    const { kernelFds } = await bridge.offer(SHAPE);
    kernel.refuses = systemError('EBUSY');
    await bridge.open().then(
      () => assert.unreachable(),
      (error) => assert.is(error.code, 'DEVICE_BRIDGE'),
    );
    kernel.closeFd(kernelFds[0] ?? -1);
    await bridge.close();
    assert.is(kernel.open.size, 0);
  }),
);

device(
  'NBD: an old device is known by its owner, and not by its number alone',
  inScene(async ({ kernel, places }) => {
    const maker = nbdMaker(kernel, places);
    const note = { kind: 'nbd', device: '/dev/nbd3', link: '/x' } as const;
    assert.is(maker.find({ ...note, owner: 'hastd data on b' }), undefined);
    assert.is(maker.find({ ...note, owner: 'hastd data on a', device: '/dev/nbd7' }), undefined);
    assert.is(maker.find({ ...note, owner: 'hastd data on a' })?.device, '/dev/nbd3');
    await closeLeftOver([maker], { ...note, owner: 'hastd data on a' });
    assert.equal(kernel.said, ['disconnect 3']);
  }),
);

unless(device, notRoot())(
  'a resource has device and link from open to close, and a note of both',
  inScene(async ({ kernel, places, directory }) => {
    const log = Logger.root(() => {}, 0);
    const subject = new KernelDevice([nbdMaker(kernel, places)], () => log);
    const resource = resourceIn(directory, { device: 'nbd', devdir: `${directory}/hast` });
    const fds = await subject.offer(resource, SHAPE);
    assert.is(subject.path, null);
    await subject.open(() => true);
    const link = `${directory}/hast/data`;
    assert.is(subject.path, link);
    assert.is(readlinkSync(link), '/dev/nbd3');
    const { node } = resource;
    const owner = `hastd data on ${node}`;
    assert.equal(subject.note, { kind: 'nbd', device: '/dev/nbd3', owner, link });
    for (const fd of fds) kernel.closeFd(fd);
    await subject.close();
    assert.is(subject.path, null);
    assert.not(existsSync(link));
  }),
);

device(
  "NBD: an index that is somebody else's by now is left alone",
  inScene(async ({ kernel, places, queue }) => {
    const note = {
      kind: 'nbd',
      device: '/dev/nbd3',
      link: '/x',
      owner: 'hastd data on a',
    } as const;
    const bridge = nbdMaker(kernel, places).find(note);
    writeFileSync(`${places.sys}/block/nbd3/backend`, 'another\n');
    await bridge?.close();
    assert.equal(kernel.said, []);
    assert.is(readFileSync(`${queue}/io_timeout`, 'utf8'), '30000\n');
  }),
);

device(
  'an adopted device ends when the configuration asks for none any more',
  inScene(async ({ kernel, places, directory }) => {
    const log = Logger.root(() => {}, 0);
    const subject = new KernelDevice([nbdMaker(kernel, places)], () => log);
    const link = `${directory}/hast/data`;
    makeLink(link, '/dev/nbd3');
    subject.adopt({ kind: 'nbd', device: '/dev/nbd3', link, owner: 'hastd data on a' });
    const resource = resourceIn(directory, { device: 'none', devdir: `${directory}/hast` });
    assert.equal(await subject.offer(resource, SHAPE), []);
    assert.not(subject.opens);
    assert.equal(kernel.said, ['disconnect 3']);
    assert.not(existsSync(link));
  }),
);

device('the link of a provider leaves those of all others alone', () =>
  inTempdir(async (directory) => {
    makeLink(`${directory}/data.new`, '/dev/nbd5');
    makeLink(`${directory}/data`, '/dev/nbd6');
    assert.is(readlinkSync(`${directory}/data.new`), '/dev/nbd5');
  }),
);

const impossible: BridgeMaker = {
  kind: 'ublk',
  lacking: async () => 'no driver',
  make: () => assert.unreachable() as never,
  find: () => undefined,
};

device('auto takes the first that there can be, a kind is itself or a reason', async () => {
  const nbd = { ...impossible, kind: 'nbd', lacking: async () => undefined } as const;
  assert.is(await chooseBridge([impossible, nbd], 'auto'), nbd);
  assert.is(await chooseBridge([impossible, nbd], 'ublk'), 'ublk: no driver');
  assert.is(await chooseBridge([impossible], 'auto'), 'ublk: no driver');
});

device('auto goes on without a device and says why; a kind that is asked for is a must', () =>
  inTempdir(async (directory) => {
    const lines: string[] = [];
    const log = Logger.root(({ text }) => lines.push(text), 0);
    const subject = new KernelDevice([impossible], () => log);
    const auto = resourceIn(directory, { device: 'auto' });
    assert.equal(await subject.offer(auto, SHAPE), []);
    await subject.open(() => true);
    assert.match(lines.join('\n'), /No device of the kernel \(ublk: no driver\)/);
    await subject.offer({ ...auto, device: 'ublk' }, SHAPE).then(
      () => assert.unreachable(),
      (error) => assert.is(error.code, 'DEVICE_BRIDGE'),
    );
  }),
);

device('the end of a device is waited for by all who ask for it', () =>
  inTempdir(async (directory) => {
    let end = (): void => {};
    const slow = new Promise<void>((resolve) => {
      end = resolve;
    });
    const bridge: Bridge = {
      kind: 'ublk',
      device: null,
      owner: '',
      waits: false,
      offer: async () => ({ kernelFds: [] }),
      open: async () => {},
      close: () => slow,
    };
    const maker = { ...impossible, lacking: async () => undefined, make: () => bridge };
    const subject = new KernelDevice([maker], () => Logger.root(() => {}, 0));
    await subject.offer(resourceIn(directory, { device: 'ublk' }), SHAPE);
    void subject.close();
    let over = false;
    const closed = subject.close().then(() => {
      over = true;
    });
    await new Promise(setImmediate);
    assert.not(over);
    end();
    await closed;
  }),
);

device('a link replaces an old one and nothing else, and goes only while it is ours', () =>
  inTempdir((directory) => {
    const link = `${directory}/deep/hast/data`;
    makeLink(link, '/dev/nbd0');
    makeLink(link, '/dev/nbd1');
    assert.is(readlinkSync(link), '/dev/nbd1');
    removeLink(link, '/dev/nbd0');
    assert.is(readlinkSync(link), '/dev/nbd1');
    removeLink(link, '/dev/nbd1');
    assert.not(existsSync(link));
    symlinkSync('/dev/nowhere', link);
    makeLink(link, '/dev/nbd2');
    assert.is(readlinkSync(link), '/dev/nbd2');

    const file = `${directory}/file`;
    writeFileSync(file, 'kept');
    assert.throws(
      () => makeLink(file, '/dev/nbd0'),
      (error: unknown) => error instanceof HastError && error.code === 'DEVICE_LINK',
    );
    assert.is(readFileSync(file, 'utf8'), 'kept');
    removeLink(file, '/dev/nbd0');
    assert.ok(existsSync(file));
  }),
);

device.run();
