// A hook of a node that notes how it was called, and what a test asks of its notes.
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { until } from './deadline.ts';
import type { Node } from './pair.ts';

/** One line at its begin, one at its end: two that overlap show. */
const NOTING = `#!/bin/sh
log=$0.log
echo "begin $*" >> "$log"
echo "$0 $(pwd) $(cd /proc/self/fd && echo *)" > "$0.env"
[ ! -e "$0.slow" ] || sleep 0.2
echo "end $*" >> "$log"
`;

export class HookLog {
  readonly path: string;
  readonly #node: Node;

  constructor(node: Node, text = NOTING) {
    this.#node = node;
    this.path = `${node.directory}/${node.name}.hook`;
    this.write(text);
  }

  write(text: string, mode = 0o755): void {
    rmSync(this.path, { force: true }); // not into a program that runs
    writeFileSync(this.path, text);
    chmodSync(this.path, mode);
  }

  /** Has the running daemon use it. */
  async use(...statements: readonly string[]): Promise<void> {
    const { config } = this.#node;
    const text = readFileSync(config, 'utf8');
    const more = [`exec ${this.path}`, ...statements].map((line) => `\t${line}\n`).join('');
    writeFileSync(config, text.replace('\tdevice none\n', `\tdevice none\n${more}`));
    await this.#node.must('reload');
  }

  /** Of the last call: its own name, folder and descriptors. */
  get environment(): string {
    return readFileSync(`${this.path}.env`, 'utf8').trim();
  }

  get lines(): readonly string[] {
    const log = `${this.path}.log`;
    return existsSync(log) ? readFileSync(log, 'utf8').split('\n').slice(0, -1) : [];
  }

  /** All that have ended, in their order. */
  get all(): readonly string[] {
    const ended = this.lines.filter((line) => line.startsWith('end '));
    return ended.map((line) => line.slice('end '.length));
  }

  /** The same from the `from`th on, but for `ready`, whose place among the others is not fixed. */
  ended(from = 0): readonly string[] {
    return this.all.filter((line) => !line.startsWith('ready ')).slice(from);
  }

  /** Waits until exactly these have ended since the `from`th. @returns how many there are in all */
  async are(wanted: readonly string[], from = 0): Promise<number> {
    const last = wanted.at(-1) ?? '';
    await until(`hook "${last}" of node ${this.#node.name}`, 30_000, () => {
      return this.ended(from).length >= wanted.length;
    }).catch((error: Error) => {
      throw new Error(`${error.message}\n${this.lines.join('\n')}`);
    });
    const found = this.ended(from);
    if (found.join('\n') !== wanted.join('\n')) {
      throw new Error(
        `hooks of ${this.#node.name}:\n${found.join('\n')}\nnot\n${wanted.join('\n')}`,
      );
    }
    return from + found.length;
  }
}
