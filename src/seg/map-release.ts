/**
 * What goes with the last name of an anon map, and with a segment: reservations, locked pages, rows of the pagelock cache.
 *
 * PROBLEM     The last names of a map may go in several spaces at once, while other threads are still unlocking ranges of it, and
 *             whoever takes the last one may die at any point.
 * STRUCTURE   1 under the lock, in the transaction that takes the name away: the reservation; a map that nothing locks is free,
 *               one that is locked is dying: its last shadow list frees it (`AnonMaps.unlocked`), in whatever thread
 *             2 the list of a wired map becomes the slot's own   3 the rows of the cache are noted in the slot
 *             4 without the lock: the slot's list is unlocked, idle ranges are purged, the rows retired
 *
 * INVARIANTS  I1 a row of the cache is named by a segment, a map, or a slot, or it is retired.
 * LOCKING     The lock of the spaces for 1 to 3, none for 4.
 * COSTS       A wired map: a look at all shadow lists.
 * FAILURE     None. What a dead slot had noted is finished by its recovery.
 * REJECTED    Waiting for those who unlock: recovery must not wait for threads.
 * REFERENCES  DESIGN 5.6: a soft-lock count keeps an anon map alive until the reclaim ran.
 */

import type { SlotIndex } from '../sync/index.ts';
import type { AnonMemory } from './anon-memory.ts';
import type { PagelockCache } from './pagelock-cache.ts';
import type { ShadowLists } from './shadow-lists.ts';
import type { SpaceCore } from './space-core.ts';
import { ANON_MAP_FLAG, type AnonMapIndex, type SegmentIndex } from './space-kinds.ts';

/** Takes names away, for one thread. */
export class MapRelease {
  private readonly core: SpaceCore;
  private readonly anon: AnonMemory;
  private readonly shadows: ShadowLists;
  private readonly pagelock: PagelockCache;
  /** Step 2 has made a list this slot's own. */
  private seized = -1;

  constructor(core: SpaceCore, anon: AnonMemory, shadows: ShadowLists, pagelock: PagelockCache) {
    this.core = core;
    this.anon = anon;
    this.shadows = shadows;
    this.pagelock = pagelock;
  }

  /** Journaled, under the lock: step 3 for a segment that goes. */
  noteSegment(segment: SegmentIndex): void {
    const { segments, slots, thread } = this.core;
    thread.journal.set(slots.segmentOwner, thread.slot, segments.cacheOwner.get(segment));
    thread.journal.set(segments.cacheOwner, segment, 0);
  }

  /** Journaled, under the lock: steps 1 to 3 for one name of a map. */
  release(map: AnonMapIndex): void {
    const { core, anon, shadows } = this;
    const { maps, slots, thread } = core;
    if (maps.refs.get(map) === 1) {
      core.unreserve(maps.owner.get(map), maps.reserved.get(map));
      thread.journal.set(maps.reserved, map, 0);
      thread.journal.set(slots.mapOwner, thread.slot, maps.cacheOwner.get(map));
      thread.journal.set(maps.cacheOwner, map, 0);
      if ((maps.flags.get(map) & ANON_MAP_FLAG.wired) !== 0) this.seized = shadows.seize(map);
    }
    anon.maps.release(map);
  }

  /** Step 4. */
  finish(): void {
    const { seized } = this;
    this.seized = -1;
    if (seized >= 0) this.shadows.unlock(seized);
    this.retire(this.core.thread.slot);
  }

  /** Step 4 for a dead slot, whose lists are given back by `ShadowLists.recover`. */
  retire(slot: SlotIndex): void {
    const { slots, thread } = this.core;
    for (const column of [slots.segmentOwner, slots.mapOwner]) {
      const owner = column.get(slot) - 1;
      if (owner >= 0) this.pagelock.retireOwner(owner, () => thread.journal.set(column, slot, 0));
    }
  }
}
