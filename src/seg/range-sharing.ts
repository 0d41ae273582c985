/**
 * Pages that several cached ranges of an owner have: they are charged once.
 *
 * PROBLEM     Two ranges that overlap in part stay apart, since either serves hits that the other cannot. The window counts
 *             pages that are locked, and those that both have are locked once.
 * STRUCTURE   Whoever is linked is charged for the pages that it has alone, and so is whoever leaves:
 *
 *               A  [........]         charged 8          B leaves: 4 pages go back, those that A has stay charged
 *               B      [........]     charged 4          A leaves first: 4 go back, and 8 with B
 *
 *             Ranges that were ever found to overlap have a mark, so that others leave without a search.
 * INVARIANTS  I1 chained ranges are charged for as many pages as there are different ones in them, owner by owner and table by
 *             table.   I2 a chained range that overlaps another has its mark.
 * LOCKING     The owner's: its chained ranges and their marks do not change meanwhile. Searches lock buckets, one at a time, so
 *             the caller holds none and has logged nothing.
 * COSTS       A range without a mark: one load. Others: a search over the owner's classes, or over its list if that is shorter.
 * FAILURE     None. A mark that outlives its cause, or whose cause never came, costs a search.
 * REJECTED    Charging each range for itself: near the limit nothing more is cached although pages are left. A count for each
 *             page: as large as what is mapped.
 * REFERENCES  docs/differences.md, the pagelock cache.
 */

import type { PagelockCore } from './pagelock-core.ts';
import { type CacheOwner, ENTRY_FLAG, type EntryIndex } from './pagelock-kinds.ts';
import type { RangeSearch } from './range-search.ts';

/** First page, and the page behind the last. */
export type PageInterval = readonly [first: number, end: number];

/** Different pages in intervals. */
export function countPages(intervals: readonly PageInterval[]): number {
  let pages = 0;
  let reached = Number.NEGATIVE_INFINITY;
  for (const [first, end] of intervals.toSorted((one, other) => one[0] - other[0])) {
    if (end <= reached) continue;
    pages += end - Math.max(first, reached);
    reached = end;
  }
  return pages;
}

/** One thread's view. */
export class RangeSharing {
  readonly #core: PagelockCore;
  readonly #search: RangeSearch;

  constructor(core: PagelockCore, search: RangeSearch) {
    this.#core = core;
    this.#search = search;
  }

  /** Pages of a chained range that no other has: what goes back when it leaves. */
  pagesOf(entry: EntryIndex): number {
    const { entries, inversePageSize } = this.#core;
    const pages = entries.pages.get(entry);
    const flags = entries.flags.get(entry);
    if ((flags & ENTRY_FLAG.shares) === 0) return pages;
    const page = entries.address.get(entry) * inversePageSize;
    const wired = (flags & ENTRY_FLAG.wired) !== 0;
    return this.#alone(entries.owner.get(entry) - 1, page, pages, wired, (other) => other !== entry);
  }

  /** Pages of a request that no chained range of the owner has. */
  pagesBeside(owner: CacheOwner, page: number, pages: number, wired: boolean): number {
    return this.#alone(owner, page, pages, wired, () => true);
  }

  /** Pages of a range about to be linked that no other has; those that it overlaps are marked. */
  pagesOfNew(owner: CacheOwner, page: number, pages: number, wired: boolean): number {
    const { flags } = this.#core.entries;
    return this.#alone(owner, page, pages, wired, (other) => {
      // One word, and a hint: not logged.
      flags.put(other, flags.get(other) | ENTRY_FLAG.shares);
      return true;
    });
  }

  #alone(
    owner: CacheOwner,
    page: number,
    pages: number,
    wired: boolean,
    counts: (other: EntryIndex) => boolean,
  ): number {
    const { entries, inversePageSize } = this.#core;
    const taken: PageInterval[] = [];
    this.#search.forEachOverlapping(owner, page, pages, wired, (other) => {
      const first = entries.address.get(other) * inversePageSize;
      const end = first + entries.pages.get(other);
      if (counts(other)) taken.push([Math.max(first, page), Math.min(end, page + pages)]);
    });
    return pages - countPages(taken);
  }
}
