/**
 * Fetching large pages: the miss of a page of several frames.
 *
 * PROBLEM     A page of several frames must be brought once, as a whole, into frames that lie side by side.
 * STRUCTURE   1 somebody brings the page, or takes it away: wait for its head, look again   2 a run of frames
 *             3 their identities; if a dead thread has left one, wait until it is gone   4 one call of the source for all
 *             5 valid, head last   6 frames that were asked for are kept, shared, the others let go
 * INVARIANTS  Those of large-pages.ts.
 * LOCKING     No frame is held exclusively while another is waited for.
 * COSTS       As a miss of the same bytes in small pages, and the run: see frame-supply.ts.
 * FAILURE     What the source throws, with the page empty again; 0 when no run can be had.
 * REJECTED    Bringing only the frames that were asked for: half a page cannot be tested, sealed or written back.
 * REFERENCES  page-fetches.ts.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { FrameBytes, FrameIndex } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import type { Thread } from '../sync/thread.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { FrameSupply } from './frame-supply.ts';
import type { LargePages } from './large-pages.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import type { PageDrops } from './page-drops.ts';
import type { FetchRequest } from './page-fetches.ts';
import type { PageHash, VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageParts } from './page-parts.ts';
import { LARGE_PAGE_FRAMES_MAX, type PageShapes } from './page-shapes.ts';
import type { Replacement } from './replacement.ts';

/** Fetches large pages for one thread. */
export class LargeFetches {
  readonly #thread: Thread;
  readonly #bytes: FrameBytes;
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #dirty: DirtyPages;
  readonly #shapes: PageShapes;
  readonly #large: LargePages;
  readonly #supply: FrameSupply;
  readonly #drops: PageDrops;
  readonly #replacement: Replacement;
  readonly #counters: Float64Array;
  readonly #lanes = new Int32Array(LARGE_PAGE_FRAMES_MAX);

  constructor(parts: PageParts, supply: FrameSupply, drops: PageDrops, replacement: Replacement) {
    this.#thread = parts.thread;
    this.#bytes = parts.bytes;
    this.#hash = parts.hash;
    this.#holds = parts.holds;
    this.#dirty = parts.dirty;
    this.#shapes = parts.shapes;
    this.#large = parts.large;
    this.#supply = supply;
    this.#drops = drops;
    this.#replacement = replacement;
    this.#counters = countersOf(parts.thread);
  }

  /** True when pages of the vnode have several frames. */
  concerns(vnode: VnodeIndex): boolean {
    return this.#shapes.framesOf(vnode) > 1;
  }

  /**
   * Brings the page that has the frame for lane `at + done` of a request, and holds what the request wants of it. Returns
   * the lanes that were held; 0 when no run of frames could be had, -1 when the page must be looked up again.
   */
  fetch(request: FetchRequest, done: number): number {
    const { vnode, index, count, out, at } = request;
    const size = this.#shapes.framesOf(vnode);
    const wanted = index + done;
    const head = wanted - (wanted & (size - 1));
    // 1.
    const met = this.#hash.find(vnode, head);
    if (met >= 0) return this.#await(met, vnode, head);
    // 2.
    const first = this.#supply.takeRun(size);
    if (first < 0) return 0;
    // 3.
    const other = this.#large.insert(first, vnode, head, size);
    if (other >= 0) {
      this.#large.give(first, size);
      return this.#await(other, vnode, head);
    }
    if (VERIFY) faultPoint(this.#thread, 'page.fill.claimed');
    // 4.
    this.#fill(request, first, head, size);
    // 5.
    this.#large.complete(first, size, this.#replacement.firstMark);
    // 6.
    const from = wanted - head;
    const until = Math.min(size, index + count - head);
    for (let position = 0; position < size; position++) {
      if (position >= from && position < until) {
        this.#holds.downgrade(first + position);
        out[at + done + position - from] = first + position;
      } else {
        this.#holds.releaseExclusive(first + position);
      }
    }
    return until - from;
  }

  #fill({ vnode, source, modified }: FetchRequest, first: FrameIndex, index: number, count: number): void {
    for (let lane = 0; lane < count; lane++) this.#lanes[lane] = first + lane;
    this.#replacement.inserted(vnode, index, this.#lanes, 0, 1);
    try {
      if (VERIFY && faultPoint(this.#thread, 'page.fill.reading')) {
        fail('EIO', 'pages.fetch', { vnode, index, count }, 'injected');
      }
      if (source === null) for (let lane = 0; lane < count; lane++) this.#bytes.zeroFrame(first + lane);
      const readBytes = source === null ? 0 : source.fill(vnode, index, this.#lanes, 0, count);
      if (VERIFY) faultPoint(this.#thread, 'page.fill.read');
      if (source === null || modified) {
        this.#tally(PAGE_COUNTER.created, count);
      } else {
        this.#tally(PAGE_COUNTER.misses, count);
        this.#tally(PAGE_COUNTER.reads, 1);
        this.#tally(PAGE_COUNTER.readBytes, readBytes);
      }
    } catch (error) {
      this.#tally(PAGE_COUNTER.failures, 1);
      this.#drops.held(first);
      throw error;
    }
    if (modified) this.#dirty.mark(first);
    if (VERIFY && modified) faultPoint(this.#thread, 'page.create.filled');
  }

  /** Waits until whoever has a frame exclusively lets go of it. */
  #await(frame: FrameIndex, vnode: VnodeIndex, index: number): number {
    this.#tally(PAGE_COUNTER.waits, 1);
    if (this.#holds.page(frame, vnode, index)) this.#holds.release(frame);
    return -1;
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
