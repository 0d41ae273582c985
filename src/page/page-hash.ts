/**
 * Page hash: from (vnode, page index) to the frame that holds the page.
 *
 * PROBLEM     Every read of a file starts here, in all threads at once; pages come and go all the time; a thread may die
 *             while it relinks a chain.
 * STRUCTURE   bucket head -> frame -> frame -> 0, threaded through the frames' own records. Sixteen pages that lie side by
 *             side have sixteen buckets side by side, in one cache line, and one stripe, which has a mutex: whoever brings or
 *             evicts a run of pages enters it once.
 *
 *               pages 0-15 of a vnode   -> buckets 16 g to 16 g + 15, turned by some bits of the hash  -> stripe g
 * INVARIANTS  I1 a frame is in a chain iff it has an identity, and then in the chain of that identity, once.
 *             I2 no two frames have the same identity.
 *             I3 an identity is given and taken only by a holder of the exclusive page lock.
 *             I4 only clean pages lose their identity.
 * LOCKING     Links, heads and identities are stored under the stripe's mutex, journaled. `find` reads them without:
 *             it may miss a page that is there, or return a frame that holds another page by now. Its caller takes a
 *             hold on the frame and compares the identity again, and on a miss looks again under the mutex.
 * COSTS       A look-up: one word of the bucket and half a cache line for each frame on the way. A page that comes or
 *             leaves: about five stores, and its share of a lock pair.
 * FAILURE     `find` gives up after a bounded number of steps, because a chain may be relinked under it.
 * REJECTED    Sequence locks (every insertion would disturb the readers of its stripe); open addressing (deletions move
 *             entries, which a reader without a lock would miss, and a death in the middle would lose).
 * REFERENCES  illumos vm_page.c (page_hash); RCU hash lists for readers on a chain that changes.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { add, load } from '../sync/atomics.ts';
import { LOCK_OWNER, mutexEnter, mutexExit, mutexTryEnter } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';

/** Number of a vnode. */
export type VnodeIndex = number & { readonly __unit?: 'vnode' };

/** What is known about the page in a frame. */
export const PAGE_STATE = {
  /** No identity. */
  empty: 0,
  /** Has an identity, and its exclusive holder is about to bring its bytes. */
  filling: 1,
  /** The bytes are those of the vnode. */
  valid: 2,
  /** Like valid, and on the cache list. */
  cached: 3,
  /** Plus slot + 1: no identity any more, and in the hands of the slot that took it away. */
  inHand: 16,
} as const;

/** True for the states in which the bytes of a page are there. */
export function hasBytes(state: number): boolean {
  return state >> 1 === 1;
}

/** Frames that `find` looks at before it gives up. */
const FIND_STEPS_MAX = 64;

/** Pages that lie side by side and share a stripe: two to this power. */
const GROUP_SHIFT = 4;

/** Pages from a multiple of this on share a stripe. */
export const STRIPE_PAGES = 1 << GROUP_SHIFT;
const GROUP_MASK = (1 << GROUP_SHIFT) - 1;

/** Bits of the hash that turn the buckets of a group: without them the first pages of all groups would meet in few buckets. */
const TURN_SHIFT = 20;

/** The hash as one thread sees it. */
export class PageHash {
  readonly #thread: Thread;
  readonly #page: BoundTables['page'];
  readonly #link: BoundTables['pageLink'];
  readonly #heads: BoundTables['pageBucket']['head'];
  readonly #stripes: BoundTables['pageStripe']['lock'];
  readonly #moves: WordAddress;
  readonly #bucketMask: number;
  readonly #stripeMask: number;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#page = tables.page;
    this.#link = tables.pageLink;
    this.#heads = tables.pageBucket.head;
    this.#stripes = tables.pageStripe.lock;
    this.#moves = tables.pageClock.moves.address(0);
    this.#bucketMask = geometry.pageBuckets - 1;
    this.#stripeMask = geometry.pageStripes - 1;
    assert((geometry.pageBuckets & this.#bucketMask) === 0, 'page/page-hash: buckets are a power of two');
    assert((geometry.pageStripes & this.#stripeMask) === 0, 'page/page-hash: stripes are a power of two');
  }

  /** The bucket of an identity. */
  bucketOf(vnode: VnodeIndex, index: number): number {
    const mixed = Math.imul((index >>> GROUP_SHIFT) ^ Math.imul(vnode + 1, 0x9e3779b1), 0x85ebca6b);
    const group = mixed ^ (mixed >>> 15);
    return ((group << GROUP_SHIFT) | ((index ^ (mixed >>> TURN_SHIFT)) & GROUP_MASK)) & this.#bucketMask;
  }

  /** A frame that holds or held the page, or -1 when none was met: see LOCKING. */
  find(vnode: VnodeIndex, index: number): FrameIndex {
    const page = this.#page;
    let link = this.#heads.get(this.bucketOf(vnode, index));
    for (let steps = FIND_STEPS_MAX; link !== 0 && steps > 0; steps--) {
      const frame = link - 1;
      if (page.index.get(frame) === index && page.vnode.get(frame) === vnode + 1) return frame;
      link = page.next.get(frame);
    }
    return -1;
  }

  /** The first of the pages from `index` up to `end` that `find` would meet, or `end`. A group is looked up once. */
  findFirst(vnode: VnodeIndex, index: number, end: number): number {
    const heads = this.#heads;
    for (let page = index; page < end; ) {
      const bucket = this.bucketOf(vnode, page);
      // Within a group, buckets differ as the pages do.
      const turn = bucket ^ page;
      const groupEnd = Math.min(end, (page | GROUP_MASK) + 1);
      for (; page < groupEnd; page++) {
        const link = heads.get((bucket & ~GROUP_MASK) | ((page ^ turn) & GROUP_MASK & this.#bucketMask));
        if (link !== 0 && this.find(vnode, page) >= 0) return page;
      }
    }
    return end;
  }

  /** Like `find`, but under the mutex: certain at the time of the call. */
  findCertain(vnode: VnodeIndex, index: number): FrameIndex {
    const bucket = this.bucketOf(vnode, index);
    const stripe = this.#enter(bucket);
    const frame = this.#search(bucket, vnode, index);
    mutexExit(this.#thread, stripe);
    return frame;
  }

  /**
   * Gives an empty frame an identity, in state filling, unless another frame has it: returns that frame, or -1 when the
   * insertion was done. The caller holds the frame's page lock exclusively.
   */
  insert(frame: FrameIndex, vnode: VnodeIndex, index: number): FrameIndex {
    if (VERIFY) this.#assertExclusive(frame);
    const bucket = this.bucketOf(vnode, index);
    const stripe = this.#enter(bucket);
    const other = this.#search(bucket, vnode, index);
    if (other < 0) this.#enlist(frame, bucket, vnode, index);
    mutexExit(this.#thread, stripe);
    return other;
  }

  /**
   * Gives the empty frames in lanes `at` to `at + count - 1` the identities from `index` on, in state filling, up to the first
   * that another frame has: returns how many, or -1 - frame when another has the first. The caller holds all exclusively.
   */
  insertSeveral(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    let done = 0;
    let other = -1;
    while (done < count && other < 0) {
      const stripe = this.#enter(this.bucketOf(vnode, index + done));
      while (done < count) {
        const bucket = this.bucketOf(vnode, index + done);
        if (this.#stripeOf(bucket) !== stripe) break;
        other = this.#search(bucket, vnode, index + done);
        if (other >= 0) break;
        if (VERIFY) this.#assertExclusive(frames[at + done] as number);
        this.#enlist(frames[at + done] as number, bucket, vnode, index + done);
        done++;
      }
      mutexExit(this.#thread, stripe);
    }
    return done === 0 && other >= 0 ? -1 - other : done;
  }

  /**
   * Takes the identity of a clean page away; the frame is in this slot's hands until it gets another or is given back. The
   * caller holds its page lock exclusively, or recovers its dead holder.
   */
  remove(frame: FrameIndex): void {
    const page = this.#page;
    assert(page.modified.get(frame) === 0, 'page/page-hash I4: a modified page keeps its identity');
    const stripe = this.#enter(this.#bucketOfFrame(frame));
    this.#unlink(frame);
    this.#empty(frame);
    mutexExit(this.#thread, stripe);
  }

  /** Takes the identities of several clean pages away, like `remove`; those that lie side by side in one section. */
  removeSeveral(frames: Int32Array, at: number, count: number): void {
    for (let done = 0; done < count; ) {
      const stripe = this.#stripeOf(this.#bucketOfFrame(frames[at + done] as number));
      mutexEnter(this.#thread, stripe, RANK.pageHash);
      for (; done < count; done++) {
        const frame = frames[at + done] as number;
        if (this.#stripeOf(this.#bucketOfFrame(frame)) !== stripe) break;
        assert(this.#page.modified.get(frame) === 0, 'page/page-hash I4: a modified page keeps its identity');
        this.#unlink(frame);
        this.#empty(frame);
      }
      mutexExit(this.#thread, stripe);
    }
  }

  /** How often pages have moved from one frame to another. */
  get moves(): number {
    return load(this.#thread.words, this.#moves);
  }

  /** Enters the stripe of an identity, for `move`; returns what `mutexExit` needs. */
  enterFor(vnode: VnodeIndex, index: number): WordAddress {
    return this.#enter(this.bucketOf(vnode, index));
  }

  /** Enters the stripes of two identities, for `rename`. */
  enterBoth(vnode: VnodeIndex, index: number, otherVnode: VnodeIndex, otherIndex: number): WordAddress[] {
    const one = this.#stripeOf(this.bucketOf(vnode, index));
    const other = this.#stripeOf(this.bucketOf(otherVnode, otherIndex));
    return enterTwo(this.#thread, one, other, RANK.pageHash);
  }

  /**
   * Moves an identity with its state from one frame to another, which has none, under the identity's stripe; logs only. Both
   * frames are held exclusively. The frame that is left is in this slot's hands.
   */
  move(from: FrameIndex, to: FrameIndex): void {
    const page = this.#page;
    const { journal } = this.#thread;
    assert(page.vnode.get(to) === 0, 'page/page-hash I1: a frame that a page moves to has no identity');
    add(this.#thread.words, this.#moves, 1);
    const bucket = this.bucketOf(page.vnode.get(from) - 1, page.index.get(from));
    const before = this.#before(bucket, from);
    if (before < 0) journal.set(this.#heads, bucket, to + 1);
    else journal.set(page.next, before, to + 1);
    journal.set(page.next, to, page.next.get(from));
    journal.set(page.vnode, to, page.vnode.get(from));
    journal.set(page.index, to, page.index.get(from));
    journal.set(page.state, to, page.state.get(from));
    this.#empty(from);
  }

  /**
   * Gives the page in a frame another identity, under the stripes of both; logs only. False when another frame has it. The
   * frame is held exclusively, its page clean or off its list.
   */
  rename(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    const page = this.#page;
    const { journal } = this.#thread;
    const bucket = this.bucketOf(vnode, index);
    if (this.#search(bucket, vnode, index) >= 0) return false;
    add(this.#thread.words, this.#moves, 1);
    this.#unlink(frame);
    journal.set(page.vnode, frame, vnode + 1);
    journal.set(page.index, frame, index);
    journal.set(page.next, frame, this.#heads.get(bucket));
    journal.set(this.#heads, bucket, frame + 1);
    return true;
  }

  /** The frames of a bucket, for checks at quiet points; stops after `max`. */
  chain(bucket: number, max: number): FrameIndex[] {
    const frames: FrameIndex[] = [];
    for (let link = this.#heads.get(bucket); link !== 0 && frames.length < max; link = this.#page.next.get(link - 1)) {
      frames.push(link - 1);
    }
    return frames;
  }

  /** Gives a frame without an identity one, under its stripe. */
  #enlist(frame: FrameIndex, bucket: number, vnode: VnodeIndex, index: number): void {
    const page = this.#page;
    const heads = this.#heads;
    assert(page.vnode.get(frame) === 0, 'page/page-hash I1: a frame that is inserted has no identity');
    this.#thread.journal.log3(page.vnode.address(frame), page.state.address(frame), heads.address(bucket));
    // Index and link of a frame without an identity mean nothing: they need not be undone.
    page.index.put(frame, index);
    page.next.put(frame, heads.get(bucket));
    page.vnode.put(frame, vnode + 1);
    page.state.put(frame, PAGE_STATE.filling);
    heads.put(bucket, frame + 1);
  }

  /** Takes a frame out of its chain. */
  #unlink(frame: FrameIndex): void {
    const page = this.#page;
    const { journal } = this.#thread;
    const bucket = this.#bucketOfFrame(frame);
    const before = this.#before(bucket, frame);
    if (before < 0) journal.set(this.#heads, bucket, page.next.get(frame));
    else journal.set(page.next, before, page.next.get(frame));
  }

  /** Takes the identity off a frame that is out of its chain: it is in this slot's hands. */
  #empty(frame: FrameIndex): void {
    const { journal } = this.#thread;
    const { vnode, state } = this.#page;
    journal.log2(vnode.address(frame), state.address(frame));
    vnode.put(frame, 0);
    state.put(frame, PAGE_STATE.inHand + this.#thread.tag);
    // It may say that the page was written to: page-list.ts.
    if (this.#link.previous.get(frame) !== 0) journal.set(this.#link.previous, frame, 0);
  }

  /** The frame before this one in the chain, or -1 when it is the first. */
  #before(bucket: number, frame: FrameIndex): FrameIndex {
    let before = -1;
    for (let link = this.#heads.get(bucket); link !== frame + 1; link = this.#page.next.get(before)) {
      assert(link !== 0, 'page/page-hash I1: a frame with an identity is in its chain');
      before = link - 1;
    }
    return before;
  }

  #search(bucket: number, vnode: VnodeIndex, index: number): FrameIndex {
    const page = this.#page;
    for (let link = this.#heads.get(bucket); link !== 0; link = page.next.get(link - 1)) {
      if (page.index.get(link - 1) === index && page.vnode.get(link - 1) === vnode + 1) return link - 1;
    }
    return -1;
  }

  #enter(bucket: number): WordAddress {
    const address = this.#stripeOf(bucket);
    mutexEnter(this.#thread, address, RANK.pageHash);
    return address;
  }

  #stripeOf(bucket: number): WordAddress {
    return this.#stripes.address((bucket >>> GROUP_SHIFT) & this.#stripeMask);
  }

  #bucketOfFrame(frame: FrameIndex): number {
    return this.bucketOf(this.#page.vnode.get(frame) - 1, this.#page.index.get(frame));
  }

  #assertExclusive(frame: FrameIndex): void {
    const word = load(this.#thread.words, this.#page.lock.address(frame));
    assert((word & LOCK_OWNER) === this.#thread.tag, 'page/page-hash I3: identities change under the exclusive lock');
  }
}

/**
 * Enters two mutexes of one rank: waits for the lower one and tries the other, since nobody waits for locks of a rank that it
 * holds. Who holds the other one does not wait for the lower, so this ends.
 */
export function enterTwo(thread: Thread, one: WordAddress, other: WordAddress, rank: number): WordAddress[] {
  const low = Math.min(one, other);
  const high = Math.max(one, other);
  for (;;) {
    mutexEnter(thread, low, rank);
    if (high === low) return [low];
    if (mutexTryEnter(thread, high, rank)) return [low, high];
    mutexExit(thread, low);
  }
}
