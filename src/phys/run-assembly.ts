/**
 * Run assembly: making a page list by having frames moved or given up.
 *
 * PROBLEM     No free run fits, but many frames hold what could be elsewhere, or be read again.
 * STRUCTURE   1 the window that fits the request and has the fewest frames to ask for (window-search.ts)
 *             2 it is emptied (evacuation.ts)
 *             3 a frame that stays is in the way from now on: give back what was taken, and choose again
 * INVARIANTS  I1 every frame taken has use listTaking: a death gives it back.
 * LOCKING     Looks without the lock; takes frames under it; asks for frames without it; charges them together under it, at the end.
 * COSTS       A look at every frame of the range for each attempt: the path of those who wait.
 * FAILURE     Null after as many attempts as there may be, or when no window is left.
 * REJECTED    Taking whatever is freed until a run comes about, as the seed does: it drains memory first.
 * REFERENCES  Linux alloc_contig_range.
 */

import { VERIFY } from '../base/verify.ts';
import { faultPoint } from '../sync/fault.ts';
import type { FrameIndex } from './banks.ts';
import type { Evacuation } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import { type FrameRun, type PageList, RunBuilder, singleRun } from './frame-runs.ts';
import { FRAME_USE } from './frame-uses.ts';
import type { ListHand } from './list-hand.ts';
import type { FrameRequest } from './page-list-request.ts';
import { bestWindow } from './window-search.ts';

/** Windows tried before the caller waits for other frames. */
const ATTEMPTS_MAX = 16;

/** Frames charged in one commit. */
const PIECE_FRAMES = 32;

/** Makes page lists out of free frames and of others that are moved or given up. */
export class RunAssembly {
  readonly #core: FrameCore;
  readonly #hand: ListHand;
  readonly #evacuation: Evacuation;

  constructor(core: FrameCore, hand: ListHand, evacuation: Evacuation) {
    this.#core = core;
    this.#hand = hand;
    this.#evacuation = evacuation;
  }

  /** A list of one run with the shape of the request, or null; the caller settles it or gives it up. */
  run(request: FrameRequest): PageList | null {
    const inTheWay = new Set<FrameIndex>();
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      // 1.
      const first = bestWindow(this.#core, this.#evacuation, request, inTheWay);
      if (first < 0) return null;
      // 2.
      this.#hand.begin(first, request.count);
      const lost = this.#evacuation.takeAll(first, request.count, FRAME_USE.listTaking);
      if (VERIFY) faultPoint(this.#core.thread, 'phys.list.partial');
      const list = singleRun(first, request.count);
      if (lost < 0) return list;
      // 3.
      this.giveUp(this.#mine(list));
      inTheWay.add(lost);
    }
    return null;
  }

  /** A list of any frames in the range, or null; as above. */
  any(request: FrameRequest): PageList | null {
    const taken = new Set<FrameIndex>();
    this.#hand.begin();
    this.#collect(request, taken, false);
    // As many pages leave as frames are missing, whose policy chooses them: what they leave free is in the range, or what is in
    // the range can move there.
    const left = taken.size < request.count ? this.#evacuation.evict(request.count - taken.size) : 0;
    if (left > 0) this.#collect(request, taken, false);
    this.#collect(request, taken, true);
    const list = new RunBuilder();
    for (const frame of [...taken].sort((one, other) => one - other)) list.push(frame, 1);
    if (taken.size === request.count) return list.build();
    this.giveUp(list.build());
    return null;
  }

  /** Takes frames of the range until there are enough: free ones, or those that their users move or give up. */
  #collect(request: FrameRequest, taken: Set<FrameIndex>, asks: boolean): void {
    for (const { low, high } of this.#core.segments.joined()) {
      const end = Math.min(high, request.high);
      for (let frame = Math.max(low, request.low); frame < end && taken.size < request.count; frame++) {
        if (taken.has(frame)) continue;
        const mayHave = asks ? this.#evacuation.mayHave(frame) : this.#core.source.has(frame);
        if (mayHave && this.#evacuation.takeOne(frame, FRAME_USE.listTaking)) taken.add(frame);
      }
    }
  }

  /** Has up to `count` frames freed: pages leave as their policy says, then what can be given up wherever it is. Returns how many. */
  freeSome(count: number): number {
    const core = this.#core;
    let freed = this.#evacuation.evict(count);
    this.#hand.begin();
    for (let frame = 0; frame < core.thread.region.geometry.frames && freed < count; frame++) {
      if (core.source.has(frame)) continue;
      if (this.#evacuation.of(core.useOf(frame))?.reclaim(frame, FRAME_USE.listTaking) !== true) continue;
      if (VERIFY) faultPoint(core.thread, 'phys.list.partial');
      core.mutex.enter();
      this.#hand.giveOne(frame);
      core.mutex.exit();
      freed++;
    }
    this.#hand.end();
    return freed;
  }

  /** The part of a window that was taken. */
  #mine({ runs }: PageList): PageList {
    const mine = new RunBuilder();
    const core = this.#core;
    for (const { first, count } of runs) {
      for (let frame = first; frame < first + count; frame++) {
        if (core.useOf(frame) === FRAME_USE.listTaking && core.takerOf(frame) === core.thread.slot) mine.push(frame, 1);
      }
    }
    return mine.build();
  }

  /**
   * Charges the frames of a list that was taken to this thread's owner, all of them or, false, none. Those of a thread that dies
   * meanwhile go back, and with each its charge.
   */
  charge(list: PageList): boolean {
    const core = this.#core;
    core.mutex.enter();
    const before = core.charges.begin(core.charges.ownerNow());
    const fits = core.charges.fits(list.frameCount);
    if (fits) for (const run of list.runs) this.#chargeRun(run);
    core.charges.end(before);
    core.mutex.exit();
    return fits;
  }

  #chargeRun({ first, count }: FrameRun): void {
    const core = this.#core;
    for (let at = 0; at < count; at++) {
      core.convert(first + at, FRAME_USE.listTaking);
      if ((at + 1) % PIECE_FRAMES === 0) core.thread.commit();
    }
    core.thread.commit();
    if (VERIFY) faultPoint(core.thread, 'phys.list.partial');
  }

  /** Gives back what was taken instead of settling it. */
  giveUp(list: PageList): void {
    this.#core.mutex.enter();
    this.#hand.giveUp(list.runs);
    this.#core.mutex.exit();
  }
}
