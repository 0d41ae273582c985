/**
 * What all address spaces share: rows, the lock that guards them, and the swap that segments reserve.
 *
 * PROBLEM     Segments, anon maps, chunks and anonymous pages belong to several spaces at once, and every thread takes and
 *             gives their rows.
 * STRUCTURE   Pools of rows under one mutex:
 *
 *               space --tree--> segment --+--> anon map --> node --> node --> anon --identity--> page
 *                                         '--> vnode, device map, physical memory
 *
 *             The shape of a space (its tree and the fields of its segments) changes only while the space is held
 *             exclusively too. What anon maps consist of changes under the mutex alone.
 * INVARIANTS  I1 `count` of a pool is the number of its rows that are neither free nor unused.
 *             I2 `reserved` is the sum of what segments and shared anon maps have reserved.
 * LOCKING     One mutex (RANK.segment): a fault takes it for one or two walks of a few steps. Pages are not brought, copied
 *             or dropped under it.
 * COSTS       About 25 ns for the lock pair.
 * FAILURE     `ENOMEM` from whoever asked, naming the boot option.
 * REJECTED    A lock for each anon map: forks share nodes between maps, and each would need the locks of all of them.
 * REFERENCES  illumos as.h, seg.h, anon.h.
 */

import { fail } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import { onlineFrames } from '../phys/index.ts';
import {
  Condition,
  Mutex,
  OWNER_RESOURCE,
  type OwnerIndex,
  RANK,
  RwLock,
  type SlotIndex,
  type Thread,
  tryChargeUnderLock,
  unchargeUnderLock,
} from '../sync/index.ts';
import { RowPool } from './row-pool.ts';
import { type AnonMapIndex, type SegmentIndex, SPACE_STATE, type SpaceIndex } from './space-kinds.ts';

/** Frames that a thread needs for a fault: for the page, and for the one that it is a copy of. */
const FAULT_FRAMES = 2;

/** Rows and lock as one thread sees them. */
export class SpaceCore {
  readonly thread: Thread;
  readonly pageSize: number;
  readonly control: BoundTables['spaceControl'];
  readonly spaces: BoundTables['addressSpace'];
  readonly segments: BoundTables['segment'];
  readonly maps: BoundTables['anonMap'];
  readonly nodes: BoundTables['anonNode'];
  readonly anons: BoundTables['anon'];
  readonly shadows: BoundTables['shadowList'];
  readonly pins: BoundTables['spacePin'];
  readonly slots: BoundTables['spaceSlot'];
  /** Guards everything that spaces share. */
  readonly lock: Mutex;
  /** Signalled when a shadow list was given back. */
  readonly drained: Condition;
  readonly spacePool: RowPool;
  readonly segmentPool: RowPool;
  readonly mapPool: RowPool;
  readonly nodePool: RowPool;
  readonly anonPool: RowPool;
  readonly shadowPool: RowPool;
  readonly pinPool: RowPool;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    const { journal } = thread;
    this.thread = thread;
    this.pageSize = geometry.pageSize;
    const c = tables.spaceControl;
    this.control = c;
    this.spaces = tables.addressSpace;
    this.segments = tables.segment;
    this.maps = tables.anonMap;
    this.nodes = tables.anonNode;
    this.anons = tables.anon;
    this.shadows = tables.shadowList;
    this.pins = tables.spacePin;
    this.slots = tables.spaceSlot;
    this.lock = new Mutex(thread, c.lock.address(0), RANK.segment);
    this.drained = new Condition(thread, c.drained.address(0));
    const plus = { sign: 1 } as const;
    const { spaces, segments, maps, nodes, anons, shadows } = this;
    this.spacePool = new RowPool(journal, {
      ...{ free: c.spaceFree, fresh: c.spaceFresh, count: c.spaceCount },
      ...{ link: spaces.next, rowCount: spaces.rowCount, ...plus },
    });
    this.segmentPool = new RowPool(journal, {
      ...{ free: c.segmentFree, fresh: c.segmentFresh, count: c.segmentCount },
      ...{ link: segments.left, rowCount: segments.rowCount, ...plus },
    });
    this.mapPool = new RowPool(journal, {
      ...{ free: c.mapFree, fresh: c.mapFresh, count: c.mapCount },
      ...{ link: maps.next, rowCount: maps.rowCount, ...plus },
    });
    this.nodePool = new RowPool(journal, {
      ...{ free: c.nodeFree, fresh: c.nodeFresh, count: c.nodeCount },
      ...{ link: nodes.next, rowCount: nodes.rowCount, ...plus },
    });
    this.anonPool = new RowPool(journal, {
      ...{ free: c.anonFree, fresh: c.anonFresh, count: c.anonCount },
      ...{ link: anons.refs, rowCount: anons.rowCount, sign: -1 },
    });
    this.shadowPool = new RowPool(journal, {
      ...{ free: c.shadowFree, fresh: c.shadowFresh, count: c.shadowCount },
      ...{ link: shadows.next, rowCount: shadows.rowCount, ...plus },
    });
    this.pinPool = new RowPool(journal, {
      ...{ free: c.pinFree, fresh: c.pinFresh, count: c.pinCount },
      ...{ link: this.pins.next, rowCount: this.pins.rowCount, ...plus },
    });
  }

  /** The slot whose bits in page locks and vnodes stand for what belongs to no thread. */
  get lockSlot(): SlotIndex {
    return this.control.lockSlot.get(0) - 1;
  }

  /** The lock of a space's shape: shared to look a page up, exclusive to change segments. */
  lockOf(space: SpaceIndex): RwLock {
    return new RwLock(this.thread, this.spaces.lock.address(space), RANK.addressSpace);
  }

  /** Anons in use, but for those that slots have to spare. */
  get anonsUsed(): number {
    const { spare } = this.slots;
    let spares = 0;
    for (let slot = 0; slot < this.thread.region.geometry.slots; slot++) if (spare.get(slot) !== 0) spares++;
    return this.anonPool.used - spares;
  }

  /** Pages of so many bytes. */
  pagesOf(sizeBytes: number): number {
    return sizeBytes / this.pageSize;
  }

  /** Page of the anon map that an address of a segment shows. */
  mapPageOf(segment: SegmentIndex, address: number): number {
    const { base, mapPage } = this.segments;
    return mapPage.get(segment) + Math.floor((address - base.get(segment)) / this.pageSize);
  }

  /**
   * Most pages that may be reserved: those of memory that is online, and of swap, but for some that faults need: so where all of
   * it holds what was reserved, every page can still be brought in.
   */
  get reserveMax(): number {
    const { region } = this.thread;
    const online = onlineFrames(region);
    const kept = Math.min(FAULT_FRAMES * region.geometry.slots, Math.floor(online / 8));
    return online - kept + this.control.swapPages.get(0);
  }

  /** Journaled, under the lock: reserves pages of swap for an owner; false when there are not so many, or not for it. */
  tryReserve(owner: OwnerIndex, pages: number): boolean {
    const { reserved } = this.control;
    if (pages > 0 && reserved.get(0) + pages > this.reserveMax) return false;
    if (pages > 0 && !tryChargeUnderLock(this.thread, owner, OWNER_RESOURCE.swap, pages)) return false;
    this.thread.journal.setDouble(reserved, 0, reserved.get(0) + pages);
    return true;
  }

  /** Journaled, under the lock: takes a reservation back. */
  unreserve(owner: OwnerIndex, pages: number): void {
    if (pages === 0) return;
    const { reserved } = this.control;
    unchargeUnderLock(this.thread, owner, OWNER_RESOURCE.swap, pages);
    this.thread.journal.setDouble(reserved, 0, reserved.get(0) - pages);
  }

  /** True while the row holds the space that somebody knows by this generation. */
  isLive(space: SpaceIndex, generation: number): boolean {
    return this.spaces.state.get(space) === SPACE_STATE.live && this.spaces.generation.get(space) === generation;
  }

  /** Throws the error for a request that cannot be reserved. */
  failReserve(call: string, pages: number): never {
    const values = { pages, reserved: this.control.reserved.get(0), reserveMax: this.reserveMax };
    fail(
      'ENOMEM',
      call,
      values,
      'memory and swap do not suffice, or the limit of the owner; map with `reserve: false`',
    );
  }

  /** Throws the error for a table without rows. */
  failFull(
    call: string,
    table: 'addressSpaces' | 'segments' | 'anonMaps' | 'anonNodes' | 'anons' | 'shadowLists',
  ): never {
    const own = { addressSpaces: 'addressSpaces', segments: 'segments', anons: 'anonymousPages' } as const;
    const option = own[table as keyof typeof own] ?? 'segments` or `memory';
    fail('ENOMEM', call, { table }, `all rows are taken; boot with more \`${option}\``);
  }

  /** Journaled, under the lock: one more name of an anon map. */
  retainMap(map: AnonMapIndex): void {
    this.thread.journal.set(this.maps.refs, map, this.maps.refs.get(map) + 1);
  }
}
