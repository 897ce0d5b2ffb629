/** Server-sent events to any number of readers, none of which can hold up the daemon. */
import type { ServerResponse } from 'node:http';
import { CONTROL_LIMITS, type ControlEvent } from './protocol.ts';

/** Sent when nothing else is, so that a dead reader is noticed. */
const BEAT_MS = 15_000;

/** One reader: events wait here while its socket is full; too many, and a gap is told instead. */
class Subscriber {
  readonly #response: ServerResponse;
  #queue: string[] = [];
  #missed = 0;
  #full = false;

  constructor(response: ServerResponse) {
    this.#response = response;
    response.on('drain', () => this.#drain());
  }

  push(line: string): void {
    // After the first one that is left out all are, until the gap can be told in its place.
    if (this.#missed > 0 || this.#queue.length >= CONTROL_LIMITS.queuedEvents) {
      this.#missed += 1;
      return;
    }
    this.#queue.push(line);
    if (!this.#full) this.#drain();
  }

  beat(): void {
    if (!this.#full) this.#write(':\n\n');
  }

  #write(text: string): void {
    this.#full = !this.#response.write(text);
  }

  #drain(): void {
    this.#full = false;
    while (!this.#full) {
      const line = this.#queue.shift();
      if (line === undefined) break;
      this.#write(line);
    }
    if (!this.#full && this.#missed > 0) {
      const missed = this.#missed;
      this.#missed = 0;
      this.#write(gap(missed));
    }
  }
}

function dataLine(event: ControlEvent): string {
  return `data: ${JSON.stringify(event)}\n\n`;
}

/** The marker that stands for events that were left out. */
function gap(missed: number): string {
  const time = new Date().toISOString();
  return dataLine({ time, resource: '', event: 'gap', detail: { missed } });
}

export class EventStream {
  readonly #subscribers = new Set<Subscriber>();
  #beat: NodeJS.Timeout | undefined;

  subscribe(response: ServerResponse): void {
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
    });
    response.write(':\n\n');
    const subscriber = new Subscriber(response);
    this.#subscribers.add(subscriber);
    this.#beat ??= setInterval(() => {
      for (const one of this.#subscribers) one.beat();
    }, BEAT_MS).unref();
    response.once('close', () => {
      this.#subscribers.delete(subscriber);
      if (this.#subscribers.size > 0) return;
      clearInterval(this.#beat);
      this.#beat = undefined;
    });
  }

  emit(event: ControlEvent): void {
    const line = dataLine(event);
    for (const subscriber of this.#subscribers) subscriber.push(line);
  }
}
