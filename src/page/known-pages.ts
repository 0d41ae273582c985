/**
 * Pages whose frame the caller remembers: held, and marked as modified, at the least cost.
 *
 * PROBLEM     Who keeps translations of its own needs no look-up: a word that is read or stored through one should cost the page
 *             lock and little more.
 * STRUCTURE   hold     set this slot's bit, look at the lock's word, compare identity and state
 *             prepare  before bytes are stored: the page is marked as modified, unless it has been written to since it came
 *             finish   after they were stored: marked again
 *
 *             The first mark is there for a holder that dies before the second. Recovery takes a held page that was once written
 *             to for modified anyway (dirty-pages.ts), so that the mark may be left out for those.
 * INVARIANTS  Those of page-holds.ts and dirty-pages.ts.
 * LOCKING     As there: nothing is waited for.
 * COSTS       `hold`: two atomic operations; `prepare`: a load; `finish`: a load and a compare-and-swap.
 * FAILURE     False when the frame has another page now, somebody has it exclusively, or it is on the list of pages not needed.
 * REJECTED    Reading without a hold and comparing afterwards: a frame may lose a page and get it back in between.
 * REFERENCES  pages.ts, why a hit is right.
 */

import type { Int32Column } from '../layout/column.ts';
import type { FrameIndex } from '../phys/banks.ts';
import type { Thread } from '../sync/thread.ts';
import type { DirtyPages } from './dirty-pages.ts';
import { PAGE_STATE, type VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import { PAGE_UNLINKED } from './page-list.ts';

/** One thread's way to pages that it knows. */
export class KnownPages {
  readonly #holds: PageHolds;
  readonly #dirty: DirtyPages;
  readonly #words: Int32Array;
  readonly #stride: number;
  readonly #vnodeAt: number;
  readonly #indexAt: number;
  readonly #stateAt: number;
  readonly #referencedAt: number;
  readonly #previous: Int32Column;
  readonly #markMax: number;

  /** @param markMax what `referenced` goes up to: the replacement policy's. */
  constructor(thread: Thread, holds: PageHolds, dirty: DirtyPages, markMax: number) {
    const { page, pageLink } = thread.region.tables;
    this.#holds = holds;
    this.#dirty = dirty;
    this.#words = thread.words;
    this.#stride = page.vnode.stride;
    this.#vnodeAt = page.vnode.base;
    this.#indexAt = page.index.base;
    this.#stateAt = page.state.base;
    this.#referencedAt = page.referenced.base;
    this.#previous = pageLink.previous;
    this.#markMax = markMax;
  }

  /** Takes a shared hold of a frame if it can be had at once and the frame has this page. */
  hold(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    if (!this.#holds.tryShared(frame)) return false;
    const words = this.#words;
    const at = frame * this.#stride;
    if (
      words[this.#vnodeAt + at] === vnode + 1 &&
      words[this.#indexAt + at] === index &&
      words[this.#stateAt + at] === PAGE_STATE.valid
    ) {
      // A hint for the replacement policy: not atomic.
      const mark = words[this.#referencedAt + at] as number;
      if (mark < this.#markMax) words[this.#referencedAt + at] = mark + 1;
      return true;
    }
    this.#holds.release(frame);
    return false;
  }

  /** Gives a hold back. */
  release(frame: FrameIndex): void {
    this.#holds.release(frame);
  }

  /** Bytes of a page that this thread holds are about to be stored. */
  prepare(frame: FrameIndex): void {
    if (this.#previous.get(frame) === PAGE_UNLINKED.plain) this.#dirty.mark(frame);
  }

  /** Bytes of a page that this thread holds were stored. */
  finish(frame: FrameIndex): void {
    this.#dirty.mark(frame);
  }
}
