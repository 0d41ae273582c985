/**
 * A seeded pseudo-random generator (sfc32), so that every run can be repeated.
 *
 * Source: Chris Doty-Humphrey's Small Fast Counting generator from PractRand, 32-bit words, 15 rounds of warm-up.
 */

/** A repeatable stream of numbers. The same seed gives the same stream on every platform. */
export class Prng {
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  /** @param seed any integer; `stream` separates the streams of several threads that share a seed. */
  constructor(seed: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = Math.floor(seed / 4294967296) | 0;
    this.#c = stream | 0;
    this.#counter = 1;
    for (let round = 0; round < 15; round++) this.next();
  }

  /** A 32-bit unsigned integer. */
  next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** An integer from 0 to `bound - 1`, for bounds up to 2^53. */
  below(bound: number): number {
    if (bound <= 4294967296) return Math.floor((this.next() / 4294967296) * bound);
    const high = this.next() & 0x1fffff;
    return Math.floor(((high * 4294967296 + this.next()) / 9007199254740992) * bound);
  }

  /** An integer from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.next() / 4294967296 < probability;
  }

  /** One element of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  /** Shuffles in place (Fisher and Yates) and returns the list. */
  shuffle<T>(list: T[]): T[] {
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const held = list[i] as T;
      list[i] = list[j] as T;
      list[j] = held;
    }
    return list;
  }
}
