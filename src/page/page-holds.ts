/**
 * Page locks as one thread uses them.
 *
 * PROBLEM     A page must keep its identity and stay in its frame while somebody reads it, for tens of nanoseconds or for
 *             as long as a mapping lives; and one thread may hold the same page several times.
 * STRUCTURE   The readers/writer lock of sync/ in the frame's record: a word with the exclusive holder, and one bit per
 *             slot that holds the page shared. How often this thread holds it is counted in private memory.
 *
 *               nobody --shared--> shared, n times --tryUpgrade, n = 1--> exclusive --downgrade--> shared, once
 *                 '---------------------exclusive----------------------------^ '--releaseExclusive--> nobody
 *
 * INVARIANTS  I1 this slot's bit of a frame is set iff its private count is not 0, but for the moment of taking it.
 *             I2 pinned means: some slot's bit is set. There is no second flag.
 * LOCKING     No held-lock records are written: the takeover finds a dead slot's bits and words by going through the
 *             frames, so that a hold costs two atomic operations and nothing else.
 * COSTS       A shared pair: three atomic operations, about 25 ns; nested ones a private addition.
 * FAILURE     `EINVAL` when a page is released, downgraded or upgraded that this thread does not hold, and for no frame.
 * REJECTED    An upgrade that waits: two readers that ask for it wait for each other for ever. A count of pins in shared
 *             memory: a dead thread's share could not be taken back.
 * REFERENCES  illumos page_lock.c (p_selock); hazard pointers for publish, then verify.
 */

import { assert } from '../base/assert.ts';
import { fail } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { load } from '../sync/atomics.ts';
import { LOCK_OWNER } from '../sync/mutex.ts';
import {
  anyReader,
  downgradeHold,
  exclusiveHold,
  exclusiveRelease,
  sharedHold,
  sharedRelease,
  tryExclusiveHold,
  trySharedHold,
  tryUpgradeHold,
} from '../sync/rwlock.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { hasBytes, type VnodeIndex } from './page-hash.ts';

/** Shared holds that one thread may have on one page. */
const DEPTH_MAX = 65535;

/** This thread's page locks. */
export class PageHolds {
  readonly #thread: Thread;
  readonly #page: BoundTables['page'];
  readonly #lock: BoundTables['page']['lock'];
  /** Shared holds of this thread by frame. */
  readonly #depth: Uint16Array;
  #pages = 0;
  #exclusive = 0;

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#page = thread.region.tables.page;
    this.#lock = thread.region.tables.page.lock;
    this.#depth = new Uint16Array(thread.region.geometry.frames);
  }

  /** Pages that this thread holds shared. */
  get pages(): number {
    return this.#pages;
  }

  /** Pages that this thread holds exclusively. */
  get exclusivePages(): number {
    return this.#exclusive;
  }

  /** The first frames, at most `count`, that this thread holds shared, for messages. */
  held(count: number): FrameIndex[] {
    const found: FrameIndex[] = [];
    for (let frame = 0; frame < this.#depth.length && found.length < count; frame++) {
      if (this.#depth[frame] !== 0) found.push(frame);
    }
    return found;
  }

  /** True while this thread holds the page shared. */
  holds(frame: FrameIndex): boolean {
    return this.#depth[frame] !== 0;
  }

  /** Shared holds that this thread has on the page. */
  depthOf(frame: FrameIndex): number {
    return this.#depth[frame] as number;
  }

  /** True while anybody has the page exclusively: a hint unless it is this thread. */
  isExclusive(frame: FrameIndex): boolean {
    return (load(this.#thread.words, this.#lock.address(frame)) & LOCK_OWNER) !== 0;
  }

  /** True while some thread holds the page, or is about to. */
  isHeld(frame: FrameIndex): boolean {
    const address = this.#lock.address(frame);
    return load(this.#thread.words, address) !== 0 || anyReader(this.#thread, address);
  }

  /** True while some thread holds the page shared. */
  isHeldShared(frame: FrameIndex): boolean {
    return anyReader(this.#thread, this.#lock.address(frame));
  }

  /** Takes a shared hold unless somebody holds the page exclusively or is about to. */
  tryShared(frame: FrameIndex): boolean {
    const depth = this.#depth[frame] as number;
    if (depth === 0) {
      if (this.#thread.ended) this.#thread.failEnded();
      if (!trySharedHold(this.#thread, this.#lock.address(frame))) return false;
      this.#pages++;
    } else {
      if (depth === undefined) this.#failNoFrame(frame);
      assert(depth < DEPTH_MAX, 'page/page-holds: a thread holds a page at most 65535 times');
    }
    this.#depth[frame] = depth + 1;
    return true;
  }

  /** Takes a shared hold of a frame if it can be had at once and the frame then has a valid page of this identity. */
  tryPage(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    if (!this.tryShared(frame)) return false;
    if (this.hasPage(frame, vnode, index)) return true;
    this.release(frame);
    return false;
  }

  /** Like `tryPage`, sleeping while somebody holds the frame exclusively. */
  page(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    this.shared(frame);
    if (this.hasPage(frame, vnode, index)) return true;
    this.release(frame);
    return false;
  }

  /** True when the frame has the bytes of a page of this identity: certain under a hold. */
  hasPage(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    const page = this.#page;
    return page.vnode.get(frame) === vnode + 1 && page.index.get(frame) === index && hasBytes(page.state.get(frame));
  }

  /** Takes a shared hold, sleeping while somebody holds the page exclusively; false when `timeoutMs` ran out. */
  shared(frame: FrameIndex, timeoutMs?: number): boolean {
    if (this.tryShared(frame)) return true;
    if (!sharedHold(this.#thread, this.#lock.address(frame), timeoutMs)) return false;
    this.#depth[frame] = 1;
    this.#pages++;
    return true;
  }

  /** Gives one shared hold back. */
  release(frame: FrameIndex): void {
    const depth = this.#depth[frame] as number;
    if (!(depth > 0)) this.#failNotHeld(frame);
    this.#depth[frame] = depth - 1;
    if (depth > 1) return;
    this.#pages--;
    sharedRelease(this.#thread, this.#lock.address(frame));
  }

  /** True while this thread holds the page exclusively. A plain look: while it does, nobody else changes that. */
  isMine(frame: FrameIndex): boolean {
    return (this.#lock.get(frame) & LOCK_OWNER) === this.#thread.tag;
  }

  /** Takes the page exclusively if nobody holds it in any way. A look first keeps passers-by undisturbed. */
  tryExclusive(frame: FrameIndex): boolean {
    if (this.#depth[frame] === undefined) this.#failNoFrame(frame);
    if (this.isHeld(frame) || !tryExclusiveHold(this.#thread, this.#lock.address(frame))) return false;
    this.#exclusive++;
    return true;
  }

  /** Takes the page exclusively, sleeping while others hold it; false when `timeoutMs` ran out. */
  exclusive(frame: FrameIndex, timeoutMs?: number): boolean {
    if (this.#depth[frame] === undefined) this.#failNoFrame(frame);
    if (!exclusiveHold(this.#thread, this.#lock.address(frame), timeoutMs)) return false;
    this.#exclusive++;
    return true;
  }

  /** Gives an exclusive hold back and wakes who waits for it. */
  releaseExclusive(frame: FrameIndex): void {
    this.#requireMine(frame, 'releaseExclusive');
    this.#exclusive--;
    exclusiveRelease(this.#thread, this.#lock.address(frame));
  }

  /** Turns an exclusive hold into a shared one, without a moment in between. */
  downgrade(frame: FrameIndex): void {
    this.#requireMine(frame, 'downgrade');
    this.#exclusive--;
    downgradeHold(this.#thread, this.#lock.address(frame));
    this.#depth[frame] = 1;
    this.#pages++;
  }

  /**
   * Turns this thread's one shared hold into an exclusive one if nobody else holds the page or is about to; else false, and
   * the shared hold stays. Throws `EINVAL` when this thread holds the page more than once, or not at all.
   */
  tryUpgrade(frame: FrameIndex): boolean {
    const { slot } = this.#thread;
    const depth = this.#depth[frame] as number;
    if (depth !== 1) fail('EINVAL', 'holds.tryUpgrade', { frame, slot, holds: depth }, 'one shared hold is upgraded');
    if (!tryUpgradeHold(this.#thread, this.#lock.address(frame))) return false;
    this.#depth[frame] = 0;
    this.#pages--;
    this.#exclusive++;
    return true;
  }

  #requireMine(frame: FrameIndex, call: string): void {
    if (this.#depth[frame] === undefined || !this.isMine(frame))
      fail('EINVAL', `holds.${call}`, { frame }, 'this thread does not hold the page exclusively');
  }

  /** Slots that hold the page in any way, for messages: a look without waiting. */
  holders(frame: FrameIndex): SlotIndex[] {
    const { words, region } = this.#thread;
    const owner = (load(words, this.#lock.address(frame)) & LOCK_OWNER) - 1;
    const found: SlotIndex[] = [];
    for (let slot = 0; slot < region.geometry.slots; slot++) {
      const bits = load(words, this.#lock.address(frame, 1 + (slot >>> 5)));
      if (slot === owner || (bits & (1 << (slot & 31))) !== 0) found.push(slot);
    }
    return found;
  }

  #failNoFrame(frame: FrameIndex): never {
    fail('EINVAL', 'holds', { frame, frames: this.#depth.length }, 'there is no such frame');
  }

  #failNotHeld(frame: FrameIndex): never {
    const { slot } = this.#thread;
    fail(
      'EINVAL',
      'pages.release',
      { frame, slot },
      'a page is released by a thread that holds it, once for each hold',
    );
  }
}
