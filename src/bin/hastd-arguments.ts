/** The command line of hastd: pure. */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CONFIG_PATH } from '../config/defaults.ts';

export const USAGE = 'usage: hastd [-dFht] [-c config] [-P pidfile] [-n node]\n';

export const OPTIONS = {
  config: { short: 'c', type: 'string' },
  debug: { short: 'd', type: 'boolean', multiple: true },
  foreground: { short: 'F', type: 'boolean' },
  help: { short: 'h', type: 'boolean' },
  pidfile: { short: 'P', type: 'string' },
  node: { short: 'n', type: 'string' },
  test: { short: 't', type: 'boolean' },
} as const;

export interface Arguments {
  /** Absolute, so that a later reading finds the same file. */
  readonly config: string;
  readonly debug: number;
  readonly foreground: boolean;
  readonly pidfile: string | null;
  readonly node: string | null;
  readonly test: boolean;
}

/** A text: the usage is to be shown, below that complaint. Operands are ignored, as ever. */
export function readArguments(args: readonly string[], cwd: string): Arguments | string {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: OPTIONS,
      allowPositionals: true,
    });
    if (values.help === true) return '';
    if (values.node === '') return 'hastd: -n needs the name of a node\n';
    const pidfile = values.pidfile === undefined ? null : resolve(cwd, values.pidfile);
    return {
      config: resolve(cwd, values.config ?? CONFIG_PATH),
      debug: values.debug?.length ?? 0,
      foreground: values.foreground ?? false,
      pidfile,
      node: values.node ?? null,
      test: values.test ?? false,
    };
  } catch (error) {
    return `hastd: ${error instanceof Error ? error.message : error}\n`;
  }
}
