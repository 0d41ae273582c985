/**
 * Faults: from an address to the frame that holds its page, in software.
 *
 * PROBLEM     Whoever reads or writes through a space must come to the right frame, and find it kept still, while other
 *             threads map, unmap, fork and evict.
 * STRUCTURE   With the space held shared:
 *
 *               1 the segment of the address, and whether it allows the access
 *               2 vnode     an anon of its map, if there is one: held, or brought
 *                           to write, when others see the anon too, or there is none: a new one in its place, a copy of what
 *                           was there: anon, page of the vnode, or zeros
 *                           to read, when there is none: the page of the vnode, or a hole, which reads as zeros
 *                 device    the frame of the cookie that the map names      kernel    physical memory
 *                 user      asked without the space held; then it is looked whether the segment is still the same
 *
 *             What came out stands in the fields: `kind`, `frame`, `vnode`, `index`, `writable`. A page is held by this thread.
 * INVARIANTS  I1 `writable` is true only for a page that every thread sees that may see it: see anon-memory I3.
 * LOCKING     The space shared, the lock of the spaces for the anon map; pages are brought with the space held shared.
 * COSTS       A page that is in memory: about a microsecond. See space-access.ts for what comes before.
 * FAILURE     `EFAULT` without a segment, without the right, or behind the end of a file; `ENOMEM`, `EIO`.
 * REJECTED    Tables of translations in shared memory: every frame has an address in every thread, so that a translation is
 *             a hash look-up, and each thread keeps its own (soft-tlb.ts).
 * REFERENCES  illumos vm_as.c (as_fault), seg_vn.c (segvn_faultpage).
 */

import { fail } from '../base/errors.ts';
import type { PageStore, Pages, VnodeIndex } from '../page/index.ts';
import type { FrameIndex } from '../phys/index.ts';
import type { DeviceMaps, Pmem } from '../pmem/index.ts';
import { type Callbacks, load, sleepOn } from '../sync/index.ts';
import type { Vnodes } from '../vnode/index.ts';
import type { AnonMemory } from './anon-memory.ts';
import type { SegmentDriver, SegmentView } from './segment-driver.ts';
import type { SegmentTree } from './segment-tree.ts';
import type { SpaceCore } from './space-core.ts';
import { PROTECTION, SEGMENT_DRIVER, SEGMENT_FLAG, type SegmentIndex, type SpaceIndex } from './space-kinds.ts';

/** How long a fault waits for a recovery before it looks again. */
const PAUSE_MS = 1;

/** What a fault has found. */
export const FAULT_KIND = {
  /** Nothing yet: reads as zeros. */
  hole: 0,
  /** A page with an identity, held by this thread. */
  page: 1,
  /** A frame that stays where it is. */
  physical: 2,
} as const;

/** Thrown instead of waiting for a page, to whoever must not wait: the page at this address would have to be waited for. */
export class PageMissing extends Error {
  readonly address: number;

  constructor(address: number) {
    super('a page is missing');
    this.address = address;
  }
}

/** What faults need of other rooms. */
export interface FaultRooms {
  readonly pages: Pages;
  readonly vnodes: Vnodes;
  readonly pmem: Pmem;
  readonly deviceMaps: DeviceMaps;
  readonly callbacks: Callbacks;
}

/** Faults of one thread. */
export class Faults {
  kind: number = FAULT_KIND.hole;
  frame: FrameIndex = -1;
  vnode: VnodeIndex = -1;
  index = -1;
  writable = false;
  /** Who asks, for errors. */
  call = 'fault';
  /** False: a page that is to be brought or made throws `PageMissing`. */
  mayWait = true;
  private readonly core: SpaceCore;
  private readonly tree: SegmentTree;
  private readonly anon: AnonMemory;
  private readonly rooms: FaultRooms;
  private readonly store: PageStore;
  private readonly lanes = new Int32Array(1);

  constructor(core: SpaceCore, tree: SegmentTree, anon: AnonMemory, rooms: FaultRooms) {
    this.core = core;
    this.tree = tree;
    this.anon = anon;
    this.rooms = rooms;
    this.store = rooms.vnodes;
  }

  /**
   * Resolves an address; the caller holds the space shared. False when a driver of users must be asked: then the caller gives
   * the space back, calls `askUser`, and starts again with what that returned.
   */
  resolve(space: SpaceIndex, address: number, write: boolean, own: boolean, answer: UserAnswer | null): boolean {
    const { segments, pageSize } = this.core;
    // 1.
    const segment = this.segmentFor(space, address, write);
    // 2.
    switch (segments.driver.get(segment)) {
      case SEGMENT_DRIVER.vnode:
      case SEGMENT_DRIVER.wired:
        this.resolveMemory(space, segment, address, write, own);
        if ((segments.protection.get(segment) & PROTECTION.write) === 0) this.writable = false;
        return true;
      case SEGMENT_DRIVER.device:
        this.physical(this.deviceFrame(segment, address), segment);
        return true;
      case SEGMENT_DRIVER.kernel:
        this.physical(Math.floor(this.backingAt(segment, address) / pageSize), segment);
        return true;
      case SEGMENT_DRIVER.user: {
        if (answer === null || answer.segment !== segment) return false;
        if (answer.generation !== segments.generation.get(segment)) return false;
        this.physical(Math.floor(answer.physical / pageSize), segment);
        return true;
      }
      default:
        return this.failDriverless(space, segment, address);
    }
  }

  /**
   * Throws unless all of `[start, end)` is mapped, allows the access, and lies inside its files and devices; the caller holds the
   * space shared. True when nothing but a change of the space can alter that.
   */
  requireRange(space: SpaceIndex, start: number, end: number, write: boolean): boolean {
    const { segments } = this.core;
    let stays = true;
    for (let at = start; at < end; ) {
      const segment = this.segmentFor(space, at, write);
      const until = Math.min(end, segments.base.get(segment) + segments.size.get(segment));
      const driver = segments.driver.get(segment);
      const vnode = segments.vnode.get(segment) - 1;
      if (driver === SEGMENT_DRIVER.none) this.failDriverless(space, segment, at);
      if (driver === SEGMENT_DRIVER.device) this.deviceFrame(segment, until - 1);
      if (vnode >= 0) this.requireFile(segment, vnode, at, until);
      if (driver === SEGMENT_DRIVER.device || vnode >= 0) stays = false;
      at = until;
    }
    return stays;
  }

  /** The segment at an address for a driver of users: its row, generation and view. The caller holds the space shared. */
  userSegment(space: SpaceIndex, address: number): UserSegment {
    const { segments } = this.core;
    const segment = this.tree.find(space, address);
    if (segment < 0) this.failUnmapped(space, address);
    const driver = this.rooms.callbacks.resolve<SegmentDriver>(segments.callback.get(segment) - 1);
    return { driver, generation: segments.generation.get(segment), view: this.viewOf(segment) };
  }

  /** Asks a driver of users, with no lock held. */
  askUser({ driver, generation, view }: UserSegment, address: number, write: boolean): UserAnswer {
    const { pageSize } = this.core;
    const offset = view.start + Math.floor((address - view.base) / pageSize) * pageSize;
    const physical = driver.fault(view, offset, write);
    const { frames } = this.core.thread.region.geometry;
    if (
      !(Number.isSafeInteger(physical) && physical >= 0 && physical % pageSize === 0 && physical < frames * pageSize)
    ) {
      fail('EFAULT', 'driver.fault', { offset, physical }, 'a driver returns the physical address of a page');
    }
    return { segment: view.segment, generation, physical };
  }

  /** What a driver of users sees of a segment. */
  viewOf(segment: SegmentIndex): SegmentView {
    const { segments } = this.core;
    return {
      space: segments.space.get(segment) - 1,
      segment,
      base: segments.base.get(segment),
      size: segments.size.get(segment),
      data: segments.backing.get(segment),
      start: segments.start.get(segment),
    };
  }

  /** The frame that a device map shows at an address. */
  deviceFrame(segment: SegmentIndex, address: number): FrameIndex {
    const { segments, pageSize } = this.core;
    const { deviceMaps, pmem } = this.rooms;
    const page = segments.backing.get(segment) + Math.floor((address - segments.base.get(segment)) / pageSize);
    const state = deviceMaps.settledState(segments.deviceMap.get(segment) - 1);
    if (state.cookie === null || page * pageSize >= state.length || !pmem.isLive(state.cookie)) {
      fail('EFAULT', this.call, { address, page }, 'the device map shows nothing here, or the cookie was freed');
    }
    return pmem.getPfns(state.cookie, state.offset / pageSize + page, 1)[0] as FrameIndex;
  }

  private resolveMemory(space: SpaceIndex, segment: SegmentIndex, address: number, write: boolean, own: boolean): void {
    const { segments } = this.core;
    const map = segments.map.get(segment) - 1;
    const vnode = segments.vnode.get(segment) - 1;
    const isShared = (segments.flags.get(segment) & SEGMENT_FLAG.shared) !== 0;
    if (map < 0 || (isShared && vnode >= 0)) {
      this.vnodePage(segment, vnode, address, isShared);
      return;
    }
    const page = this.core.mapPageOf(segment, address);
    const spacePage = Math.floor(address / this.core.pageSize);
    const { count } = this.core.thread.region.tables.frameLock;
    for (;;) {
      // Whoever makes one looks again, under the lock. Behind the end of a file, all depends on the answer.
      const seemsEmpty = (write || own) && vnode < 0 && this.anon.maps.seemsEmpty(map, page);
      const found = seemsEmpty ? FOUND.none : this.findAnon(map, page, write || own, address);
      if (found === FOUND.held) return;
      if (found === FOUND.none && !write && !own) {
        if (vnode >= 0) this.vnodePage(segment, vnode, address, false);
        else this.kind = FAULT_KIND.hole;
        return;
      }
      if (!this.mayWait) {
        // To make one may take frames that are short.
        if (found === FOUND.common) this.rooms.pages.release(this.frame);
        throw new PageMissing(address);
      }
      let source: FrameIndex = -1;
      if (found === FOUND.common) source = this.frame;
      else if (vnode >= 0) {
        this.vnodePage(segment, vnode, address, false);
        source = this.frame;
      }
      if (found === FOUND.common && count.get(source) !== 0) {
        // A fork died before it had copied this pinned page: the space keeps it, and the copy is about to go.
        this.rooms.pages.release(source);
        this.pause();
        continue;
      }
      const expected = found === FOUND.common ? this.index : -1;
      let frame: FrameIndex;
      try {
        frame = this.anon.replace(space, map, page, expected, source, source < 0 ? -1 : spacePage);
      } finally {
        if (source >= 0) this.rooms.pages.release(source);
      }
      if (found === FOUND.common) this.anon.reap();
      if (frame < 0) continue;
      this.page(frame, this.anon.vnode, this.anon.made, true);
      return;
    }
  }

  /** Looks for the anon of a page and holds its page; `mustOwn`: one that others see too is only a source. */
  private findAnon(map: number, page: number, mustOwn: boolean, address: number): number {
    const { anon, core } = this;
    core.lock.enter();
    const found = anon.maps.find(map, page);
    if (found < 0) {
      core.lock.exit();
      return FOUND.none;
    }
    const { exclusive } = anon.maps;
    let frame = anon.holdOrVisit(found);
    core.lock.exit();
    if (frame < 0 && !this.mayWait) {
      anon.passBy();
      throw new PageMissing(address);
    }
    if (frame < 0) frame = anon.bring(found);
    this.page(frame, anon.vnode, found, exclusive);
    return exclusive || !mustOwn ? FOUND.held : FOUND.common;
  }

  private vnodePage(segment: SegmentIndex, vnode: VnodeIndex, address: number, isShared: boolean): void {
    const { vnodes, pages } = this.rooms;
    const { segments, pageSize } = this.core;
    const index = this.backingAt(segment, address);
    if (index * pageSize >= vnodes.size(vnode)) {
      this.failBehind(vnode, address);
    }
    let frame = pages.hold(vnode, index);
    if (frame < 0) {
      if (!this.mayWait) throw new PageMissing(address);
      pages.fetch(vnode, index, 1, this.lanes, 0, this.store, true);
      frame = this.lanes[0] as number;
    }
    this.page(frame, vnode, index, isShared && (segments.maxProtection.get(segment) & PROTECTION.write) !== 0);
  }

  private backingAt(segment: SegmentIndex, address: number): number {
    const { segments, pageSize } = this.core;
    const pages = Math.floor((address - segments.base.get(segment)) / pageSize);
    const isPhysical = segments.driver.get(segment) === SEGMENT_DRIVER.kernel;
    return segments.backing.get(segment) + (isPhysical ? pages * pageSize : pages);
  }

  private pause(): void {
    const { thread, control } = this.core;
    const word = control.drained.address(0);
    sleepOn(thread, word, load(thread.words, word), PAUSE_MS);
    thread.clearWait();
  }

  private page(frame: FrameIndex, vnode: VnodeIndex, index: number, writable: boolean): void {
    this.kind = FAULT_KIND.page;
    this.frame = frame;
    this.vnode = vnode;
    this.index = index;
    this.writable = writable;
  }

  private physical(frame: FrameIndex, segment: SegmentIndex): void {
    this.kind = FAULT_KIND.physical;
    this.frame = frame;
    this.vnode = -1;
    this.index = -1;
    this.writable = (this.core.segments.protection.get(segment) & PROTECTION.write) !== 0;
  }

  /** The segment at an address. Throws when there is none, or when it does not allow the access. */
  private segmentFor(space: SpaceIndex, address: number, write: boolean): SegmentIndex {
    const segment = this.tree.find(space, address);
    if (segment < 0) this.failUnmapped(space, address);
    const needed = write ? PROTECTION.write : PROTECTION.read;
    if ((this.core.segments.protection.get(segment) & needed) === 0) this.failProtected(space, segment, address);
    return segment;
  }

  /** Throws when `[at, until)` of a segment begins or ends behind its file, but for pages that the space has of its own. */
  private requireFile(segment: SegmentIndex, vnode: VnodeIndex, at: number, until: number): void {
    const { core, anon, rooms } = this;
    const { segments, pageSize } = core;
    const pages = Math.ceil(rooms.vnodes.size(vnode) / pageSize) - segments.backing.get(segment);
    const behind = Math.max(at, segments.base.get(segment) + pages * pageSize);
    if (behind >= until) return;
    const isShared = (segments.flags.get(segment) & SEGMENT_FLAG.shared) !== 0;
    const map = isShared ? -1 : segments.map.get(segment) - 1;
    if (map < 0) this.failBehind(vnode, behind);
    for (let where = behind; where < until; where += pageSize) {
      core.lock.enter();
      const found = anon.maps.find(map, core.mapPageOf(segment, where));
      core.lock.exit();
      if (found < 0) this.failBehind(vnode, where);
    }
  }

  private failUnmapped(space: SpaceIndex, address: number): never {
    fail('EFAULT', this.call, { space, address }, 'nothing is mapped at this address');
  }

  private failDriverless(space: SpaceIndex, segment: SegmentIndex, address: number): never {
    fail('EFAULT', this.call, { space, address, segment }, 'the segment has no driver yet');
  }

  private failBehind(vnode: VnodeIndex, address: number): never {
    const size = this.rooms.vnodes.size(vnode);
    fail('EFAULT', this.call, { address, size }, 'the address lies behind the end of the file');
  }

  private failProtected(space: SpaceIndex, segment: SegmentIndex, address: number): never {
    const protection = this.core.segments.protection.get(segment);
    fail('EFAULT', this.call, { space, address, protection }, 'the mapping does not allow this access');
  }
}

/** What `findAnon` came to: no anon; one that is held; one that is held and seen by others too. */
const FOUND = { none: 0, held: 1, common: 2 } as const;

/** A segment whose driver must be asked. */
export interface UserSegment {
  readonly driver: SegmentDriver;
  readonly generation: number;
  readonly view: SegmentView;
}

/** What a driver of users has answered. */
export interface UserAnswer {
  readonly segment: SegmentIndex;
  readonly generation: number;
  readonly physical: number;
}
