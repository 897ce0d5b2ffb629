// One real hastd in the foreground, in a folder of its own, ended by its process.
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { until } from './deadline.ts';
import { type Answer, ask } from './http.ts';
import { program } from './pair.ts';

export interface Setup {
  readonly directory: string;
  readonly port: number;
  /** Statements in front of the resource, and inside it. */
  readonly global?: string;
  readonly resource?: string;
}

/** A configuration for one node called `a`, whose peer is on this machine too. */
export function writeConfig({ directory, port, global = '', resource = '' }: Setup): string {
  const path = `${directory}/hast.conf`;
  writeFileSync(
    path,
    `control ${directory}/ctl
pidfile ${directory}/pid
listen tcp4://127.0.0.1:${port}
user nobody
timeout 2
${global}
resource data {
	local ${directory}/disk
	export uds://${directory}/run/data.nbd
	device none
	${resource}
	on a {
		remote tcp4://127.0.0.1:${port + 1}
	}
}
`,
  );
  return path;
}

export class Hastd {
  readonly child: ChildProcess;
  readonly #directory: string;
  output = '';
  exit: number | null = null;
  ended = false;

  constructor(directory: string, ...args: readonly string[]) {
    this.#directory = directory;
    const all = [...program('hastd'), '-c', `${directory}/hast.conf`, '-n', 'a', ...args];
    this.child = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.child.on('close', (code) => {
      this.exit = code;
      this.ended = true;
    });
  }

  /** Waits for a text in what it has printed. */
  async says(text: string, ms = 20_000): Promise<void> {
    await until(`"${text}" in\n${this.output}`, ms, () => {
      if (this.ended && !this.output.includes(text)) throw new Error(`it ended:\n${this.output}`);
      return this.output.includes(text);
    });
  }

  async code(): Promise<number | null> {
    await until('the end of hastd', 30_000, () => this.ended);
    return this.exit;
  }

  ask(method: string, path: string, body?: string): Promise<Answer> {
    return ask(`${this.#directory}/ctl`, method, path, body, AbortSignal.timeout(10_000));
  }

  async stop(): Promise<void> {
    if (this.ended) return;
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 20_000);
    await this.code();
    clearTimeout(timer);
  }
}
