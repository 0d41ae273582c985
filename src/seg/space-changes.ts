/**
 * Changes of a space: what happens before segments are cut or protected.
 *
 * PROBLEM     A part of a space may be unmapped or protected only when nobody has it pinned, nothing of it is cached as locked,
 *             and no store through an old translation is on its way.
 * STRUCTURE   1 purge the pagelock cache of what the part belongs to: no lock is held
 *             2 take the space exclusively   3 a pin in the part? give it back, then wait, or `EBUSY`
 *             4 something of it locked after all, because it was pinned and released since step 1? give it back, go to 1
 *             5 count the change and wait until nobody writes   6 the change itself
 *             7 give the space back   8 free anonymous pages, tell drivers of users
 * INVARIANTS  I1 at step 6 no list locks a page that only this part shows.
 * LOCKING     The space exclusively from 2 to 7; nothing is held while drivers run.
 * COSTS       A look at every segment of the part.
 * FAILURE     `EBUSY` names the slot that has a pin; `ETIMEDOUT`.
 * REJECTED    Waiting with the space held: the thread that has the pin may need the space to go on.
 * REFERENCES  illumos as_unmap and as_setprot with their EAGAIN loops; DESIGN 5.6.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import {
  type CancelToken,
  deadlineOf,
  faultPoint,
  isOwnerLasting,
  isOwnerStill,
  load,
  type RwLock,
  remainingMs,
  sleepOn,
  undoJournal,
} from '../sync/index.ts';
import type { Arena } from '../vmem/index.ts';
import type { AnonMemory } from './anon-memory.ts';
import type { PagelockCache } from './pagelock-cache.ts';
import type { CacheOwner } from './pagelock-kinds.ts';
import type { Segments } from './segments.ts';
import type { ShadowLists } from './shadow-lists.ts';
import type { SpaceAccess } from './space-access.ts';
import type { SpaceCore } from './space-core.ts';
import {
  ANON_MAP_FLAG,
  PROTECTION_NAMES,
  type Protection,
  SEGMENT_FLAG,
  type SegmentIndex,
  type SpaceIndex,
} from './space-kinds.ts';
import type { SpaceRoom } from './space-room.ts';
import type { UserDrivers, UserPart } from './user-drivers.ts';
import type { WriteSections } from './write-sections.ts';

/** How long step 4 waits before it starts again. */
const PAUSE_MS = 1;

/** How often step 4 starts again before it says `EBUSY`. */
const ATTEMPTS_MAX = 200;

/** What changes need. */
export interface ChangeParts {
  readonly core: SpaceCore;
  readonly segments: Segments;
  readonly sections: WriteSections;
  readonly shadows: ShadowLists;
  readonly room: SpaceRoom;
  readonly anon: AnonMemory;
  readonly pagelock: PagelockCache;
  readonly drivers: UserDrivers;
}

/** Changes of one space, as one thread makes them. */
export class SpaceChanges {
  private readonly parts: ChangeParts;
  readonly space: SpaceIndex;
  private readonly access: SpaceAccess;
  private readonly lock: RwLock;

  constructor(parts: ChangeParts, space: SpaceIndex, access: SpaceAccess) {
    this.parts = parts;
    this.space = space;
    this.access = access;
    this.lock = parts.core.lockOf(space);
  }

  /** Steps 1 to 5: the space is held exclusively when it returns. `call` and `timeoutMs`: who waits how long for pins. */
  begin(call: string, start: number, end: number, timeoutMs: number, cancel?: CancelToken): void {
    const { core, sections } = this.parts;
    cancel?.throwIfCancelled(call);
    const deadline = deadlineOf(core.thread, timeoutMs);
    for (let attempt = 0; ; attempt++) {
      // 1.
      for (const owner of this.ownersIn(start, end)) this.parts.pagelock.purgeIfKnown(owner);
      // 2.
      this.lock.enterExclusive();
      try {
        this.access.requireLive(call);
        // 3.
        const pin = this.pinIn(start, end);
        if (pin < 0 && !this.isLockedIn(start, end)) {
          // 5.
          sections.changeAll(this.space);
          return;
        }
        if (pin >= 0 && timeoutMs === 0) this.failPinned(call, start, end, pin);
        if (pin < 0 && attempt === ATTEMPTS_MAX) fail('EBUSY', call, { start, end }, 'pages of it stay locked');
      } catch (error) {
        this.lock.exitExclusive();
        throw error;
      }
      this.lock.exitExclusive();
      if (!this.pause(call, start, end, deadline, cancel)) {
        const pinnedBy = this.pinIn(start, end);
        fail('ETIMEDOUT', call, { start, end, ...(pinnedBy < 0 ? {} : { pinnedBy }) }, 'it is pinned still');
      }
    }
  }

  /** Takes the space exclusively, for a change that pins do not mind. */
  beginShape(call: string): void {
    this.lock.enterExclusive();
    try {
      this.access.requireLive(call);
    } catch (error) {
      this.lock.exitExclusive();
      throw error;
    }
  }

  /** Step 7. */
  end(): void {
    this.lock.exitExclusive();
  }

  /**
   * Step 6 of unmapping: cuts every segment in the range, and gives room back. Drivers of users are told afterwards, by
   * `UserDrivers.tellDue`; `told` gets the parts of which no row says so, because there was none.
   */
  cutRange(arena: Arena, start: number, end: number, told: UserPart[]): void {
    const { segments, room, core, drivers } = this.parts;
    const rows = core.segments;
    room.begin(this.space, arena);
    for (;;) {
      const segment = segments.tree.firstIn(this.space, start, end);
      if (segment < 0) break;
      const from = Math.max(start, rows.base.get(segment));
      const to = Math.min(end, rows.base.get(segment) + rows.size.get(segment));
      const part = drivers.partOf(this.space, segment, from, to);
      const roomStart = rows.roomStart.get(segment);
      const roomEnd = rows.roomEnd.get(segment);
      const hasRoom = (rows.flags.get(segment) & SEGMENT_FLAG.noRoom) === 0;
      const isNoted = segments.cut(segment, from, to);
      if (part !== null && !isNoted) told.push(part);
      if (VERIFY) faultPoint(core.thread, 'seg.space.cut');
      if (hasRoom) room.giveBack(this.space, arena, roomStart, roomEnd);
    }
    room.end();
  }

  /** Charges another owner for what the segments have reserved by themselves. */
  changeOwner(owner: number): void {
    const { core, segments } = this.parts;
    const { spaces, thread } = core;
    const list = segments.tree.list(this.space);
    const shared = list.find((segment) => !segments.canChangeZones(segment));
    if (shared !== undefined) {
      fail(
        'EBUSY',
        'as.changeOwner',
        { segment: shared },
        'what a shared segment has reserved is charged for all who map it',
      );
    }
    const pages = list.reduce((sum, segment) => sum + core.pagesOf(segments.swapReserved(segment)), 0);
    for (let isThere = false; !isThere; ) {
      if (!isOwnerLasting(thread, owner)) fail('ENOENT', 'as.changeOwner', { owner }, 'there is no such owner');
      core.lock.enter();
      core.unreserve(spaces.owner.get(this.space), pages);
      if (!core.tryReserve(owner, pages)) {
        undoJournal(thread.region, thread.slot);
        core.lock.exit();
        core.failReserve('as.changeOwner', pages);
      }
      thread.journal.set(spaces.owner, this.space, owner);
      // False also while somebody looks whether the owner may go: that is waited for without the lock.
      isThere = isOwnerStill(thread.region, owner);
      if (!isThere) undoJournal(thread.region, thread.slot);
      core.lock.exit();
    }
  }

  /** Step 6 of protecting. Throws before anything changes. */
  protectRange(call: string, start: number, end: number, protection: Protection): void {
    const { core, segments } = this.parts;
    const rows = core.segments;
    const bits = PROTECTION_NAMES[protection];
    for (let at = start; at < end; ) {
      const segment = segments.tree.find(this.space, at);
      if (segment < 0) fail('EFAULT', call, { address: at }, 'nothing is mapped at this address');
      if ((rows.maxProtection.get(segment) & bits) !== bits) {
        fail('EINVAL', call, { address: at, protection }, 'the mapping cannot have this protection');
      }
      at = rows.base.get(segment) + rows.size.get(segment);
    }
    for (let at = start; at < end; ) {
      const segment = this.isolate(at, end);
      this.protectSegment(call, segment, bits);
      at = rows.base.get(segment) + rows.size.get(segment);
    }
    this.joinRange(start, end);
  }

  /** Joins segments of a range, and those beside it, that are parts of one mapping and alike again. */
  joinRange(start: number, end: number): void {
    const { core, segments, room } = this.parts;
    const rows = core.segments;
    const { tree } = segments;
    let segment = tree.firstIn(this.space, Math.max(0, start - core.pageSize), end);
    while (segment >= 0) {
      const next = tree.find(this.space, rows.base.get(segment) + rows.size.get(segment));
      if (next < 0 || rows.base.get(next) > end) break;
      // Before: the arena knows the room of each.
      if (segments.canJoin(segment, next)) {
        room.forget(this.space);
        segments.join(segment, next);
      } else segment = next;
    }
  }

  /** The part of the segment at `at` that lies in `[at, end)`, as a segment of its own. */
  isolate(at: number, end: number): SegmentIndex {
    const { core, segments } = this.parts;
    const rows = core.segments;
    let segment = segments.tree.find(this.space, at);
    const begins = rows.base.get(segment) < at;
    const isLonger = rows.base.get(segment) + rows.size.get(segment) > end;
    // Before: a split that fails, or a death behind the first one, leaves rooms that the arena does not know.
    if (begins || isLonger) this.parts.room.forget(this.space);
    if (begins) segment = segments.split(segment, at);
    if (isLonger) segments.split(segment, end);
    return segment;
  }

  /** Frees the pages that nobody has any more. Step 8. */
  finish(): void {
    this.parts.anon.reap();
  }

  /** The slot that pins a page of the range, of this space unless told, or -1. */
  pinIn(start: number, end: number, space: SpaceIndex = this.space): number {
    const { pins, pinPool } = this.parts.core;
    for (let row = 0; row < pinPool.walkEnd; row++) {
      if (pins.space.get(row) !== space + 1) continue;
      if (pins.start.get(row) < end && pins.end.get(row) > start) return pins.slot.get(row);
    }
    return -1;
  }

  private protectSegment(call: string, segment: SegmentIndex, bits: number): void {
    const { core } = this.parts;
    const { segments, spaces, thread } = core;
    core.lock.enter();
    const isPrivate = (segments.flags.get(segment) & SEGMENT_FLAG.shared) === 0;
    const reserves = (segments.flags.get(segment) & SEGMENT_FLAG.noReserve) === 0;
    // A private mapping reserves when it may first be written.
    if (
      isPrivate &&
      reserves &&
      (bits & 2) !== 0 &&
      segments.reserved.get(segment) === 0 &&
      segments.map.get(segment) !== 0
    ) {
      const pages = core.pagesOf(segments.size.get(segment));
      if (!core.tryReserve(spaces.owner.get(this.space), pages)) {
        core.lock.exit();
        core.failReserve(call, pages);
      }
      thread.journal.set(segments.reserved, segment, pages);
    }
    thread.journal.set(segments.protection, segment, bits);
    core.lock.exit();
  }

  /** The owners in the pagelock cache of all that the range shows. */
  private ownersIn(start: number, end: number): CacheOwner[] {
    const { core, segments } = this.parts;
    const rows = core.segments;
    const owners = new Set<CacheOwner>();
    this.lock.enterShared();
    try {
      for (let segment = segments.tree.firstIn(this.space, start, end); segment >= 0; ) {
        const map = rows.map.get(segment) - 1;
        if (rows.cacheOwner.get(segment) !== 0) owners.add(rows.cacheOwner.get(segment) - 1);
        if (map >= 0 && core.maps.cacheOwner.get(map) !== 0) owners.add(core.maps.cacheOwner.get(map) - 1);
        segment = segments.tree.firstIn(this.space, rows.base.get(segment) + rows.size.get(segment), end);
      }
    } finally {
      this.lock.exitShared();
    }
    return [...owners];
  }

  /** Step 4: true when a list locks what would go. */
  private isLockedIn(start: number, end: number): boolean {
    const { core, segments, shadows } = this.parts;
    const rows = core.segments;
    for (let segment = segments.tree.firstIn(this.space, start, end); segment >= 0; ) {
      const base = rows.base.get(segment);
      const last = base + rows.size.get(segment);
      const map = rows.map.get(segment) - 1;
      const from = Math.max(start, base);
      const to = Math.min(end, last);
      if (map >= 0 && this.isMapLocked(segment, map, from, to)) return true;
      // Lists of segments without a vnode lock nothing: their frames never move.
      const first = segments.backingAt(segment, from);
      const isFile = rows.vnode.get(segment) !== 0;
      if (isFile && shadows.isLocked(-1, segment, first, first + core.pagesOf(to - from))) return true;
      segment = segments.tree.firstIn(this.space, last, end);
    }
    return false;
  }

  private isMapLocked(segment: SegmentIndex, map: number, start: number, end: number): boolean {
    const { core, shadows } = this.parts;
    const { maps, segments } = core;
    const flags = maps.flags.get(map);
    const whole = end - start === segments.size.get(segment);
    // What is shared stays as long as somebody else names it.
    if ((flags & ANON_MAP_FLAG.shared) === 0) {
      return shadows.isLocked(map, -1, core.mapPageOf(segment, start), core.mapPageOf(segment, end - 1) + 1);
    }
    if ((flags & ANON_MAP_FLAG.wired) !== 0 || !whole || maps.refs.get(map) > 1) return false;
    return shadows.isLocked(map, -1, 0, maps.pages.get(map));
  }

  /** Waits until something was unlocked; false when the time is over. */
  private pause(call: string, start: number, end: number, deadline: number, cancel: CancelToken | undefined): boolean {
    const { core } = this.parts;
    const { thread } = core;
    const left = remainingMs(thread, deadline);
    core.lock.enter();
    const isPinned = this.pinIn(start, end) >= 0;
    try {
      if (isPinned && left > 0) core.drained.wait(core.lock, left, cancel);
    } catch (error) {
      cancel?.throwIfCancelled(call);
      throw error;
    } finally {
      core.lock.exit();
    }
    if (isPinned) return remainingMs(thread, deadline) > 0;
    const word = core.control.drained.address(0);
    sleepOn(thread, word, load(thread.words, word), PAUSE_MS);
    thread.clearWait();
    return true;
  }

  private failPinned(call: string, start: number, end: number, slot: number): never {
    fail(
      'EBUSY',
      call,
      { start, end, pinnedBy: slot },
      'a part of it is pinned; release the pin, or give a `timeoutMs`',
    );
  }
}
