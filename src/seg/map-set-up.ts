/**
 * What the driver of a new mapping stores into its segment.
 *
 * The device map of a cookie is made before, because a device map has a lock of its own; when the mapping fails, or the thread
 * dies, it goes again. In the transaction of the segment it becomes the segment's.
 */

import { fail, failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import { CACHING, DEVICE_MAP_FLAG } from '../pmem/index.ts';
import { faultPoint } from '../sync/index.ts';
import type { MapPlan } from './map-options.ts';
import type { SegmentDriver } from './segment-driver.ts';
import type { SegmentSetUp } from './segments.ts';
import { requireCookie } from './space-arguments.ts';
import { ANON_MAP_FLAG, SEGMENT_DRIVER, SEGMENT_FLAG, type SegmentIndex, type SpaceIndex } from './space-kinds.ts';
import type { SpaceParts } from './spaces.ts';

/** Sets up the segment of one mapping. */
export class MapSetUp implements SegmentSetUp {
  private readonly parts: SpaceParts;
  private readonly space: SpaceIndex;
  private readonly plan: MapPlan;
  private readonly driver: number;
  private readonly deviceMap: number;
  private readonly vnodeGeneration: number;

  constructor(parts: SpaceParts, space: SpaceIndex, plan: MapPlan) {
    this.parts = parts;
    this.space = space;
    this.plan = plan;
    this.driver = this.chooseDriver();
    this.vnodeGeneration = plan.source.file === undefined ? 0 : this.requireFile(plan.source.file.vnode);
    this.requireSource();
    this.deviceMap = plan.source.cookie === undefined ? (plan.source.deviceMap ?? -1) : this.makeDeviceMap();
  }

  /** Opens the vnode for as long as a segment names it. */
  open(): void {
    const { file } = this.plan.source;
    if (file === undefined) return;
    const { rooms, core } = this.parts;
    rooms.vnodes.retainFor(file.vnode, this.vnodeGeneration, this.isWriter, core.lockSlot);
  }

  /** Stores the fields, journaled. */
  fill(segment: SegmentIndex): void {
    const { core, rooms } = this.parts;
    const { segments, thread } = core;
    const { journal } = thread;
    const { plan } = this;
    const { source } = plan;
    journal.set(segments.driver, segment, this.driver);
    journal.set(segments.protection, segment, plan.protection);
    journal.set(segments.maxProtection, segment, plan.maxProtection);
    journal.set(segments.sizeCode, segment, plan.sizeCode);
    const shared = plan.isShared ? SEGMENT_FLAG.shared : 0;
    const ownMap = source.cookie === undefined ? 0 : SEGMENT_FLAG.ownDeviceMap;
    journal.set(segments.flags, segment, shared | ownMap | (plan.reserve ? 0 : SEGMENT_FLAG.noReserve));
    if (source.file !== undefined) {
      journal.set(segments.vnode, segment, source.file.vnode + 1);
      journal.set(segments.vnodeGeneration, segment, this.vnodeGeneration);
    }
    if (source.driver !== undefined) journal.set(segments.callback, segment, rooms.callbacks.intern(source.driver) + 1);
    if (this.deviceMap >= 0) {
      journal.set(segments.deviceMap, segment, this.deviceMap + 1);
      if (ownMap !== 0) rooms.deviceMaps.handOver(this.deviceMap);
    }
    journal.setDouble(segments.backing, segment, this.backing());
    if (this.driver === SEGMENT_DRIVER.vnode || this.driver === SEGMENT_DRIVER.wired) this.fillMap(segment);
  }

  /** Undoes what was made before the transaction. */
  discard(): void {
    const { rooms, segments } = this.parts;
    if (this.plan.source.cookie !== undefined && this.deviceMap >= 0) rooms.deviceMaps.destroy(this.deviceMap);
    if (this.plan.source.file !== undefined) segments.letGo(this.plan.source.file.vnode, -1);
  }

  /** The anon map of memory that is not a shared mapping of a file, and the swap that it reserves. */
  private fillMap(segment: SegmentIndex): void {
    const { core, anon } = this.parts;
    const { segments, thread, spaces } = core;
    const { journal } = thread;
    const { plan } = this;
    const { source } = plan;
    if (source.file !== undefined && plan.isShared) return;
    if (source.memory !== undefined) {
      core.retainMap(source.memory.map);
      journal.set(segments.map, segment, source.memory.map + 1);
      journal.set(segments.mapPage, segment, plan.offsetPages);
      return;
    }
    const pages = core.pagesOf(plan.size);
    const owner = spaces.owner.get(this.space);
    const reserves = plan.reserve && (plan.protection & 2) !== 0 ? pages : 0;
    if (!core.tryReserve(owner, reserves)) core.failReserve('as.map', reserves);
    // A shared map keeps what it has reserved for all who map it.
    const map = anon.maps.create(pages, plan.isShared ? ANON_MAP_FLAG.shared : 0, owner, plan.isShared ? reserves : 0);
    if (map < 0) core.failFull('as.map', 'anonMaps');
    if (!plan.isShared) journal.set(segments.reserved, segment, reserves);
    journal.set(segments.map, segment, map + 1);
  }

  private chooseDriver(): number {
    const { memory, cookie, deviceMap, physical, driver } = this.plan.source;
    if (memory !== undefined) return memory.wired ? SEGMENT_DRIVER.wired : SEGMENT_DRIVER.vnode;
    if (cookie !== undefined || deviceMap !== undefined) return SEGMENT_DRIVER.device;
    if (physical !== undefined) return SEGMENT_DRIVER.kernel;
    return driver === undefined ? SEGMENT_DRIVER.vnode : SEGMENT_DRIVER.user;
  }

  private backing(): number {
    const { source, offsetPages } = this.plan;
    if (source.physical !== undefined) return source.physical;
    if (source.driver !== undefined) return source.data ?? 0;
    return source.memory === undefined && source.cookie === undefined ? offsetPages : 0;
  }

  /** Stores may reach the file. */
  private get isWriter(): boolean {
    return this.plan.isShared && (this.plan.maxProtection & 2) !== 0;
  }

  /** The generation of an open vnode. Throws `ESTALE` when this thread does not have it open, `EACCES` when not to write. */
  private requireFile(vnode: number): number {
    const { vnodes } = this.parts.rooms;
    vnodes.requireAccess(vnode, this.isWriter);
    return vnodes.stat(vnode).generation;
  }

  private requireSource(): void {
    const { core, rooms } = this.parts;
    const { pageSize, thread } = core;
    const { source, size, offsetPages } = this.plan;
    const end = offsetPages * pageSize + size;
    if (source.memory !== undefined && !source.memory.isOf(thread.region)) {
      failMisuse('as.map', { memory: source.memory.id }, 'memory is what `vm.sharedMemory` of this system returned');
    }
    if (source.memory !== undefined && end > source.memory.size) {
      failMisuse(
        'as.map',
        { size, offset: source.offset, memory: source.memory.size },
        'the shared memory ends before',
      );
    }
    if (source.cookie !== undefined) requireCookie('as.map', rooms.pmem, source.cookie);
    if (source.driver !== undefined) {
      const driver = rooms.callbacks.resolve<Partial<SegmentDriver>>(rooms.callbacks.intern(source.driver));
      if (typeof driver.fault !== 'function') {
        failMisuse('as.map', { driver: source.driver.export }, 'a driver has a function `fault`');
      }
      for (const name of ['unmapped', 'sync', 'advise', 'fork'] as const) {
        if (driver[name] === undefined || typeof driver[name] === 'function') continue;
        failMisuse(
          'as.map',
          { driver: source.driver.export, [name]: driver[name] },
          `\`${name}\` is a function, if it is there`,
        );
      }
    }
    if (source.deviceMap !== undefined) this.requireDeviceMap(source.deviceMap);
    if (source.cookie !== undefined && end > source.cookie.frames * pageSize) {
      failMisuse('as.map', { size, offset: source.offset }, 'the cookie ends before');
    }
    if (source.cookie !== undefined && rooms.pmem.isMovable(source.cookie)) {
      failMisuse(
        'as.map',
        { cookie: source.cookie.cookie },
        'the frames of a movable cookie do not stay where they are',
      );
    }
    if (source.physical !== undefined && source.physical + size > thread.region.geometry.frames * pageSize) {
      failMisuse('as.map', { size, physical: source.physical }, 'physical memory ends before');
    }
  }

  private requireDeviceMap(map: number): void {
    const { rooms } = this.parts;
    if (rooms.deviceMaps.isLive(map)) return;
    failMisuse('as.map', { deviceMap: map }, 'there is no such device map');
  }

  private makeDeviceMap(): number {
    const { deviceMaps } = this.parts.rooms;
    const { plan } = this;
    const { source } = plan;
    const { pageSize } = this.parts.core;
    const offset = plan.offsetPages * pageSize;
    const map = deviceMaps.createForSegment({
      ...{ originalMaxProtection: 7, maxProtection: 7, protection: plan.protection },
    });
    const ok = deviceMaps.setup(map, {
      cookie: source.cookie ?? null,
      // The mapping shows the map from its beginning on: a remap says where that is.
      offset,
      length: (source.cookie?.frames ?? 0) * pageSize - offset,
      maxProtection: 7,
      flags: DEVICE_MAP_FLAG.allowRemap | CACHING.uncached,
    });
    if (VERIFY) faultPoint(this.parts.core.thread, 'seg.device.made');
    if (ok) return map;
    deviceMaps.destroy(map);
    return fail('ESTALE', 'as.map', { cookie: source.cookie?.cookie }, 'the cookie cannot be mapped: it was freed');
  }
}
