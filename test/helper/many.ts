// Daemons with many resources, each on a small disk in a file, alone or with a peer.
import { chmodSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { ControlClient, inParallel, type ResourceReport } from '../../src/control/client.ts';
import type { Role, WorkerStatus } from '../../src/control/protocol.ts';
import { SPARES_MAX } from '../../src/resource/spares.ts';
import { until } from './deadline.ts';
import { freePorts } from './lane.ts';
import { Node, workerUser } from './pair.ts';
import { makeTempdir } from './tempdir.ts';

const DISK_BYTES = 6 << 20;

export class Many {
  readonly directory: string;
  readonly names: readonly string[];
  readonly a: Node;
  /** Not started with `peer: false`. */
  readonly b: Node;
  readonly #nodes: readonly Node[];

  private constructor(directory: string, names: readonly string[], ports: readonly number[]) {
    this.directory = directory;
    this.names = names;
    const [a, b] = (['a', 'b'] as const).map((name, i) => {
      return new Node(name, { directory, resource: 'all', port: ports[i] ?? 0 }, []);
    });
    if (a === undefined || b === undefined) throw new Error('two nodes');
    this.a = a;
    this.b = b;
    this.#nodes = ports.length === 1 ? [a] : [a, b];
  }

  /** Disks created, daemons running, all roles init. */
  static async make(count: number, { peer }: { readonly peer: boolean }): Promise<Many> {
    const directory = makeTempdir();
    chmodSync(directory, 0o755);
    const names = Array.from({ length: count }, (_, i) => `r${i + 1}`);
    const ports = (await freePorts()).slice(0, peer ? 2 : 1);
    const many = new Many(directory, names, ports);
    try {
      for (const node of many.#nodes) many.#writeFiles(node, peer);
      await Promise.all(many.#nodes.map((node) => node.must('create', ...names)));
      await many.start();
      return many;
    } catch (error) {
      await many.close();
      throw error;
    }
  }

  /** @returns how long it took until both answer, in milliseconds */
  start(): Promise<number> {
    return timed(() => Promise.all(this.#nodes.map((node) => node.start())));
  }

  stop(): Promise<number> {
    return timed(() => Promise.all(this.#nodes.map((node) => node.stop())));
  }

  /** All at once, as hastctl does it. @returns how long it took, in milliseconds */
  take(node: Node, role: Role, names: readonly string[]): Promise<number> {
    const client = new ControlClient(node.control);
    const request = { role, force: false, ifUnused: false };
    return timed(() => inParallel(names, (name) => client.setRole(name, request)));
  }

  status(node: Node): Promise<readonly ResourceReport[]> {
    return new ControlClient(node.control).resources();
  }

  async workers(node: Node): Promise<readonly WorkerStatus[]> {
    const reports = await this.status(node);
    return reports.flatMap((one) => ('status' in one ? (one.status.worker ?? []) : []));
  }

  /** As many workers as there may be are kept ready on node a. @returns them */
  async ready(): Promise<readonly number[]> {
    const { pid } = this.a;
    const idle = this.names.length - (await this.workers(this.a)).length;
    const wanted = Math.min(SPARES_MAX, idle);
    await until('workers are kept ready', 30_000, () => sparesOf(pid).length === wanted);
    return sparesOf(pid);
  }

  async inSync(count: number): Promise<void> {
    await until('all are in sync', 60_000, async () => {
      const workers = await this.workers(this.a);
      return workers.filter(({ state }) => state === 'in-sync').length === count;
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.close()));
    rmSync(this.directory, { recursive: true, force: true });
  }

  #writeFiles(node: Node, peer: boolean): void {
    const { directory, names, a, b } = this;
    const folder = `${directory}/${node.name}.disks`;
    mkdirSync(folder);
    mkdirSync(`${directory}/${node.name}.run`, { mode: 0o700 });
    const remote = peer ? `tcp4://127.0.0.1:${(node === a ? b : a).port}` : 'none';
    const resource = (name: string) => {
      writeFileSync(`${folder}/${name}`, '');
      truncateSync(`${folder}/${name}`, DISK_BYTES);
      return `resource ${name} {
	device none
	on ${node.name} {
		local ${folder}/${name}
		remote ${remote}
		export uds://${directory}/${node.name}.run/${name}
	}
}
`;
    };
    const user = workerUser();
    const own = `control ${node.control}
listen tcp4://127.0.0.1:${node.port}
timeout 5
${user === undefined ? '' : `user ${user.name}\n`}`;
    writeFileSync(node.config, own + names.map(resource).join(''));
  }
}

/** Those that have come so far that they can be given a resource. */
function sparesOf(pid: number): readonly number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1');
  return children
    .split(' ')
    .map(Number)
    .filter((child) => child > 0 && isSpare(child));
}

function isSpare(pid: number): boolean {
  try {
    const title = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    const confined = /^Seccomp:\s+2$/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
    return title.startsWith('hastd: (spare)') && confined;
  } catch {
    return false; // it has just ended
  }
}

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** Memory that is a process's own, its share of what it has with others included, in KiB. */
export function pssKib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  return Number(/^Pss:\s+(\d+)/m.exec(text)?.[1]);
}
