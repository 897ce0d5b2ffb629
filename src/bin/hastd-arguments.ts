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

/** Undefined: the usage is to be shown. Operands are ignored, as ever. */
export function readArguments(args: readonly string[], cwd: string): Arguments | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: OPTIONS,
      allowPositionals: true,
    });
    if (values.help === true || values.node === '') return undefined;
    const pidfile = values.pidfile === undefined ? null : resolve(cwd, values.pidfile);
    return {
      config: resolve(cwd, values.config ?? CONFIG_PATH),
      debug: values.debug?.length ?? 0,
      foreground: values.foreground ?? false,
      pidfile,
      node: values.node ?? null,
      test: values.test ?? false,
    };
  } catch {
    return undefined;
  }
}
