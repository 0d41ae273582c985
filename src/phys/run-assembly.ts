/**
 * Run assembly: making a run by having pages given up.
 *
 * PROBLEM     No free run fits, but many frames hold pages that could be read again.
 * STRUCTURE   A window slides over the stretches; in it frames are free, pages, or in the way:
 *
 *               |free|page|free|free|list|page|free|free|page|free|
 *                \____ 1 page ____/       \____ 2 pages ____/
 *
 *               1 the window that fits the request and has the fewest pages   2 take its frames one by one, asking for pages
 *               3 a page that stays is in the way from now on: give back what was taken, and slide again
 *
 * INVARIANTS  I1 every frame taken has use listTaking: a death gives it back.
 * LOCKING     Looks without the lock; takes each frame under it; asks for pages without it.
 * COSTS       A look at every frame of the window's range for each attempt: the path of those who wait.
 * FAILURE     -1 after as many attempts as there may be, or when no window is left.
 * REJECTED    Taking whatever is freed until a run comes about, as the seed does: it drains memory first.
 * REFERENCES  Linux alloc_contig_range.
 */

import { crosses } from '../base/exact.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import { type PageList, RunBuilder, singleRun } from './frame-runs.ts';
import { FRAME_USE } from './frame-uses.ts';
import type { FrameReclaimer } from './frames.ts';
import type { ListHand } from './list-hand.ts';
import type { FrameRequest } from './page-list-request.ts';

/** Windows tried before the caller waits for other frames. */
const ATTEMPTS_MAX = 16;

/** Makes runs out of free frames and pages. */
export class RunAssembly {
  readonly #core: FrameCore;
  readonly #hand: ListHand;

  constructor(core: FrameCore, hand: ListHand) {
    this.#core = core;
    this.#hand = hand;
  }

  /** A list of one run with the shape of the request, or null; `held` leaves it to the caller to settle it. */
  run(request: FrameRequest, reclaimer: FrameReclaimer, held: boolean): PageList | null {
    const inTheWay = new Set<FrameIndex>();
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      // 1.
      const first = this.#bestWindow(request, inTheWay);
      if (first < 0) return null;
      // 2.
      this.#hand.begin();
      const taken = new RunBuilder();
      let frame = first;
      while (frame < first + request.count && this.#takeOne(frame, reclaimer)) taken.push(frame++, 1);
      const list = taken.build();
      if (list.frameCount === request.count) {
        if (!held) this.#hand.settle(list.runs);
        return singleRun(first, request.count);
      }
      // 3.
      this.#giveUp(list);
      inTheWay.add(frame);
    }
    return null;
  }

  /** A list of any frames in the range, or null. */
  any(request: FrameRequest, reclaimer: FrameReclaimer, held: boolean): PageList | null {
    const taken = new RunBuilder();
    this.#hand.begin();
    for (const { low, high } of this.#core.segments.joined()) {
      const end = Math.min(high, request.high);
      for (let frame = Math.max(low, request.low); frame < end && taken.frameCount < request.count; frame++) {
        if (this.#takeOne(frame, reclaimer)) taken.push(frame, 1);
      }
    }
    const list = taken.build();
    if (list.frameCount === request.count) {
      if (!held) this.#hand.settle(list.runs);
      return list;
    }
    this.#giveUp(list);
    return null;
  }

  #giveUp(list: PageList): void {
    this.#core.mutex.enter();
    this.#hand.giveUp(list.runs);
    this.#core.mutex.exit();
  }

  #takeOne(frame: FrameIndex, reclaimer: FrameReclaimer): boolean {
    const core = this.#core;
    core.mutex.enter();
    const free = core.source.has(frame);
    if (free) core.take(frame, FRAME_USE.listTaking);
    core.mutex.exit();
    return free || (core.useOf(frame) === FRAME_USE.page && reclaimer.reclaim(frame, FRAME_USE.listTaking));
  }

  /** First frame of the window with the fewest pages, or -1. */
  #bestWindow(request: FrameRequest, inTheWay: ReadonlySet<FrameIndex>): FrameIndex {
    const core = this.#core;
    const { count, alignment, boundary } = request;
    let best = -1;
    let bestPages = count + 1;
    for (const stretch of core.segments.joined()) {
      const low = Math.max(stretch.low, request.low);
      const high = Math.min(stretch.high, request.high);
      let obstacle = low - 1;
      let pages = 0;
      for (let frame = low; frame < high; frame++) {
        // What leaves the window on the left is a page or free: an obstacle would have emptied the window.
        const left = frame - count;
        if (left > obstacle && !core.source.has(left)) pages--;
        if (!core.source.has(frame)) {
          if (core.useOf(frame) !== FRAME_USE.page || inTheWay.has(frame)) {
            obstacle = frame;
            pages = 0;
            continue;
          }
          pages++;
        }
        const first = left + 1;
        if (first <= obstacle || pages >= bestPages || first % alignment !== 0) continue;
        if (boundary !== 0 && crosses(first, frame, boundary)) continue;
        best = first;
        bestPages = pages;
      }
    }
    return best;
  }
}
