/** `hastctl why` for people: pure. */
import { describeChange, type HistoryEntry, type Step, type Why } from '../control/protocol.ts';
import { formatDuration, humanize } from '../units.ts';
import { shown } from './shown.ts';

const WIDTH = 80;

/** A sentence over as many lines as it takes, behind `first` and then as many blanks. */
function wrapped(first: string, text: string): string {
  const lines: string[] = [];
  let line = first;
  for (const word of shown(text).split(' ')) {
    const room = line.length + 1 + word.length <= WIDTH;
    if (line.trim() === '' || line.length <= first.length) line += word;
    else if (room) line += ` ${word}`;
    else {
      lines.push(line);
      line = ' '.repeat(first.length) + word;
    }
  }
  return `${[...lines, line].join('\n')}\n`;
}

/** As the clock on the wall has it. */
function clock(iso: string): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return shown(iso);
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19).replace('T', ' ');
}

const part = (value: string | number | undefined, text: (value: string) => string): string =>
  value === undefined ? '' : text(String(value));
const size = (value: string) => humanize(Math.max(0, Math.round(Number(value) || 0)));

function saidOf({ event, detail }: HistoryEntry): string {
  const { text, by, left, done } = detail;
  const reason = part(text, (said) => `: ${said.replace(/\.$/, '')}`);
  const asked = part(by, (who) => `, asked for by ${who}`);
  switch (event) {
    case 'role': {
      const fell = by === undefined ? 'fell ' : '';
      return `role ${fell}from ${detail.from} to ${detail.to}${asked}${reason}`;
    }
    case 'role-failed':
      return `role ${detail.role} not taken${asked}${reason}`;
    case 'ready':
      return 'the provider serves';
    case 'connect':
      return 'connected to the other node';
    case 'disconnect':
      return `connection lost${reason}`;
    case 'syncstart':
      return `synchronisation began${part(left, (bytes) => `, ${size(bytes)} to copy`)}`;
    case 'syncdone': {
      const time = part(detail.seconds, (seconds) => ` in ${formatDuration(Number(seconds))}`);
      return `synchronisation done${part(done, (bytes) => `, ${size(bytes)} copied`)}${time}`;
    }
    case 'syncintr': {
      const copied = part(done, (bytes) => `, ${size(bytes)} copied`);
      return `synchronisation broken off${copied}${part(left, (bytes) => `, ${size(bytes)} left`)}`;
    }
    case 'split-brain':
      return 'split-brain seen: both nodes had been written to';
    case 'adopted':
      return `hastd was started again, and the running worker adopted (role ${detail.role})`;
    case 'worker-end': {
      const known = part(detail.signal, (name) => ` by ${name}`);
      const how = known || part(detail.exit, (exit) => ` with ${exit}`);
      if (how === '') return `the worker ended, and nobody knows how${reason}`;
      return `the worker was ended${how}${reason}`.replace('was ended with', 'ended with');
    }
    case 'reload': {
      const change = detail.way === 'restart' ? 'restarted' : 'in-place';
      const words = detail.statements === undefined ? [] : [String(detail.statements)];
      return `reload: ${describeChange({ change, failed: false }, words)}`;
    }
    default:
      return `${event}${reason}`;
  }
}

function historyLine(entry: HistoryEntry): string {
  const { time, last, times } = entry;
  const again = times > 1 ? ` (${times} times since ${clock(time)})` : '';
  return wrapped(`  ${clock(last)}  `, saidOf(entry) + again);
}

function stepLines({ text, on, commands, loses }: Step): string {
  const prompt = on === 'here' ? 'here#' : 'there#';
  return [
    wrapped('  ', `${text}:`),
    ...commands.map((command) => `    ${prompt.padEnd(7)}${shown(command)}\n`),
    loses === null ? '' : wrapped('    lost by it: ', loses),
  ].join('');
}

export function whyText({
  name,
  node,
  role,
  state,
  now,
  history,
  data,
  ifThisNodeDies,
  ifPeerDies,
  next,
}: Why): string {
  const words = state.replaceAll('-', ' ');
  const title = words === role ? role : `${role}, ${words}`;
  return [
    `${shown(name)} on ${shown(node)}: ${title}\n`,
    ...now.map((sentence) => wrapped('  ', sentence)),
    '\nHow it came about\n',
    ...(history.length === 0
      ? ['  nothing has happened since hastd was started\n']
      : history.map(historyLine)),
    '\nThe data\n',
    wrapped('  here: ', data.text),
    wrapped('  if this node died now: ', ifThisNodeDies),
    wrapped('  if the other node died now: ', ifPeerDies),
    '\nNext\n',
    wrapped('  ', next.text),
    ...next.steps.map(stepLines),
  ].join('');
}
