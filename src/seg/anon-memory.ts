/**
 * Anonymous memory: pages that belong to no file, found through anon maps.
 *
 * PROBLEM     A page must be made, copied before it is written when others see it too, swapped out and brought back, and
 *             freed with its last reference, while any thread may be on its way to it.
 * STRUCTURE   An anon is a number; its page has the identity (vnode of anonymous memory, anon). Making one:
 *
 *               1 take an anon: the slot's spare one, or a free one under the lock; it is the slot's until a chunk points to it
 *               2 create its page, with zeros or as a copy of the page that it replaces   3 under the lock: is the place still
 *               as it was? then count the change of translations, store it, and take a spare one for the next time; else it
 *               is given back
 *
 *             Finding one: under the lock, its page is held if it is in memory; if not, the slot says that it is visiting
 *             the anon, and brings the page without the lock.
 *
 *             Freeing: without references -> dying -> taken by a slot -> page dropped, swap given back -> free. An anon that a
 *             slot visits, or whose page somebody holds, stays dying, and the next one who comes by tries again.
 * INVARIANTS  I1 a page of an anon exists only while the anon is not free.   I2 an anon is freed by the slot that took it from
 *             the dying ones.   I3 a translation to write is given out only for an anon that no other map sees.
 * LOCKING     The lock of the spaces for all but the pages. The translations of a page change under it, before the store: so a
 *             count that was read before a look-up is current only if the look-up is.
 * COSTS       A first store: one page, one lock pair: the look at the map before it takes no lock, since step 3 looks again. A store
 *             that copies what a fork shows: three, with the freeing of what it leaves. Freeing: one drop a page.
 *             Two threads on new pages have to wait for this lock as often as for that of the frames; with three lock pairs a page
 *             it was five times as often. One alone is 3 to 10 % faster for it. Two scale 1.2 to 1.3 before and after; what
 *             holds them up was not found out: the lists of frames and of modified pages are shared as well.
 * FAILURE     `ENOMEM` without anons, nodes or frames; what was made goes back. A slot's spare anon serves no other slot: while
 *             less than a quarter is free, none is taken.
 * REJECTED    References for visitors: a second one would look like a fork, and a writer that has a translation would lose
 *             what it stores into a page that is copied meanwhile. A lock for each family of maps that forks made: see the figures.
 * REFERENCES  illumos vm_anon.c; Mach's copy-on-write faults.
 */

import { VERIFY } from '../base/verify.ts';
import type { PageSource, PageStore, Pages, VnodeIndex } from '../page/index.ts';
import type { Banks, FrameIndex } from '../phys/index.ts';
import { faultPoint, type SlotIndex } from '../sync/index.ts';
import { AnonMaps } from './anon-maps.ts';
import type { SpaceCore } from './space-core.ts';
import type { AnonIndex, AnonMapIndex, SpaceIndex } from './space-kinds.ts';
import type { SwapFile } from './swap-file.ts';
import type { WriteSections } from './write-sections.ts';

/** Anons that are taken from the dying ones at a time. */
const REAP_BATCH = 32;

/** Slots take spare anons while such a part of all is free. */
const SPARE_SHARE = 0.25;

/** Anonymous memory as one thread sees it. */
export class AnonMemory {
  readonly maps: AnonMaps;
  /** The vnode whose pages are anons. */
  readonly vnode: VnodeIndex;
  private readonly core: SpaceCore;
  private readonly pages: Pages;
  private readonly store: PageStore;
  private readonly sections: WriteSections;
  private readonly copier: FrameCopier;
  private readonly swap: SwapFile;
  private readonly lanes = new Int32Array(1);

  constructor(
    core: SpaceCore,
    pages: Pages,
    banks: Banks,
    store: PageStore,
    vnode: VnodeIndex,
    sections: WriteSections,
    swap: SwapFile,
  ) {
    this.core = core;
    this.maps = new AnonMaps(core);
    this.pages = pages;
    this.store = store;
    this.vnode = vnode;
    this.sections = sections;
    this.swap = swap;
    this.copier = new FrameCopier(banks);
  }

  /** Under the lock: the frame of an anon, held, or -1; then the slot visits the anon until `bring`. */
  holdOrVisit(anon: AnonIndex): FrameIndex {
    const frame = this.pages.hold(this.vnode, anon);
    if (frame < 0) this.core.slots.visiting.put(this.core.thread.slot, anon + 1);
    return frame;
  }

  /** Ends the visit of an anon whose page is not brought. */
  passBy(): void {
    this.core.slots.visiting.put(this.core.thread.slot, 0);
  }

  /** Without the lock: brings the page of the anon that this slot visits, and holds it. */
  bring(anon: AnonIndex): FrameIndex {
    try {
      this.pages.fetch(this.vnode, anon, 1, this.lanes, 0, this.store, true);
      return this.lanes[0] as number;
    } finally {
      this.core.slots.visiting.put(this.core.thread.slot, 0);
    }
  }

  /**
   * Puts a new anon at a page of a map, if `expected` (-1: none) is still there; it holds what `source` holds, or zeros. Returns
   * the frame, held, with the new anon in `made`, or -1 when somebody else was faster. `spacePage` is where the
   * space shows it, -1 when nobody can have a translation of what was there.
   */
  replace(
    space: SpaceIndex,
    map: AnonMapIndex,
    page: number,
    expected: AnonIndex,
    source: FrameIndex,
    spacePage: number,
  ): FrameIndex {
    const { core, maps, pages } = this;
    const { slots, thread } = core;
    // 1.
    const anon = this.make();
    // 2.
    let frame: FrameIndex;
    try {
      this.copier.source = source;
      pages.create(this.vnode, anon, 1, this.lanes, 0, this.store, source < 0 ? null : this.copier);
      frame = this.lanes[0] as number;
    } catch (error) {
      this.discard(anon);
      throw error;
    }
    // 3.
    core.lock.enter();
    if (maps.find(map, page) !== expected || (expected >= 0 && maps.exclusive) || !maps.canStore()) {
      const full = !maps.canStore();
      core.lock.exit();
      pages.release(frame);
      this.discard(anon);
      return full ? core.failFull('fault', 'anonNodes') : -1;
    }
    if (spacePage >= 0) this.sections.changePage(space, spacePage);
    maps.store(map, page, anon);
    thread.journal.set(slots.making, thread.slot, 0);
    this.takeSpare();
    core.lock.exit();
    this.made = anon;
    return frame;
  }

  /** Gives the spare anon of this slot back: when its thread detaches. */
  leave(): void {
    const { core } = this;
    core.lock.enter();
    this.giveSpare(core.thread.slot);
    core.lock.exit();
  }

  /** The anon that `replace` has made last. */
  made: AnonIndex = -1;

  /** Takes what is at pages `[from, to)` of a map away. The space that shows them, if only one does, is held exclusively. */
  clear(map: AnonMapIndex, from: number, to: number): void {
    if (!this.clearIfPossible(map, from, to)) this.core.failFull('advise', 'anonNodes');
  }

  /** Like `clear`; false when it ends early for lack of nodes. */
  clearIfPossible(map: AnonMapIndex, from: number, to: number): boolean {
    const { core, maps } = this;
    for (let page = from; page < to; ) {
      if (!maps.canStore()) this.reap();
      core.lock.enter();
      const possible = maps.canStore();
      if (possible) page = maps.clearSome(map, page, to);
      core.lock.exit();
      if (!possible) return false;
    }
    return true;
  }

  /** Frees what has no references any more, but for what others are about to hold. Called without locks of the spaces. */
  reap(): void {
    const { core, maps } = this;
    const { control } = core;
    // A look without the lock: whoever releases comes here afterwards.
    while (control.dyingNodes.get(0) !== 0) {
      core.lock.enter();
      maps.reapNode();
      core.lock.exit();
    }
    while (control.dyingAnons.get(0) !== 0) {
      const taken = this.takeDying();
      if (taken === 0 || this.freeTaken(core.thread.slot) === 0) break;
    }
  }

  /** Frees what a dead slot had in hand. Waits for no page. */
  recover(dead: SlotIndex): void {
    const { core, maps } = this;
    const { slots, anons, control, thread } = core;
    core.lock.enter();
    slots.visiting.put(dead, 0);
    const making = slots.making.get(dead);
    if (slots.spare.get(dead) === making) thread.journal.set(slots.spare, dead, 0);
    else this.giveSpare(dead);
    if (making !== 0) {
      maps.releaseAnon(making - 1);
      thread.journal.set(slots.making, dead, 0);
    }
    core.lock.exit();
    while (slots.dropping.get(dead) !== 0) {
      core.lock.enter();
      const anon = slots.dropping.get(dead) - 1;
      thread.journal.set(slots.dropping, dead, -anons.refs.get(anon));
      thread.journal.set(anons.refs, anon, -control.dyingAnons.get(0));
      thread.journal.set(control.dyingAnons, 0, anon + 1);
      core.lock.exit();
    }
  }

  /** Step 1 of `replace`. */
  private make(): AnonIndex {
    const { core } = this;
    const { anonPool, anons, slots, thread } = core;
    const spare = slots.spare.get(thread.slot);
    if (spare !== 0) {
      // Rows that nobody can reach, and words of this slot: a death here finds it named by one of the two, or by both.
      anons.refs.put(spare - 1, 1);
      anons.swap.put(spare - 1, 0);
      slots.making.put(thread.slot, spare);
      if (VERIFY) faultPoint(thread, 'seg.anon.spared');
      slots.spare.put(thread.slot, 0);
      if (VERIFY) faultPoint(thread, 'seg.anon.made');
      return spare - 1;
    }
    if (anonPool.left === 0) this.reap();
    core.lock.enter();
    const anon = anonPool.take();
    if (anon < 0) {
      core.lock.exit();
      return core.failFull('fault', 'anons');
    }
    thread.journal.set(anons.refs, anon, 1);
    thread.journal.set(anons.swap, anon, 0);
    thread.journal.set(slots.making, thread.slot, anon + 1);
    core.lock.exit();
    if (VERIFY) faultPoint(thread, 'seg.anon.made');
    return anon;
  }

  /** Journaled, under the lock: an anon for the next page of this slot, unless few are left: others may need it more. */
  private takeSpare(): void {
    const { anonPool, slots, thread } = this.core;
    if (slots.spare.get(thread.slot) !== 0 || anonPool.left < anonPool.rowCount * SPARE_SHARE) return;
    thread.journal.set(slots.spare, thread.slot, anonPool.take() + 1);
  }

  /** Journaled, under the lock: the spare anon of a slot is free. */
  private giveSpare(slot: SlotIndex): void {
    const { anonPool, slots, thread } = this.core;
    const spare = slots.spare.get(slot);
    if (spare === 0) return;
    thread.journal.set(slots.spare, slot, 0);
    anonPool.give(spare - 1);
  }

  /** Gives an anon back that was made for nothing. */
  private discard(anon: AnonIndex): void {
    const { core, maps } = this;
    core.lock.enter();
    maps.releaseAnon(anon);
    core.thread.journal.set(core.slots.making, core.thread.slot, 0);
    core.lock.exit();
    this.reap();
  }

  /** Moves dying anons that nobody visits into this slot's hands; returns how many. */
  private takeDying(): number {
    const { core } = this;
    const { control, anons, slots, thread } = core;
    const { journal, slot } = thread;
    let taken = 0;
    let kept = 0;
    core.lock.enter();
    let link = control.dyingAnons.get(0);
    for (let looked = 0; link !== 0 && looked < REAP_BATCH; looked++) {
      const anon = link - 1;
      link = -anons.refs.get(anon);
      if (this.isVisited(anon)) {
        journal.set(anons.refs, anon, -kept);
        kept = anon + 1;
      } else {
        journal.set(anons.refs, anon, -slots.dropping.get(slot));
        journal.set(slots.dropping, slot, anon + 1);
        taken++;
      }
    }
    // Those that are visited go back to the front.
    let rest = link;
    while (kept !== 0) {
      const next = -anons.refs.get(kept - 1);
      journal.set(anons.refs, kept - 1, -rest);
      rest = kept;
      kept = next;
    }
    journal.set(control.dyingAnons, 0, rest);
    core.lock.exit();
    if (VERIFY) faultPoint(thread, 'seg.anon.dropping');
    return taken;
  }

  /** Drops the pages of the anons in a slot's hands and frees those; returns how many could be. */
  private freeTaken(slot: SlotIndex): number {
    const { core, pages, swap } = this;
    const { control, anons, anonPool, slots, thread } = core;
    const { journal } = thread;
    let freed = 0;
    for (;;) {
      const anon = slots.dropping.get(slot) - 1;
      if (anon < 0) return freed;
      const dropped = pages.invalidate(this.vnode, anon, anon + 1) === 0;
      if (dropped && anons.swap.get(anon) !== 0) swap.free(anon);
      core.lock.enter();
      journal.set(slots.dropping, slot, -anons.refs.get(anon));
      if (dropped) {
        anonPool.give(anon);
        freed++;
      } else {
        journal.set(anons.refs, anon, -control.dyingAnons.get(0));
        journal.set(control.dyingAnons, 0, anon + 1);
      }
      core.lock.exit();
    }
  }

  private isVisited(anon: AnonIndex): boolean {
    const { visiting } = this.core.slots;
    const { slots } = this.core.thread.region.geometry;
    for (let slot = 0; slot < slots; slot++) if (visiting.get(slot) === anon + 1) return true;
    return false;
  }
}

/** Fills a new page with a copy of another, which the caller holds. */
class FrameCopier implements PageSource {
  private readonly banks: Banks;
  source: FrameIndex = -1;

  constructor(banks: Banks) {
    this.banks = banks;
  }

  fill(_vnode: VnodeIndex, _index: number, frames: Int32Array, at: number, count: number): number {
    const { banks, source } = this;
    const { pageSize } = banks;
    for (let lane = at; lane < at + count; lane++) {
      const frame = frames[lane] as number;
      const bank = banks.bankOf(frame);
      const to = banks.views[bank] as Uint8Array;
      const offset = banks.offsetOf(frame);
      if (banks.bankOf(source) === bank) banks.copyInBank(bank, offset, banks.offsetOf(source), pageSize);
      else {
        const from = banks.offsetOf(source);
        to.set((banks.views[banks.bankOf(source)] as Uint8Array).subarray(from, from + pageSize), offset);
      }
    }
    return count * pageSize;
  }
}
