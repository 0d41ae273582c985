/**
 * Shared memory as one thread makes and finds it.
 *
 * PROBLEM     Anonymous memory that outlives spaces, and, when it is wired, has all of its pages there for as long as it lives.
 * STRUCTURE   An anon map with one reference for its maker and one for each segment. A wired one has a shadow list of its own, which
 *             locks every page; all cached ranges of its segments name that list.
 *
 *               1 a map that the slot is making   2 wired: every page is made and locked   3 the map is nobody's in particular
 *
 * INVARIANTS  I1 a wired map has one list in state wired until its last reference goes.
 * LOCKING     The lock of the spaces.
 * COSTS       A wired page: about two microseconds, once.
 * FAILURE     `ENOMEM`; nothing is left. A death in the middle: recovery releases the map.
 * REJECTED    Wiring at the first map: it could fail for lack of memory at any later time.
 * REFERENCES  illumos seg_spt.c (one shadow list for all attachments).
 */

import { fail, parseSize } from '../base/index.ts';
import type { Pages } from '../page/index.ts';
import { ownerOf, type SlotIndex, undoJournal } from '../sync/index.ts';
import type { AnonMemory } from './anon-memory.ts';
import type { MapRelease } from './map-release.ts';
import type { ShadowLists } from './shadow-lists.ts';
import { SharedMemory, type SharedMemoryId } from './shared-memory.ts';
import { booleanOf, requireOptions } from './space-arguments.ts';
import type { SpaceCore } from './space-core.ts';
import { ANON_MAP_FLAG, ANON_MAP_STATE, type AnonMapIndex, SHADOW_STATE } from './space-kinds.ts';

/** Options of new shared memory. */
export interface SharedMemoryOptions {
  /** Bytes, or text; rounded up to pages. */
  readonly size: number | string;
  /** All pages are made and locked at once. Default false. */
  readonly wired?: boolean;
}

/** Shared memory of one thread. */
export class SharedMemories {
  private readonly core: SpaceCore;
  private readonly anon: AnonMemory;
  private readonly shadows: ShadowLists;
  private readonly pages: Pages;
  private readonly maps: MapRelease;

  constructor(core: SpaceCore, anon: AnonMemory, shadows: ShadowLists, pages: Pages, maps: MapRelease) {
    this.core = core;
    this.anon = anon;
    this.shadows = shadows;
    this.pages = pages;
    this.maps = maps;
  }

  /** The shared memory of an `id`, or new one with these options. */
  openOrCreate(options: SharedMemoryOptions | SharedMemoryId): SharedMemory {
    const hasId = typeof options === 'object' && options !== null && Object.hasOwn(options, 'map');
    return hasId ? this.open(options as SharedMemoryId) : this.create(options as SharedMemoryOptions);
  }

  /** New shared memory. Throws `ENOMEM`. */
  create(options: SharedMemoryOptions): SharedMemory {
    const call = 'sharedMemory';
    requireOptions(call, options, ['size', 'wired']);
    const { core, anon } = this;
    const { slots, thread } = core;
    const pages = Math.ceil(parseSize(options.size, call) / core.pageSize);
    if (!(pages >= 1 && pages < 2 ** 30)) fail('EINVAL', call, { size: options.size }, 'from 1 to 2^30 pages');
    const isWired = booleanOf(call, 'wired', options.wired, false);
    const owner = ownerOf(thread);
    // 1.
    core.lock.enter();
    const map = core.tryReserve(owner, pages)
      ? anon.maps.create(
          pages,
          ANON_MAP_FLAG.shared | ANON_MAP_FLAG.named | (isWired ? ANON_MAP_FLAG.wired : 0),
          owner,
          pages,
        )
      : -1;
    if (map >= 0) thread.journal.set(slots.makingMap, thread.slot, map + 1);
    else this.undo();
    core.lock.exit();
    if (map < 0) return core.failReserve(call, pages);
    // 2.
    if (isWired) this.wire(map, pages);
    // 3.
    core.lock.enter();
    thread.journal.set(slots.makingMap, thread.slot, 0);
    core.lock.exit();
    return this.bind(map);
  }

  /** Shared memory that another thread has made. Throws `ESTALE` when it is gone. */
  open(id: SharedMemoryId): SharedMemory {
    const memory = new SharedMemory(this.core, id, (map) => this.release(map));
    void memory.map;
    return memory;
  }

  /** Shared memory that has not been released, whoever made it. */
  list(): SharedMemoryId[] {
    const { maps, mapPool } = this.core;
    const found: SharedMemoryId[] = [];
    // What a mapping without a name shares with forks has no maker: its first reference is a segment's.
    const named = ANON_MAP_FLAG.shared | ANON_MAP_FLAG.named;
    for (let map = 0; map < mapPool.walkEnd; map++) {
      const flags = maps.flags.get(map) & (named | ANON_MAP_FLAG.released);
      if (maps.state.get(map) === ANON_MAP_STATE.live && flags === named)
        found.push({ map, generation: maps.generation.get(map) });
    }
    return found;
  }

  /** Releases what a dead slot was making. */
  recover(dead: SlotIndex): void {
    const { slots, thread } = this.core;
    const map = slots.makingMap.get(dead) - 1;
    if (map < 0) return;
    this.drop(map, () => thread.journal.set(slots.makingMap, dead, 0));
  }

  private bind(map: AnonMapIndex): SharedMemory {
    return this.open({ map, generation: this.core.maps.generation.get(map) });
  }

  /** Step 2. */
  private wire(map: AnonMapIndex, pages: number): void {
    const { core, anon, shadows } = this;
    const list = shadows.begin({ map, vnode: -1, segment: -1, first: 0, pages, owner: -1, write: true });
    if (list < 0) {
      this.abandon(map);
      core.failFull('sharedMemory', 'shadowLists');
    }
    try {
      for (let page = 0; page < pages; page++) {
        const frame = anon.replace(-1, map, page, -1, -1, -1);
        this.pages.setModified(frame);
        shadows.lockNext(list, frame);
        this.pages.release(frame);
      }
    } catch (error) {
      shadows.unlock(list);
      this.abandon(map);
      throw error;
    }
    shadows.settle(list, SHADOW_STATE.wired);
  }

  private abandon(map: AnonMapIndex): void {
    const { slots, thread } = this.core;
    this.drop(map, () => thread.journal.set(slots.makingMap, thread.slot, 0));
  }

  /** The maker's reference goes; a second time it throws `ESTALE`. */
  private release(map: AnonMapIndex): void {
    const { core } = this;
    const { maps, thread } = core;
    if ((maps.flags.get(map) & (ANON_MAP_FLAG.named | ANON_MAP_FLAG.released)) !== ANON_MAP_FLAG.named) {
      fail('ESTALE', 'sharedMemory.release', { map }, 'it was released already');
    }
    this.drop(map, () => thread.journal.set(maps.flags, map, maps.flags.get(map) | ANON_MAP_FLAG.released));
  }

  /** One reference less, with what else belongs to the transaction. */
  private drop(map: AnonMapIndex, also: () => void): void {
    const { core, anon, maps } = this;
    core.lock.enter();
    also();
    maps.release(map);
    core.lock.exit();
    maps.finish();
    anon.reap();
  }

  /** Takes the reservation back when there was no row. */
  private undo(): void {
    const { region, slot } = this.core.thread;
    undoJournal(region, slot);
  }
}
