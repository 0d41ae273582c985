/** The workload of the vmem bench: a set of live blocks, and pairs of one random free and one allocation. */

import type { Subject } from './vmem-subjects.ts';
import { QUANTUM } from './vmem-subjects.ts';

/** Sizes of the requests. */
export interface Sizes {
  readonly minQuanta: number;
  readonly maxQuanta: number;
}

/** Multiplier and increment of the generator that every subject runs in its loop: two nanoseconds a step. */
const STEP = 1664525;
const ADD = 1013904223;

/** Live blocks of one subject. The same seed gives the same operations on every subject. */
export class Pairs {
  readonly #subject: Subject;
  readonly #sizes: Sizes;
  readonly #addresses: Float64Array;
  readonly #lengths: Float64Array;
  #state: number;

  constructor(subject: Subject, live: number, sizes: Sizes, seed: number) {
    this.#subject = subject;
    this.#sizes = sizes;
    this.#addresses = new Float64Array(live);
    this.#lengths = new Float64Array(live);
    this.#state = seed >>> 0;
  }

  /** Allocates all blocks; returns a checksum of the requests, or null when the deadline passes first. */
  fill(deadline = Number.POSITIVE_INFINITY): number | null {
    const live = this.#addresses.length;
    let sum = 0;
    for (let index = 0; index < live; index++) {
      if ((index & 63) === 0 && performance.now() > deadline) return null;
      const size = this.#size(this.#next());
      const address = this.#subject.alloc(size);
      if (!(address >= 0)) throw new Error(`no space for block ${index} of ${live}`);
      this.#addresses[index] = address;
      this.#lengths[index] = size;
      sum = (Math.imul(sum, 31) + size) | 0;
    }
    return sum;
  }

  /** `count` pairs; returns a checksum of the operations. */
  run(count: number): number {
    const subject = this.#subject;
    const addresses = this.#addresses;
    const lengths = this.#lengths;
    const live = addresses.length;
    const { minQuanta, maxQuanta } = this.#sizes;
    const span = maxQuanta - minQuanta + 1;
    let state = this.#state;
    let sum = 0;
    for (let pair = 0; pair < count; pair++) {
      state = (Math.imul(state, STEP) + ADD) >>> 0;
      const index = Math.floor((state / 4294967296) * live);
      subject.free(addresses[index] as number, lengths[index] as number);
      state = (Math.imul(state, STEP) + ADD) >>> 0;
      const size = (minQuanta + Math.floor((state / 4294967296) * span)) * QUANTUM;
      const address = subject.alloc(size);
      if (!(address >= 0)) throw new Error(`no space for ${size} bytes beside ${live} blocks`);
      addresses[index] = address;
      lengths[index] = size;
      sum = (Math.imul(sum, 31) + index + size) | 0;
    }
    this.#state = state;
    return sum;
  }

  /** Sum of the live sizes, in bytes. Throws when two blocks overlap. */
  verify(): number {
    const order = Array.from(this.#addresses.keys()).sort(
      (a, b) => (this.#addresses[a] as number) - (this.#addresses[b] as number),
    );
    let end = 0;
    let sum = 0;
    for (const index of order) {
      const address = this.#addresses[index] as number;
      if (address < end) throw new Error(`the block at ${address} overlaps the one that ends at ${end}`);
      end = address + (this.#lengths[index] as number);
      sum += this.#lengths[index] as number;
    }
    return sum;
  }

  /** Frees everything. */
  empty(): void {
    this.#addresses.forEach((address, index) => {
      this.#subject.free(address, this.#lengths[index] as number);
    });
  }

  #next(): number {
    this.#state = (Math.imul(this.#state, STEP) + ADD) >>> 0;
    return this.#state;
  }

  #size(random: number): number {
    const { minQuanta, maxQuanta } = this.#sizes;
    return (minQuanta + Math.floor((random / 4294967296) * (maxQuanta - minQuanta + 1))) * QUANTUM;
  }
}
