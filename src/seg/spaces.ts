/**
 * All address spaces as one thread sees them: made, found, taken apart, recovered and checked.
 *
 * PROBLEM     Spaces belong to no thread, and whoever has begun to make or to take one apart may die in the middle.
 * STRUCTURE   A space that is not settled is named by one slot, and nobody else looks at it: a new one until its row is filled, a
 *             copy until the fork is done, an old one from the moment that it is empty for everybody else. Recovery takes it apart.
 *
 *               free --create--> live --destroy--> unsettled --take apart--> free
 *                 '----fork----> unsettled --publish--> live
 *
 * INVARIANTS  I1 a row that is unsettled is named by exactly one slot.
 *             I2 what a slot had in hand (an anon, dropped pages, a stretch to clear, lists, pins) is given back once.
 * LOCKING     The lock of the spaces; see space-core.ts. Recovery takes it, and no space: a holder may wait for a page lock.
 * COSTS       A space: one row, and an arena from the first mapping without an address on.
 * FAILURE     `ENOMEM` without rows, `ENOENT` or `ESTALE` for spaces that are gone.
 * REJECTED    Names for spaces: a number and a generation can be posted, and cannot be mistaken.
 * REFERENCES  illumos as_alloc, as_free.
 */

import { type CheckReport, fail, failMisuse, parseSize, requireInteger } from '../base/index.ts';
import type { Pages } from '../page/index.ts';
import type { Banks, FrameIndex } from '../phys/index.ts';
import type { Cookie, DeviceMaps, Pmem } from '../pmem/index.ts';
import { type Callbacks, ownerOf, type SlotIndex, type Thread } from '../sync/index.ts';
import type { Arenas } from '../vmem/index.ts';
import { type IoRequests, VNODE_KIND, type Vnodes } from '../vnode/index.ts';
import { LockedCharge } from '../vpm/index.ts';
import { AddressSpace, type AddressSpaceId } from './address-space.ts';
import { AnonMemory } from './anon-memory.ts';
import { AnonStore } from './anon-store.ts';
import type { BringRequest } from './async-pins.ts';
import { Faults } from './faults.ts';
import { MapRelease } from './map-release.ts';
import type { PagelockCache } from './pagelock-cache.ts';
import { Segments } from './segments.ts';
import { ShadowLists } from './shadow-lists.ts';
import { SharedMemories } from './shared-memories.ts';
import { SpaceAccess } from './space-access.ts';
import { booleanOf, requireOptions } from './space-arguments.ts';
import type { ChangeParts } from './space-changes.ts';
import { checkSpaces } from './space-check.ts';
import { SpaceCore } from './space-core.ts';
import type { SpaceCursor } from './space-cursor.ts';
import { SpaceFork } from './space-fork.ts';
import { ADVICE_COUNTER, SPACE_FLAG, SPACE_STATE, type SpaceIndex } from './space-kinds.ts';
import { SHADOW_DRIVER } from './space-pins.ts';
import { SpaceRoom } from './space-room.ts';
import { SwapFile } from './swap-file.ts';
import { UserDrivers } from './user-drivers.ts';
import { WriteSections } from './write-sections.ts';

/** What spaces need of other rooms: `VirtualMemory` has it. */
export interface SpaceRooms {
  readonly thread: Thread;
  readonly banks: Banks;
  readonly pages: Pages;
  readonly vnodes: Vnodes;
  readonly pmem: Pmem;
  readonly deviceMaps: DeviceMaps;
  readonly callbacks: Callbacks;
  readonly arenas: Arenas;
  readonly pagelock: PagelockCache;
  readonly io: IoRequests;
}

/** What the parts of this room share in one thread. */
export interface SpaceParts extends ChangeParts {
  readonly faults: Faults;
  readonly fork: SpaceFork;
  readonly charge: LockedCharge;
  readonly rooms: SpaceRooms;
  readonly spaces: Spaces;
}

/** Counts over all spaces. */
export interface SpaceStatistics {
  readonly spaces: number;
  readonly segments: number;
  /** Anon maps, their nodes, and anonymous pages. */
  readonly maps: number;
  readonly nodes: number;
  readonly anons: number;
  readonly pins: number;
  readonly shadowLists: number;
  /** Pages of swap reserved, and how many can be. */
  readonly reserved: number;
  readonly reserveMax: number;
  /** Pages that advice `free` gave up, and those that it could not. */
  readonly freeHits: number;
  readonly freeMisses: number;
  /** Pages of the other advice. */
  readonly willNeed: number;
  readonly dontNeed: number;
  /**
   * Parts of segments that are gone with the thread that unmapped them, and whose driver is not told yet: it was registered by
   * name, which the daemon has not. The next thread that has the name and maps with a driver, unmaps, or calls `reap` tells it.
   */
  readonly untold: number;
}

/** Options of a new space. Sizes and addresses are bytes or text. */
export interface AddressSpaceOptions {
  /** Lowest address. Default 64 KiB, so that small numbers are no addresses. */
  readonly base?: number | string;
  /** Address behind the highest one. Default 2^47. */
  readonly limit?: number | string;
  /** Segments end below this address, unless `kernel`. Default: the limit. */
  readonly userLimit?: number | string;
  /** Addresses that cannot be mapped: from the first to below the second. */
  readonly hole?: readonly [number, number];
  /** The user limit does not hold. */
  readonly kernel?: boolean;
}

/** Spaces of one thread. */
export class Spaces {
  /** Shared anonymous memory. */
  readonly shared: SharedMemories;
  /** Where anonymous pages go when memory is short. */
  readonly swap: SwapFile;
  private readonly parts: SpaceParts;
  private readonly cursors = new Set<SpaceCursor>();
  private readonly release: MapRelease;
  /** The space that `bring` was asked for last. */
  private bringing: (AddressSpaceId & { readonly access: SpaceAccess }) | null = null;

  constructor(rooms: SpaceRooms) {
    const { thread, banks, pages, vnodes, deviceMaps } = rooms;
    const core = new SpaceCore(thread);
    const sections = new WriteSections(thread);
    this.swap = new SwapFile(core, banks);
    const anonVnode = core.control.anonVnode.get(0) - 1;
    const store = new AnonStore(core, banks, this.swap);
    vnodes.setStore(VNODE_KIND.anon, store);
    const anon = new AnonMemory(core, pages, banks, vnodes, anonVnode, sections, this.swap);
    const shadows = new ShadowLists(core, anon);
    this.release = new MapRelease(core, anon, shadows, rooms.pagelock);
    const segments = new Segments(core, anon, this.release, vnodes, deviceMaps);
    const room = new SpaceRoom(core, segments.tree, rooms.arenas);
    const drivers = new UserDrivers(core, rooms.callbacks);
    const changeParts = { core, segments, sections, shadows, room, anon, pagelock: rooms.pagelock, drivers };
    const faults = new Faults(core, segments.tree, anon, rooms);
    const fork = new SpaceFork(changeParts, rooms);
    this.parts = { ...changeParts, faults, fork, charge: new LockedCharge(thread), rooms, spaces: this };
    this.shared = new SharedMemories(core, anon, shadows, pages, this.release);
    rooms.callbacks.register(SHADOW_DRIVER, shadows);
    rooms.pmem.setUnload(() => this.unloadDevices());
    rooms.pmem.setPinners((cookie) => this.pinnersOfCookie(cookie));
    pages.setTakes(anonVnode, (index) => this.swap.hasRoom(index));
    pages.setPinners((frame) => this.pinnersOf(frame));
    pages.setBeforeWriteBack((vnode, first, count) => this.markPinned(vnode, first, count));
  }

  /** The space of an `id`, or a new one with these options. */
  openOrCreate(options: AddressSpaceOptions | AddressSpaceId = {}): AddressSpace {
    const hasId = typeof options === 'object' && options !== null && Object.hasOwn(options, 'space');
    return hasId ? this.open(options as AddressSpaceId) : this.create(options as AddressSpaceOptions);
  }

  /** A new, empty space, which every thread can open by its `id`. It stays until `destroy`. */
  create(options: AddressSpaceOptions = {}): AddressSpace {
    const call = 'addressSpace';
    requireOptions(call, options, ['base', 'limit', 'userLimit', 'hole', 'kernel']);
    const { core } = this.parts;
    const { pageSize, spaces, spacePool, thread } = core;
    const base = parseSize(orElse(options.base, 65536), `${call}: base`);
    const limit = parseSize(orElse(options.limit, 2 ** 47), `${call}: limit`);
    const userLimit = parseSize(orElse(options.userLimit, limit), `${call}: userLimit`);
    const isKernel = booleanOf(call, 'kernel', options.kernel, false);
    const { hole = [0, 0] } = options;
    if (!Array.isArray(hole) || hole.length !== 2)
      failMisuse(call, { hole }, 'a hole is two addresses: [first, behind]');
    const [holeStart, holeEnd] = hole;
    for (const [name, value] of Object.entries({ base, limit, userLimit, holeStart, holeEnd })) {
      requireInteger(call, name, value, 0, Number.MAX_SAFE_INTEGER);
      if (value % pageSize !== 0) fail('EINVAL', call, { [name]: value }, `a multiple of the page size, ${pageSize}`);
    }
    if (base >= limit || holeEnd < holeStart)
      fail('EINVAL', call, { base, limit, holeStart, holeEnd }, 'ranges ascend');
    core.lock.enter();
    const space = spacePool.take();
    if (space < 0) {
      core.lock.exit();
      return core.failFull(call, 'addressSpaces');
    }
    const { journal } = thread;
    journal.set(spaces.state, space, SPACE_STATE.live);
    journal.set(spaces.root, space, 0);
    journal.set(spaces.segments, space, 0);
    journal.set(spaces.flags, space, isKernel ? SPACE_FLAG.kernel : 0);
    journal.set(spaces.owner, space, ownerOf(thread));
    journal.set(spaces.arena, space, 0);
    const fields = { base, limit, userLimit, holeStart, holeEnd, size: 0 };
    for (const [name, value] of Object.entries(fields)) {
      journal.setDouble(spaces[name as keyof typeof fields], space, value);
    }
    core.lock.exit();
    return this.bind(space);
  }

  /** A space that another thread has made. Throws `ESTALE` when it is gone. */
  open({ space, generation }: AddressSpaceId): AddressSpace {
    const { core } = this.parts;
    const isKnown = Number.isInteger(space) && space >= 0 && space < core.spaces.rowCount;
    if (!isKnown || !core.isLive(space, generation)) {
      fail('ESTALE', 'addressSpace', { space, generation }, 'there is no such space any more');
    }
    return this.bind(space);
  }

  /** The live spaces, whoever made them: those of threads that have ended, too. */
  list(): AddressSpaceId[] {
    const { core } = this.parts;
    const { spaces, spacePool } = core;
    const found: AddressSpaceId[] = [];
    for (let space = 0; space < spacePool.walkEnd; space++) {
      if (spaces.state.get(space) !== SPACE_STATE.live) continue;
      found.push({ space, generation: spaces.generation.get(space) });
    }
    return found;
  }

  /** This thread's view of a live space. */
  bind(space: SpaceIndex): AddressSpace {
    return new AddressSpace(this.parts, space);
  }

  /** Brings pages in, as a pin of another thread needs them: for the workers that `pinAsync` asks. */
  bring({ space, generation, call, address, length, from, pages, write }: BringRequest): void {
    const { core, sections, faults, rooms } = this.parts;
    if (this.bringing?.space !== space || this.bringing.generation !== generation) {
      const access = new SpaceAccess(core, space, sections, faults, rooms.pages, rooms.banks);
      this.bringing = { space, generation, access };
    }
    if (!core.isLive(space, generation)) fail('ESTALE', call, { space, generation }, 'the address space was destroyed');
    this.bringing.access.asking(call, address, length);
    this.bringing.access.bring(from, pages, write, call);
  }

  /** A cursor of this thread, which `leave` knows. */
  openCursor(make: (released: (cursor: SpaceCursor) => void) => SpaceCursor): SpaceCursor {
    const cursor = make((released) => {
      this.cursors.delete(released);
      // What was unmapped while the cursor held its pages.
      this.parts.anon.reap();
    });
    this.cursors.add(cursor);
    return cursor;
  }

  /** Releases the cursors of this thread, and what it has of rows: when it detaches. */
  leave(): void {
    for (const cursor of [...this.cursors]) cursor.release();
    this.parts.anon.leave();
  }

  /**
   * Frees the segments and the row of a space that this slot, or a dead one, has unsettled. Returns what drivers threw who were
   * told that their segments are gone.
   */
  takeApart(space: SpaceIndex, slot: SlotIndex = this.parts.core.thread.slot): readonly unknown[] {
    const { core, segments, room, anon, drivers } = this.parts;
    const { spaces, spacePool, slots, thread } = core;
    const failures: unknown[] = [];
    for (const segment of segments.tree.list(space)) {
      const isTold = drivers.tellGoing(space, segment, failures);
      segments.free(segment, !isTold);
    }
    drivers.tellQuietly(thread.slot);
    room.destroy(space);
    core.lock.enter();
    thread.journal.set(spaces.state, space, SPACE_STATE.free);
    thread.journal.set(spaces.generation, space, spaces.generation.get(space) + 1);
    thread.journal.set(slots.unsettled, slot, 0);
    spacePool.give(space);
    core.lock.exit();
    anon.reap();
    return failures;
  }

  /** Pins that this thread has and has not released. Looks at every row that was ever used. */
  pinsHeld(): number {
    const { pins, pinPool, thread } = this.parts.core;
    let held = 0;
    for (let row = 0; row < pinPool.walkEnd; row++) {
      if (pins.space.get(row) !== 0 && pins.slot.get(row) === thread.slot) held++;
    }
    return held;
  }

  /** Gives back what a dead slot had in hand. After the pagelock cache and the pages. */
  recover(dead: SlotIndex): void {
    const { core, sections, segments, shadows, anon, pagelock, rooms } = this.parts;
    const { slots, pins, pinPool, thread } = core;
    // First of all, so that nobody who holds a space waits for the dead.
    sections.recover(dead);
    anon.recover(dead);
    segments.finishClear(dead);
    shadows.recover(dead, (shadow) => pagelock.hasShadow(shadow));
    let marked = false;
    for (let row = 0; row < pinPool.walkEnd; row++) {
      if (pins.space.get(row) === 0 || pins.slot.get(row) !== dead) continue;
      // What it has stored through ranges of the cache is nobody's to mark any more.
      if (!marked) shadows.markAllCached();
      marked = true;
      core.lock.enter();
      thread.journal.set(pins.space, row, 0);
      pinPool.give(row);
      core.drained.broadcast();
      core.lock.exit();
    }
    this.shared.recover(dead);
    this.parts.drivers.recoverAsked(dead);
    this.parts.drivers.tellQuietly(dead);
    this.release.retire(dead);
    const deviceMaps = rooms.deviceMaps.recover(dead);
    const unsettled = slots.unsettled.get(dead) - 1;
    if (unsettled >= 0) {
      this.takeApart(unsettled, dead);
      segments.closeUnnamed(deviceMaps);
    }
    if (slots.changing.get(dead) !== 0) {
      // Whoever changes that space next makes its arena anew.
      const space = slots.changing.get(dead) - 1;
      core.lock.enter();
      thread.journal.set(core.spaces.arena, space, 0);
      core.lock.exit();
      slots.changing.put(dead, 0);
      segments.closeUnnamed(deviceMaps);
    }
    this.parts.room.sweep();
    anon.reap();
  }

  /** What is there, in all spaces. */
  statistics(): SpaceStatistics {
    const { core } = this.parts;
    const { control } = core;
    const { advice } = control;
    return {
      spaces: core.spacePool.used,
      segments: core.segmentPool.used - control.untold.get(0),
      maps: core.mapPool.used,
      nodes: core.nodePool.used,
      anons: core.anonsUsed,
      pins: core.pinPool.used,
      shadowLists: core.shadowPool.used,
      reserved: control.reserved.get(0),
      reserveMax: core.reserveMax,
      freeHits: advice.at(0, ADVICE_COUNTER.freeHit),
      freeMisses: advice.at(0, ADVICE_COUNTER.freeMiss),
      willNeed: advice.at(0, ADVICE_COUNTER.willNeed),
      dontNeed: advice.at(0, ADVICE_COUNTER.dontNeed),
      untold: control.untold.get(0),
    };
  }

  /** Checks trees, anon maps, references, lists and reservations. For quiet points. */
  check(): CheckReport {
    return checkSpaces(this.parts);
  }

  /**
   * Frees what could not be freed when it was given up, because somebody was just looking at it, and tells drivers of users which
   * of their segments are gone with dead threads, as far as this thread can load them.
   */
  reap(): void {
    this.parts.drivers.tellCommon();
    this.parts.anon.reap();
  }

  /** Slots that have pinned the page in a frame. */
  private pinnersOf(frame: FrameIndex): SlotIndex[] {
    const { shadows, pagelock } = this.parts;
    const lists = shadows.listsOf(frame);
    return lists.flatMap(({ list, slot }) => (slot >= 0 ? [slot] : pagelock.slotsOf(shadows.numberOf(list))));
  }

  /** Slots that have pinned device mappings of a cookie. */
  pinnersOfCookie({ cookie, generation }: Cookie): SlotIndex[] {
    const { core, rooms } = this.parts;
    const { segments: rows, pins } = core;
    const found: SlotIndex[] = [];
    for (let row = 0; row < core.pinPool.walkEnd; row++) {
      const space = pins.space.get(row) - 1;
      if (space < 0) continue;
      const lock = core.lockOf(space);
      lock.enterShared();
      for (let segment = 0; segment < core.segmentPool.walkEnd; segment++) {
        const map = rows.deviceMap.get(segment) - 1;
        if (map < 0 || rows.space.get(segment) !== space + 1 || pins.space.get(row) !== space + 1) continue;
        const start = rows.base.get(segment);
        const isPinned = pins.start.get(row) < start + rows.size.get(segment) && pins.end.get(row) > start;
        const shown = isPinned ? rooms.deviceMaps.state(map).cookie : undefined;
        if (shown?.cookie === cookie && shown?.generation === generation) found.push(pins.slot.get(row));
      }
      lock.exitShared();
    }
    return found;
  }

  /** Bytes may be stored at any time into what is pinned for writing: it is modified whenever it is written back. */
  private markPinned(vnode: number, first: number, count: number): void {
    const { core, shadows, pagelock } = this.parts;
    if (core.pinPool.used === 0) return;
    shadows.markWritten(
      vnode,
      first,
      first + count,
      (shadow) => pagelock.slotsOf(shadow).length > 0 || !pagelock.hasShadow(shadow),
    );
  }

  /** A cookie is being freed: takes the translations of all device mappings away. */
  private unloadDevices(): void {
    const { core, sections } = this.parts;
    const rows = core.segments;
    const found = new Set<SpaceIndex>();
    for (let segment = 0; segment < core.segmentPool.walkEnd; segment++) {
      if (rows.space.get(segment) !== 0 && rows.deviceMap.get(segment) !== 0) found.add(rows.space.get(segment) - 1);
    }
    for (const space of found) {
      const lock = core.lockOf(space);
      lock.enterExclusive();
      sections.changeAll(space);
      lock.exitExclusive();
    }
  }
}

/** What was given; null is no option left out. */
function orElse(given: number | string | undefined, otherwise: number): number | string {
  return given === undefined ? otherwise : given;
}
