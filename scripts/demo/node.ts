/** One of the two nodes: its hastd, its disk, and hastctl for it. */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DemoError, isGone, killGroup, run, startLogged, until } from './host.ts';
import type { Story } from './story.ts';

const RESOURCE = 'data';
const LOG_LINES = 15;

export interface Place {
  readonly directory: string;
  readonly config: string;
  /** Of the installation. */
  readonly root: string;
}

export interface WorkerState {
  readonly pid: number;
  readonly state: string;
  readonly dirtyBytes: number;
  readonly syncBytesLeft: number;
  readonly syncBytesDone: number;
  readonly syncBytesPerSecond: number;
}

export interface Area {
  readonly offset: number;
  readonly bytes: number;
}

/** What is asked of both nodes; `user` is for a daemon that root starts. */
export function configuration(
  directory: string,
  ports: readonly [number, number],
  user: string | null,
): string {
  const names = ['left', 'right'] as const;
  const globally = names.map(
    (name, i) => `on ${name} {
	control uds://${directory}/${name}.control
	listen tcp4://127.0.0.1:${ports[i]}
}
`,
  );
  const ofResource = names.map(
    (name, i) => `	on ${name} {
		local ${directory}/${name}.disk
		remote tcp4://127.0.0.1:${ports[1 - i]}
		export uds://${directory}/${name}.nbd
	}
`,
  );
  const first = user === null ? '' : `user ${user}\n`;
  return `${first}replication fullsync
device none
timeout 10
${globally.join('')}resource ${RESOURCE} {
${ofResource.join('')}}
`;
}

export class HastNode {
  readonly name: 'left' | 'right';
  readonly disk: string;
  readonly socket: string;
  readonly #place: Place;
  readonly #story: Story;
  readonly #log: string;
  #daemon: ChildProcess | undefined;

  constructor(name: 'left' | 'right', place: Place, story: Story) {
    this.name = name;
    this.#place = place;
    this.#story = story;
    this.disk = join(place.directory, `${name}.disk`);
    this.socket = join(place.directory, `${name}.nbd`);
    this.#log = join(place.directory, `${name}.log`);
  }

  get uri(): string {
    return `nbd+unix:///${RESOURCE}?socket=${this.socket}`;
  }

  get logTail(): string {
    try {
      return readFileSync(this.#log, 'utf8').trimEnd().split('\n').slice(-LOG_LINES).join('\n');
    } catch {
      return '';
    }
  }

  /** Starts hastd and waits until it answers. */
  async start(): Promise<void> {
    this.#story.command(this.name, 'hastd');
    const { config, root } = this.#place;
    const args = [join(root, 'dist/bin/hastd.js'), '-F', '-c', config, '-n', this.name];
    const daemon = startLogged(process.execPath, args, this.#log);
    this.#daemon = daemon;
    await until(`hastd of ${this.name} answers`, 20_000, async () => {
      if (daemon.exitCode !== null || daemon.pid === undefined) {
        throw new DemoError(`hastd of ${this.name} ended with exit status ${daemon.exitCode}`);
      }
      return this.#ctl('status', []).catch(() => undefined);
    });
  }

  async create(): Promise<void> {
    this.#story.command(this.name, `hastctl create ${RESOURCE}`);
    await this.#ctl('create', [RESOURCE]);
  }

  async role(role: 'init' | 'primary' | 'secondary'): Promise<void> {
    this.#story.command(this.name, `hastctl role ${role} ${RESOURCE}`);
    await this.#ctl('role', [role, RESOURCE]);
  }

  /** Undefined without a worker. */
  async worker(): Promise<WorkerState | undefined> {
    const text = await this.#ctl('list', ['--json', RESOURCE]);
    const { resources } = JSON.parse(text) as { resources: { worker: WorkerState | null }[] };
    return resources[0]?.worker ?? undefined;
  }

  /** Where the data are on the disk. */
  async area(): Promise<Area> {
    const text = await this.#ctl('dump', ['--json', RESOURCE]);
    const { resources } = JSON.parse(text) as {
      resources: { localoff?: number; datasize?: number }[];
    };
    const { localoff, datasize } = resources[0] ?? {};
    if (localoff === undefined || datasize === undefined) {
      throw new DemoError(`hastctl dump of ${this.name} says no size`);
    }
    return { offset: localoff, bytes: datasize };
  }

  inSync(ms: number): Promise<WorkerState> {
    return until(`${this.name} is in step with its peer`, ms, async () => {
      const worker = await this.worker();
      return worker?.state === 'in-sync' && worker.syncBytesLeft === 0 ? worker : undefined;
    });
  }

  /** As if its power had failed: supervisor and worker end at once, without a last word. */
  async kill(): Promise<void> {
    const pid = this.#daemon?.pid;
    const worker = await this.worker();
    if (pid === undefined || worker === undefined) throw new DemoError(`${this.name} is not there`);
    this.#story.command(this.name, `kill -KILL ${pid} ${worker.pid}    # hastd, its worker`);
    killGroup(pid);
    await until(`${this.name} is dead`, 5000, () => isGone(pid) && isGone(worker.pid));
  }

  /** Ends hastd in order. */
  async stop(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon?.pid === undefined) return;
    const { pid } = daemon;
    daemon.kill('SIGTERM');
    await until(`hastd of ${this.name} has ended`, 20_000, () => isGone(pid));
  }

  #ctl(command: string, args: readonly string[]): Promise<string> {
    const { config, root } = this.#place;
    const program = join(root, 'dist/bin/hastctl.js');
    return run(process.execPath, [program, command, '-c', config, '-n', this.name, ...args]);
  }
}
