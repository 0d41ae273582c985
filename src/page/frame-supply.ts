/**
 * Frame supply: empty frames for pages that are about to come.
 *
 * PROBLEM     A page needs a frame at once: a free one, that of a clean page which is not needed soon, that of a modified one
 *             once it is written back, or that of a page which is pinned now and will not be soon.
 * STRUCTURE   take       1 free frames   2 pages of the cache list, then those that the replacement
 *                        policy lets go   3 write some modified pages back, then 2
 *             takeRun    1 a free run   2 pages that leave by 2 and 3 of take, which large ones do as runs   3 the window with the
 *                        least to move or to evict
 *             gainOne    waits for some page to be released and evicts it: the frame is kept as a spare for the next take; and for
 *                        frames that are on their way from one use to another
 *             gainRun    waits until a run may have come about
 * INVARIANTS  I1 every frame that is handed out is held exclusively, of use page, without an identity.
 *             I2 the spare is such a frame.
 * LOCKING     Waits for the page locks of free frames, which only passers-by hold for a moment, and in `gainOne` for those of
 *             others, each for a short time; never with a page held exclusively, and never for a page of its own.
 * COSTS       A lock pair for up to 32 free frames; a lock pair for each run of pages that leave side by side, and one of the
 *             replacement policy for all.
 * FAILURE     Fewer frames than were asked for.
 * REJECTED    Keeping free frames for each thread here: phys does that for all uses.
 * REFERENCES  illumos page_get_freelist, page_get_cachelist; BSD vm_page_alloc.
 */

import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, type Frames } from '../phys/frames.ts';
import type { Thread } from '../sync/thread.ts';
import type { CacheList } from './cache-list.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { LargePages } from './large-pages.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import { PAGE_STATE } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageParts } from './page-parts.ts';
import type { PageStore } from './page-store.ts';
import { type PageWriter, WRITE_PAGES_MAX, type WriteFailure } from './page-writer.ts';
import { EVICT_PAGES_MAX, type Replacement } from './replacement.ts';

/** How long `gainOne` waits for one pinned page before it tries the next. */
const VICTIM_MS = 20;

/** Pages that leave for a run of frames before windows are looked for. */
const RUN_EVICTIONS = 2;

/** How often pages that were about to leave may turn out to have to stay before a request does with what it has. */
const REFUSALS_MAX = 64;

/** Takes and gives back empty frames for one thread. */
export class FrameSupply {
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #page: BoundTables['page'];
  readonly #holds: PageHolds;
  readonly #replacement: Replacement;
  readonly #dirty: DirtyPages;
  readonly #writer: PageWriter;
  readonly #cache: CacheList;
  readonly #large: LargePages;
  readonly #counters: Float64Array;
  readonly #victims = new Int32Array(EVICT_PAGES_MAX);
  #spare: FrameIndex = -1;

  constructor(parts: PageParts, replacement: Replacement, writer: PageWriter) {
    this.#thread = parts.thread;
    this.#frames = parts.frames;
    this.#holds = parts.holds;
    this.#dirty = parts.dirty;
    this.#cache = parts.cache;
    this.#large = parts.large;
    this.#page = parts.thread.region.tables.page;
    this.#replacement = replacement;
    this.#writer = writer;
    this.#counters = countersOf(parts.thread);
  }

  /** What a store said when it last refused modified pages of this thread. */
  get refusal(): WriteFailure | null {
    return this.#writer.lastFailure;
  }

  /** Takes up to `count` empty frames into `out` from lane `at`; returns how many. */
  take(count: number, out: Int32Array, at: number): number {
    let taken = 0;
    if (this.#spare >= 0) {
      out[at + taken++] = this.#spare;
      this.#spare = -1;
    }
    // 1.
    const free = this.#frames.tryTakeSeveral(FRAME_USE.page, count - taken, out, at + taken);
    // A passer-by that walked an old chain may have its bit in a free frame for a moment: wait for it.
    for (const end = taken + free; taken < end; taken++) this.#holds.exclusive(out[at + taken] as number);
    // 2.
    return taken < count ? taken + this.#evict(count - taken, out, at + taken) : taken;
  }

  /** Takes `count` empty frames that lie side by side in one bank; the first, or -1. */
  takeRun(count: number): FrameIndex {
    // 1.
    let first = this.#frames.tryTakeAdjacent(FRAME_USE.page, count, false);
    // 2.
    for (let tries = RUN_EVICTIONS; first < 0 && tries > 0; tries--) {
      if (this.#evict(1, this.#victims, 0) === 0) break;
      this.giveEmpty(this.#victims[0] as number);
      first = this.#frames.tryTakeAdjacent(FRAME_USE.page, count, false);
    }
    // 3.
    if (first < 0) first = this.#frames.tryTakeAdjacent(FRAME_USE.page, count, true);
    if (first >= 0) for (let frame = first; frame < first + count; frame++) this.#holds.exclusive(frame);
    return first;
  }

  /** Lets others run for a moment if a run of `count` frames may come about; false when time is up, or it never will. */
  gainRun(count: number, deadline: number, store: PageStore): boolean {
    if (this.clean(store)) return true;
    if (this.#thread.clock.now() >= deadline || !this.#runMayCome(count)) return false;
    this.#replacement.pause();
    return true;
  }

  /** Step 3: writes modified pages back, so that they can leave. Holds nothing. True when some are clean now. */
  clean(store: PageStore): boolean {
    return this.#dirty.total > 0 && this.#writer.someOldest(WRITE_PAGES_MAX, store) > 0;
  }

  /** Frees up to `max` frames by step 2; returns how many. */
  freeSome(max: number): number {
    let freed = 0;
    while (freed < max) {
      const evicted = this.#evict(Math.min(max - freed, EVICT_PAGES_MAX), this.#victims, 0);
      if (evicted === 0) break;
      for (let lane = 0; lane < evicted; lane++) this.giveEmpty(this.#victims[lane] as number);
      freed += evicted;
    }
    return freed;
  }

  /** Frees an empty frame that this thread holds exclusively. Another may take it at once, and then waits for the lock. */
  giveEmpty(frame: FrameIndex): void {
    this.#frames.give(frame, FRAME_USE.page, this.#page.state, PAGE_STATE.empty);
    this.#holds.releaseExclusive(frame);
  }

  /** Waits until a frame is free, or gains a spare from some page that is released; false when time or pages ran out. */
  gainOne(deadline: number, store: PageStore): boolean {
    const { frames } = this.#thread.region.geometry;
    for (;;) {
      if (this.clean(store)) return true;
      if (this.#thread.clock.now() >= deadline) return false;
      let candidates = this.#frames.someInFlight ? 1 : 0;
      let waited = false;
      for (let steps = frames; steps > 0; steps--) {
        const frame = this.#replacement.advance();
        const use = this.#frames.useOf(frame);
        if (use === FRAME_USE.free && this.#frames.core.free > this.#frames.reserve) return true;
        // A frame without an identity is in the hands of somebody who is about to fill it or to give it back.
        if (use !== FRAME_USE.page || this.#holds.holds(frame)) continue;
        if (!this.#dirty.isClean(frame)) {
          // What nobody holds has just been refused by its store.
          if (this.#holds.isHeld(frame)) candidates++;
          continue;
        }
        candidates++;
        if (!this.#holds.exclusive(frame, VICTIM_MS)) waited = true;
        else if (this.#replacement.evictHeld(frame)) {
          this.#tally(PAGE_COUNTER.evictions, 1);
          this.#spare = frame;
          return true;
        }
        if (this.#thread.clock.now() >= deadline) return false;
      }
      // Those that were on their way may have arrived behind the hand.
      if (this.#frames.core.free > this.#frames.reserve) return true;
      if (candidates === 0 && !this.#frames.someInFlight) return false;
      if (!waited) this.#replacement.pause();
    }
  }

  /** Gives the spare back. */
  settle(): void {
    if (this.#spare >= 0) this.giveEmpty(this.#spare);
    this.#spare = -1;
  }

  /** True when there are `count` adjacent frames of one bank that are free or hold pages which this thread does not. */
  #runMayCome(count: number): boolean {
    const { frames, bankFrames } = this.#thread.region.geometry;
    let length = 0;
    for (let frame = 0; frame < frames; frame++) {
      const use = this.#frames.useOf(frame);
      const isFree = use === FRAME_USE.free || use === FRAME_USE.spare;
      const mayBe = isFree || (use === FRAME_USE.page && !this.#isStuck(frame));
      if (frame % bankFrames === 0) length = 0;
      length = mayBe ? length + 1 : 0;
      if (length === count) return true;
    }
    return false;
  }

  /** True for a page that this thread holds, or that nobody holds and its store has refused. */
  #isStuck(frame: FrameIndex): boolean {
    return this.#large.holdsAny(frame) || (!this.#dirty.isClean(frame) && !this.#holds.isHeld(frame));
  }

  /** Step 2: up to `count` frames whose pages have left, held exclusively; returns how many. */
  #evict(count: number, out: Int32Array, at: number): number {
    let evicted = 0;
    for (let refusals = REFUSALS_MAX; evicted < count && refusals > 0; ) {
      const claimed = this.#claimVictims(count - evicted, out, at + evicted);
      if (claimed === 0) break;
      const left = this.#replacement.evictClaimed(out, at + evicted, claimed);
      if (left < claimed) refusals--;
      evicted += left;
    }
    this.#tally(PAGE_COUNTER.evictions, evicted);
    return evicted;
  }

  /** Pages that should leave, held exclusively: of the cache list, then those that the replacement policy lets go. */
  #claimVictims(count: number, out: Int32Array, at: number): number {
    let claimed = 0;
    for (; claimed < count; claimed++) {
      const frame = this.#cache.take();
      if (frame < 0) break;
      out[at + claimed] = frame;
    }
    return claimed < count ? claimed + this.#replacement.claim(count - claimed, out, at + claimed) : claimed;
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
