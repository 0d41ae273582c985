/**
 * Brings the windows of streams (miss-streams.ts): pages that a reader is on its way to, none of which is held. What cannot be
 * brought is left to whoever asks for it, who hears why.
 */

import { VmError } from '../base/errors.ts';
import { countersOf, PAGE_COUNTER, type Pages, type VnodeIndex } from '../page/index.ts';
import { FETCH_PAGES_MAX } from '../page/pages.ts';
import type { Thread } from '../sync/thread.ts';
import type { Vnodes } from '../vnode/vnodes.ts';
import type { Window } from './miss-streams.ts';

/** Brings windows for one thread. */
export class StreamFetches {
  readonly #pages: Pages;
  readonly #vnodes: Vnodes;
  readonly #pageSize: number;
  readonly #counters: Float64Array;
  readonly #lanes = new Int32Array(FETCH_PAGES_MAX);

  constructor(thread: Thread, pages: Pages, vnodes: Vnodes) {
    this.#pages = pages;
    this.#vnodes = vnodes;
    this.#pageSize = thread.region.geometry.pageSize;
    this.#counters = countersOf(thread);
  }

  /** Brings what is missing of a window of reads of `length` bytes, in a vnode of `size` bytes. */
  bring(vnode: VnodeIndex, window: Window, length: number, size: number): void {
    const { first, pages, stride, steps, from } = window;
    const end = Math.ceil(size / this.#pageSize);
    if (stride === 0) this.#missing(vnode, Math.max(0, first), Math.min(end, first + pages));
    for (let step = 1; step <= steps; step++) {
      const offset = from + step * stride;
      if (offset < 0 || offset >= size) break;
      const low = Math.floor(offset / this.#pageSize);
      const high = Math.floor((offset + length - 1) / this.#pageSize) + 1;
      this.#missing(vnode, low, Math.min(end, high));
    }
  }

  /** Brings the first pages of a range that are missing, as many as lie side by side and one fetch may bring. */
  #missing(vnode: VnodeIndex, low: number, end: number): void {
    let first = low;
    while (first < end && this.#pages.seems(vnode, first)) first++;
    let count = 0;
    while (first + count < end && count < FETCH_PAGES_MAX && !this.#pages.seems(vnode, first + count)) count++;
    if (count === 0) return;
    try {
      const held = this.#pages.fetch(vnode, first, 1, this.#lanes, 0, this.#vnodes, false, count - 1);
      this.#pages.releaseSeveral(this.#lanes, held);
      // The others count themselves.
      this.#counters[PAGE_COUNTER.aheadPages] = (this.#counters[PAGE_COUNTER.aheadPages] as number) + 1;
    } catch (error) {
      if (!(error instanceof VmError)) throw error;
    }
  }
}
