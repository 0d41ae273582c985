/**
 * Shadow lists: ranges whose pages are locked, for the pagelock cache.
 *
 * PROBLEM     A cached range keeps its pages still although the thread that locked them may be gone, so no slot's page holds will
 *             do; several ranges may lock one page; and a thread may die between locking two pages.
 * STRUCTURE   A row names pages: a stretch of an anon map, or of a vnode. Each frame counts the lists that lock it, and while the
 *             count is not 0, the bit of one slot that no thread has is set in the page lock:
 *
 *               list   map 3, pages 8 to 11, locked 2        frame 70  count 1, bit       frame 71  count 2, bit
 *
 *             Which frames those are is not written down: locked pages keep their identities, their places in the anon map, and
 *             their frames, so that they are found again by walking.
 *
 *               building --all locked--> held by a slot --insert--> cached by the pagelock cache
 *                  '------------ unlocked, last page first -------------'--> free
 *
 * INVARIANTS  I1 the count of a frame is the number of lists that have locked its page.
 *             I2 the bit is set while the count is not 0.   I3 `softLocks` of an anon map is the number of its lists.
 *             I4 pages of an anon map that is not shared are locked only while no other map sees them.
 * LOCKING     The lock of the spaces. A bit is set by a thread that holds the page; the bit's slot is the last one, so that whoever
 *             looks at the words of bits in order finds it or the thread's own.
 * COSTS       A lock pair a page.
 * FAILURE     -1 without a row. After a death between bit and count, recovery clears bits without a count.
 * REJECTED    Lists of frames in shared memory: as large as what is locked, and no more than can be found out.
 * REFERENCES  illumos seg_vn.c (segvn_pagelock, softlockcnt), vm_seg.c for whom this is the other side.
 */

import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { DirtyPages, PageHash } from '../page/index.ts';
import type { FrameIndex } from '../phys/index.ts';
import { ALL_WAITERS, and, faultPoint, LOCK_OWNER, load, notify, or, type SlotIndex } from '../sync/index.ts';
import type { AnonMemory } from './anon-memory.ts';
import type { CacheDriver, CacheOwner } from './pagelock-kinds.ts';
import type { SpaceCore } from './space-core.ts';
import { type AnonMapIndex, SHADOW_STATE, type ShadowIndex } from './space-kinds.ts';

/** What a list locks: pages of an anon map or of a vnode, or of a segment whose frames never move. */
export interface ShadowTarget {
  /** -1: none. */
  readonly map: AnonMapIndex;
  /** -1: none. */
  readonly vnode: number;
  readonly segment: number;
  readonly first: number;
  readonly pages: number;
  readonly owner: CacheOwner;
  readonly write: boolean;
}

/** Frames of one sweep of the recovery under the lock. */
const SWEEP_FRAMES = 1024;

/** Shadow lists as one thread sees them. */
export class ShadowLists implements CacheDriver {
  private readonly core: SpaceCore;
  private readonly anon: AnonMemory;
  private readonly dirty: DirtyPages;
  private readonly hash: PageHash;
  private readonly counts: BoundTables['frameLock']['count'];
  private readonly locks: BoundTables['page']['lock'];

  constructor(core: SpaceCore, anon: AnonMemory) {
    const { tables } = core.thread.region;
    this.core = core;
    this.anon = anon;
    this.dirty = new DirtyPages(core.thread);
    this.hash = new PageHash(core.thread);
    this.counts = tables.frameLock.count;
    this.locks = tables.page.lock;
  }

  /** A list that locks nothing yet; -1 without a row. */
  begin(target: ShadowTarget): ShadowIndex {
    const { core } = this;
    const { shadows, shadowPool, maps, thread } = core;
    const { journal } = thread;
    core.lock.enter();
    const list = shadowPool.take();
    if (list >= 0) {
      journal.set(shadows.state, list, SHADOW_STATE.building);
      journal.set(shadows.slot, list, thread.tag);
      journal.set(shadows.generation, list, shadows.generation.get(list) + 1);
      journal.set(shadows.map, list, target.map + 1);
      journal.set(shadows.vnode, list, target.vnode + 1);
      journal.set(shadows.segment, list, target.segment + 1);
      journal.set(shadows.first, list, target.first);
      journal.set(shadows.pages, list, target.pages);
      journal.set(shadows.locked, list, 0);
      journal.set(shadows.cacheOwner, list, target.owner + 1);
      journal.set(shadows.write, list, target.write ? 1 : 0);
      if (target.map >= 0) journal.set(maps.softLocks, target.map, maps.softLocks.get(target.map) + 1);
    }
    core.lock.exit();
    return list;
  }

  /** Locks the next page of a list; the caller holds it. -1: a frame that never moves. */
  lockNext(list: ShadowIndex, frame: FrameIndex): void {
    const { core, counts } = this;
    const { shadows, slots, thread } = core;
    const { journal } = thread;
    slots.locking.put(thread.slot, 1);
    core.lock.enter();
    if (frame >= 0) {
      or(thread.words, this.bitsOf(frame), this.bit);
      if (VERIFY) faultPoint(thread, 'seg.pin.locking');
      journal.set(counts, frame, counts.get(frame) + 1);
    }
    journal.set(shadows.locked, list, shadows.locked.get(list) + 1);
    core.lock.exit();
    slots.locking.put(thread.slot, 0);
  }

  /** Says who has a list whose pages are all locked: this slot, or the cache. */
  settle(list: ShadowIndex, state: number, number: number = this.numberOf(list)): void {
    const { core } = this;
    core.lock.enter();
    const isThere = this.numberOf(list) === number && core.shadows.state.get(list) !== SHADOW_STATE.free;
    if (isThere) core.thread.journal.set(core.shadows.state, list, state);
    core.lock.exit();
  }

  /** The list of a wired map. */
  wiredOf(map: AnonMapIndex): ShadowIndex {
    const { shadows, shadowPool } = this.core;
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      if (shadows.state.get(list) === SHADOW_STATE.wired && shadows.map.get(list) === map + 1) return list;
    }
    return -1;
  }

  /** Journaled, under the lock: the list of a wired map that goes becomes this slot's own, to be unlocked. -1: there is none. */
  seize(map: AnonMapIndex): ShadowIndex {
    const { shadows, thread } = this.core;
    const list = this.wiredOf(map);
    if (list < 0) return -1;
    thread.journal.set(shadows.state, list, SHADOW_STATE.held);
    thread.journal.set(shadows.slot, list, thread.tag);
    return list;
  }

  /** The number by which the pagelock cache knows a list. */
  numberOf(list: ShadowIndex): number {
    return this.core.shadows.generation.get(list) * this.core.shadows.rowCount + list;
  }

  /** The frames of a list, or of a part of it that begins `skip` pages in. */
  framesOf(map: AnonMapIndex, vnode: number, first: number, pages: number, out: FrameIndex[]): void {
    const { core } = this;
    for (let page = first; page < first + pages; page++) {
      core.lock.enter();
      const frame = this.frameAt(map, vnode, page);
      core.lock.exit();
      out.push(frame);
    }
  }

  /** Unlocks what is locked of a list and frees it. May be called again after a death in the middle. */
  unlock(list: ShadowIndex): void {
    const { core, counts } = this;
    const { shadows, shadowPool, slots, thread } = core;
    const { journal } = thread;
    slots.locking.put(thread.slot, 1);
    const map = shadows.map.get(list) - 1;
    const vnode = shadows.vnode.get(list) - 1;
    const isWritten = shadows.write.get(list) !== 0;
    while (shadows.locked.get(list) > 0) {
      core.lock.enter();
      const left = shadows.locked.get(list) - 1;
      const frame = map < 0 && vnode < 0 ? -1 : this.frameAt(map, vnode, shadows.first.get(list) + left);
      core.lock.exit();
      if (frame >= 0 && isWritten) this.dirty.mark(frame);
      core.lock.enter();
      journal.set(shadows.locked, list, left);
      const count = frame < 0 ? 1 : counts.get(frame) - 1;
      if (frame >= 0) journal.set(counts, frame, count);
      thread.commit();
      if (count === 0) this.clearBit(frame);
      core.lock.exit();
    }
    slots.locking.put(thread.slot, 0);
    core.lock.enter();
    journal.set(shadows.state, list, SHADOW_STATE.free);
    const freed = map >= 0 && this.anon.maps.unlocked(map);
    shadowPool.give(list);
    core.drained.broadcast();
    core.lock.exit();
    if (freed) this.anon.reap();
  }

  /** A list of the cache is pinned for writing: from here on its pages are marked as modified in the end. */
  setWritten(shadow: number): void {
    const { core } = this;
    const { shadows } = core;
    const list = shadow % shadows.rowCount;
    if (shadows.write.get(list) !== 0) return;
    core.lock.enter();
    core.thread.journal.set(shadows.write, list, 1);
    core.lock.exit();
  }

  /** Marks pages as modified that are locked by a list of the caller's, or that the caller has pinned. */
  markFrames(frames: readonly FrameIndex[]): void {
    for (const frame of frames) if (frame >= 0) this.dirty.mark(frame);
  }

  /** Marks the pages in `[first, end)` of a vnode as modified that lists lock for writing and `isChosen` takes. */
  markWritten(vnode: number, first: number, end: number, isChosen: (shadow: number) => boolean): void {
    const { shadows, shadowPool } = this.core;
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      if (shadows.state.get(list) === SHADOW_STATE.free || shadows.vnode.get(list) !== vnode + 1) continue;
      if (shadows.write.get(list) === 0 || shadows.first.get(list) >= end) continue;
      const number = this.numberOf(list);
      if (isChosen(number)) this.markList(list, number, first, end);
    }
  }

  /** Marks what lists of the cache lock for writing: after the death of a thread that may have stored through them. */
  markAllCached(): void {
    const { shadows, shadowPool } = this.core;
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      if (shadows.state.get(list) !== SHADOW_STATE.cached || shadows.write.get(list) === 0) continue;
      this.markList(list, this.numberOf(list), 0, Number.POSITIVE_INFINITY);
    }
  }

  /** Page by page under the lock, under which a page that a list counts stays locked. */
  private markList(list: ShadowIndex, number: number, from: number, to: number): void {
    const { core } = this;
    const { shadows } = core;
    for (let done = Math.max(0, from - shadows.first.get(list)); ; done++) {
      core.lock.enter();
      const page = shadows.first.get(list) + done;
      const isLocked = this.numberOf(list) === number && done < shadows.locked.get(list) && page < to;
      const map = shadows.map.get(list) - 1;
      const vnode = shadows.vnode.get(list) - 1;
      const frame = !isLocked || (map < 0 && vnode < 0) ? -1 : this.frameAt(map, vnode, page);
      if (frame >= 0) this.dirty.mark(frame);
      core.lock.exit();
      if (!isLocked) return;
    }
  }

  reclaim(_owner: CacheOwner, _address: number, _length: number, shadow: number): boolean {
    const { shadows } = this.core;
    const list = shadow % shadows.rowCount;
    const generation = (shadow - list) / shadows.rowCount;
    // It may have been given back before the thread died that did it.
    if (shadows.generation.get(list) !== generation || shadows.state.get(list) === SHADOW_STATE.free) return false;
    // The list of a wired map goes with the map.
    if (shadows.cacheOwner.get(list) === 0) return false;
    this.unlock(list);
    return false;
  }

  /**
   * One list for two whose pages lie one behind the other: the first one grows, and keeps its number, the second one's row is
   * free. So whichever of the two numbers is reclaimed after a death, every page is unlocked once. -1 when they do not fit.
   */
  join(first: number, second: number): number {
    const { core } = this;
    const { shadows, shadowPool, maps, thread } = core;
    const { journal } = thread;
    const one = first % shadows.rowCount;
    const two = second % shadows.rowCount;
    core.lock.enter();
    const pages = shadows.pages.get(one);
    const same = [shadows.map, shadows.vnode, shadows.segment, shadows.cacheOwner];
    const fits =
      this.isCached(first) &&
      this.isCached(second) &&
      same.every((column) => column.get(one) === column.get(two)) &&
      shadows.first.get(one) + pages === shadows.first.get(two);
    if (fits) {
      const map = shadows.map.get(one) - 1;
      journal.set(shadows.pages, one, pages + shadows.pages.get(two));
      journal.set(shadows.locked, one, pages + shadows.locked.get(two));
      // Pages that were only read are marked as modified, too, in the end: both may be written.
      journal.set(shadows.write, one, shadows.write.get(one) | shadows.write.get(two));
      journal.set(shadows.state, two, SHADOW_STATE.free);
      if (map >= 0) journal.set(maps.softLocks, map, maps.softLocks.get(map) - 1);
      shadowPool.give(two);
    }
    core.lock.exit();
    return fits ? first : -1;
  }

  /** True for the number of a list that the cache has, and all of whose pages are locked. */
  private isCached(shadow: number): boolean {
    const { shadows } = this.core;
    const list = shadow % shadows.rowCount;
    const isCurrent = shadows.generation.get(list) * shadows.rowCount + list === shadow;
    return (
      isCurrent &&
      shadows.state.get(list) === SHADOW_STATE.cached &&
      shadows.locked.get(list) === shadows.pages.get(list)
    );
  }

  /** True while a list locks pages in `[from, to)` of an anon map, of a segment, or of a vnode that a segment maps. */
  isLocked(map: AnonMapIndex, segment: number, from: number, to: number): boolean {
    const { shadows, shadowPool, maps } = this.core;
    if (map >= 0 && maps.softLocks.get(map) === 0) return false;
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      if (shadows.state.get(list) === SHADOW_STATE.free) continue;
      const names = map >= 0 ? shadows.map.get(list) === map + 1 : shadows.segment.get(list) === segment + 1;
      const first = shadows.first.get(list);
      if (names && first < to && first + shadows.pages.get(list) > from) return true;
    }
    return false;
  }

  /** The lists that lock pages of an anon map, as ranges of its pages. */
  rangesOf(map: AnonMapIndex): { first: number; pages: number }[] {
    const { shadows, shadowPool } = this.core;
    const ranges: { first: number; pages: number }[] = [];
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      if (shadows.state.get(list) === SHADOW_STATE.free || shadows.map.get(list) !== map + 1) continue;
      ranges.push({ first: shadows.first.get(list), pages: shadows.locked.get(list) });
    }
    return ranges;
  }

  /** The lists that lock the page in a frame, with the slot that has each, -1 for the cache. Looks at all lists: for messages. */
  listsOf(frame: FrameIndex): { list: ShadowIndex; slot: SlotIndex }[] {
    const { core } = this;
    const { shadows, shadowPool } = core;
    const found: { list: ShadowIndex; slot: SlotIndex }[] = [];
    if (!this.locksFrame(frame)) return found;
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      core.lock.enter();
      const state = shadows.state.get(list);
      const [map, vnode] = [shadows.map.get(list) - 1, shadows.vnode.get(list) - 1];
      const isMeant = state !== SHADOW_STATE.free && (map >= 0 || vnode >= 0) && this.hasFrame(list, map, vnode, frame);
      core.lock.exit();
      if (!isMeant) continue;
      const isOwn = state === SHADOW_STATE.building || state === SHADOW_STATE.held;
      found.push({ list, slot: isOwn ? shadows.slot.get(list) - 1 : -1 });
    }
    return found;
  }

  /** True when some list locks the page in a frame. */
  locksFrame(frame: FrameIndex): boolean {
    return this.counts.get(frame) !== 0;
  }

  /** Gives back the lists that a dead slot was building or holding, unless the cache has them after all. */
  recover(dead: SlotIndex, isCached: (shadow: number) => boolean): void {
    const { core } = this;
    const { shadows, shadowPool, slots } = core;
    if (slots.locking.get(dead) !== 0) {
      this.sweepBits();
      slots.locking.put(dead, 0);
    }
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      const state = shadows.state.get(list);
      if (shadows.slot.get(list) !== dead + 1) continue;
      if (state !== SHADOW_STATE.building && state !== SHADOW_STATE.held) continue;
      // Who reclaims it meanwhile frees the row.
      const number = this.numberOf(list);
      if (isCached(number)) this.settle(list, SHADOW_STATE.cached, number);
      else if (this.numberOf(list) === number && shadows.state.get(list) === state) this.unlock(list);
    }
  }

  /** Appends broken invariants. For quiet points. */
  check(problems: string[]): void {
    const { core, counts, locks } = this;
    const { shadows, shadowPool, maps, thread } = core;
    const found = new Int32Array(thread.region.geometry.frames);
    const soft = new Int32Array(maps.rowCount);
    for (let list = 0; list < shadowPool.walkEnd; list++) {
      if (shadows.state.get(list) === SHADOW_STATE.free) continue;
      const map = shadows.map.get(list) - 1;
      const vnode = shadows.vnode.get(list) - 1;
      if (map >= 0) soft[map] = (soft[map] as number) + 1;
      if (map < 0 && vnode < 0) continue;
      for (let page = 0; page < shadows.locked.get(list); page++) {
        const frame = this.frameAt(map, vnode, shadows.first.get(list) + page);
        if (frame < 0) problems.push(`seg/shadow-lists: page ${page} of list ${list} is not in memory`);
        else found[frame] = (found[frame] as number) + 1;
      }
    }
    for (let frame = 0; frame < found.length; frame++) {
      const count = counts.get(frame);
      if (count !== found[frame])
        problems.push(`seg/shadow-lists I1: frame ${frame}: count ${count}, ${found[frame]} found`);
      const isSet = (load(thread.words, locks.address(frame, this.lane)) & this.bit) !== 0;
      if (isSet !== (count !== 0)) problems.push(`seg/shadow-lists I2: frame ${frame}: count ${count}, bit ${isSet}`);
    }
    for (let map = 0; map < core.mapPool.walkEnd; map++) {
      if (maps.state.get(map) === 0 || maps.softLocks.get(map) === soft[map]) continue;
      problems.push(`seg/shadow-lists I3: map ${map}: ${maps.softLocks.get(map)} soft locks, ${soft[map]} lists`);
    }
  }

  /** Under the lock, or where nothing changes: the frame of a locked page. */
  private frameAt(map: AnonMapIndex, vnode: number, page: number): FrameIndex {
    if (map < 0) return this.hash.findCertain(vnode, page);
    const anon = this.anon.maps.find(map, page);
    return anon < 0 ? -1 : this.hash.findCertain(this.anon.vnode, anon);
  }

  private hasFrame(list: ShadowIndex, map: AnonMapIndex, vnode: number, frame: FrameIndex): boolean {
    const { shadows } = this.core;
    const first = shadows.first.get(list);
    for (let page = first; page < first + shadows.locked.get(list); page++) {
      if (this.frameAt(map, vnode, page) === frame) return true;
    }
    return false;
  }

  private clearBit(frame: FrameIndex): void {
    const { words } = this.core.thread;
    const bits = this.bitsOf(frame);
    and(words, bits, ~this.bit);
    if ((load(words, this.locks.address(frame)) & LOCK_OWNER) !== 0) notify(words, bits, ALL_WAITERS);
  }

  /** Clears bits of frames that no list counts. */
  private sweepBits(): void {
    const { core, counts } = this;
    const { frames } = core.thread.region.geometry;
    for (let from = 0; from < frames; from += SWEEP_FRAMES) {
      core.lock.enter();
      for (let frame = from; frame < Math.min(frames, from + SWEEP_FRAMES); frame++) {
        if (counts.get(frame) === 0 && (load(core.thread.words, this.bitsOf(frame)) & this.bit) !== 0)
          this.clearBit(frame);
      }
      core.lock.exit();
    }
  }

  private get lane(): number {
    return 1 + (this.core.lockSlot >>> 5);
  }

  private get bit(): number {
    return 1 << (this.core.lockSlot & 31);
  }

  private bitsOf(frame: FrameIndex): number {
    return this.locks.address(frame, this.lane);
  }
}
