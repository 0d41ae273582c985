/**
 * Search of the seed: which frames `uvm_pglist.c` would take.
 *
 * PROBLEM     Traces of the original must replay bit for bit, with its hints, its order, and what it misses.
 * STRUCTURE   Classes ascending; in each, segments in the order of `walk`; in each, two passes around the segment's hint:
 *
 *               availableStart ......|hint .............. availableEnd
 *                     2nd pass       |      1st pass
 *
 *               contiguous   the first run that fits; a run across the hint is missed; the hint moves behind the run
 *               simple       free frames in both passes until there are enough, from any segments; the hint moves behind
 *                            the last one taken, or to the end of the last pass
 *
 * INVARIANTS  I1 a hint lies inside its available range.
 * LOCKING     Under the frames' lock, with nothing logged when a search begins.
 * COSTS       Runs by the run tree; the original looks at every frame.
 * FAILURE     Null. Frames that a failed simple search took are the caller's to give back: that moves them to the heads of
 *             their lists, as in the original.
 * REJECTED    The original's backward scan with its skip: it finds the same.
 * REFERENCES  uvm_pglist.c 1.89: uvm_pglistalloc_c_ps, uvm_pglistalloc_s_ps.
 */

import { alignUp } from '../base/exact.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import type { RunBuilder } from './frame-runs.ts';
import type { ListHand } from './list-hand.ts';
import type { SeedRequest } from './page-list-request.ts';

/** Page numbers of the contiguous search have this many values in the original. */
const PAGE_NUMBERS = 4294967296;

/** The original's search over one region's frames. */
export class SeedSearch {
  readonly #core: FrameCore;
  readonly #hand: ListHand;
  readonly #rows: BoundTables['physSegment'];
  readonly #pageSize: number;
  readonly #classes: number;

  constructor(core: FrameCore, hand: ListHand) {
    const { pageSize, frameClasses } = core.thread.region.geometry;
    this.#core = core;
    this.#hand = hand;
    this.#rows = core.segments.rows;
    this.#pageSize = pageSize;
    this.#classes = frameClasses;
  }

  /** Takes one run and returns its first frame; -1 when there is none. For no frames at all 0, with nothing taken. */
  contiguous(request: SeedRequest): FrameIndex {
    for (let freeList = 0; freeList < this.#classes; freeList++) {
      for (let position = 0; position < this.#core.segments.count; position++) {
        const row = this.#core.segments.rowAt(position);
        if (this.#rows.freeList.get(row) !== freeList) continue;
        if (request.count === 0) {
          this.#moveHintOnly(row, request);
          return 0;
        }
        const first = this.#runIn(row, request);
        if (first >= 0) return first;
      }
    }
    return -1;
  }

  /**
   * Takes up to `count` frames into `out`; returns how many are missing. `ListHand.begin` was called. A count of 0 takes
   * every frame in reach and is never served then: the original counts down from it.
   */
  simple(request: SeedRequest, count: number, out: RunBuilder): number {
    let missing = count;
    for (let freeList = 0; freeList < this.#classes; freeList++) {
      for (let position = 0; position < this.#core.segments.count; position++) {
        const row = this.#core.segments.rowAt(position);
        if (this.#rows.freeList.get(row) !== freeList) continue;
        missing = this.#framesIn(row, request, missing, out);
        if (missing === 0) return 0;
      }
    }
    return missing;
  }

  #considers(row: number, request: SeedRequest): boolean {
    const high = Math.floor(request.highBytes / this.#pageSize);
    const low = Math.floor(request.lowBytes / this.#pageSize);
    return high > this.#rows.availableStart.get(row) && low < this.#rows.availableEnd.get(row);
  }

  #runIn(row: number, request: SeedRequest): FrameIndex {
    if (!this.#considers(row, request)) return -1;
    const { count, alignment } = request;
    const boundary = Math.floor(request.boundaryBytes / this.#pageSize);
    const shape = { count, alignment, boundary };
    const low = Math.floor(request.lowBytes / this.#pageSize);
    const start = this.#rows.availableStart.get(row);
    const hint = this.#rows.hint.get(row);
    const limit = this.#limitOf(row, request);
    const { source } = this.#core;
    let first = source.findRun(shape, Math.max(low, start + hint), limit);
    if (first < 0 && hint !== 0) first = source.findRun(shape, Math.max(low, start), Math.min(limit, start + hint));
    if (first < 0) return -1;
    this.#setHint(row, first + count - start);
    this.#hand.takeRun(first, count);
    return first;
  }

  #limitOf(row: number, request: SeedRequest): FrameIndex {
    const high = Math.floor(request.highBytes / this.#pageSize) % PAGE_NUMBERS;
    return Math.min(high, this.#rows.availableEnd.get(row));
  }

  /** A request without frames succeeds in the first segment; its hint moves to where frames would have been. */
  #moveHintOnly(row: number, request: SeedRequest): void {
    if (!this.#considers(row, request)) return;
    const low = Math.floor(request.lowBytes / this.#pageSize);
    const start = this.#rows.availableStart.get(row);
    const hint = this.#rows.hint.get(row);
    const limit = this.#limitOf(row, request);
    const first = alignUp(Math.max(low, start + hint), request.alignment);
    const second = alignUp(Math.max(low, start), request.alignment);
    if (first <= limit) this.#setHint(row, first - start);
    else if (hint !== 0 && second <= Math.min(limit, start + hint)) this.#setHint(row, second - start);
  }

  #framesIn(row: number, request: SeedRequest, count: number, out: RunBuilder): number {
    if (!this.#considers(row, request)) return count;
    const low = Math.floor(request.lowBytes / this.#pageSize);
    const start = this.#rows.availableStart.get(row);
    const hint = this.#rows.hint.get(row);
    let limit = Math.min(Math.floor(request.highBytes / this.#pageSize), this.#rows.availableEnd.get(row));
    let end = this.#takeBetween(Math.max(low, start + hint), limit, count, out);
    let missing = count - end.taken;
    if ((missing > 0 || count <= 0) && hint !== 0) {
      limit = Math.min(limit, start + hint);
      end = this.#takeBetween(Math.max(low, start), limit, count <= 0 ? 0 : missing, out);
      missing -= end.taken;
    }
    this.#setHint(row, (missing === 0 && count > 0 ? end.behind : limit) - start);
    this.#core.thread.commit();
    return missing;
  }

  /** Takes up to `count` free frames of `[from, limit)`, ascending; without limit for a count of 0 or less. */
  #takeBetween(from: FrameIndex, limit: FrameIndex, count: number, out: RunBuilder): { taken: number; behind: number } {
    const { source } = this.#core;
    let taken = 0;
    let at = from;
    while (taken < count || count <= 0) {
      const first = source.nextFree(at, limit);
      if (first < 0) break;
      let length = 1;
      while ((taken + length < count || count <= 0) && first + length < limit && source.has(first + length)) length++;
      this.#hand.take(first, length);
      out.push(first, length);
      taken += length;
      at = first + length;
    }
    return { taken, behind: at };
  }

  #setHint(row: number, hint: number): void {
    this.#core.thread.journal.set(this.#rows.hint, row, hint);
  }
}
