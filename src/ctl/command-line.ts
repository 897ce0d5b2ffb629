/**
 * Arguments to a typed command, in the manner of getopt: the subcommand first, then options, then
 * operands; the first operand ends the options.
 */
import { Command, CommanderError, Option } from 'commander';
import type { Role } from '../control/protocol.ts';
import { HastError } from '../error.ts';
import { parseSize } from '../units.ts';

export const VERBS = [
  'create',
  'role',
  'list',
  'status',
  'dump',
  'why',
  'discard',
  'reload',
] as const;
export type Verb = (typeof VERBS)[number];

interface Common {
  readonly configPath: string;
  /** How many -d. */
  readonly debug: number;
  /** -n: who this node is, instead of the host name. */
  readonly node: string | undefined;
  readonly names: readonly string[];
}

/** Sizes are 0 when the default is wanted. */
export interface CreateCommand extends Common {
  readonly verb: 'create';
  readonly extentBytes: bigint;
  readonly keepdirty: bigint;
  readonly mediaBytes: bigint;
  readonly force: boolean;
  readonly layout: 'aligned' | 'hast';
  readonly contentsEqual: boolean;
}
export interface RoleCommand extends Common {
  readonly verb: 'role';
  readonly role: Role;
  readonly force: boolean;
  readonly ifUnused: boolean;
}
export interface DiscardCommand extends Common {
  readonly verb: 'discard';
}
export interface ShowCommand extends Common {
  readonly verb: 'list' | 'dump' | 'why' | 'reload';
  readonly json: boolean;
}
export interface StatusCommand extends Common {
  readonly verb: 'status';
  readonly json: boolean;
  /** Milliseconds between two looks; undefined: one look. */
  readonly watchMs: number | undefined;
}
export type CtlCommand = CreateCommand | RoleCommand | DiscardCommand | ShowCommand | StatusCommand;

const DEFAULT_CONFIG = '/etc/hast.conf';
const U32_MAX = 2n ** 32n - 1n;
const INTERVAL = { least: 0.1, most: 86_400, usual: 1 } as const;
const ROLES: Readonly<Record<string, Role>> = {
  init: 'init',
  primary: 'primary',
  secondary: 'secondary',
};

function wrong(message?: string): HastError {
  return new HastError('USAGE', { message: message ?? '' });
}

function size(option: string, most?: bigint): (text: string) => bigint {
  return (text) => parseSize(text, option, most);
}

/** @returns milliseconds */
function interval(text: string): number {
  const seconds = /^\d{1,6}(\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN;
  if (seconds >= INTERVAL.least && seconds <= INTERVAL.most) return seconds * 1000;
  throw wrong(`--interval takes seconds, from ${INTERVAL.least} to ${INTERVAL.most}`);
}

/** The options of one subcommand; the manual is held against these. */
export function optionsOf(verb: Verb): Command {
  const command = new Command(verb)
    .exitOverride()
    .configureOutput({ writeOut: () => {}, writeErr: () => {} })
    .helpOption(false)
    .showSuggestionAfterError(false)
    .argument('[operands...]')
    .passThroughOptions()
    .option('-d', 'more messages', (_value, count: number) => count + 1, 0)
    .option('-c <config>', 'configuration file', DEFAULT_CONFIG)
    .option('-n <node>', 'name of this node');
  switch (verb) {
    case 'create':
      return command
        .option('-e <extentsize>', 'bytes of an extent', size('-e', U32_MAX), 0n)
        .option('-k <keepdirty>', 'extents kept dirty', size('-k', U32_MAX), 0n)
        .option('-m <mediasize>', 'bytes to use', size('-m'), 0n)
        .option('-f', 'overwrite other data')
        .addOption(new Option('--layout <layout>').choices(['aligned', 'hast']).default('aligned'))
        .option('--contents-equal', 'both nodes hold the same data already');
    case 'role':
      return command
        .option('-f', 'skip refusals')
        .option('--if-unused', 'refuse while the provider is open');
    case 'discard':
      return command;
    case 'status':
      return command
        .option('--json', 'machine-readable output')
        .option('--watch', 'look again and again')
        .option('--interval <seconds>', 'time between two looks', interval);
    default:
      return command.option('--json', 'machine-readable output');
  }
}

interface RawOptions {
  readonly d: number;
  readonly c: string;
  readonly n?: string;
  readonly e: bigint;
  readonly k: bigint;
  readonly m: bigint;
  readonly f?: boolean;
  readonly layout: 'aligned' | 'hast';
  readonly contentsEqual?: boolean;
  readonly ifUnused?: boolean;
  readonly json?: boolean;
  readonly watch?: boolean;
  readonly interval?: number;
}

function parsed(verb: Verb, args: readonly string[]): { raw: RawOptions; operands: string[] } {
  const command = optionsOf(verb);
  try {
    command.parse(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    throw wrong(error.message.replace(/^error: /, ''));
  }
  const [first = ''] = command.args;
  if (/^-./.test(first) && !args.includes('--')) throw wrong(`unknown option '${first}'`);
  return { raw: command.opts<RawOptions>(), operands: command.args };
}

/**
 * @param argv  what follows the program's name
 * @throws HastError USAGE; without a message when the usage text says it all
 */
export function parseCommandLine(argv: readonly string[]): CtlCommand {
  const [word = '', ...rest] = argv;
  const verb = VERBS.find((known) => known === word);
  if (verb === undefined) {
    throw wrong(word === '' || word === '-h' ? undefined : `unknown subcommand: ${word}`);
  }
  const { raw, operands } = parsed(verb, rest);
  const common = { configPath: raw.c, debug: raw.d, node: raw.n, names: operands };
  switch (verb) {
    case 'create': {
      if (operands.length === 0) throw wrong('create needs the name of a resource');
      return {
        ...common,
        verb,
        extentBytes: raw.e,
        keepdirty: raw.k,
        mediaBytes: raw.m,
        force: raw.f === true,
        layout: raw.layout,
        contentsEqual: raw.contentsEqual === true,
      };
    }
    case 'role': {
      const [roleWord = '', ...names] = operands;
      const role = Object.hasOwn(ROLES, roleWord) ? ROLES[roleWord] : undefined;
      if (role === undefined) throw wrong(`unknown role: ${roleWord}`);
      if (names.length === 0) throw wrong('role needs the name of a resource, or all');
      const force = raw.f === true;
      return { ...common, verb, names, role, force, ifUnused: raw.ifUnused === true };
    }
    case 'reload':
      if (operands.length > 0) throw wrong('reload takes no names: it is the whole file');
      return { ...common, verb, json: raw.json === true };
    case 'discard':
      if (operands.length === 0) throw wrong('discard needs the name of a resource');
      return { ...common, verb };
    case 'why':
      if (operands.length === 0) throw wrong('why needs the name of a resource, or all');
      return { ...common, verb, json: raw.json === true };
    case 'status': {
      const watch = raw.watch === true;
      if (raw.interval !== undefined && !watch) throw wrong('--interval needs --watch');
      const watchMs = watch ? (raw.interval ?? INTERVAL.usual * 1000) : undefined;
      return { ...common, verb, json: raw.json === true, watchMs };
    }
    default:
      return { ...common, verb, json: raw.json === true };
  }
}
