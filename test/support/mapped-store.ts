/** Files in memory for cached mappings, and cached mappings over a small region. */

import type { Geometry } from '../../src/layout/index.ts';
import type { Banks } from '../../src/phys/index.ts';
import { CachedMappings, createMappingCache, MAPPING_STATE, type MappedStore } from '../../src/vpm/index.ts';
import { moreRooms, type TestRooms, testRooms } from './rooms.ts';

/** Bytes of every file. */
export const STORE_BYTES = 40 * 4096;

/** A few files of the same size; byte `at` of file `vnode` begins as `(7 * vnode + at / 4096) & 255`. */
export class MemoryStore implements MappedStore {
  readonly files: readonly Uint8Array[];
  readonly #banks: Banks;
  /** Fails the next requests of a kind. */
  refuse: 'get' | 'write' | null = null;
  writes = 0;

  constructor(banks: Banks, files = 4) {
    this.#banks = banks;
    this.files = Array.from({ length: files }, (_, vnode) =>
      new Uint8Array(STORE_BYTES).map((_byte, at) => (7 * vnode + Math.floor(at / 4096)) & 255),
    );
  }

  size(): number {
    return STORE_BYTES;
  }

  onGetPages(): void {
    if (this.refuse === 'get') throw new Error('the store refuses');
  }

  fill(vnode: number, index: number, frames: Int32Array, at: number, count: number): number {
    for (let page = 0; page < count; page++) {
      const bytes = this.files[vnode]?.subarray((index + page) * 4096, (index + page + 1) * 4096) ?? [];
      this.#frame(frames[at + page] as number).set(bytes);
    }
    return count * 4096;
  }

  write(vnode: number, index: number, frames: Int32Array, at: number, count: number): void {
    if (this.refuse === 'write') throw new Error('the store refuses');
    this.writes++;
    for (let page = 0; page < count; page++) {
      this.files[vnode]?.set(this.#frame(frames[at + page] as number), (index + page) * 4096);
    }
  }

  #frame(frame: number): Uint8Array {
    return this.#banks.view(frame * 4096, 4096);
  }
}

/** Cached mappings of one thread over a region of their own. */
export interface CachedParty {
  readonly rooms: TestRooms;
  readonly store: MemoryStore;
  readonly mappings: CachedMappings;
}

/** Makes a region with a mapping cache. */
export function testCached(entries = 8, lists = 2, geometry: Partial<Geometry> = {}, state?: number): CachedParty {
  const rooms = testRooms({
    mappingEntries: entries,
    mappingLists: lists,
    mappingFrames: geometry.frames ?? 256,
    ...geometry,
  });
  createMappingCache(rooms.region, state ?? MAPPING_STATE.cached);
  const store = new MemoryStore(rooms.banks);
  return { rooms, store, mappings: mappingsOf(rooms, store) };
}

/** One more slot in the same JavaScript thread. */
export function moreCached(first: CachedParty): CachedParty {
  const rooms = moreRooms(first.rooms);
  return { rooms, store: first.store, mappings: mappingsOf(rooms, first.store) };
}

function mappingsOf({ thread, banks, frames, pages }: TestRooms, store: MemoryStore): CachedMappings {
  return new CachedMappings(thread, banks, frames, pages.holds, store);
}

/** Writes everything back, gives all pages up, and throws unless all frames are free and nothing is used. */
export function endCached({ rooms, mappings, store }: CachedParty): void {
  const { frames } = rooms.region.geometry;
  store.refuse = null;
  store.files.forEach((_, vnode) => {
    const { busy } = mappings.sync(vnode, 0, 0, { write: true, invalidate: true }) ?? { busy: [] };
    if (busy.length > 0) throw new Error(`vnode ${vnode}: pages ${busy.join()} are busy`);
  });
  const problems = [...mappings.check().problems, ...rooms.frames.check().problems];
  if (problems.length > 0) throw new Error(problems.join('\n'));
  if (rooms.pages.held > 0 || rooms.mappings.mappedFrames > 0) throw new Error('pages are held');
  if (rooms.frames.counts().free !== frames) throw new Error(`frames: ${JSON.stringify(rooms.frames.counts())}`);
  if (rooms.frames.takeRun(frames) !== 0) throw new Error('the memory is not one run');
  rooms.frames.giveRun(0, frames);
}
