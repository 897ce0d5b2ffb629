import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  formatForeground,
  formatJson,
  formatSyslog,
  Logger,
  type LogRecord,
  streamOf,
  syslogSink,
  withReason,
} from '../../../src/log.ts';
import type { LogLevel } from '../../../src/native.ts';

const log = suite('log');

function record(level: LogLevel, text: string, more: Partial<LogRecord> = {}): LogRecord {
  const time = new Date(0);
  return { time, level, text, resource: undefined, role: undefined, fields: undefined, ...more };
}

log('foreground lines have the level, the prefix and the text', () => {
  const words: Readonly<Record<LogLevel, string>> = {
    emerg: '[EMERG]',
    alert: '[ALERT]',
    crit: '[CRIT]',
    error: '[ERROR]',
    warning: '[WARNING]',
    notice: '[NOTICE]',
    info: '[INFO]',
    debug1: '[DEBUG][1]',
    debug2: '[DEBUG][2]',
  };
  for (const [level, word] of Object.entries(words)) {
    assert.is(formatForeground(record(level as LogLevel, 'Text.')), `${word} Text.\n`);
  }
  const about = record('info', 'Text.', { resource: 'data', role: 'primary' });
  assert.is(formatForeground(about), '[INFO] [data] (primary) Text.\n');
  assert.is(formatForeground({ ...about, role: undefined }), '[INFO] [data] Text.\n');
});

log('warnings and worse go to stderr', () => {
  for (const level of ['emerg', 'alert', 'crit', 'error', 'warning'] as const) {
    assert.is(streamOf(level), 'stderr', level);
  }
  for (const level of ['notice', 'info', 'debug1', 'debug2'] as const) {
    assert.is(streamOf(level), 'stdout', level);
  }
});

log('a foreign text cannot make a line of its own', () => {
  assert.is(formatForeground(record('info', 'a\n[ERROR] b\u001b[1m')), '[INFO] a [ERROR] b [1m\n');
});

log('nor can a foreign name or role in the prefix', () => {
  const forged = record('info', 'x', { resource: 'a\n[INFO] b\u001b[1m', role: 'c\nd' });
  assert.is(formatForeground(forged), '[INFO] [a [INFO] b [1m] (c d) x\n');
  assert.is(formatSyslog(forged), '[a [INFO] b [1m] (c d) x');
});

log('syslog lines are cut, the prefix too, never inside a character', () => {
  const long = record('info', 'x'.repeat(2000), { resource: 'r'.repeat(200), role: 'primary' });
  const line = formatSyslog(long);
  assert.is(Buffer.byteLength(line), 1023);
  assert.is(line.indexOf('x'), 127);
  const wide = formatSyslog(record('info', `a${'\u00e4'.repeat(1000)}`));
  assert.is(Buffer.byteLength(wide), 1023);
  assert.not.match(wide, /\ufffd/);
  assert.is(Buffer.byteLength(formatSyslog(record('info', '\u00e4'.repeat(1000)))), 1022);
});

log('JSON has one object with the fields beside the text', () => {
  const line = formatJson(
    record('info', 'Synchronised.', { resource: 'data', role: 'primary', fields: { bytes: 5 } }),
  );
  assert.equal(JSON.parse(line), {
    time: '1970-01-01T00:00:00.000Z',
    level: 'info',
    resource: 'data',
    role: 'primary',
    text: 'Synchronised.',
    bytes: 5,
  });
});

log('debugging opens its levels', () => {
  for (const [debug, expected] of [
    [0, 'i'],
    [1, 'i1'],
    [2, 'i12'],
  ] as const) {
    let seen = '';
    const logger = Logger.root(({ text }) => {
      seen += text;
    }, debug);
    logger.info('i');
    logger.debug1('1');
    logger.debug2('2');
    assert.is(seen, expected);
  }
});

log('a redirected root takes its children along', () => {
  const seen: string[] = [];
  const logger = Logger.root(() => {}, 0);
  const child = logger.child('data', 'init');
  logger.redirect(syslogSink((priority, text) => seen.push(`${priority} ${text}`)));
  child.warning('late');
  assert.equal(seen, ['4 [data] (init) late']);
});

log('a system error ends the sentence once', () => {
  assert.is(withReason('Cannot open', new Error('no such file')), 'Cannot open: no such file.');
  assert.is(withReason('Cannot open', new Error('no such file.')), 'Cannot open: no such file.');
});

log.run();
