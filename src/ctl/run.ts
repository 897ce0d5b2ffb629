import { hostNames, readConfig } from '../config/read.ts';
import { ControlClient } from '../control/client.ts';
import { HastError } from '../error.ts';
import { EXIT } from '../exit.ts';
import { foregroundSink, Logger } from '../log.ts';
import { type CtlCommand, parseCommandLine } from './command-line.ts';
import { create } from './commands/create.ts';
import { discard } from './commands/discard.ts';
import { dump } from './commands/dump.ts';
import { list } from './commands/list.ts';
import { reload } from './commands/reload.ts';
import { role } from './commands/role.ts';
import { status } from './commands/status.ts';
import { why } from './commands/why.ts';
import { type Context, exitOf, tell } from './context.ts';
import { FORMATTERS, print } from './output.ts';
import { USAGE } from './usage.ts';

async function dispatch(command: CtlCommand, context: Context): Promise<number> {
  switch (command.verb) {
    case 'create':
      return await create(command, context);
    case 'discard':
      return await discard(command, context);
    case 'role':
      return await role(command, context);
    case 'list':
      return await list(command, context);
    case 'status':
      return await status(command, context);
    case 'dump':
      return await dump(command, context);
    case 'why':
      return await why(command, context);
    case 'reload':
      return await reload(context);
  }
}

async function prepared(command: CtlCommand, log: Logger): Promise<Context> {
  const { node, configPath } = command;
  const names = node === undefined ? hostNames() : [node];
  const config = await readConfig(configPath, names, { node });
  const json = 'json' in command && command.json;
  return {
    config,
    client: new ControlClient(config.control.path),
    log,
    format: json ? FORMATTERS.json : FORMATTERS.text,
    print: (text) => print('stdout', text),
  };
}

function misused({ message }: HastError): number {
  const reason = message === '' ? '' : `hastctl: ${message}\n`;
  print('stderr', `${reason}${USAGE}`);
  return EXIT.usage;
}

/** Does what the arguments say; every failure is told and becomes an exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  let log = Logger.root(foregroundSink(), 0);
  try {
    const command = parseCommandLine(argv);
    log = Logger.root(foregroundSink(), command.debug);
    return await dispatch(command, await prepared(command, log));
  } catch (error) {
    if (error instanceof HastError && error.code === 'USAGE') return misused(error);
    tell(log, error);
    return exitOf(error);
  }
}
