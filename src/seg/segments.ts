/**
 * Segments of a space: rows that come, are cut, and go.
 *
 * PROBLEM     A segment is a range of addresses with a driver. Ranges must be whole pages inside the space, must not meet, and
 *             can be given up in any part.
 * STRUCTURE   alloc   round to pages, look at the range, the hole, the user limit, and for overlaps; then attach
 *             attach  a row in the tree of the space, without a driver yet
 *             cut     take a range of addresses away, in one transaction each:
 *
 *               |----------- segment -----------|         whole: freed    end: shorter    start: moved    middle: split
 *                       |--- cut ---|
 *
 *             free    out of the tree, then what its driver keeps for it: the anon map, the vnode, the device map
 * INVARIANTS  I1 base and size are multiples of the page size, inside the space.
 *             I2 a row in use is in the tree of its space.
 *             I3 a vnode is open for the slot of shadow lists while a segment names it.
 * LOCKING     The space is held exclusively; the lock of the spaces is taken here, for each transaction.
 * COSTS       A cut: two to four rows of the tree, one row copied. A join: two rows of the tree.
 * FAILURE     -1 with nothing changed; `ENOMEM` without rows.
 * REJECTED    Joining segments that were mapped apart: each has an anon map of its own.
 * REFERENCES  illumos vm_seg.c: seg_alloc, seg_attach, seg_unmap, seg_free, seg_swresv, seg_can_change_zones.
 */

import { VERIFY } from '../base/verify.ts';
import type { Int32Column } from '../layout/column.ts';
import type { DeviceMaps } from '../pmem/index.ts';
import { faultPoint, undoJournal } from '../sync/index.ts';
import type { Vnodes } from '../vnode/index.ts';
import type { AnonMemory } from './anon-memory.ts';
import type { MapRelease } from './map-release.ts';
import { SegmentTree } from './segment-tree.ts';
import type { SpaceCore } from './space-core.ts';
import {
  ANON_MAP_FLAG,
  SEGMENT_DRIVER,
  SEGMENT_FLAG,
  type SegmentIndex,
  SPACE_FLAG,
  type SpaceIndex,
} from './space-kinds.ts';

/** What the driver of a new segment stores. */
export interface SegmentSetUp {
  /** Opens what the segment will name: under the lock of the spaces, with nothing logged. */
  open(): void;
  /** Stores the fields, journaled. What it throws undoes the segment. */
  fill(segment: SegmentIndex): void;
}

/** Segments as one thread sees them. */
export class Segments {
  readonly tree: SegmentTree;
  private readonly core: SpaceCore;
  private readonly anon: AnonMemory;
  private readonly release: MapRelease;
  private readonly vnodes: Vnodes;
  private readonly deviceMaps: DeviceMaps;

  constructor(core: SpaceCore, anon: AnonMemory, release: MapRelease, vnodes: Vnodes, deviceMaps: DeviceMaps) {
    this.core = core;
    this.tree = new SegmentTree(core.thread);
    this.anon = anon;
    this.release = release;
    this.vnodes = vnodes;
    this.deviceMaps = deviceMaps;
  }

  /**
   * A segment without a driver that covers `[base, base + size)` rounded to pages, or -1: when the range is not inside the
   * space, touches the hole, lies above the user limit in a space that is not the kernel's, or meets another segment.
   */
  alloc(space: SpaceIndex, base: number, size: number): SegmentIndex {
    const { spaces, pageSize } = this.core;
    const start = Math.floor(base / pageSize) * pageSize;
    const end = Math.ceil((base + size) / pageSize) * pageSize;
    if (!(end > start && start >= spaces.base.get(space) && end <= spaces.limit.get(space))) return -1;
    if (start < spaces.holeEnd.get(space) && end > spaces.holeStart.get(space)) return -1;
    const isKernel = (spaces.flags.get(space) & SPACE_FLAG.kernel) !== 0;
    if (!isKernel && end > spaces.userLimit.get(space)) return -1;
    return this.attach(space, start, end - start);
  }

  /**
   * A segment without a driver, with no look at the limits of the space; -1 when it meets another. `setUp` stores what its
   * driver needs in the same transaction.
   */
  attach(space: SpaceIndex, base: number, size: number, guard = 0, setUp: SegmentSetUp | null = null): SegmentIndex {
    const { core } = this;
    const { segmentPool, thread } = core;
    if (this.tree.firstIn(space, base, base + size) >= 0) return -1;
    core.lock.enter();
    let segment: SegmentIndex = -1;
    try {
      setUp?.open();
      segment = segmentPool.take();
      if (segment < 0) core.failFull('segments.attach', 'segments');
      this.fillNew(space, segment, base, size, guard);
      setUp?.fill(segment);
    } catch (error) {
      undoJournal(thread.region, thread.slot);
      core.lock.exit();
      throw error;
    }

    this.tree.insert(space, segment);
    this.count(space, 1, size);
    if (VERIFY) faultPoint(thread, 'seg.space.linked');
    core.lock.exit();
    return segment;
  }

  /** Gives a segment up, with or without a driver: what it keeps goes back. `due`: its driver, a user's, is to be told. */
  free(segment: SegmentIndex, due = false): void {
    const { core } = this;
    const { segments, segmentPool } = core;
    const base = segments.base.get(segment);
    const space = segments.space.get(segment) - 1;
    const vnode = segments.vnode.get(segment) - 1;
    const deviceMap = segments.deviceMap.get(segment) - 1;
    const map = segments.map.get(segment) - 1;
    const isOwnMap = (segments.flags.get(segment) & SEGMENT_FLAG.ownDeviceMap) !== 0;
    core.lock.enter();
    this.tree.remove(space, segment);
    this.count(space, -1, -segments.size.get(segment));
    core.unreserve(core.spaces.owner.get(space), segments.reserved.get(segment));
    core.thread.journal.set(segments.space, segment, 0);
    this.release.noteSegment(segment);
    if (map >= 0) this.release.release(map);
    if (due) this.noteGone(segment, segment, space, base, base + segments.size.get(segment));
    else segmentPool.give(segment);
    if (VERIFY) faultPoint(core.thread, 'seg.space.freed');
    core.lock.exit();
    this.release.finish();
    this.letGo(vnode, isOwnMap ? deviceMap : -1);
  }

  /** Closes a vnode and ends a device map (-1: none) that no segment names any more. */
  letGo(vnode: number, deviceMap: number): void {
    const { core } = this;
    const { segments } = core;
    if (vnode < 0 && deviceMap < 0) return;
    // Under the lock, under which others begin to name them.
    core.lock.enter();
    if (vnode >= 0 && !this.isNamed(segments.vnode, vnode)) this.vnodes.releaseFor(vnode, core.lockSlot);
    if (deviceMap >= 0 && !this.isNamed(segments.deviceMap, deviceMap)) this.deviceMaps.destroyUnnamed(deviceMap);
    core.lock.exit();
  }

  /** Closes vnodes that a dead thread had opened for segments, or had not closed after them; ends device maps likewise. */
  closeUnnamed(deviceMaps: readonly number[]): void {
    const { core } = this;
    for (const map of deviceMaps) this.letGo(-1, map);
    const { vnode } = core.thread.region.tables;
    const lane = core.lockSlot >>> 5;
    const bit = 1 << (core.lockSlot & 31);
    for (let row = 0; row < vnode.rowCount; row++) {
      if ((vnode.openers.at(row, lane) & bit) !== 0) this.letGo(row, -1);
    }
  }

  /**
   * Takes `[start, end)` away from a segment that covers it, and frees what only that part showed. A part of a user's driver is
   * noted in the same transaction (see user-drivers.ts); false when there was no row for that.
   */
  cut(segment: SegmentIndex, start: number, end: number): boolean {
    const { segments } = this.core;
    const base = segments.base.get(segment);
    const last = base + segments.size.get(segment);
    const isUsers = segments.driver.get(segment) === SEGMENT_DRIVER.user;
    if (start === base && end === last) {
      this.free(segment, isUsers);
      return true;
    }
    if (start > base && end < last) this.split(segment, end);
    return this.shorten(segment, start, end, isUsers);
  }

  /** Journaled, under the lock: `row` says from here on that a part of a segment is gone, and whose driver this slot tells. */
  private noteGone(row: SegmentIndex, segment: SegmentIndex, space: SpaceIndex, from: number, to: number): void {
    const { segments, slots, thread } = this.core;
    const { journal, slot } = thread;
    if (row !== segment) {
      for (const column of this.plainColumns()) journal.set(column, row, 0);
      journal.set(segments.generation, row, segments.generation.get(row) + 1);
      journal.set(segments.callback, row, segments.callback.get(segment));
      journal.setDouble(segments.backing, row, segments.backing.get(segment));
      journal.setDouble(segments.start, row, segments.start.get(segment));
    }
    this.place(row, segments.base.get(segment), segments.size.get(segment), from, to);
    journal.set(segments.gone, row, space + 1);
    journal.set(segments.left, row, slots.due.get(slot));
    journal.set(slots.due, slot, row + 1);
  }

  /** Makes two segments of one: the second begins at `address`. Returns the second. */
  split(segment: SegmentIndex, address: number): SegmentIndex {
    const { core } = this;
    const { segments, segmentPool, thread, pageSize } = core;
    const { journal } = thread;
    const space = segments.space.get(segment) - 1;
    const base = segments.base.get(segment);
    const end = base + segments.size.get(segment);
    const pages = (address - base) / pageSize;
    core.lock.enter();
    const second = segmentPool.take();
    if (second < 0) {
      core.lock.exit();
      return core.failFull('segments.split', 'segments');
    }
    for (const column of this.plainColumns()) journal.set(column, second, column.get(segment));
    journal.set(segments.generation, second, segments.generation.get(second) + 1);
    journal.set(segments.cacheOwner, second, 0);
    journal.set(segments.mapPage, second, segments.mapPage.get(segment) + pages);
    journal.setDouble(segments.backing, second, this.backingAt(segment, address));
    journal.setDouble(segments.start, second, segments.start.get(segment) + address - base);
    this.place(second, address, end - address, address, segments.roomEnd.get(segment));
    this.place(segment, base, address - base, segments.roomStart.get(segment), address);
    const reserved = segments.reserved.get(segment);
    journal.set(segments.reserved, segment, Math.min(reserved, pages));
    journal.set(segments.reserved, second, reserved - Math.min(reserved, pages));
    const large = core.pageSize * 2 ** segments.sizeCode.get(segment);
    if (address % large !== 0) {
      journal.set(segments.sizeCode, segment, 0);
      journal.set(segments.sizeCode, second, 0);
    }
    const map = segments.map.get(segment) - 1;
    if (map >= 0) core.retainMap(map);
    this.tree.insert(space, second);
    this.count(space, 1, 0);
    if (VERIFY) faultPoint(thread, 'seg.space.cut');
    core.lock.exit();
    return second;
  }

  /** Makes one segment of two that `canJoin`. */
  join(first: SegmentIndex, second: SegmentIndex): void {
    const { core } = this;
    const { segments, segmentPool, maps, thread } = core;
    const { journal } = thread;
    const space = segments.space.get(first) - 1;
    const map = segments.map.get(first) - 1;
    const base = segments.base.get(first);
    const size = segments.size.get(first) + segments.size.get(second);
    core.lock.enter();
    this.tree.remove(space, second);
    this.count(space, -1, 0);
    this.place(first, base, size, segments.roomStart.get(first), segments.roomEnd.get(second));
    journal.set(segments.reserved, first, segments.reserved.get(first) + segments.reserved.get(second));
    if (map >= 0) journal.set(maps.refs, map, maps.refs.get(map) - 1);
    journal.set(segments.space, second, 0);
    segmentPool.give(second);
    if (VERIFY) faultPoint(thread, 'seg.space.freed');
    core.lock.exit();
  }

  /** True for parts of one mapping that lie side by side and are alike in all. */
  canJoin(first: SegmentIndex, second: SegmentIndex): boolean {
    const { segments: s, pageSize } = this.core;
    const size = s.size.get(first);
    const end = s.base.get(first) + size;
    if (s.base.get(second) !== end || s.roomEnd.get(first) !== end || s.roomStart.get(second) !== end) return false;
    // Ranges in the pagelock cache name the row; those of an anon map do not.
    if (s.cacheOwner.get(second) !== 0 || s.driver.get(first) === SEGMENT_DRIVER.none) return false;
    const differ = [s.space, s.driver, s.protection, s.maxProtection, s.flags, s.sizeCode, s.advice, s.map].concat([
      s.vnode,
      s.vnodeGeneration,
      s.deviceMap,
      s.callback,
    ]);
    if (differ.some((column) => column.get(first) !== column.get(second))) return false;
    // All of it has reserved, or nothing: a change of the protection asks for that.
    const pages = size / pageSize;
    const isReserved = s.reserved.get(first) === pages;
    if (s.reserved.get(first) !== (isReserved ? pages : 0)) return false;
    if (s.reserved.get(second) !== (isReserved ? s.size.get(second) / pageSize : 0)) return false;
    if (s.map.get(first) !== 0 && s.mapPage.get(second) !== s.mapPage.get(first) + pages) return false;
    return s.backing.get(second) === this.backingAt(first, end) && s.start.get(second) === s.start.get(first) + size;
  }

  /** What `backing` is of a segment that begins at an address of this one. */
  backingAt(segment: SegmentIndex, address: number): number {
    const { segments, pageSize } = this.core;
    const offset = address - segments.base.get(segment);
    const backing = segments.backing.get(segment);
    const driver = segments.driver.get(segment);
    // A driver of users counts from the beginning of the mapping.
    if (driver === SEGMENT_DRIVER.user) return backing;
    return backing + (driver === SEGMENT_DRIVER.kernel ? offset : offset / pageSize);
  }

  /** False for what several spaces charge together: shared memory that has reserved swap, and wired shared memory. */
  canChangeZones(segment: SegmentIndex): boolean {
    const { segments, maps } = this.core;
    const driver = segments.driver.get(segment);
    if (driver === SEGMENT_DRIVER.wired) return false;
    if (driver !== SEGMENT_DRIVER.vnode || (segments.flags.get(segment) & SEGMENT_FLAG.shared) === 0) return true;
    const map = segments.map.get(segment) - 1;
    return map < 0 || maps.reserved.get(map) === 0;
  }

  /** Bytes of swap that a private mapping has reserved. */
  swapReserved(segment: SegmentIndex): number {
    const { segments, pageSize } = this.core;
    if (segments.driver.get(segment) !== SEGMENT_DRIVER.vnode) return 0;
    return (segments.flags.get(segment) & SEGMENT_FLAG.shared) !== 0 ? 0 : segments.reserved.get(segment) * pageSize;
  }

  /** Journaled: what the copy of a segment in another space has from it, but for its map. */
  copyFields(from: SegmentIndex, to: SegmentIndex): void {
    const { segments, thread } = this.core;
    const { journal } = thread;
    const own = [segments.space, segments.map, segments.cacheOwner];
    for (const column of this.plainColumns()) {
      if (!own.includes(column)) journal.set(column, to, column.get(from));
    }
    journal.setDouble(segments.backing, to, segments.backing.get(from));
    journal.setDouble(segments.start, to, segments.start.get(from));
    journal.setDouble(segments.roomStart, to, segments.roomStart.get(from));
    journal.setDouble(segments.roomEnd, to, segments.roomEnd.get(from));
  }

  /** True while a segment names a vnode or a device map in this column. */
  isNamed(column: Int32Column, row: number): boolean {
    const { segments, segmentPool } = this.core;
    for (let segment = 0; segment < segmentPool.walkEnd; segment++) {
      if (segments.space.get(segment) !== 0 && column.get(segment) === row + 1) return true;
    }
    return false;
  }

  /** Gives up the first or the last part of a segment. False when `due` and there was no row for it. */
  private shorten(segment: SegmentIndex, start: number, end: number, due: boolean): boolean {
    const { core } = this;
    const { segments, segmentPool, thread, pageSize, slots, maps } = core;
    const { journal } = thread;
    const space = segments.space.get(segment) - 1;
    const base = segments.base.get(segment);
    const size = segments.size.get(segment);
    const pages = (end - start) / pageSize;
    const map = segments.map.get(segment) - 1;
    const isOwn = map >= 0 && (maps.flags.get(map) & ANON_MAP_FLAG.shared) === 0;
    const from = map < 0 ? 0 : core.mapPageOf(segment, start);
    core.lock.enter();
    const row = due ? segmentPool.take() : -1;
    if (row >= 0) this.noteGone(row, segment, space, start, end);
    if (start === base) {
      this.tree.remove(space, segment);
      journal.setDouble(segments.backing, segment, this.backingAt(segment, end));
      journal.setDouble(segments.start, segment, segments.start.get(segment) + end - base);
      journal.set(segments.mapPage, segment, segments.mapPage.get(segment) + pages);
      this.place(segment, end, base + size - end, end, segments.roomEnd.get(segment));
      this.tree.insert(space, segment);
    } else {
      this.place(segment, base, start - base, segments.roomStart.get(segment), start);
    }
    if ((segments.base.get(segment) / pageSize) % 2 ** segments.sizeCode.get(segment) !== 0) {
      journal.set(segments.sizeCode, segment, 0);
    }
    const reserved = Math.min(segments.reserved.get(segment), pages);
    journal.set(segments.reserved, segment, segments.reserved.get(segment) - reserved);
    core.unreserve(core.spaces.owner.get(space), reserved);
    this.count(space, 0, -(end - start));
    if (isOwn) {
      journal.set(slots.clearMap, thread.slot, map + 1);
      journal.set(slots.clearFrom, thread.slot, from);
      journal.set(slots.clearTo, thread.slot, from + pages);
    }
    if (VERIFY) faultPoint(thread, 'seg.space.cut');
    core.lock.exit();
    if (isOwn) this.finishClear(thread.slot);
    return !due || row >= 0;
  }

  /** Takes away what a slot has announced. Recovery repeats it for a dead slot. */
  finishClear(slot: number): void {
    const { slots } = this.core;
    const map = slots.clearMap.get(slot) - 1;
    if (map < 0) return;
    // Nobody sees the pages any more: when there are no nodes to cut them out, they stay until the map goes.
    this.anon.clearIfPossible(map, slots.clearFrom.get(slot), slots.clearTo.get(slot));
    slots.clearMap.put(slot, 0);
  }

  private fillNew(space: SpaceIndex, segment: SegmentIndex, base: number, size: number, guard: number): void {
    const { segments, thread } = this.core;
    const { journal } = thread;
    for (const column of this.plainColumns()) journal.set(column, segment, 0);
    journal.set(segments.space, segment, space + 1);
    journal.set(segments.generation, segment, segments.generation.get(segment) + 1);
    segments.backing.put(segment, 0);
    segments.start.put(segment, 0);
    this.place(segment, base, size, base - guard, base + size + guard);
  }

  private place(segment: SegmentIndex, base: number, size: number, roomStart: number, roomEnd: number): void {
    const { segments, thread } = this.core;
    thread.journal.setDouble(segments.base, segment, base);
    thread.journal.setDouble(segments.size, segment, size);
    thread.journal.setDouble(segments.roomStart, segment, roomStart);
    thread.journal.setDouble(segments.roomEnd, segment, roomEnd);
  }

  private count(space: SpaceIndex, segments: number, bytes: number): void {
    const { spaces, thread } = this.core;
    thread.journal.set(spaces.segments, space, spaces.segments.get(space) + segments);
    thread.journal.setDouble(spaces.size, space, spaces.size.get(space) + bytes);
  }

  /** Columns that a new half of a segment has from the old one. */
  private plainColumns(): Int32Column[] {
    const s = this.core.segments;
    return [
      ...[s.space, s.driver, s.protection, s.maxProtection, s.flags, s.sizeCode, s.advice, s.map, s.mapPage],
      ...[s.vnode, s.vnodeGeneration, s.reserved, s.cacheOwner, s.deviceMap, s.callback],
    ];
  }
}
