/**
 * Page lists as the seed makes them.
 *
 * PROBLEM     Replay `uvm_pglist.c`, its three paths, its gates and its oddities, on the same frames as everything else.
 * STRUCTURE   simple       search; not enough: give all back, or keep them, wait for the pagedaemon and search again
 *             contiguous   search; nothing: give up, or mark a way through memory:
 *
 *               1 take single frames and mark them, waiting for the pagedaemon whenever there are none
 *               2 look at each: are the groups before it and the frames behind it marked, so that they make a run?
 *               3 give back what is not in the run, last taken first
 *
 * INVARIANTS  I1 frames that a waiting call holds have use listTaking and go back if its thread dies.
 * LOCKING     The frames' lock for every search; the marking lock for the third path. The pagedaemon runs without the
 *             frames' lock.
 * COSTS       As the search; marking takes whatever the pagedaemon gives.
 * FAILURE     Null for `ENOMEM`; `EINVAL` as the seed, and where the seed would assert.
 * REJECTED    Improvements: the default has them.
 * REFERENCES  uvm_pglist.c 1.89; docs/differences.md.
 */

import { failMisuse } from '../base/errors.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import { type PageList, RunBuilder, singleRun } from './frame-runs.ts';
import { FRAME_USE } from './frame-uses.ts';
import type { ListHand } from './list-hand.ts';
import { type PageListRequest, readSeedRequest, type SeedRequest } from './page-list-request.ts';
import type { PageListPressure } from './pressure.ts';
import { SeedSearch } from './seed-search.ts';

const EMPTY: PageList = { runs: [], frameCount: 0 };

/** The original's calls over one region's frames. */
export class SeedPageLists {
  readonly #core: FrameCore;
  readonly #hand: ListHand;
  readonly #search: SeedSearch;
  readonly #marking: Mutex;
  readonly #pageSize: number;

  constructor(core: FrameCore, hand: ListHand) {
    const { region } = core.thread;
    this.#core = core;
    this.#hand = hand;
    this.#search = new SeedSearch(core, hand);
    this.#marking = new Mutex(core.thread, region.tables.frameReserve.aggressive.address(0), RANK.pageList);
    this.#pageSize = region.geometry.pageSize;
  }

  /** Takes a page list; null when the seed would return `ENOMEM`. */
  tryAlloc(given: PageListRequest, pressure: PageListPressure | null): PageList | null {
    const request = readSeedRequest(given, this.#pageSize);
    return request.contiguous ? this.#contiguous(request, pressure) : this.#simple(request, pressure);
  }

  /** True when there are more frames than the reserves: the seed looks at this once, before it searches. */
  #gateOpen(): boolean {
    const { pagedaemon, kernel } = this.#core.thread.region.tables.frameReserve;
    return this.#core.free > pagedaemon.get(0) + kernel.get(0);
  }

  #simple(request: SeedRequest, pressure: PageListPressure | null): PageList | null {
    const { mutex } = this.#core;
    const taken = new RunBuilder();
    let missing = request.count;
    mutex.enter();
    this.#hand.begin();
    for (;;) {
      let served = false;
      if (this.#gateOpen()) {
        missing = this.#search.simple(request, missing, taken);
        served = missing === 0;
      }
      pressure?.kick();
      if (served) break;
      if (!request.wait || pressure === null) {
        this.#hand.giveUp(taken.build().runs);
        mutex.exit();
        return null;
      }
      mutex.exit();
      pressure.reclaim();
      mutex.enter();
    }
    const list = taken.build();
    this.#hand.settle(list.runs);
    mutex.exit();
    return list;
  }

  #contiguous(request: SeedRequest, pressure: PageListPressure | null): PageList | null {
    const { count } = request;
    const { mutex } = this.#core;
    mutex.enter();
    const first = this.#gateOpen() ? this.#search.contiguous(request) : -1;
    mutex.exit();
    if (first >= 0) return count === 0 ? EMPTY : singleRun(first, count);
    if (request.wait && pressure !== null) return this.#mark(request, pressure);
    pressure?.kick();
    return null;
  }

  #mark(request: SeedRequest, pressure: PageListPressure): PageList | null {
    const { boundaryBytes, alignment } = request;
    if (boundaryBytes !== 0 && boundaryBytes < alignment * this.#pageSize) {
      failMisuse(
        'pageList.alloc',
        { boundary: boundaryBytes },
        'the seed asserts that boundary is not below alignment',
      );
    }
    this.#marking.enter();
    this.#hand.begin();
    const marked: FrameIndex[] = [];
    let first = -1;
    while (first < 0 && pressure.reclaimable()) {
      // 1.
      const frame = this.#takeMarked();
      if (frame < 0) {
        pressure.reclaim();
        continue;
      }
      marked.push(frame);
      // 2.
      first = this.#runAround(frame, request);
    }
    // 3.
    const { mutex } = this.#core;
    mutex.enter();
    for (let at = marked.length - 1; at >= 0; at--) {
      const frame = marked[at] as FrameIndex;
      if (first >= 0 && frame >= first && frame < first + request.count) continue;
      this.#core.give(frame);
      this.#core.thread.commit();
    }
    const list = first < 0 ? null : singleRun(first, request.count);
    this.#hand.settle(list?.runs ?? []);
    mutex.exit();
    this.#marking.exit();
    return list;
  }

  #takeMarked(): FrameIndex {
    const { mutex } = this.#core;
    mutex.enter();
    const reserve = this.#core.thread.region.tables.frameReserve.kernel.get(0);
    const frame = this.#core.takeNext(FRAME_USE.listTaking, reserve);
    mutex.exit();
    return frame;
  }

  /** First frame of a run of marked frames that has the shape and that the frame just marked may have completed, or -1. */
  #runAround(frame: FrameIndex, request: SeedRequest): FrameIndex {
    const pageSize = this.#pageSize;
    const { count, lowBytes, highBytes, boundaryBytes } = request;
    const alignment = request.alignment * pageSize;
    const address = frame * pageSize;
    if (address < lowBytes || address >= highBytes) return -1;
    const { availableStart, availableEnd } = this.#core.segments.rows;
    const row = this.#core.segments.rowOf(frame);
    let start = Math.floor(address / alignment) * alignment;
    // Looking back, at most to here. Below address 0 the original's sum wraps around: then it does not look back at all.
    const farthest = Math.ceil((address - (count - 1) * pageSize) / alignment) * alignment;
    let lowest = Math.ceil((availableStart.get(row) * pageSize) / alignment) * alignment;
    lowest = Math.max(lowest, lowBytes, farthest);
    if (boundaryBytes !== 0) lowest = Math.max(lowest, Math.floor(start / boundaryBytes) * boundaryBytes);
    let highest = Math.min(availableEnd.get(row) * pageSize, highBytes);
    if (boundaryBytes !== 0) {
      highest = Math.min(highest, (Math.floor(address / boundaryBytes) + 1) * boundaryBytes);
    }
    const wraps = farthest < 0;
    const room = highest - (wraps ? farthest : lowest);
    if (room >= 0 && room < count * pageSize) return -1;
    while (!wraps && start > lowest && this.#allMarked((start - alignment) / pageSize, request.alignment)) {
      start -= alignment;
    }
    if (start + count * pageSize > highest) return -1;
    return this.#allMarked(start / pageSize, count) ? start / pageSize : -1;
  }

  #allMarked(first: FrameIndex, count: number): boolean {
    for (let frame = first; frame < first + count; frame++) {
      if (this.#core.useOf(frame) !== FRAME_USE.listTaking) return false;
      if (this.#core.takerOf(frame) !== this.#core.thread.slot) return false;
    }
    return true;
  }
}
