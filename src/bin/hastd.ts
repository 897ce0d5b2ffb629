#!/usr/bin/env node
import { isBackgroundChild, relaySink, releaseCaller, startInBackground } from '../background.ts';
import { formatConfig } from '../config/show.ts';
import { Daemon, readDaemonConfig } from '../daemon.ts';
import { HastError } from '../error.ts';
import { EXIT } from '../exit.ts';
import { foregroundSink, jsonSink, Logger, relay, syslogSink } from '../log.ts';
import { native } from '../native.ts';
import { ignoreUserSignals } from '../signals.ts';
import { type Arguments, readArguments, USAGE } from './hastd-arguments.ts';

const background = isBackgroundChild();
const sink = process.env.HASTD_LOG === 'json' ? jsonSink() : foregroundSink();

async function main(args: Arguments, log: Logger): Promise<number> {
  if (args.test) {
    relay('stdout', formatConfig(await readDaemonConfig(args)));
    return EXIT.ok;
  }
  if (!args.foreground && !background) {
    return startInBackground(process.argv[1] ?? '', process.argv.slice(2));
  }
  const daemon = await Daemon.start(args, log);
  const ended = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => void daemon.stop().then(resolve));
    }
  });
  process.on('SIGHUP', () => void daemon.reloadQuietly());
  if (background) {
    process.chdir('/');
    native.host.syslogOpen('hastd');
    log.redirect(syslogSink((priority, text) => native.host.syslog(priority, text)));
    releaseCaller();
  }
  daemon.begin();
  await ended;
  return EXIT.ok;
}

function failed(error: unknown, log: Logger): number {
  if (error instanceof HastError) {
    for (const line of error.message.split('\n')) log.error(line);
    if (error.hint !== undefined) log.error(`hint: ${error.hint}`);
    return error.exit;
  }
  log.error(error instanceof Error && log.debug > 0 ? `${error.stack}` : `${error}`);
  return EXIT.software;
}

process.title = 'hastd';
ignoreUserSignals();
const args = readArguments(process.argv.slice(2), process.cwd());
const wrong = typeof args === 'string' ? `${args}${USAGE}` : undefined;
const debug = typeof args === 'string' ? 0 : args.debug;
const log = Logger.root(background ? relaySink() : sink, debug);
process.on('uncaughtException', (error) => log.error(`Uncaught: ${error.stack ?? error}`));
if (wrong !== undefined) relay('stderr', wrong);
const code =
  typeof args === 'string' ? EXIT.usage : await main(args, log).catch((e) => failed(e, log));
process.exitCode = code;
if (!process.connected) process.exit(code);
setTimeout(() => process.exit(code), 2000).unref(); // nothing should hold us up
process.disconnect();
