// Two real daemons in two namespaces, a load on the primary, and what must be true of them.
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomOf } from './config.ts';
import { until } from './deadline.ts';
import { unmarkedDifference } from './disks.ts';
import { type Counts, Load, Trouble } from './load.ts';
import { Namespaces } from './namespaces.ts';
import { type Mode, type Node, Pair } from './pair.ts';
import { Registers } from './registers.ts';
import { BLOCK } from './writer.ts';

const MIB = 1 << 20;
export const DATA_BYTES = 32 * MIB;
const DEPTH = 8;
/** Small extents of which few are kept dirty, so that the map on disk changes all the time. */
const SMALL_EXTENTS = ['-e', '131072', '-k', '4'] as const;
/** Nothing may take longer than this to come in sync by itself, once it is left alone. */
export const SYNC_MS = 60_000;

/** Never an accident that a machine may have. */
const BUGS = /assertion failed|Uncaught|internal error|\[EMERG\]|\[ALERT\]|\[CRIT\]|falls from/;
/** We kill. Of an adopted worker, which is no child of hastd, nobody hears how it has ended. */
const CRASH = /Worker crashed \((?!signal SIGKILL|exit code unknown)/;
const SPLIT_BRAIN = /Split-brain/;

/** The first line of a log that no accident explains. */
export function complaintIn(said: string, maySplit: boolean): string | undefined {
  const patterns = [BUGS, CRASH, ...(maySplit ? [] : [SPLIT_BRAIN])];
  return said.split('\n').find((line) => patterns.some((pattern) => pattern.test(line)));
}

export interface SceneOptions {
  readonly seed: number;
  readonly mode: Mode;
  readonly counts: Counts;
  readonly say?: ((text: string) => void) | undefined;
}

export class Scene {
  readonly mode: Mode;
  readonly pair: Pair;
  readonly cable: Namespaces;
  readonly random: (n: number) => number;
  readonly trouble = new Trouble();
  readonly #options: SceneOptions;
  readonly #events: string[] = [];
  readonly #logs = new Map<Node, string>();
  readonly #read = new Map<Node, number>();
  readonly #began = performance.now();
  /** The accident of this moment must or may lead to a split-brain. */
  maySplit = false;
  primary: Node;
  load: Load;
  #over = false;

  private constructor(options: SceneOptions, cable: Namespaces, pair: Pair) {
    this.#options = options;
    this.mode = options.mode;
    this.random = randomOf(options.seed);
    this.cable = cable;
    this.pair = pair;
    this.primary = pair.a;
    this.load = this.makeLoad(pair.a, new Registers(DATA_BYTES / BLOCK));
    for (const node of [pair.a, pair.b]) {
      this.#logs.set(node, node.output);
      node.onOutput = (text) => {
        const time = this.#time();
        const lines = text.replaceAll(/^(?=.)/gm, `${time} `);
        this.#logs.set(node, `${this.#logs.get(node)}${lines}`);
      };
    }
  }

  static async make(options: SceneOptions): Promise<Scene> {
    const cable = await Namespaces.make();
    try {
      const diskBytes = DATA_BYTES + 2 * MIB;
      const { mode, seed } = options;
      const create = seed % 4 === 0 ? [] : SMALL_EXTENTS;
      const common = { mode, network: cable, timeoutSeconds: 5 };
      const pair = await Pair.inSync({ ...common, diskBytes, create });
      return new Scene(options, cable, pair);
    } catch (error) {
      await cable.close();
      throw error;
    }
  }

  get secondary(): Node {
    return this.pair.other(this.primary);
  }

  makeLoad(node: Node, registers: Registers): Load {
    const { trouble } = this;
    const { counts } = this.#options;
    return new Load(node, registers, {
      seed: this.random(0xffffffff),
      depth: DEPTH,
      trouble,
      counts,
    });
  }

  // ---- Telling --------------------------------------------------------------------------------

  #time(): string {
    return ((performance.now() - this.#began) / 1000).toFixed(3).padStart(8);
  }

  /** Tells what is done next. @throws Error when the scene is over and nothing may be done */
  event(text: string): void {
    if (this.#over) throw new Error('the scene is over');
    this.#events.push(`${this.#time()} ${text}`);
    this.#options.say?.(`${this.#time()} ${text}`);
  }

  get events(): string {
    return this.#events.map((line) => `${line}\n`).join('');
  }

  /** Leaves all that there is to see, also both disks, in a folder. */
  keep(directory: string): void {
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { recursive: true });
    writeFileSync(`${directory}/events.txt`, this.events);
    for (const node of [this.pair.a, this.pair.b]) {
      writeFileSync(`${directory}/${node.name}.log`, this.#logs.get(node) ?? '');
      copyFileSync(node.config, `${directory}/${node.name}.conf`);
      copyFileSync(node.disk, `${directory}/${node.name}.disk`);
    }
  }

  // ---- Waiting --------------------------------------------------------------------------------

  /** How long an accident lasts: shorter than what the nodes notice, about as long, or longer. */
  async lasting(...choices: readonly number[]): Promise<void> {
    const ms = choices[this.random(choices.length)] ?? 0;
    this.event(`for ${ms} ms`);
    await sleep(ms);
  }

  /** Until so many more requests are answered. */
  async answers(load: Load, count: number): Promise<void> {
    const wanted = load.answered + count;
    await until(`${count} answers`, SYNC_MS, () => load.answered >= wanted);
  }

  async lossSeen(node: Node): Promise<void> {
    await node.when('the loss is seen', ({ worker }) => worker?.state === 'degraded', 20_000);
  }

  /** By themselves, without an operator. @throws Error when a split-brain is said */
  async inSync(): Promise<void> {
    await this.primary.when(
      'in sync again, left alone',
      ({ worker }) => {
        if (SPLIT_BRAIN.test(worker?.reason ?? '')) {
          throw new Error(`node ${this.primary.name} says split-brain, and nothing has diverged`);
        }
        return worker?.state === 'in-sync';
      },
      SYNC_MS,
    );
  }

  // ---- Checking -------------------------------------------------------------------------------

  /** In sync while the load goes on; then, without it, all that can be seen is compared. */
  async settle(): Promise<void> {
    this.checkLogs();
    await this.inSync();
    const { load, pair } = this;
    load.mayLose = load.mayRefuse = false;
    await load.pause();
    await load.flush();
    await load.verify();
    await pair.mustBeClean(this.primary);
    load.registers.flushed(load.registers.now());
    load.calm = true;
    this.checkLogs();
    this.maySplit = false;
    this.event('in sync, all blocks as the model has them, both disks equal');
  }

  /** The primary is dead. As soon as the other node is at rest, too: do they know what differs? */
  async mustBeMarked(): Promise<void> {
    const { pair, secondary } = this;
    if (secondary.running) await secondary.when('its session has ended', (s) => s.worker === null);
    const wrong = unmarkedDifference(pair.a.disk, pair.b.disk);
    if (wrong !== undefined) throw new Error(wrong);
    this.event('whatever differs is marked');
  }

  checkLogs(): void {
    for (const node of [this.pair.a, this.pair.b]) {
      if (!node.running) throw new Error(`the daemon of node ${node.name} has ended by itself`);
      const said = node.output.slice(this.#read.get(node) ?? 0);
      this.#read.set(node, node.output.length);
      const line = complaintIn(said, this.maySplit);
      if (line !== undefined) throw new Error(`the log of node ${node.name} says: ${line}`);
    }
  }

  // ---- Doing ----------------------------------------------------------------------------------

  async crash(node: Node): Promise<void> {
    this.event(`kill node ${node.name}`);
    await node.crash();
  }

  /** The daemon again, in the role that it is to have. */
  async start(node: Node, role: 'primary' | 'secondary'): Promise<void> {
    this.event(`start node ${node.name} as ${role}`);
    await node.start();
    if (role === 'primary') await node.promote();
    else await node.role('secondary');
  }

  /** The roles change, and the load goes with them. What the mode does not promise is forgotten. */
  async promoteOther(): Promise<void> {
    const heir = this.secondary;
    await this.load.moveTo(heir);
    this.event(`promote node ${heir.name}`);
    await heir.promote();
    this.primary = heir;
  }

  async close(): Promise<void> {
    this.#over = true;
    await this.load.leave().catch(() => {});
    await this.pair.close();
    await this.cable.close();
  }
}
