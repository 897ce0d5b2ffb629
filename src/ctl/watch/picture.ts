/** The live view as lines of a terminal: pure. No line is wider than the terminal. */
import { styleText } from 'node:util';
import { formatDuration, humanize } from '../../units.ts';
import type { Mood, Row } from './row.ts';

export interface Paper {
  readonly columns: number;
  readonly rows: number;
  readonly colour: boolean;
  /** Whether the terminal shows more than ASCII. */
  readonly unicode: boolean;
}

export interface Scene {
  readonly node: string;
  readonly time: string;
  readonly rows: readonly Row[];
  /** Why there is nothing new; '' when the daemon answers. */
  readonly trouble: string;
}

type Style = Parameters<typeof styleText>[0];
const MOODS: Readonly<Record<Mood, Style>> = { good: 'green', busy: 'yellow', bad: 'red' };
const NAME_MIN = 8;
const BAR_MIN = 8;
const BAR_MAX = 30;
const ROLE = 9;

// ---- Text -----------------------------------------------------------------------------------

/** One character a column: what is wider, or moves the cursor, comes from elsewhere. */
function plain(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/gu, '?');
}

/** Cut to `width`, with an ellipsis where something is missing. */
export function fitted(text: string, width: number, unicode: boolean): string {
  const known = plain(text);
  if (known.length <= width) return known;
  const end = unicode ? '…' : '..';
  if (width <= end.length) return known.slice(0, Math.max(0, width));
  return known.slice(0, width - end.length) + end;
}

function styled(style: Style, text: string, { colour }: Paper): string {
  return colour && text.trim() !== '' ? styleText(style, text, { validateStream: false }) : text;
}

export function shortDuration(seconds: number): string {
  const unit = seconds >= 86_400 ? 3600 : seconds >= 3600 ? 60 : 1;
  return formatDuration(seconds - (seconds % unit));
}

function percent(progress: number): string {
  return `${Math.floor(progress * 100)}%`;
}

function bar(progress: number | null, width: number, { unicode }: Paper): string {
  if (progress === null) return ''.padEnd(width);
  const [full, empty] = unicode ? ['█', '░'] : ['#', '-'];
  const filled = Math.floor(progress * width);
  return full.repeat(filled) + empty.repeat(width - filled);
}

// ---- Columns --------------------------------------------------------------------------------

interface Column {
  readonly title: string;
  readonly width: number;
  /** Columns with the highest number are left out first; 0 only when else no name has room. */
  readonly spare: number;
  readonly right?: true;
  readonly text: (row: Row, width: number, paper: Paper) => string;
  readonly style?: (row: Row) => Style;
}

const or = <T>(value: T | null, text: (value: T) => string): string =>
  value === null ? '-' : text(value);

/** As they stand from left to right behind the name. */
const COLUMNS: readonly Column[] = [
  { title: 'ROLE', width: ROLE, spare: 2, text: ({ role }) => role },
  {
    title: 'PEER',
    width: 9,
    spare: 0,
    text: ({ peer }) => peer,
    style: ({ mood }) => MOODS[mood],
  },
  { title: 'MODE', width: 8, spare: 8, text: ({ mode }) => mode },
  {
    title: 'DIRTY',
    width: 5,
    spare: 5,
    right: true,
    text: ({ dirty }) => or(dirty, humanize),
  },
  {
    title: '',
    width: BAR_MIN,
    spare: 6,
    text: ({ progress }, width, paper) => bar(progress, width, paper),
    style: () => 'cyan',
  },
  { title: 'DONE', width: 4, spare: 1, right: true, text: ({ progress }) => or(progress, percent) },
  {
    title: 'RATE',
    width: 7,
    spare: 4,
    right: true,
    text: ({ rate }) => or(rate, (bytes) => `${humanize(Math.round(bytes))}/s`),
  },
  {
    title: 'LEFT',
    width: 6,
    spare: 3,
    right: true,
    text: ({ seconds }) => or(seconds, shortDuration),
  },
  { title: 'QUEUE', width: 5, spare: 7, right: true, text: ({ queue }) => or(queue, String) },
];

interface Layout {
  readonly name: number;
  readonly columns: readonly Column[];
}

/** Leaves out what does not fit; what is left over goes to the names first, then to the bar. */
function layoutFor(rows: readonly Row[], { columns: width }: Paper): Layout {
  let columns = [...COLUMNS];
  const used = () => columns.reduce((sum, column) => sum + column.width + 1, 0);
  const wanted = Math.max(NAME_MIN, ...rows.map(({ name }) => name.length));
  while (columns.length > 0) {
    const spare = Math.max(...columns.map((column) => column.spare));
    if (width - used() >= (spare > 0 ? NAME_MIN : 1)) break;
    columns = columns.filter((column) => column.spare !== spare);
  }
  const name = Math.max(1, Math.min(wanted, width - used()));
  const over = width - used() - name;
  return {
    name,
    columns: columns.map((column) => {
      if (column.title !== '') return column;
      return { ...column, width: Math.min(BAR_MAX, column.width + Math.max(0, over)) };
    }),
  };
}

function lineOf(row: Row, { name, columns }: Layout, paper: Paper): string {
  const cells = columns.map((column) => {
    const { width, right } = column;
    const whole = column.text(row, width, paper);
    // The bar is the one text with characters of its own.
    const text = column.title === '' ? whole : fitted(whole, width, paper.unicode);
    const cell = right === true ? text.padStart(width) : text.padEnd(width);
    return column.style === undefined ? cell : styled(column.style(row), cell, paper);
  });
  return [fitted(row.name, name, paper.unicode).padEnd(name), ...cells].join(' ');
}

function header({ name, columns }: Layout, paper: Paper): string {
  const cells = columns.map(({ title, width, right }) =>
    right === true ? title.padStart(width) : title.padEnd(width),
  );
  return styled('bold', ['NAME'.slice(0, name).padEnd(name), ...cells].join(' '), paper);
}

/** What is to the left and to the right of a line; the left one gives way. */
function spread(left: string, right: string, { columns, unicode }: Paper): string {
  const room = columns - right.length - 1;
  if (room < 10) return fitted(left, columns, unicode);
  return `${fitted(left, room, unicode).padEnd(room)} ${right}`;
}

// ---- The whole ------------------------------------------------------------------------------

function blockOf(row: Row, layout: Layout, paper: Paper): string[] {
  const line = lineOf(row, layout, paper);
  if (row.reason === '') return [line];
  const reason = `  ${row.reason}`;
  return [line, styled('dim', fitted(reason, paper.columns, paper.unicode), paper)];
}

/** At most as many lines as the paper has rows; the worst come first when not all fit. */
export function picture({ node, time, rows, trouble }: Scene, paper: Paper): string[] {
  const layout = layoutFor(rows, paper);
  const count = rows.length === 1 ? '1 resource' : `${rows.length} resources`;
  const lines = [spread(`hastd on ${node}: ${count}`, time, paper)];
  if (trouble !== '')
    lines.push(styled('red', fitted(trouble, paper.columns, paper.unicode), paper));
  if (rows.length > 0) lines.push(header(layout, paper));

  const room = Math.max(0, paper.rows - lines.length);
  const blocks = rows.map((row) => ({ row, lines: blockOf(row, layout, paper) }));
  const needed = blocks.reduce((sum, block) => sum + block.lines.length, 0);
  if (needed <= room) return [...lines, ...blocks.flatMap((block) => block.lines)];

  // The sort is stable: equals stay in the order of hast.conf.
  const queue = blocks.sort((a, b) => b.row.weight - a.row.weight);
  let free = room - 1;
  while (queue[0] !== undefined && queue[0].lines.length <= free) {
    free -= queue[0].lines.length;
    lines.push(...queue[0].lines);
    queue.shift();
  }
  const bad = queue.filter(({ row }) => row.mood !== 'good').length;
  const rest = bad === 0 ? 'all in order' : `${bad} of them not in order`;
  const more = `${queue.length} more not shown, ${rest}`;
  return [...lines, styled('dim', fitted(more, paper.columns, paper.unicode), paper)].slice(
    0,
    Math.max(1, paper.rows),
  );
}
