/** How a resource came to its present state: its last transitions, in memory. */
import type { HistoryEntry } from '../control/protocol.ts';
import { EXIT } from '../exit.ts';
import type { EngineEventName, EngineStats } from '../native.ts';
import type { Role, WorkerEnd } from './role.ts';
import { saidOf } from './worker-end.ts';

export type Detail = Readonly<Record<string, string | number>>;

export const HISTORY_LIMITS = {
  entries: 32,
  /** What repeats within so many entries is one: a peer that refuses does so every ten seconds. */
  alike: 4,
  textChars: 300,
} as const;

interface Entry {
  time: string;
  last: string;
  times: number;
  readonly event: string;
  detail: Detail;
}

/** Texts come from the peer and the disk, too. */
function bounded(detail: Detail): Detail {
  const pairs = Object.entries(detail).filter(([, value]) => value !== '');
  return Object.fromEntries(
    pairs.map(([key, value]) => [
      key,
      typeof value === 'string' ? value.slice(0, HISTORY_LIMITS.textChars) : value,
    ]),
  );
}

export class History {
  readonly #stats: () => Promise<EngineStats | null>;
  readonly #now: () => Date;
  readonly #entries: Entry[] = [];
  /** The last command. */
  #asked: { readonly role: Role; readonly by: string } | undefined;
  #syncBegan = 0;

  /** @param stats  what an event means in numbers is the worker's to say, and takes a moment */
  constructor(stats: () => Promise<EngineStats | null>, now: () => Date = () => new Date()) {
    this.#stats = stats;
    this.#now = now;
  }

  // ---- What happens ---------------------------------------------------------------------------

  asked(role: Role, by: string): void {
    this.#asked = { role, by };
  }

  /** A role that nobody asked for was fallen to. */
  tookRole(from: Role, to: Role, last: WorkerEnd | undefined): void {
    const asked = this.#asked?.role === to;
    const text = asked || last === undefined ? '' : saidOf(last);
    this.add('role', { from, to, by: asked ? (this.#asked?.by ?? '') : '', text });
  }

  roleFailed(role: Role, by: string, { code, text }: WorkerEnd): void {
    this.add('role-failed', { role, by, code, text });
  }

  ended(role: Role, { exit, signal, code, text }: WorkerEnd): void {
    if (exit === 0 && text === '') return;
    // Of a secondary the end tells why the connection is gone.
    const gone = role === 'secondary' && exit === EXIT.tempFail && text !== '';
    if (gone && this.#amend('disconnect', { text })) return;
    this.add('worker-end', { exit: exit ?? '', signal: signal ?? '', code, text });
  }

  happened(event: EngineEventName, role: Role): void {
    switch (event) {
      case 'connect':
      case 'split-brain':
        this.add(event);
        break;
      case 'disconnect':
        this.add(
          event,
          {},
          role === 'primary' ? this.#told(({ reason: text }) => ({ text })) : null,
        );
        break;
      case 'syncstart':
        this.#syncBegan = this.#now().getTime();
        this.add(
          event,
          {},
          this.#told(({ syncBytesLeft: left }) => ({ left })),
        );
        break;
      case 'syncdone': {
        const seconds = Math.round((this.#now().getTime() - this.#syncBegan) / 1000);
        this.add(
          event,
          { seconds },
          this.#told(({ syncBytesDone: done }) => ({ done })),
        );
        break;
      }
      case 'syncintr':
        this.add(
          event,
          {},
          this.#told(({ syncBytesDone: done, syncBytesLeft: left }) => ({ done, left })),
        );
        break;
    }
  }

  // ---- The entries ----------------------------------------------------------------------------

  entries(): HistoryEntry[] {
    return this.#entries.map((entry) => ({ ...entry, detail: { ...entry.detail } }));
  }

  /** @param later  what is known only in a moment; the entry stands until then without it */
  add(event: string, detail: Detail = {}, later: Promise<Detail> | null = null): void {
    const time = this.#now().toISOString();
    const entry: Entry = { time, last: time, times: 1, event, detail: bounded(detail) };
    this.#entries.push(entry);
    if (this.#entries.length > HISTORY_LIMITS.entries) this.#entries.shift();
    if (later === null) {
      this.#merge(entry);
      return;
    }
    void later.then((more) => {
      entry.detail = bounded({ ...entry.detail, ...more });
      this.#merge(entry);
    });
  }

  async #told(pick: (stats: EngineStats) => Detail): Promise<Detail> {
    const stats = await this.#stats();
    return stats === null ? {} : pick(stats);
  }

  /** Adds to the last entry, when it is of that event. @returns whether it was */
  #amend(event: string, detail: Detail): boolean {
    const last = this.#entries.at(-1);
    if (last === undefined || last.event !== event) return false;
    last.detail = bounded({ ...last.detail, ...detail });
    this.#merge(last);
    return true;
  }

  /** Takes the place of one that says the same, since the role last changed. */
  #merge(entry: Entry): void {
    const at = this.#entries.indexOf(entry);
    const same = (one: Entry | undefined) =>
      one?.event === entry.event && JSON.stringify(one.detail) === JSON.stringify(entry.detail);
    for (let i = at - 1; i >= 0 && i >= at - HISTORY_LIMITS.alike; i -= 1) {
      const one = this.#entries[i];
      if (one === undefined || one.event === 'role') return;
      if (!same(one)) continue;
      entry.time = one.time;
      entry.times += one.times;
      this.#entries.splice(i, 1);
      return;
    }
  }
}
