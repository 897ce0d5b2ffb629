// Inputs for the fuzzers of the TypeScript parsers: a corpus and its mutations by seed.
import { randomOf } from '../helper/config.ts';

const INTERESTING = [0, 1, 2, 7, 8, 9, 127, 128, 255, 256, 4096, 65535, 65536, 0x7fffffff];

/** `next()` gives one mutation after the other; one seed, one sequence. */
export class Mutator {
  readonly #corpus: readonly Buffer[];
  readonly #words: readonly string[];
  readonly #random: (n: number) => number;

  /** @param words  texts that are worth inserting, such as the keywords of the language */
  constructor(corpus: readonly Buffer[], words: readonly string[], seed: number) {
    this.#corpus = corpus.length === 0 ? [Buffer.alloc(0)] : corpus;
    this.#words = words;
    this.#random = randomOf(seed);
  }

  next(): Buffer {
    let bytes = this.#pick();
    for (let changes = 1 + this.#random(5); changes > 0; changes--) bytes = this.#change(bytes);
    return bytes;
  }

  #pick(): Buffer {
    return this.#corpus[this.#random(this.#corpus.length)] ?? Buffer.alloc(0);
  }

  #change(bytes: Buffer): Buffer {
    const at = this.#random(bytes.length + 1);
    const left = bytes.length - at;
    const span = this.#random(Math.min(left, this.#random(4) === 0 ? left : 16) + 1);
    const replaced = (count: number, ...by: Uint8Array[]) =>
      Buffer.concat([bytes.subarray(0, at), ...by, bytes.subarray(at + count)]);
    switch (this.#random(8)) {
      case 0:
        return left === 0
          ? bytes
          : replaced(1, Buffer.of((bytes[at] ?? 0) ^ (1 << this.#random(8))));
      case 1:
        return replaced(Math.min(left, 1), Buffer.of(this.#random(256)));
      case 2:
        return left < 4 ? bytes : replaced(4, this.#number());
      case 3:
        return replaced(span);
      case 4:
        return replaced(0, bytes.subarray(at, at + span));
      case 5:
        return replaced(0, Buffer.alloc(this.#random(16), this.#random(256)));
      case 6:
        return replaced(this.#random(2) * span, this.#word());
      default:
        return this.#splice(bytes, at);
    }
  }

  #number(): Buffer {
    const value = INTERESTING[this.#random(INTERESTING.length)] ?? 0;
    const bytes = Buffer.alloc(4);
    if (this.#random(3) === 0) bytes.writeUInt32BE(value);
    else bytes.writeUInt32LE(value);
    return bytes;
  }

  #word(): Buffer {
    return Buffer.from(this.#words[this.#random(this.#words.length || 1)] ?? '');
  }

  #splice(bytes: Buffer, at: number): Buffer {
    const other = this.#pick();
    return Buffer.concat([bytes.subarray(0, at), other.subarray(this.#random(other.length + 1))]);
  }
}
