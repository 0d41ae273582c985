/**
 * Pins: ranges of a space that stay where they are while WebAssembly, a device or a socket uses them.
 *
 * PROBLEM     Pages must be present, the space's own, and still for as long as a pin lives; the next pin of the same range should
 *             cost a look-up; what a thread has pinned goes back when it dies.
 * STRUCTURE   A pin is one part for each segment that it touches:
 *
 *               1 charge the owner   2 look the range up in the pagelock cache: a hit is a pin of the cache
 *               3 a miss: a shadow list, whose pages are faulted in and locked one by one while the space is held shared
 *               4 offer it to the cache, which keeps it when the pin is released; if it does not, the slot holds the list itself
 *
 *             Ranges belong to the anon map, so that all segments that show it share them, or to the segment.
 * INVARIANTS  I1 a page of a private mapping is pinned only when no other map sees it, and a fork copies it at once: what a pin
 *                shows is what the space has.
 *             I2 every list that is locked is the cache's or names its slot.
 *             I3 what is pinned for writing is modified when it is pinned, at each write-back meanwhile, when it is released.
 * LOCKING     The space shared while pages are locked; none when the cache's functions run.
 * COSTS       A hit: the cache's, and a look-up for each page to say where it is.
 * FAILURE     `EFAULT`, `EDQUOT`, `ENOMEM`, `EINVAL` for a pin that was released; nothing stays locked then. A range with more pages
 *             than memory can ever hold at once is `ENOMEM` before anything is brought.
 * REJECTED    A table of pins: the cache's pins and the lists name their slots.
 * REFERENCES  illumos as_pagelock, segvn_pagelock; DESIGN 5.5.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { Pages } from '../page/index.ts';
import type { Banks, FrameIndex } from '../phys/index.ts';
import { faultPoint, type OwnerIndex, type RwLock } from '../sync/index.ts';
import type { LockedCharge } from '../vpm/index.ts';
import { PageMissing } from './faults.ts';
import { PageRanges } from './page-ranges.ts';
import type { PagelockCache } from './pagelock-cache.ts';
import { type CacheOwner, PIN, type Pin } from './pagelock-kinds.ts';
import type { CacheKey, PartRequest, PinPart } from './pin-parts.ts';
import { piecesOf, SpacePin } from './pin-pieces.ts';
import type { SegmentTree } from './segment-tree.ts';
import type { ShadowLists } from './shadow-lists.ts';
import type { SpaceAccess } from './space-access.ts';
import type { SpaceCore } from './space-core.ts';
import {
  SEGMENT_DRIVER,
  SEGMENT_FLAG,
  type SegmentIndex,
  SHADOW_STATE,
  type ShadowIndex,
  type SpaceIndex,
} from './space-kinds.ts';

/** Name under which every thread registers the driver of shadow lists. */
export const SHADOW_DRIVER = 'vm.shadowLists';

/** What pins need of other rooms. */
export interface PinRooms {
  readonly banks: Banks;
  readonly pages: Pages;
  readonly pagelock: PagelockCache;
}

/** Pins of one space, as one thread makes them. */
export class SpacePins {
  private readonly core: SpaceCore;
  private readonly space: SpaceIndex;
  private readonly lock: RwLock;
  private readonly tree: SegmentTree;
  private readonly access: SpaceAccess;
  private readonly shadows: ShadowLists;
  private readonly rooms: PinRooms;
  private readonly charge: LockedCharge;
  /** The pages of the pin that is being made into which bytes may be stored through it. */
  private written: FrameIndex[] = [];
  /** Who asks, for errors. */
  private call = 'as.pin';
  /** False while nothing may be waited for. */
  private mayWait = true;

  constructor(
    core: SpaceCore,
    space: SpaceIndex,
    tree: SegmentTree,
    access: SpaceAccess,
    shadows: ShadowLists,
    rooms: PinRooms,
    charge: LockedCharge,
  ) {
    this.core = core;
    this.space = space;
    this.lock = core.lockOf(space);
    this.tree = tree;
    this.access = access;
    this.shadows = shadows;
    this.rooms = rooms;
    this.charge = charge;
  }

  /** Pins a range. See the file's header. */
  pin(address: number, length: number, write: boolean, call = 'as.pin'): SpacePin {
    this.call = call;
    const { pageSize } = this.core;
    this.access.asking(this.call, address, length);
    const start = Math.floor(address / pageSize) * pageSize;
    const end = Math.ceil((address + length) / pageSize) * pageSize;
    // 1.
    const pages = (end - start) / pageSize;
    const payer = this.charge.take(pages, this.call);
    const parts: PinPart[] = [];
    const frames: FrameIndex[] = [];
    const written: FrameIndex[] = [];
    let row = -1;
    this.written = written;
    try {
      this.requireRoom(address, length, start, end, write);
      row = this.note(start, end);
      for (let at = start; at < end; ) at = this.pinPart(at, end, write, parts, frames);
    } catch (error) {
      this.giveBack(parts, row, pages, payer);
      throw error;
    }
    // A hit of the cache comes without the faults that would have said so.
    this.shadows.markFrames(written);
    const pieces = piecesOf(this.rooms.banks, frames, address, length);
    return new SpacePin(this.rooms.banks, pieces, () => {
      // Also what was written back while it was pinned may differ from its store again.
      this.shadows.markFrames(written);
      this.giveBack(parts, row, pages, payer);
    });
  }

  /** `pin` without waiting for pages, or for the space: then the address from which on it would have to wait. */
  tryPin(address: number, length: number, write: boolean, call: string): SpacePin | number {
    this.mayWait = false;
    try {
      return this.access.impatiently(() => this.pin(address, length, write, call));
    } catch (error) {
      if (error instanceof PageMissing) return Math.max(error.address, address);
      throw error;
    } finally {
      this.mayWait = true;
    }
  }

  /** Takes the space shared; whoever does not wait throws `PageMissing` instead. */
  private enter(address: number): void {
    if (this.mayWait) this.lock.enterShared();
    else if (!this.lock.tryEnterShared()) throw new PageMissing(address);
  }

  /**
   * Throws `ENOMEM` for a range with more pages than there are frames for pages: nothing that others release could help. Pages that
   * it shows several times count once; those of devices and of physical memory have their frames already, and do not count.
   */
  private requireRoom(address: number, length: number, start: number, end: number, write: boolean): void {
    const { pageSize, segments } = this.core;
    const wanted = (end - start) / pageSize;
    const most = this.rooms.pages.mostInMemory(wanted);
    if (wanted <= most) return;
    const ranges = new PageRanges();
    this.enter(start);
    try {
      this.access.requireLive(this.call);
      for (let at = start; at < end; ) {
        const segment = this.segmentAt(at);
        const until = Math.min(end, segments.base.get(segment) + segments.size.get(segment));
        this.requireAccess({ segment, start: at, end: until, write });
        const [map, vnode] = [this.mapOf(segment), this.vnodeOf(segment)];
        const of = map >= 0 ? `map ${map}` : `vnode ${vnode}`;
        if (map >= 0 || vnode >= 0) ranges.add(of, this.firstPage(segment, at), (until - at) / pageSize);
        at = until;
      }
    } finally {
      this.lock.exitShared();
    }
    const needed = ranges.count;
    if (needed <= most) return;
    const values = { address, length, needed: needed * pageSize, pinnable: most * pageSize };
    fail('ENOMEM', this.call, values, 'the memory has fewer frames than the range has pages: waiting cannot help');
  }

  /** The segment of an address; the space is held shared. Throws `EFAULT`. */
  private segmentAt(address: number): SegmentIndex {
    const segment = this.tree.find(this.space, address);
    return segment < 0 ? fail('EFAULT', this.call, { address }, 'nothing is mapped at this address') : segment;
  }

  /** Writes down that this slot pins a range: from here on it is not unmapped. */
  private note(start: number, end: number): number {
    const { core, space, lock } = this;
    const { pins, pinPool, thread } = core;
    const { journal } = thread;
    // Whoever unmaps looks at the rows while it holds the space alone.
    this.enter(start);
    core.lock.enter();
    const row = pinPool.take();
    if (row >= 0) {
      journal.set(pins.space, row, space + 1);
      journal.set(pins.slot, row, thread.slot);
      journal.setDouble(pins.start, row, start);
      journal.setDouble(pins.end, row, end);
    }
    core.lock.exit();
    lock.exitShared();
    return row < 0 ? core.failFull(this.call, 'shadowLists') : row;
  }

  /** Pins what one segment has of `[at, end)`; returns where it ends. Steps 2 to 4. */
  private pinPart(at: number, end: number, write: boolean, parts: PinPart[], frames: FrameIndex[]): number {
    const { core, lock } = this;
    const { segments } = core;
    for (;;) {
      this.ensureOwner(at);
      this.enter(at);
      try {
        this.access.requireLive(this.call);
        const segment = this.segmentAt(at);
        // Something else may have been mapped there meanwhile.
        if (this.ownerOf(segment, this.mapOf(segment)) < 0) continue;
        const until = Math.min(end, segments.base.get(segment) + segments.size.get(segment));
        const request = { segment, start: at, end: until, write };
        this.requireAccess(request);
        const isWired = segments.driver.get(segment) === SEGMENT_DRIVER.wired;
        parts.push(isWired ? this.pinWired(request, frames) : this.lockPart(request, frames));
        return until;
      } finally {
        lock.exitShared();
      }
    }
  }

  /** Steps 2 to 4 for a part of a segment; the space is held shared. */
  private lockPart(request: PartRequest, frames: FrameIndex[]): PinPart {
    const { core, shadows, rooms } = this;
    const { pageSize } = core;
    const { segment, start, end, write } = request;
    const map = this.mapOf(segment);
    const owner = this.ownerOf(segment, map);
    const first = this.firstPage(segment, start);
    const pages = (end - start) / pageSize;
    const key = { owner, first: first * pageSize, bytes: pages * pageSize, flags: write ? PIN.write : PIN.read };
    // 2.
    const hit = rooms.pagelock.lookup(owner, key.first, key.bytes, key.flags);
    if (hit >= 0) {
      try {
        if (write) shadows.setWritten(rooms.pagelock.shadowOf(hit));
        this.addFrames(request, map, frames);
      } catch (error) {
        this.release(hit, key);
        throw error;
      }
      return { cachePin: hit, list: -1, key };
    }
    // 3.
    const vnode = map >= 0 ? -1 : this.vnodeOf(segment);
    const list = shadows.begin({ map, vnode, segment: map >= 0 ? -1 : segment, first, pages, owner, write });
    if (list < 0) core.failFull(this.call, 'shadowLists');
    try {
      for (let page = 0; page < pages; page++) this.lockOne(list, request, page);
      this.addFrames(request, map, frames);
      if (VERIFY) faultPoint(core.thread, 'seg.pin.locked');
      return this.offer(list, key, write || (core.segments.protection.get(segment) & 2) !== 0);
    } catch (error) {
      shadows.unlock(list);
      throw error;
    }
  }

  /** A part of a wired map: its pages are locked for as long as it lives, by the one list that all its ranges name. */
  private pinWired(request: PartRequest, frames: FrameIndex[]): PinPart {
    const { core, shadows, rooms } = this;
    const map = core.segments.map.get(request.segment) - 1;
    const owner = this.ownerOf(request.segment, map);
    const bytes = core.maps.pages.get(map) * core.pageSize;
    const flags = PIN.write | PIN.wired;
    const key = { owner, first: 0, bytes, flags };
    let pin = rooms.pagelock.lookup(owner, 0, bytes, flags);
    if (pin < 0 && rooms.pagelock.insertCheck(bytes, flags)) {
      pin = rooms.pagelock.insert(owner, 0, bytes, shadows.numberOf(shadows.wiredOf(map)), flags, bytes);
    }
    try {
      this.addFrames(request, map, frames);
    } catch (error) {
      if (pin >= 0) this.release(pin, key);
      throw error;
    }
    return { cachePin: pin, list: -1, key };
  }

  /** Step 4. */
  private offer(list: ShadowIndex, key: CacheKey, isWritable: boolean): PinPart {
    const { shadows, rooms } = this;
    const { owner, first, bytes, flags } = key;
    if (rooms.pagelock.insertCheck(bytes, flags, owner, first)) {
      const pin = rooms.pagelock.insert(owner, first, bytes, shadows.numberOf(list), flags, isWritable ? bytes : 0);
      if (VERIFY) faultPoint(this.core.thread, 'seg.pin.cached');
      if (pin >= 0) {
        shadows.settle(list, SHADOW_STATE.cached);
        return { cachePin: pin, list: -1, key };
      }
    }
    shadows.settle(list, SHADOW_STATE.held);
    return { cachePin: -1, list, key };
  }

  private lockOne(list: ShadowIndex, { start, write }: PartRequest, page: number): void {
    const { access, shadows, rooms, core } = this;
    const frame = access.lockPage(start + page * core.pageSize, write, this.call);
    try {
      if (write && frame >= 0) rooms.pages.setModified(frame);
      shadows.lockNext(list, Math.max(frame, -1));
    } finally {
      if (frame >= 0) rooms.pages.release(frame);
    }
  }

  /** Ends a pin of the cache. */
  private release(pin: Pin, { owner, first, bytes, flags }: CacheKey): void {
    const { pagelock } = this.rooms;
    pagelock.inactive(owner, first, bytes, pin, pagelock.shadowOf(pin), flags);
  }

  private giveBack(parts: readonly PinPart[], row: number, pages: number, payer: OwnerIndex): void {
    const { core, shadows } = this;
    for (const { cachePin, list, key } of parts) {
      if (cachePin >= 0) this.release(cachePin, key);
      else if (list >= 0) shadows.unlock(list);
    }
    if (row >= 0) {
      core.lock.enter();
      core.thread.journal.set(core.pins.space, row, 0);
      core.pinPool.give(row);
      core.drained.broadcast();
      core.lock.exit();
    }
    this.charge.give(pages, payer);
  }

  /** The frames of a part in order. */
  private addFrames({ segment, start, end, write }: PartRequest, map: number, frames: FrameIndex[]): void {
    const { core, shadows } = this;
    const vnode = map >= 0 ? -1 : this.vnodeOf(segment);
    if (map >= 0 || vnode >= 0) {
      const from = frames.length;
      shadows.framesOf(map, vnode, this.firstPage(segment, start), (end - start) / core.pageSize, frames);
      for (let page = from; write && page < frames.length; page++) this.written.push(frames[page] as FrameIndex);
      return;
    }
    for (let at = start; at < end; at += core.pageSize) frames.push(-1 - this.access.lockPage(at, write, this.call));
  }

  /** The owner of an address's ranges in the cache, made at the first pin. No lock is held. */
  private ensureOwner(address: number): void {
    const { core, lock, rooms } = this;
    this.enter(address);
    let segment: SegmentIndex;
    let known: boolean;
    try {
      this.access.requireLive(this.call);
      segment = this.tree.find(this.space, address);
      known = segment < 0 || this.ownerOf(segment, this.mapOf(segment)) >= 0;
    } finally {
      lock.exitShared();
    }
    if (known) return;
    const { slots, thread } = core;
    const { journal, slot } = thread;
    const owner = rooms.pagelock.createOwner({ driver: { export: SHADOW_DRIVER } }, (row) =>
      journal.set(slots.segmentOwner, slot, row + 1),
    );
    let stored = false;
    // Held by others for long only while they unmap or fork: what was made goes back before anybody waits.
    if (!this.mayWait && !lock.tryEnterShared()) {
      rooms.pagelock.retireOwner(owner, () => journal.set(slots.segmentOwner, slot, 0));
      throw new PageMissing(address);
    }
    if (this.mayWait) lock.enterShared();
    const found = this.tree.find(this.space, address);
    if (found === segment) {
      const map = this.mapOf(segment);
      core.lock.enter();
      if (this.ownerOf(segment, map) < 0) {
        if (map >= 0) journal.set(core.maps.cacheOwner, map, owner + 1);
        else journal.set(core.segments.cacheOwner, segment, owner + 1);
        journal.set(slots.segmentOwner, slot, 0);
        stored = true;
      }
      core.lock.exit();
    }
    lock.exitShared();
    if (!stored) rooms.pagelock.retireOwner(owner, () => journal.set(slots.segmentOwner, slot, 0));
  }

  private ownerOf(segment: SegmentIndex, map: number): CacheOwner {
    const { segments, maps } = this.core;
    return (map >= 0 ? maps.cacheOwner.get(map) : segments.cacheOwner.get(segment)) - 1;
  }

  /** The anon map whose pages are pinned, or -1: shared mappings of vnodes have none that counts. */
  private mapOf(segment: SegmentIndex): number {
    const { segments } = this.core;
    return this.vnodeOf(segment) >= 0 ? -1 : segments.map.get(segment) - 1;
  }

  private vnodeOf(segment: SegmentIndex): number {
    const { segments } = this.core;
    const isShared = (segments.flags.get(segment) & SEGMENT_FLAG.shared) !== 0;
    return isShared ? segments.vnode.get(segment) - 1 : -1;
  }

  /** Page of the anon map, of the vnode, or of the space: what ranges in the cache are named by. */
  private firstPage(segment: SegmentIndex, address: number): number {
    const { core } = this;
    const { segments, pageSize } = core;
    if (this.mapOf(segment) >= 0) return core.mapPageOf(segment, address);
    const pages = Math.floor((address - segments.base.get(segment)) / pageSize);
    return this.vnodeOf(segment) >= 0 ? segments.backing.get(segment) + pages : pages;
  }

  private requireAccess({ segment, start, write }: PartRequest): void {
    const { segments } = this.core;
    const driver = segments.driver.get(segment);
    if (driver === SEGMENT_DRIVER.user || driver === SEGMENT_DRIVER.none) {
      fail('ENOTSUP', this.call, { address: start, segment }, 'segments of this driver cannot be pinned');
    }
    if ((segments.protection.get(segment) & (write ? 2 : 1)) === 0) {
      fail('EFAULT', this.call, { address: start, write }, 'the mapping does not allow this access');
    }
  }
}
