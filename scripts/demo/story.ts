/** What the demo prints: lines of at most 80 columns; colours and a moving bar on a terminal. */

const BAR_CELLS = 30;
const LABEL_CELLS = 44;
const terminal = process.stdout.isTTY === true;
const colours = terminal && process.env.NO_COLOR === undefined && process.env.TERM !== 'dumb';

function colour(code: string, text: string): string {
  return colours ? `\x1b[${code}m${text}\x1b[0m` : text;
}

export function mebibytes(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

export function count(number: number): string {
  return number.toLocaleString('en-US');
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 0)} s`;
}

export class Story {
  readonly #start = performance.now();
  readonly #rows: (readonly [string, string])[] = [];
  #step = 0;
  #title = 'before the first step';
  #barQuarter = -1;

  /** The step at work, for the sentence that says which one failed. */
  get at(): string {
    return this.#step === 0 ? this.#title : `step ${this.#step}, ${this.#title}`;
  }

  get elapsedMs(): number {
    return performance.now() - this.#start;
  }

  say(text = ''): void {
    process.stdout.write(`${text}\n`);
  }

  step(title: string): void {
    this.#step += 1;
    this.#title = title;
    this.say(`\n${colour('1', `${this.#step}. ${title}`)}`);
  }

  /** A command as an operator would type it on that node. */
  command(node: string, line: string): void {
    this.say(`   ${colour('36', `${node}# ${line}`)}`);
  }

  note(text: string): void {
    this.say(`   ${text}`);
  }

  proved(text: string): void {
    this.say(`   ${colour('32', 'ok')} ${text}`);
  }

  /** Moves on a terminal; in a pipe it is a line for each quarter. */
  bar(share: number, text: string): void {
    const filled = Math.round(share * BAR_CELLS);
    const bar = `[${'#'.repeat(filled)}${'.'.repeat(BAR_CELLS - filled)}]`;
    const line = `   ${bar} ${`${Math.floor(share * 100)}%`.padStart(4)}  ${text}`;
    const quarter = Math.floor(share * 4);
    if (terminal) process.stdout.write(`\r${line}\x1b[K${share >= 1 ? '\n' : ''}`);
    else if (quarter > this.#barQuarter) this.say(line);
    this.#barQuarter = share >= 1 ? -1 : quarter;
  }

  /** A row of the summary. */
  row(label: string, value: string): void {
    this.#rows.push([label, value]);
  }

  summary(): void {
    this.say(`\n${colour('1', 'Summary')}`);
    for (const [label, value] of this.#rows) this.say(`   ${label.padEnd(LABEL_CELLS)}${value}`);
    this.say(`\n${colour('32;1', 'Everything was verified.')}`);
  }

  failed(text: string): void {
    this.say(`\n${colour('31;1', `Failed at ${this.at}:`)}`);
    this.say(text);
  }
}
