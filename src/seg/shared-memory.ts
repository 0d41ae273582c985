/** Shared memory: anonymous pages that several address spaces map, in any thread. */

import { fail } from '../base/errors.ts';
import type { Region } from '../layout/region.ts';
import type { SpaceCore } from './space-core.ts';
import { ANON_MAP_FLAG, ANON_MAP_STATE, type AnonMapIndex } from './space-kinds.ts';

/** What another thread needs to find the same shared memory: can be posted. */
export interface SharedMemoryId {
  readonly map: number;
  readonly generation: number;
}

/**
 * A piece of anonymous memory with a life of its own. It stays until `release` was called for it, by any thread and once, and
 * until no segment maps it any more.
 */
export class SharedMemory {
  private readonly core: SpaceCore;
  private readonly drop: (map: AnonMapIndex) => void;
  readonly id: SharedMemoryId;

  /** For `Spaces`. */
  constructor(core: SpaceCore, id: SharedMemoryId, drop: (map: AnonMapIndex) => void) {
    this.core = core;
    this.id = id;
    this.drop = drop;
  }

  /** Number of the anon map. Throws `ESTALE` when it is gone. */
  get map(): AnonMapIndex {
    const { maps } = this.core;
    const { map, generation } = this.id;
    const isKnown = Number.isInteger(map) && map >= 0 && map < maps.rowCount;
    if (isKnown && maps.state.get(map) === ANON_MAP_STATE.live && maps.generation.get(map) === generation) return map;
    return fail('ESTALE', 'sharedMemory', { map, generation }, 'the shared memory is gone');
  }

  /** True for memory of the system whose region this is. */
  isOf(region: Region): boolean {
    return this.core.thread.region.buffer === region.buffer;
  }

  /** Bytes. */
  get size(): number {
    return this.core.maps.pages.get(this.map) * this.core.pageSize;
  }

  /** True when all pages are there and locked for as long as it lives. */
  get wired(): boolean {
    return (this.core.maps.flags.get(this.map) & ANON_MAP_FLAG.wired) !== 0;
  }

  /** Ends it, as soon as nobody maps it. Throws `ESTALE` when that was said already and it is gone. */
  release(): void {
    this.drop(this.map);
  }

  /** Same as `release`. */
  [Symbol.dispose](): void {
    this.release();
  }
}
