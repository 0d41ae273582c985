/**
 * Moving pages: to another frame, or to another identity.
 *
 * PROBLEM     Somebody needs this very frame, but what it holds is needed too: the page must go on in another frame, with its
 *             bytes, identity and modifications, while other threads look for it; and so must a page that changes its name.
 * STRUCTURE   relocate   1 take the page exclusively, if that can be had at once   2 take a free frame, exclusively   3 copy
 *                        4 under the stripe and the list: the new frame takes the old one's place in both,
 *                          in that of pages that are not needed any more, too
 *                        5 the old frame gets the use that is wanted   6 locks go, listeners are told
 *                        A large page moves as a whole to adjacent frames: 1 takes all of its frames, 4 moves all identities in
 *                        one section, since they share a stripe, and in 5 the frames that were not asked for become free.
 *             rename     1 under both stripes: out of one chain, into the other   2 under the lists: off one, onto the other
 *
 *             Who waits for the old frame's lock finds no page there, and looks it up again. Who looks for the page between 4
 *             and 6 meets the new frame's lock.
 * INVARIANTS  I1 at every commit exactly one frame has the identity, and its bytes are the page's; of a large page all frames are
 *                here, or all there.
 *             I2 a page moves only while nobody else holds it: mappings and pins keep it where it is.
 * LOCKING     Two page locks, both tried, never waited for. Stripe before list; the outer one is given back first, so that
 *             both commit together.
 * COSTS       A copy of the frame, about 15 journaled stores; of a large page for each of its frames.
 * FAILURE     False: pinned, being filled or written back, or no frame is free, for a large page no run of frames: it is evicted
 *             then where that can be. A death leaves the page in one place and gives the other one back.
 * REJECTED    Choosing the new frame near the old one: whoever clears a window takes its free frames first. Taking the new frames
 *             of a large page as a run: who clears a window has the one record of a run in use.
 * REFERENCES  illumos page_relocate; Linux migrate_pages; the comment at the top of pmem.c.
 */

import { assert } from '../base/assert.ts';
import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { giveAdjacent, takeAdjacentSingles } from '../phys/adjacent-frames.ts';
import type { FrameBytes, FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, type Frames } from '../phys/frames.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexExit } from '../sync/mutex.ts';
import type { Thread } from '../sync/thread.ts';
import type { CacheList } from './cache-list.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { FrameSupply } from './frame-supply.ts';
import type { LargePages } from './large-pages.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import { hasBytes, PAGE_STATE, type PageHash, STRIPE_PAGES, type VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageParts } from './page-parts.ts';
import { LARGE_PAGE_FRAMES_MAX, type PageShapes } from './page-shapes.ts';

/** Told in the thread that moved the page, of a large one with its head, with no lock held; the page may have moved on since. */
export type RelocationListener = (vnode: VnodeIndex, index: number, from: FrameIndex, to: FrameIndex) => void;

/** Moves pages for one thread. */
export class PageMoves {
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #bytes: FrameBytes;
  readonly #page: BoundTables['page'];
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #cache: CacheList;
  readonly #dirty: DirtyPages;
  readonly #supply: FrameSupply;
  readonly #shapes: PageShapes;
  readonly #large: LargePages;
  readonly #counters: Float64Array;
  readonly #listeners: RelocationListener[] = [];

  constructor(parts: PageParts, supply: FrameSupply) {
    this.#thread = parts.thread;
    this.#frames = parts.frames;
    this.#bytes = parts.bytes;
    this.#holds = parts.holds;
    this.#cache = parts.cache;
    this.#dirty = parts.dirty;
    this.#hash = parts.hash;
    this.#page = parts.thread.region.tables.page;
    this.#supply = supply;
    this.#shapes = parts.shapes;
    this.#large = parts.large;
    assert(LARGE_PAGE_FRAMES_MAX <= STRIPE_PAGES, 'page/page-moves I1: the frames of a large page share a stripe');
    this.#counters = countersOf(parts.thread);
  }

  /** Who is told after each relocation by this thread. */
  onRelocated(listener: RelocationListener): void {
    this.#listeners.push(listener);
  }

  /** Moves the page in a frame to another one; the frame then bears this thread's mark with the given use. */
  relocate(frame: FrameIndex, use: number): boolean {
    // 1.
    if (!this.#hasBytes(frame) || !this.#holds.tryExclusive(frame)) return false;
    if (!this.#hasBytes(frame)) return this.#refuse(frame);
    if (this.#shapes.framesAt(frame) > 1) return this.#relocateLarge(frame, use);
    // 2.
    const to = this.#frames.tryTake(FRAME_USE.page);
    if (to < 0) return this.#refuse(frame);
    if (!this.#holds.tryExclusive(to)) {
      // A passer-by that walked an old chain has its bit there.
      this.#frames.give(to, FRAME_USE.page, this.#page.state, PAGE_STATE.empty);
      return this.#refuse(frame);
    }
    // 3.
    this.#bytes.copyFrame(frame, to);
    if (VERIFY && faultPoint(this.#thread, 'page.relocate.copied')) {
      this.#supply.giveEmpty(to);
      return this.#refuse(frame);
    }
    // 4.
    const vnode = this.#page.vnode.get(frame) - 1;
    const index = this.#page.index.get(frame);
    this.#move(vnode, index, frame, to, 1);
    if (VERIFY) faultPoint(this.#thread, 'page.relocate.moved');
    // 5.
    this.#frames.convert(frame, FRAME_USE.page, use, this.#page.state, PAGE_STATE.empty);
    // 6.
    this.#holds.releaseExclusive(to);
    this.#holds.releaseExclusive(frame);
    this.#tally(PAGE_COUNTER.relocations);
    for (const listener of this.#listeners) listener(vnode, index, frame, to);
    return true;
  }

  /** The same for a large page, one frame of which is asked for and held exclusively. */
  #relocateLarge(frame: FrameIndex, use: number): boolean {
    const { core } = this.#frames;
    const count = this.#shapes.framesAt(frame);
    const head = this.#shapes.headOf(frame);
    // 1.
    if (this.#large.takeOthers(frame) >= 0) return false;
    // 2.
    const to = this.#hasBytes(head) ? this.#takeRun(head, count) : -1;
    if (to < 0) {
      this.#large.letGo(frame);
      return false;
    }
    // 3.
    for (let at = 0; at < count; at++) this.#bytes.copyFrame(head + at, to + at);
    if (VERIFY && faultPoint(this.#thread, 'page.relocate.copied')) {
      this.#large.give(to, count);
      this.#large.letGo(frame);
      return false;
    }
    // 4.
    const vnode = this.#page.vnode.get(head) - 1;
    const index = this.#page.index.get(head);
    this.#move(vnode, index, head, to, count);
    if (VERIFY) faultPoint(this.#thread, 'page.relocate.moved');
    // 5.
    core.mutex.enter();
    this.#thread.journal.set(this.#page.state, frame, PAGE_STATE.empty);
    core.convert(frame, use);
    core.mutex.exit();
    this.#large.give(head, frame - head);
    this.#large.give(frame + 1, head + count - frame - 1);
    // 6.
    for (let at = 0; at < count; at++) this.#holds.releaseExclusive(to + at);
    this.#holds.releaseExclusive(frame);
    this.#tally(PAGE_COUNTER.relocations);
    for (const listener of this.#listeners) listener(vnode, index, head, to);
    return true;
  }

  /** Step 2 for a large page: its new frames, held exclusively; the first, or -1. */
  #takeRun(head: FrameIndex, count: number): FrameIndex {
    const { core } = this.#frames;
    const to = takeAdjacentSingles(core, count, this.#frames.reserve, FRAME_USE.page);
    if (to < 0) return -1;
    let held = 0;
    // Who moves frames together has nothing from a page that goes up.
    if (!core.lowestFirst || to < head) while (held < count && this.#holds.tryExclusive(to + held)) held++;
    if (held === count) return to;
    for (let at = 0; at < held; at++) this.#holds.releaseExclusive(to + at);
    giveAdjacent(core, to, count, FRAME_USE.page, this.#page.state, PAGE_STATE.empty);
    return -1;
  }

  /** Gives the page in a frame another identity; false when another frame has it. The caller holds the frame exclusively. */
  rename(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    if (!this.#holds.isMine(frame)) {
      fail(
        'EINVAL',
        'pages.rename',
        { frame, vnode, index },
        'a page is renamed by the thread that holds it exclusively',
      );
    }
    if (!this.#hasPage(frame)) fail('EINVAL', 'pages.rename', { frame }, 'the frame holds no page');
    const from = this.#page.vnode.get(frame) - 1;
    if (this.#shapes.framesAt(frame) > 1 || this.#shapes.framesOf(vnode) > 1) {
      fail('ENOTSUP', 'pages.rename', { frame, vnode, index }, 'large pages are not renamed');
    }
    // 1.
    const locks = this.#hash.enterBoth(from, this.#page.index.get(frame), vnode, index);
    const lists = this.#dirty.enterBoth(from, vnode);
    const renamed = this.#hash.rename(frame, vnode, index);
    // 2.
    if (renamed) this.#dirty.rename(frame, from, vnode);
    // The first exit commits what was logged under all of them.
    for (const lock of [...locks, ...lists]) mutexExit(this.#thread, lock);
    if (renamed) this.#tally(PAGE_COUNTER.renames);
    return renamed;
  }

  #move(vnode: VnodeIndex, index: number, from: FrameIndex, to: FrameIndex, count: number): void {
    const { referenced } = this.#page;
    for (let at = 0; at < count; at++) referenced.put(to + at, referenced.get(from + at));
    const stripe = this.#hash.enterFor(vnode, index);
    // A page is on one list at most.
    const cached = this.#cache.has(from);
    const modified = !cached && !this.#dirty.isClean(from);
    const list = cached ? this.#cache.enter() : modified ? this.#dirty.enterFor(vnode) : -1;
    if (cached) this.#cache.move(from, to);
    if (modified) this.#dirty.move(vnode, from, to);
    for (let at = 0; at < count; at++) this.#hash.move(from + at, to + at);
    mutexExit(this.#thread, stripe);
    if (list >= 0) mutexExit(this.#thread, list);
  }

  /** True for a page that may move: one that is kept until its frame is needed, too. */
  #hasBytes(frame: FrameIndex): boolean {
    return this.#page.vnode.get(frame) !== 0 && hasBytes(this.#page.state.get(frame));
  }

  #hasPage(frame: FrameIndex): boolean {
    return this.#page.vnode.get(frame) !== 0 && this.#page.state.get(frame) === PAGE_STATE.valid;
  }

  #refuse(frame: FrameIndex): false {
    this.#holds.releaseExclusive(frame);
    return false;
  }

  #tally(lane: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + 1;
  }
}
