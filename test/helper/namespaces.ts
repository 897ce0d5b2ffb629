// Two network namespaces joined by a cable of their own. They have no names: each lives as long as
// a process in it, and the first one in it ends when this process does, however that ends.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { until } from './deadline.ts';
import type { Network, NodeName } from './pair.ts';
import { missing, notRoot } from './skip.ts';

const NAMES: readonly NodeName[] = ['a', 'b'];
const DEVICE = 'cable';
const ADDRESSES = { a: '10.77.0.1', b: '10.77.0.2' } as const;
const MACS = { a: '02:00:00:00:00:0a', b: '02:00:00:00:00:0b' } as const;
/** Nobody's: what is sent to it is dropped at the other end, and no one hears of it. */
const NOBODY = '02:00:00:00:00:ee';

function namespaceOf(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}

/** Why no namespaces can be made here; undefined when they can. */
export function noNamespaces(): string | undefined {
  const lacking = notRoot() ?? missing('ip') ?? missing('unshare') ?? missing('nsenter');
  if (lacking !== undefined) return lacking;
  const words = ['--net', 'ip', 'link', 'add', DEVICE, 'type', 'veth', 'peer', 'name', 'other'];
  const { status, stderr } = spawnSync('unshare', words, { encoding: 'utf8' });
  return status === 0 ? undefined : `no network namespaces with veth: ${stderr.trim()}`;
}

export class Namespaces implements Network {
  readonly #holders: Readonly<Record<NodeName, ChildProcess>>;

  private constructor() {
    const hold = () => spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'ignore', 'inherit'] });
    this.#holders = { a: hold(), b: hold() };
  }

  static async make(): Promise<Namespaces> {
    const both = new Namespaces();
    try {
      await both.#join();
      return both;
    } catch (error) {
      await both.close();
      throw error;
    }
  }

  async #join(): Promise<void> {
    const ours = namespaceOf('self');
    for (const name of NAMES) {
      await until(`the namespace of node ${name}`, 10_000, () => {
        const own = namespaceOf(this.#pid(name));
        return own !== undefined && own !== ours;
      });
    }
    const end = (name: NodeName) => ['name', DEVICE, 'address', MACS[name]];
    const peer = ['peer', ...end('b'), 'netns', String(this.#pid('b'))];
    this.#run('a', 'ip', 'link', 'add', ...end('a'), 'type', 'veth', ...peer);
    for (const name of NAMES) {
      this.#run(name, 'ip', 'address', 'add', `${ADDRESSES[name]}/24`, 'dev', DEVICE);
      this.#run(name, 'ip', 'link', 'set', 'lo', 'up');
      this.plug(name);
    }
  }

  #pid(name: NodeName): number {
    const { pid } = this.#holders[name];
    if (pid === undefined) throw new Error(`no namespace for node ${name}: unshare did not start`);
    return pid;
  }

  address(name: NodeName): string {
    return ADDRESSES[name];
  }

  enter(name: NodeName): readonly string[] {
    return ['nsenter', `--net=/proc/${this.#pid(name)}/ns/net`, '--'];
  }

  #try(name: NodeName, command: readonly string[]): string | undefined {
    const [file = '', ...args] = [...this.enter(name), ...command];
    const { status, stderr, error } = spawnSync(file, args, { encoding: 'utf8', timeout: 10_000 });
    return status === 0 ? undefined : `${stderr ?? ''}${error?.message ?? ''}`.trim();
  }

  /** @throws Error with what the command said, unless it ends with 0 */
  #run(name: NodeName, ...command: readonly string[]): void {
    const said = this.#try(name, command);
    if (said !== undefined) throw new Error(`node ${name}: ${command.join(' ')}: ${said}`);
  }

  // ---- Accidents ------------------------------------------------------------------------------

  /** What this node sends gets nowhere any more, silently; the other direction works. */
  mute(from: NodeName): void {
    this.#neighbour(from, NOBODY);
  }

  unmute(from: NodeName): void {
    const to = from === 'a' ? 'b' : 'a';
    this.#neighbour(from, MACS[to]);
  }

  #neighbour(from: NodeName, mac: string): void {
    const to = from === 'a' ? 'b' : 'a';
    const words = ['replace', ADDRESSES[to], 'lladdr', mac, 'nud', 'permanent', 'dev', DEVICE];
    this.#run(from, 'ip', 'neighbour', ...words);
  }

  /** Both directions, silently. */
  cut(): void {
    for (const name of NAMES) this.mute(name);
  }

  heal(): void {
    for (const name of NAMES) this.unmute(name);
  }

  /** Takes the interface down, which both ends notice. */
  unplug(name: NodeName): void {
    this.#run(name, 'ip', 'link', 'set', DEVICE, 'down');
  }

  /** Up, and reachable: an interface that was down has forgotten its neighbours. */
  plug(name: NodeName): void {
    this.#run(name, 'ip', 'link', 'set', DEVICE, 'up');
    this.unmute(name);
  }

  /** Delays and limits what is sent. @returns false where the kernel has no way to do that */
  slow(): boolean {
    const ways = [
      ['netem', 'delay', '20ms', '10ms'],
      ['tbf', 'rate', '100mbit', 'burst', '16kb', 'latency', '100ms'],
    ];
    return NAMES.every((name) => {
      const add = (way: string[]) => ['tc', 'qdisc', 'replace', 'dev', DEVICE, 'root', ...way];
      return ways.some((way) => this.#try(name, add(way)) === undefined);
    });
  }

  quicken(): void {
    for (const name of NAMES) this.#try(name, ['tc', 'qdisc', 'delete', 'dev', DEVICE, 'root']);
  }

  /** The namespaces go with the last process in them. */
  async close(): Promise<void> {
    for (const holder of Object.values(this.#holders)) {
      holder.stdin?.end();
      await until('the end of a namespace', 10_000, () => holder.exitCode !== null);
    }
  }
}
