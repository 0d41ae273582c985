/**
 * Fetching pages: the miss.
 *
 * PROBLEM     A page must be brought once although many ask for it, adjacent ones in one call of the store, and frames for
 *             them may have to be waited for.
 * STRUCTURE   See pages.ts for the steps of a fetch. Pages that are missing one after another are brought together: frames taken
 *             or evicted at once, inserted in one section for each group of the hash, read with one call. The call may go on
 *             behind the request with pages that will be asked for next; those are not held. When no frame can be had:
 *
 *               1 let go of everything   2 write modified pages back, start again   3 have others give back what they keep
 *               4 one thread at a time keeps what it has, and waits for pinned pages to be released, and for frames that are on
 *                 their way, one after another
 *
 * INVARIANTS  Those of pages.ts.
 * LOCKING     As there; step 4 under the mutex of the shortage.
 * COSTS       A miss: a lock pair for up to 32 frames, one for each 16 identities side by side, and the store's.
 * FAILURE     What the source throws, with its pages empty again; `ENOMEM` after 10 seconds of step 4.
 * REJECTED    Keeping pages while waiting without the mutex: two threads that need most of the memory would block each other.
 * REFERENCES  illumos page_create_va; BSD vm_page_grab.
 */

import { fail, showCall, VmError } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameBytes } from '../phys/banks.ts';
import type { Frames } from '../phys/frames.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnterWithin, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { FrameSupply } from './frame-supply.ts';
import type { LargeFetches } from './large-fetches.ts';
import { countersOf, PAGE_COUNTER } from './page-counters.ts';
import type { PageDrops } from './page-drops.ts';
import { PAGE_STATE, type PageHash, type VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageLookup } from './page-lookup.ts';
import type { PageParts } from './page-parts.ts';
import type { PageShapes } from './page-shapes.ts';
import type { PageSource, PageStore } from './page-store.ts';
import type { WriteFailure } from './page-writer.ts';
import type { Replacement } from './replacement.ts';

/** How long a fetch waits for pinned pages before it throws `ENOMEM`. */
export const SHORTAGE_MS = 10_000;

/** What is wrong then. */
const SHORT_RULE = 'what is taken, pinned or modified leaves no frame; release mappings or boot with more memory';

/** How often a fetch writes modified pages back to gain frames before it waits with others. */
const CLEANINGS_MAX = 8;

/** What a fetch is about. */
export interface FetchRequest {
  readonly vnode: VnodeIndex;
  readonly index: number;
  readonly count: number;
  /** Pages behind them that come along if they are missing too, and are not held. */
  readonly ahead: number;
  /** Frames go here: there is room for those ahead, too, */
  readonly out: Int32Array;
  /** from this lane on. */
  readonly at: number;
  /** Takes modified pages that have to leave. */
  readonly store: PageStore;
  /** Brings what is missing; null for zeros. */
  readonly source: PageSource | null;
  /** What is brought differs from the store. */
  readonly modified: boolean;
}

/** Fetches pages for one thread. */
export class PageFetches {
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #bytes: FrameBytes;
  readonly #page: BoundTables['page'];
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #shapes: PageShapes;
  readonly #lookup: PageLookup;
  readonly #dirty: DirtyPages;
  readonly #supply: FrameSupply;
  readonly #drops: PageDrops;
  readonly #replacement: Replacement;
  readonly #large: LargeFetches;
  readonly #counters: Float64Array;

  constructor(
    parts: PageParts,
    lookup: PageLookup,
    supply: FrameSupply,
    drops: PageDrops,
    replacement: Replacement,
    large: LargeFetches,
  ) {
    this.#thread = parts.thread;
    this.#frames = parts.frames;
    this.#bytes = parts.bytes;
    this.#holds = parts.holds;
    this.#shapes = parts.shapes;
    this.#dirty = parts.dirty;
    this.#hash = parts.hash;
    this.#page = parts.thread.region.tables.page;
    this.#lookup = lookup;
    this.#supply = supply;
    this.#drops = drops;
    this.#replacement = replacement;
    this.#large = large;
    this.#counters = countersOf(parts.thread);
  }

  /** Holds the pages of a request: all with `whole`, else at least one. Returns how many. */
  run(request: FetchRequest, whole: boolean): number {
    for (let cleanings = 0; ; cleanings++) {
      const done = this.#fetchSome(request, 0);
      if (done === request.count || (done > 0 && !whole)) return done;
      this.#releaseSeveral(request.out, request.at, done);
      if (cleanings === CLEANINGS_MAX || !this.#supply.clean(request.store)) break;
    }
    this.#frames.press();
    return this.#fetchShort(request, whole);
  }

  /** Fetches from lane `at + done` on until all are held or no frame can be had; on an error all are released. */
  #fetchSome(request: FetchRequest, done: number): number {
    const { vnode, index, count, ahead, out, at } = request;
    let held = done;
    try {
      while (held < count) {
        // 1.
        const frame = this.#lookup.hold(vnode, index + held);
        if (frame >= 0) {
          out[at + held++] = frame;
          continue;
        }
        // 2.
        let met = this.#hash.find(vnode, index + held);
        if (met < 0) {
          if (this.#large.concerns(vnode)) {
            const got = this.#large.fetch(request, held);
            if (got === 0) return held;
            held += Math.max(got, 0);
            continue;
          }
          // 3-4.
          const claimed = this.#claim(vnode, index + held, count - held + ahead, out, at + held);
          if (claimed === 0) return held;
          if (claimed > 0) {
            // 5-6.
            this.#fill(request, held, claimed);
            held = Math.min(held + claimed, count);
            continue;
          }
          met = -1 - claimed;
        }
        if (this.#lookup.holdMet(met, vnode, index + held)) out[at + held++] = met;
      }
    } catch (error) {
      this.#releaseSeveral(out, at, held);
      throw error;
    }
    return held;
  }

  /**
   * Claims the page at `index` and those behind it that are missing too: frames with their identities, filling and
   * exclusively held. Returns how many; 0 when no frame could be had; -1 - frame when another frame has the first.
   */
  #claim(vnode: VnodeIndex, index: number, max: number, out: Int32Array, at: number): number {
    let wanted = 1;
    while (wanted < max && this.#hash.find(vnode, index + wanted) < 0) wanted++;
    const taken = this.#supply.take(wanted, out, at);
    const claimed = this.#hash.insertSeveral(vnode, index, out, at, taken);
    for (let unused = Math.max(claimed, 0); unused < taken; unused++)
      this.#supply.giveEmpty(out[at + unused] as number);
    if (VERIFY && claimed > 0) faultPoint(this.#thread, 'page.fill.claimed');
    return claimed;
  }

  /** Steps 5 and 6 for `count` pages from lane `at + done` on; those behind the request are let go. */
  #fill(request: FetchRequest, done: number, count: number): void {
    const { vnode, index, out, at, source, modified } = request;
    const lane = at + done;
    const kept = request.count - done;
    this.#replacement.inserted(vnode, index + done, out, lane, count);
    try {
      if (VERIFY && faultPoint(this.#thread, 'page.fill.reading')) {
        fail('EIO', 'pages.fetch', { vnode, index: index + done, count }, 'injected');
      }
      const readBytes =
        source === null ? this.#zero(out, lane, count) : source.fill(vnode, index + done, out, lane, count);
      if (VERIFY) faultPoint(this.#thread, 'page.fill.read');
      if (readBytes < 0 || modified) this.#tally(PAGE_COUNTER.created, count);
      else this.#countRead(count, readBytes);
    } catch (error) {
      this.#tally(PAGE_COUNTER.failures, 1);
      for (let page = 0; page < count; page++) this.#drops.held(out[lane + page] as number);
      throw error;
    }
    for (let page = 0; page < count; page++) {
      const frame = out[lane + page] as number;
      if (modified) {
        this.#dirty.mark(frame);
        if (VERIFY) faultPoint(this.#thread, 'page.create.filled');
      }
      this.#page.state.put(frame, PAGE_STATE.valid);
      this.#page.referenced.put(frame, this.#replacement.firstMark);
      if (page < kept) this.#holds.downgrade(frame);
      else this.#holds.releaseExclusive(frame);
    }
    if (count > kept) this.#tally(PAGE_COUNTER.aheadPages, count - kept);
  }

  #zero(out: Int32Array, lane: number, count: number): number {
    for (let page = 0; page < count; page++) this.#bytes.zeroFrame(out[lane + page] as number);
    return -1;
  }

  #countRead(pages: number, bytes: number): void {
    this.#tally(PAGE_COUNTER.misses, pages);
    this.#tally(PAGE_COUNTER.reads, 1);
    this.#tally(PAGE_COUNTER.readBytes, bytes);
  }

  /**
   * Fetches although pinned pages leave no frame. Only one thread at a time keeps what it has while it waits, so that two
   * that need most of the memory cannot block each other.
   */
  #fetchShort(request: FetchRequest, whole: boolean): number {
    const thread = this.#thread;
    const { vnode, count, out, at, store } = request;
    const shortage = thread.region.tables.pageClock.shortage.address(0);
    this.#tally(PAGE_COUNTER.shortages, 1);
    const deadline = thread.clock.now() + SHORTAGE_MS;
    const { refusal } = this.#supply;
    if (!mutexEnterWithin(thread, shortage, RANK.pageShortage, SHORTAGE_MS))
      return this.#failShort(vnode, count, refusal);
    try {
      for (let done = 0; ; ) {
        done = this.#fetchSome(request, done);
        if (done === count || (done > 0 && !whole)) return done;
        const size = this.#shapes.framesOf(vnode);
        if (size > 1 ? this.#supply.gainRun(size, deadline, store) : this.#supply.gainOne(deadline, store)) continue;
        this.#releaseSeveral(out, at, done);
        return this.#failShort(vnode, count, refusal);
      }
    } finally {
      this.#supply.settle();
      mutexExit(thread, shortage);
    }
  }

  /** Throws `ENOMEM`, with what a store has said about modified pages meanwhile: `before` is what was said before. */
  #failShort(vnode: VnodeIndex, count: number, before: WriteFailure | null): never {
    const { refusal } = this.#supply;
    if (refusal === null || refusal === before) this.failShort('pages.fetch', { vnode, count });
    const values = { vnode, count, ...this.#counts() };
    const cause = refusal.error;
    const said = cause instanceof Error ? cause.message : String(cause);
    throw new VmError('ENOMEM', `${showCall('pages.fetch', values)}: ${SHORT_RULE}; pages cannot be written: ${said}`, {
      cause,
    });
  }

  /** Throws the `ENOMEM` of memory that is pinned, in the name of `call`. */
  failShort(call: string, values: Readonly<Record<string, number>>): never {
    return fail('ENOMEM', call, { ...values, ...this.#counts() }, SHORT_RULE);
  }

  #counts(): Record<string, number> {
    const { total, free, page, run, list } = this.#frames.counts();
    return { total, free, page, run, list, pinnedHere: this.#holds.pages, modified: this.#dirty.total };
  }

  #releaseSeveral(out: Int32Array, at: number, count: number): void {
    for (let lane = at; lane < at + count; lane++) this.#holds.release(out[lane] as number);
  }

  #tally(lane: number, amount: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + amount;
  }
}
