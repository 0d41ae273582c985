/**
 * Pages under the mapping cache: found, made, brought and written back as the source's page layer does it.
 *
 * PROBLEM     The source maps pages of a page layer with rules of its own: which frame a new page gets, when a page becomes
 *             clean and free to leave, what a request for pages and a request to write them touch, and in which order.
 * STRUCTURE   A page with an identity is in one of three places:
 *
 *               in use    some slot holds its lock, or the mapping cache remembers it
 *               clean     on the list of clean pages: nothing maps it, its bytes are those of the store
 *               neither   it was modified and nobody has written it back
 *
 *               lookup    find, hold shared, take off the list      create   the frame that comes next, else the first
 *               release   last holder and clean: to the list                 clean page's; held exclusively
 *               getPages  look up or create and fill, in order      putPages write, free or invalidate, in order
 *
 * INVARIANTS  I1 a page on the list of clean pages is not modified and was remembered by no entry when it came there.
 *             I2 a page that is made stays filling and exclusively held until whoever made it has filled or unmapped it.
 *             I3 a page that is made here is on no list: its frame may be listed still for a page that it had before.
 *             Whoever knows nothing of list and entries may take a page away that nobody holds, bring another into its frame,
 *             or modify it where it is listed; both find out when they meet it.
 * LOCKING     Page locks, then the mutexes of the hash, of the list and of the frames, one at a time.
 * COSTS       A look-up: the hash, two atomics, and the list's lock if the page was on it.
 * FAILURE     `ENOMEM` when no frame is free and no page is clean or can be made clean; what the store throws.
 * REJECTED    Using `Pages`: its clock has no list to replay. Both go through the same hash, locks and frames, so that
 *             they may be used side by side.
 * REFERENCES  illumos vm_page.c, vm_pvn.c; test/golden/vpm/README.md, environment.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { CLAIM, DirtyPages } from '../page/dirty-pages.ts';
import { PAGE_STATE, PageHash, type VnodeIndex } from '../page/page-hash.ts';
import type { PageHolds } from '../page/page-holds.ts';
import { PageShapes } from '../page/page-shapes.ts';
import type { PageStore } from '../page/page-store.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, type Frames } from '../phys/frames.ts';
import { FOREVER } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { CleanList } from './clean-list.ts';
import { MAPPING_COUNTER, mappingCountersOf } from './mapping-counters.ts';
import { MappingEntries } from './mapping-entries.ts';
import type { MapAccess } from './page-mappings.ts';

/** Pages that are made clean at a time when no frame can be had otherwise. */
const CLEAN_PAGES = 32;

/** Where the pages of cached mappings come from and go to. */
export interface MappedStore extends PageStore {
  /** Bytes of a vnode. */
  size(vnode: VnodeIndex): number;
  /** The vnode whose pages stand for this one: block vnodes have a common one. Default: itself. */
  commonOf?(vnode: VnodeIndex): VnodeIndex;
  /** Throws unless this thread may map the vnode, for writing if `writable`. */
  requireAccess?(vnode: VnodeIndex, writable: boolean): void;
  /** Told of every request for pages before it begins; may throw, for example because a disk is full. */
  onGetPages?(vnode: VnodeIndex, index: number, count: number, access: MapAccess): void;
  /** Pages up to which a vnode may have any; default: those of its size. */
  pageLimit?(vnode: VnodeIndex): number;
  /** Told of a frame that was made a page and not filled. */
  onCreate?(frame: FrameIndex): void;
}

/** What to do with pages: see `CachedPages.putPages`. */
export interface PutFlags {
  /** Give the pages' identities up. Wins over `free`. */
  readonly invalidate?: boolean;
  /** Do not write them first. */
  readonly truncate?: boolean;
  /** Let them leave next. */
  readonly free?: boolean;
  /** With `free`: before all others. */
  readonly dontNeed?: boolean;
  /** The caller does not wait for the medium. Stores accept bytes without waiting for it in any case. */
  readonly async?: boolean;
}

/** What `putPages` did: indices of pages. */
export interface PutReport {
  readonly written: number[];
  readonly freed: number[];
  readonly invalidated: number[];
  /** Somebody used them. */
  readonly busy: number[];
}

/** The pages as one thread sees them. */
export class CachedPages {
  readonly entries: MappingEntries;
  readonly clean: CleanList;
  readonly holds: PageHolds;
  readonly #thread: Thread;
  readonly #frames: Frames;
  readonly #hash: PageHash;
  readonly #page: BoundTables['page'];
  readonly #dirty: DirtyPages;
  readonly #shapes: PageShapes;
  readonly #counters: Float64Array;
  readonly #store: MappedStore;
  readonly #lane = new Int32Array(1);
  #nextToClean: FrameIndex = 0;

  constructor(thread: Thread, frames: Frames, holds: PageHolds, store: MappedStore) {
    this.#thread = thread;
    this.#frames = frames;
    this.holds = holds;
    this.#store = store;
    this.#hash = new PageHash(thread);
    this.#page = thread.region.tables.page;
    this.#dirty = new DirtyPages(thread);
    this.#shapes = new PageShapes(thread);
    this.#counters = mappingCountersOf(thread);
    this.entries = new MappingEntries(thread);
    this.clean = new CleanList(thread);
  }

  /** The frame that has a page now, or -1; it is not held. */
  frameOf(vnode: VnodeIndex, index: number): FrameIndex {
    return this.#hash.findCertain(vnode, index);
  }

  /** The frame of a page, held shared, off the list of clean pages; -1 when there is none. Waits for whoever fills it. */
  lookup(vnode: VnodeIndex, index: number): FrameIndex {
    for (;;) {
      const frame = this.#hash.findCertain(vnode, index);
      if (frame < 0) return -1;
      if (this.holds.page(frame, vnode, index)) {
        if (this.clean.remove(frame)) {
          this.#page.referenced.put(frame, 1);
          this.#count(MAPPING_COUNTER.reclaimed);
        }
        return frame;
      }
    }
  }

  /**
   * Makes a page, held exclusively, its bytes undefined. -1 when somebody else has made it meanwhile. Throws `ENOMEM`.
   */
  create(vnode: VnodeIndex, index: number): FrameIndex {
    const frame = this.#takeFrame(vnode, index);
    const other = this.#hash.insert(frame, vnode, index);
    if (other >= 0) {
      this.#giveEmpty(frame);
      return -1;
    }
    if (VERIFY) faultPoint(this.#thread, 'vpm.cache.created');
    this.entries.forget(frame);
    this.clean.remove(frame);
    this.#page.referenced.put(frame, 1);
    this.#count(MAPPING_COUNTER.created);
    this.#store.onCreate?.(frame);
    return frame;
  }

  /** A page is used up to here: unlocks it, and puts it on the list of clean pages if that is where it belongs. */
  release(frame: FrameIndex): void {
    const exclusive = this.holds.isMine(frame);
    const last =
      this.entries.namedBy(frame) < 0 &&
      (exclusive || (this.holds.depthOf(frame) === 1 && this.holds.tryUpgrade(frame)));
    if (!last) {
      this.unlock(frame);
      return;
    }
    if (this.#dirty.isClean(frame)) this.#addClean(frame, false);
    this.#becomeValid(frame);
    this.holds.releaseExclusive(frame);
  }

  /** Unlocks a page; one that was made is valid from now on. */
  unlock(frame: FrameIndex): void {
    if (!this.holds.isMine(frame)) {
      this.holds.release(frame);
      return;
    }
    this.#becomeValid(frame);
    this.holds.releaseExclusive(frame);
  }

  /** Lets go of a page that a request gives up: one that this thread made goes away. */
  abandon(frame: FrameIndex): void {
    if (!this.holds.isMine(frame)) {
      this.holds.release(frame);
      return;
    }
    this.entries.forget(frame);
    this.#hash.remove(frame);
    this.#giveEmpty(frame);
  }

  /** Notes that a held page was used, and with `write` that it differs from its store. */
  mark(frame: FrameIndex, access: MapAccess): void {
    this.#page.referenced.put(frame, 1);
    if (access === 'write') this.#dirty.mark(frame);
  }

  /** True when a page was written to and used since it was brought or written back. */
  isDirty(frame: FrameIndex): boolean {
    return !this.#dirty.isClean(frame) && this.#page.referenced.get(frame) !== 0;
  }

  /** Takes a page away from an entry that remembers it, if it is still there and still the entry's. */
  disown(frame: FrameIndex, vnode: VnodeIndex, index: number, entry: number): void {
    if (!this.#isPage(frame, vnode, index)) return;
    if (!this.holds.tryShared(frame)) {
      this.entries.forget(frame, entry);
      this.#count(MAPPING_COUNTER.previousLocked);
      return;
    }
    const still = this.#isPage(frame, vnode, index) && !this.clean.has(frame) && this.entries.namedBy(frame) === entry;
    if (still) this.entries.forget(frame, entry);
    if (still) this.release(frame);
    else this.holds.release(frame);
  }

  /**
   * Holds the pages of a range shared, in order, bringing those that are missing; at most up to the end of the vnode.
   * Returns how many. Throws `EFAULT` when the range begins behind the end, and what the store throws; then none is held.
   */
  getPages(vnode: VnodeIndex, index: number, count: number, access: MapAccess, out: Int32Array): number {
    this.#count(MAPPING_COUNTER.getPages);
    let held = 0;
    try {
      this.#store.onGetPages?.(vnode, index, count, access);
      const { pageSize } = this.#thread.region.geometry;
      const size = this.#store.size(vnode);
      const end = Math.ceil(size / pageSize);
      if (index >= end) {
        fail('EFAULT', 'cachedMappings.map', { offset: index * pageSize, size }, 'the range begins behind the end');
      }
      for (const wanted = Math.min(count, end - index); held < wanted; ) {
        const frame = this.lookup(vnode, index + held);
        const got = frame >= 0 ? frame : this.#bring(vnode, index + held);
        if (got >= 0) out[held++] = got;
      }
    } catch (error) {
      this.#count(MAPPING_COUNTER.storeFailures);
      for (let lane = 0; lane < held; lane++) this.holds.release(out[lane] as number);
      throw error;
    }
    return held;
  }

  /** Goes through pages `[from, to)` of a vnode in ascending order; see `PutFlags`. Throws what the store throws. */
  putPages(vnode: VnodeIndex, from: number, to: number, flags: PutFlags): PutReport {
    const report: PutReport = { written: [], freed: [], invalidated: [], busy: [] };
    const { pageSize } = this.#thread.region.geometry;
    const limit = this.#store.pageLimit?.(vnode) ?? Math.ceil(this.#store.size(vnode) / pageSize);
    const end = to < 0 ? limit : to;
    for (let index = from; index < end; index++) {
      const frame = this.#hash.findCertain(vnode, index);
      if (frame >= 0) this.#putPage(frame, vnode, index, flags, report);
    }
    return report;
  }

  /** True for a clean page that no entry remembers and that is not on the list. */
  isStray(frame: FrameIndex): boolean {
    const page = this.#page;
    if (page.vnode.get(frame) === 0 || page.state.get(frame) !== PAGE_STATE.valid) return false;
    if (!this.#dirty.isClean(frame) || this.clean.has(frame)) return false;
    const entry = this.entries.namedBy(frame);
    return entry < 0 || !this.entries.remembers(entry, frame, page.vnode.get(frame) - 1, page.index.get(frame));
  }

  /** Finds the pages that a dead slot left neither in use nor on the list, and puts them there. */
  recover(dead: SlotIndex): void {
    this.entries.recover(dead);
    for (let frame = 0; frame < this.#page.rowCount; frame++) {
      if (!this.isStray(frame) || !this.holds.tryExclusive(frame)) continue;
      if (this.isStray(frame)) {
        this.entries.forget(frame);
        this.clean.add(frame, false);
      }
      this.holds.releaseExclusive(frame);
    }
  }

  /** A missing page, filled and held shared; -1 when somebody else has made it meanwhile. */
  #bring(vnode: VnodeIndex, index: number): FrameIndex {
    const frame = this.create(vnode, index);
    if (frame < 0) return -1;
    try {
      this.#lane[0] = frame;
      this.#store.fill(vnode, index, this.#lane, 0, 1);
    } catch (error) {
      this.#hash.remove(frame);
      this.#giveEmpty(frame);
      throw error;
    }
    this.#becomeValid(frame);
    this.holds.downgrade(frame);
    return frame;
  }

  /** An empty frame, held exclusively: the free one that comes next, or that of the first clean page. */
  #takeFrame(vnode: VnodeIndex, index: number): FrameIndex {
    for (let tries = 0; ; tries++) {
      const free = this.#frames.tryTake(FRAME_USE.page);
      if (free >= 0) {
        this.holds.exclusive(free);
        return free;
      }
      const clean = this.clean.takeFirst(this.holds, this.#mayLeave);
      if (clean >= 0) {
        if (VERIFY) faultPoint(this.#thread, 'vpm.cache.unlisted');
        this.#hash.remove(clean);
        this.#count(MAPPING_COUNTER.stolen);
        return clean;
      }
      if (tries > 0 || !(this.#cleanOthers() || this.#frames.press())) break;
    }
    const { total, page } = this.#frames.counts();
    return fail('ENOMEM', 'cachedMappings.map', { vnode, index, total, page }, 'no page can leave its frame');
  }

  /** True for a page held exclusively that is what the list says it is; large pages leave as a whole, through their own room. */
  readonly #mayLeave = (frame: FrameIndex): boolean =>
    this.#page.state.get(frame) === PAGE_STATE.valid &&
    this.#dirty.isClean(frame) &&
    this.#shapes.framesAt(frame) === 1;

  /** Makes some pages that nobody uses clean, remembered or modified as they are; false when there was none. */
  #cleanOthers(): boolean {
    const page = this.#page;
    let cleaned = 0;
    for (let step = 0; step < page.rowCount && cleaned < CLEAN_PAGES; step++) {
      const frame = this.#nextToClean;
      this.#nextToClean = (frame + 1) % page.rowCount;
      if (page.vnode.get(frame) === 0 || this.#isListedClean(frame) || !this.holds.tryExclusive(frame)) continue;
      const vnode = page.vnode.get(frame) - 1;
      try {
        if (vnode >= 0 && page.state.get(frame) === PAGE_STATE.valid && this.#shapes.framesAt(frame) === 1) {
          this.entries.forget(frame);
          this.#write(frame, vnode, page.index.get(frame));
          this.#addClean(frame, false);
          this.#count(MAPPING_COUNTER.cleaned);
          cleaned++;
        }
      } finally {
        this.holds.releaseExclusive(frame);
      }
    }
    return cleaned > 0;
  }

  #putPage(frame: FrameIndex, vnode: VnodeIndex, index: number, flags: PutFlags, report: PutReport): void {
    const { invalidate = false, free = false, truncate = false, dontNeed = false } = flags;
    const leaves = invalidate || free;
    if (this.#isListedClean(frame) && !invalidate) return;
    const locked = leaves ? !this.holds.holds(frame) && this.holds.tryExclusive(frame) : this.#trySharedHere(frame);
    if (!locked) {
      report.busy.push(index);
      return;
    }
    if (!this.#isPage(frame, vnode, index)) {
      this.#unlockAs(frame, leaves);
      return;
    }
    if (leaves) this.entries.forget(frame);
    if (!this.#dirty.isClean(frame)) {
      try {
        if (truncate) this.#dirty.discard(frame);
        else if (this.#write(frame, vnode, index)) report.written.push(index);
      } catch (error) {
        this.#unlockAs(frame, leaves);
        throw error;
      }
      this.#page.referenced.put(frame, 0);
    }
    if (invalidate) {
      this.clean.remove(frame);
      if (VERIFY) faultPoint(this.#thread, 'vpm.cache.unlisted');
      this.#hash.remove(frame);
      this.#giveEmpty(frame);
      report.invalidated.push(index);
      return;
    }
    if (free) {
      this.#addClean(frame, dontNeed);
      report.freed.push(index);
    }
    this.#unlockAs(frame, leaves);
  }

  /** Writes one held page back, if it is modified and once nobody else does; true when this thread wrote it. */
  #write(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    let claim: number = this.#dirty.claim(frame);
    for (; claim === CLAIM.busy; claim = this.#dirty.claim(frame)) this.#dirty.awaitWriter(frame, FOREVER);
    if (claim === CLAIM.clean) return false;
    let stored = false;
    try {
      if (VERIFY && faultPoint(this.#thread, 'vpm.cache.writing')) {
        fail('EIO', 'cachedMappings.sync', { vnode, index }, 'injected');
      }
      this.#lane[0] = frame;
      this.#store.write(vnode, index, this.#lane, 0, 1);
      stored = true;
    } finally {
      this.#dirty.finish(frame, stored);
    }
    return true;
  }

  #isListedClean(frame: FrameIndex): boolean {
    return this.clean.has(frame) && this.#dirty.isClean(frame);
  }

  #addClean(frame: FrameIndex, first: boolean): void {
    this.#page.referenced.put(frame, 0);
    this.clean.add(frame, first);
  }

  #becomeValid(frame: FrameIndex): void {
    if (this.#page.state.get(frame) !== PAGE_STATE.valid) this.#page.state.put(frame, PAGE_STATE.valid);
  }

  #trySharedHere(frame: FrameIndex): boolean {
    return !this.holds.isExclusive(frame) && this.holds.tryShared(frame);
  }

  #unlockAs(frame: FrameIndex, exclusive: boolean): void {
    if (exclusive) this.holds.releaseExclusive(frame);
    else this.holds.release(frame);
  }

  #isPage(frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    return this.#page.vnode.get(frame) === vnode + 1 && this.#page.index.get(frame) === index;
  }

  #giveEmpty(frame: FrameIndex): void {
    this.#frames.give(frame, FRAME_USE.page, this.#page.state, PAGE_STATE.empty);
    this.holds.releaseExclusive(frame);
  }

  #count(lane: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + 1;
  }
}
