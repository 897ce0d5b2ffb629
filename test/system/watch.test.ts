// `hastctl status --watch` of two real nodes: in a pipe, and on a terminal made by script(1).
import { type ChildProcess, spawn } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, withDeadline } from '../helper/deadline.ts';
import {
  hastctlArguments,
  type Node,
  noPair,
  ORPHANS_END,
  Pair,
  withPair,
} from '../helper/pair.ts';
import { missing, unless } from '../helper/skip.ts';

const watching = suite('watching a pair');
const MIB = 1 << 20;

/** A watcher, and all that it has said. */
class Watcher {
  readonly child: ChildProcess;
  text = '';

  private constructor(file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.child = spawn(file, args, { env: { ...process.env, ...env } });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.text += text;
    });
  }

  static inPipe(node: Node, ...flags: readonly string[]): Watcher {
    return new Watcher(process.execPath, argumentsOf(node, flags));
  }

  /** On a terminal of 60 columns, without colour; what is typed there is written to `child`. */
  static onTerminal(node: Node): Watcher {
    const words = [process.execPath, ...argumentsOf(node, [])];
    const command = words.map((word) => `'${word}'`).join(' ');
    const args = ['-q', '-e', '-c', `stty cols 60 rows 10; exec ${command}`, '/dev/null'];
    // FORCE_COLOR, which a runner of tests may set, is stronger than NO_COLOR to Node.
    const plain = { NO_COLOR: '1', FORCE_COLOR: undefined };
    return new Watcher('script', args, { TERM: 'xterm', ...plain, SHELL: '/bin/sh' });
  }

  saw(what: RegExp): Promise<void> {
    return until(`the watcher saw ${what}`, 60_000, () => what.test(this.text)).catch((error) => {
      throw new Error(`${(error as Error).message}\n${this.text.slice(-3000)}`);
    });
  }

  async exit(): Promise<number | null> {
    await until('the watcher ended', 20_000, () => this.child.exitCode !== null);
    return this.child.exitCode;
  }
}

function argumentsOf(node: Node, flags: readonly string[]): string[] {
  return hastctlArguments(node, 'status', '--watch', '--interval', '0.1', ...flags);
}

const add = unless(watching, noPair() ?? missing('script'));

add(
  'a synchronisation is seen from both places, and a restart of hastd is survived',
  withDeadline(150_000, () =>
    withPair(Pair.make({ diskBytes: 512 * MIB, relay: true, env: ORPHANS_END }), async (pair) => {
      const { a, b } = pair;
      const watchers = [Watcher.inPipe(a), Watcher.onTerminal(a), Watcher.inPipe(a, '--json')];
      const [pipe, terminal, json] = watchers as [Watcher, Watcher, Watcher];
      try {
        await pipe.saw(/ data role=init peer=- /);
        await terminal.saw(/data +init/);
        await b.role('secondary');
        await a.role('primary');
        await a.when('synchronising', ({ worker }) => worker?.state === 'syncing');
        pair.silence(); // it stands still until everybody has seen it
        await pipe.saw(
          / data role=primary peer=syncing mode=memsync dirty=\d+ left=\d+ done=\d+% /,
        );
        await terminal.saw(/data +primary +syncing +\d+/);
        await json.saw(/"state":"syncing"/);
        pair.heal();
        await a.inSync();
        await pipe.saw(/ data role=primary peer=in-sync /);
        await terminal.saw(/data +primary +in sync/);

        await a.killDaemon();
        await pipe.saw(/ \* peer=- reason="the daemon cannot be reached/);
        await terminal.saw(/the daemon cannot be reached/);
        await json.saw(/"error":\{"code":"CTL_CONNECT"/);
        await a.workersEnded();
        pipe.text = '';
        await a.start();
        await pipe.saw(/ data role=init peer=- /);

        assert.not.match(pipe.text, '\u001b');
        for (const line of json.text.trimEnd().split('\n')) JSON.parse(line);
        terminal.child.stdin?.write('\u0003');
        assert.is(await terminal.exit(), 0);
        assert.match(terminal.text, '\u001b[?1049h');
        const end = terminal.text.slice(terminal.text.lastIndexOf('\u001b[?25h'));
        assert.ok(end.startsWith('\u001b[?25h\u001b[?1049lhastd on a: 1 resource'), end);

        // Nobody reads any more.
        for (const one of [pipe, json]) one.child.stdout?.destroy();
        await a.role('secondary');
        assert.is(await pipe.exit(), 0);
        assert.is(await json.exit(), 0);
      } finally {
        for (const { child } of watchers) child.kill('SIGKILL');
      }
    }),
  ),
);

watching.run();
