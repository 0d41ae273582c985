/**
 * Modified pages: which pages differ from their backing store, and who is writing them there.
 *
 * PROBLEM     Writers of one page run at the same time as each other and as the one who writes it back; whoever dies, what
 *             was stored must not be taken for clean; and whoever syncs must find every page that others have modified.
 * STRUCTURE   A word for each frame, and a list of modified pages for each vnode:
 *
 *               modified   bit 0 dirty   |   bits 1-8 slot + 1 that is writing it back   |   bit 9 somebody waits for that
 *
 *               clean 0 --mark--> dirty --claim--> writing --finish, stored--> clean
 *                                   ^                | mark                       finish, not stored: dirty
 *                                   '-- finish ---- dirty, writing
 *
 *               writer      hold the page shared, mark, store bytes, mark again, release
 *               write-back  hold the page shared, claim, read the bytes, finish, release
 *
 *             The second mark is a read-modify-write behind the stores, and the claim is one before the bytes are read: either
 *             the claim comes later and the bytes are written, or the mark meets the claim and the page is dirty again.
 * INVARIANTS  I1 a page is on its vnode's list iff its word is not 0; both change under the stripe's mutex.
 *             I2 a word that is not 0 belongs to a page with an identity; it becomes 0, or leaves with the identity, only while
 *                the page is held.
 *             I3 the stripes' counts are the lengths of their lists.
 *             I4 bytes that were stored before a mark are in the store, or the page is on the list.
 * LOCKING     From and to 0 under the stripe's mutex; between other values by compare-and-swap alone. `mark` and `finish` commit:
 *             call them with nothing logged. If the undo
 *             of a dead writer-back puts an old value over a mark, it is one that names the dead: recovery makes it dirty.
 *             Large pages have one word, that of their head, whichever of their frames is marked (large-pages.ts).
 *             A page that has been written to keeps a mark of that in its link until its identity goes, so that a holder
 *             that dies between storing and its second mark leaves it dirty.
 * COSTS       Marking a page that is dirty: a load and a compare-and-swap. From clean to dirty: a lock pair, 9 stores.
 * FAILURE     None here: `finish` says whether the store took the bytes.
 * REJECTED    Claiming under the exclusive page lock: a writer that maps a page for long would keep it from being synced.
 *             A count of modified pages in one word: every writer of all vnodes would change it.
 * REFERENCES  docs/locking.md, page locks; illumos vm_page.c (p_iolock) and pvn_vnode.c for klustering.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import type { WordAddress } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { ALL_WAITERS, compareExchange, load, notify, or, store } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { enterTwo, PAGE_STATE, type VnodeIndex } from './page-hash.ts';
import { PAGE_UNLINKED, PageList } from './page-list.ts';
import { PageShapes } from './page-shapes.ts';

/** Parts of the word of a page. */
export const MODIFIED = {
  dirty: 1,
  /** Where slot + 1 of the slot that writes the page back begins, and its bits. */
  writerShift: 1,
  writer: 0x1fe,
  waiters: 0x200,
} as const;

/** What a claim came to. */
export const CLAIM = { clean: 0, claimed: 1, busy: 2 } as const;

/** The modified pages as one thread sees them. */
export class DirtyPages {
  readonly #thread: Thread;
  readonly #page: BoundTables['page'];
  readonly #link: BoundTables['pageLink'];
  readonly #stripes: BoundTables['pageDirtyStripe'];
  readonly #stripeMask: number;
  readonly #changes: BoundTables['pageDirty']['changes'];
  readonly #list: PageList;
  readonly #shapes: PageShapes;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#page = tables.page;
    this.#link = tables.pageLink;
    this.#stripes = tables.pageDirtyStripe;
    this.#stripeMask = geometry.pageStripes - 1;
    this.#changes = tables.pageDirty.changes;
    this.#list = new PageList(thread, tables.pageDirty);
    this.#shapes = new PageShapes(thread);
  }

  /** Modified pages of a vnode, those being written back included. */
  countOf(vnode: VnodeIndex): number {
    return this.#list.count(vnode);
  }

  /** Modified pages of all vnodes. */
  get total(): number {
    let sum = 0;
    for (let stripe = 0; stripe <= this.#stripeMask; stripe++) sum += this.#stripes.count.get(stripe);
    return sum;
  }

  /** How often pages of a vnode have stopped being clean, or were given up: modulo 2^32, a look without the lock. */
  changesOf(vnode: VnodeIndex): number {
    return this.#changes.get(vnode);
  }

  /** Counts a change of a vnode that no page shows: a cut, or pages that were forgotten. */
  noteChange(vnode: VnodeIndex): void {
    const stripe = this.#enter(vnode);
    this.#change(vnode);
    mutexExit(this.#thread, stripe);
  }

  /** True when the page is neither modified nor being written back. */
  isClean(frame: FrameIndex): boolean {
    return load(this.#thread.words, this.#page.modified.address(this.#shapes.headOf(frame))) === 0;
  }

  /** Says that bytes of a page are about to be stored, or have been. The caller holds the page. */
  mark(held: FrameIndex): void {
    const { words } = this.#thread;
    const frame = this.#shapes.headOf(held);
    const address = this.#page.modified.address(frame);
    for (let word = load(words, address); word !== 0; ) {
      const found = compareExchange(words, address, word, word | MODIFIED.dirty);
      if (found === word) return;
      word = found;
    }
    this.#markClean(frame, address);
  }

  /** Claims a page for writing it back: a value of `CLAIM`. The caller holds it. */
  claim(frame: FrameIndex): number {
    const { words, tag } = this.#thread;
    const address = this.#page.modified.address(frame);
    for (;;) {
      const word = load(words, address);
      if ((word & MODIFIED.writer) !== 0) return CLAIM.busy;
      if (word === 0) return CLAIM.clean;
      if (compareExchange(words, address, word, tag << MODIFIED.writerShift) === word) return CLAIM.claimed;
    }
  }

  /** Ends a claim: clean if its bytes were stored and no writer has marked it meanwhile, dirty else. */
  finish(frame: FrameIndex, stored: boolean): void {
    const { words } = this.#thread;
    const address = this.#page.modified.address(frame);
    for (;;) {
      const word = load(words, address);
      assert((word & MODIFIED.writer) === this.#thread.tag << MODIFIED.writerShift, 'page/dirty-pages: its own claim');
      if (stored && (word & MODIFIED.dirty) === 0) break;
      if (compareExchange(words, address, word, MODIFIED.dirty) !== word) continue;
      this.#wake(word, address);
      return;
    }
    this.#finishClean(frame, address);
  }

  /** Waits until nobody writes a page back; false when `timeoutMs` ran out. The caller holds the page shared. */
  awaitWriter(frame: FrameIndex, timeoutMs: number): boolean {
    const { words, clock } = this.#thread;
    const address = this.#page.modified.address(frame);
    const deadline = clock.now() + timeoutMs;
    try {
      for (;;) {
        const word = load(words, address);
        if ((word & MODIFIED.writer) === 0) return true;
        const marked = word | MODIFIED.waiters;
        if (word !== marked && compareExchange(words, address, word, marked) !== word) continue;
        const remaining = deadline - clock.now();
        if (remaining <= 0) return false;
        sleepOn(this.#thread, address, marked, remaining);
      }
    } finally {
      this.#thread.clearWait();
    }
  }

  /** Forgets that a page was modified: its contents are given up. The caller holds it exclusively. */
  discard(frame: FrameIndex): void {
    const { words, journal } = this.#thread;
    const address = this.#page.modified.address(frame);
    if (load(words, address) === 0) return;
    const vnode = this.#page.vnode.get(frame) - 1;
    const stripe = this.#enter(vnode);
    this.#unlist(vnode, frame, PAGE_UNLINKED.plain);
    journal.log1(address);
    store(words, address, 0);
    mutexExit(this.#thread, stripe);
  }

  /**
   * Page indices of a vnode's modified pages from `first` up to `end`, in ascending order. Pages that are marked while it
   * looks may be among them.
   */
  indices(vnode: VnodeIndex, first: number, end: number): number[] {
    const found: number[] = [];
    if (this.countOf(vnode) === 0) return found;
    const stripe = this.#enter(vnode);
    for (let frame = this.#list.first(vnode); frame >= 0; frame = this.#list.after(frame)) {
      const index = this.#page.index.get(frame);
      if (index >= first && index < end) found.push(index);
    }
    mutexExit(this.#thread, stripe);
    return found.sort((a, b) => a - b);
  }

  /** Page indices of up to `max` pages of a vnode that were modified first and that nobody is writing back. */
  oldest(vnode: VnodeIndex, max: number, takes: (index: number) => boolean = () => true): number[] {
    const found: number[] = [];
    const stripe = this.#enter(vnode);
    for (let frame = this.#list.first(vnode); frame >= 0 && found.length < max; frame = this.#list.after(frame)) {
      const index = this.#page.index.get(frame);
      if ((this.#page.modified.get(frame) & MODIFIED.writer) === 0 && takes(index)) found.push(index);
    }
    mutexExit(this.#thread, stripe);
    return found;
  }

  /** The next vnode behind `vnode` that has modified pages, going round; -1 when none has. */
  nextVnode(vnode: VnodeIndex): VnodeIndex {
    const { count, rowCount } = this.#thread.region.tables.pageDirty;
    for (let step = 1; step <= rowCount; step++) {
      const next = (vnode + step) % rowCount;
      if (count.get(next) !== 0) return next;
    }
    return -1;
  }

  /** Moves what is known of a modified page to the frame that it moves to. Both are held exclusively; under `enterFor`. */
  move(vnode: VnodeIndex, from: FrameIndex, to: FrameIndex): void {
    const { words, journal } = this.#thread;
    const address = this.#page.modified.address(from);
    const word = load(words, address);
    if (word === 0) return;
    this.#list.replace(vnode, from, to);
    journal.log2(address, this.#page.modified.address(to));
    store(words, this.#page.modified.address(to), word);
    store(words, address, 0);
  }

  /** Puts a modified page that has got another vnode onto that one's list; under `enterBoth`, held exclusively. */
  rename(frame: FrameIndex, from: VnodeIndex, to: VnodeIndex): void {
    this.#change(from);
    this.#change(to);
    if (load(this.#thread.words, this.#page.modified.address(frame)) === 0 || from === to) return;
    this.#unlist(from, frame, PAGE_UNLINKED.plain);
    this.#enlist(to, frame);
  }

  /** Enters the mutexes of the lists of two vnodes, for `rename`. */
  enterBoth(one: VnodeIndex, other: VnodeIndex): WordAddress[] {
    const { lock } = this.#stripes;
    const first = lock.address(one & this.#stripeMask);
    return enterTwo(this.#thread, first, lock.address(other & this.#stripeMask), RANK.pageDirty);
  }

  /** Enters the mutex of a vnode's list, for `move`; returns what `mutexExit` needs. */
  enterFor(vnode: VnodeIndex): WordAddress {
    return this.#enter(vnode);
  }

  /**
   * What a dead slot has left of a page. It held the page, if `held`: then it may have stored bytes without saying so.
   * The page keeps its identity meanwhile, because the dead slot's hold is still there.
   */
  recover(frame: FrameIndex, dead: SlotIndex, held: boolean): void {
    const { words } = this.#thread;
    const address = this.#page.modified.address(frame);
    for (;;) {
      const word = load(words, address);
      if ((word & MODIFIED.writer) !== (dead + 1) << MODIFIED.writerShift) break;
      if (compareExchange(words, address, word, MODIFIED.dirty) === word) notify(words, address, ALL_WAITERS);
    }
    // Nobody has stored into a page that is still on the cache list.
    const head = this.#shapes.headOf(frame);
    if (!held || !this.isClean(head) || this.#page.state.get(head) === PAGE_STATE.cached) return;
    if (this.#link.previous.get(head) !== PAGE_UNLINKED.plain) this.mark(head);
  }

  /** Broken invariants, at quiet points. */
  problems(): string[] {
    const { page, pageDirty } = this.#thread.region.tables;
    const problems: string[] = [];
    const listed = new Uint8Array(page.rowCount);
    const counts = new Array<number>(this.#stripeMask + 1).fill(0);
    for (let vnode = 0; vnode < pageDirty.rowCount; vnode++) {
      if (pageDirty.head.get(vnode) === 0 && pageDirty.count.get(vnode) === 0) continue;
      const { frames, problems: broken } = this.#list.walk(vnode);
      problems.push(...broken);
      counts[vnode & this.#stripeMask] = (counts[vnode & this.#stripeMask] as number) + frames.length;
      for (const frame of frames) {
        listed[frame] = 1;
        if (page.vnode.get(frame) === vnode + 1) continue;
        problems.push(
          `page/dirty-pages I2: frame ${frame} is on the list of vnode ${vnode}, which it does not belong to`,
        );
      }
    }
    for (let frame = 0; frame < page.rowCount; frame++) {
      const word = page.modified.get(frame);
      if ((word !== 0) !== (listed[frame] === 1)) problems.push(`page/dirty-pages I1: frame ${frame} has word ${word}`);
      if (page.vnode.get(frame) === 0 && this.#link.previous.get(frame) !== 0) {
        problems.push(`page/dirty-pages I2: frame ${frame} without an identity has a link`);
      }
    }
    for (const [stripe, count] of counts.entries()) {
      const counted = this.#stripes.count.get(stripe);
      if (count !== counted) problems.push(`page/dirty-pages I3: stripe ${stripe} has ${count}, counted ${counted}`);
    }
    return problems;
  }

  /**
   * Lists the page for good before its word says so: a word that others have seen must not be undone. A death in between
   * leaves a listed page with word 0 under a hold of the dead slot: recovery marks it.
   */
  #markClean(frame: FrameIndex, address: WordAddress): void {
    const { words } = this.#thread;
    const vnode = this.#page.vnode.get(frame) - 1;
    assert(vnode >= 0, 'page/dirty-pages I2: a page that is modified has an identity');
    assert(
      this.#page.state.get(frame) !== PAGE_STATE.cached,
      'page/cache-list I3: who holds a page took it off the list',
    );
    const stripe = this.#enter(vnode);
    if (!this.#list.isLinked(frame)) {
      this.#enlist(vnode, frame);
      this.#thread.commit();
      if (VERIFY) faultPoint(this.#thread, 'page.modify.listed');
    }
    this.#change(vnode);
    // Under the mutex nobody makes a word 0, and others only add to one that is not.
    or(words, address, MODIFIED.dirty);
    mutexExit(this.#thread, stripe);
  }

  #finishClean(frame: FrameIndex, address: WordAddress): void {
    const { words, journal } = this.#thread;
    const vnode = this.#page.vnode.get(frame) - 1;
    const stripe = this.#enter(vnode);
    let word = load(words, address);
    for (;;) {
      const next = word & MODIFIED.dirty;
      if (next === 0) journal.log1(address);
      const found = compareExchange(words, address, word, next);
      if (found === word) break;
      word = found;
    }
    if ((word & MODIFIED.dirty) === 0) this.#unlist(vnode, frame, PAGE_UNLINKED.written);
    mutexExit(this.#thread, stripe);
    this.#wake(word, address);
  }

  /** Under the mutex: puts a page on a list. */
  #enlist(vnode: VnodeIndex, frame: FrameIndex): void {
    const row = vnode & this.#stripeMask;
    this.#list.insert(vnode, frame);
    this.#thread.journal.set(this.#stripes.count, row, this.#stripes.count.get(row) + 1);
  }

  /** Under the mutex: takes a page off its list. */
  #unlist(vnode: VnodeIndex, frame: FrameIndex, left: number): void {
    const row = vnode & this.#stripeMask;
    this.#list.remove(vnode, frame, left);
    this.#thread.journal.set(this.#stripes.count, row, this.#stripes.count.get(row) - 1);
  }

  /** Under the mutex. Not journaled: a death may leave it one too far, which does no harm. */
  #change(vnode: VnodeIndex): void {
    this.#changes.put(vnode, (this.#changes.get(vnode) + 1) | 0);
  }

  #wake(word: number, address: WordAddress): void {
    if ((word & MODIFIED.waiters) !== 0) notify(this.#thread.words, address, ALL_WAITERS);
  }

  #enter(vnode: VnodeIndex): WordAddress {
    const address = this.#stripes.lock.address(vnode & this.#stripeMask);
    mutexEnter(this.#thread, address, RANK.pageDirty);
    return address;
  }
}
