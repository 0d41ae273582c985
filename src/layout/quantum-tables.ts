/** Tables of the quantum caches of `vmem/`: caches, magazines, slabs. */

import { f64, i32, table } from './table.ts';

/** Objects that a magazine can hold, and objects that a slab can be cut into. */
export const MAGAZINE_LANES = 64;

/** An object's number is slab * MAGAZINE_LANES + position: below 2^31, so that shifts and masks are exact. */
export const OBJECT_SLAB_SHIFT = 6;

/** Mask of the position in an object's number. */
export const OBJECT_POSITION_MASK = MAGAZINE_LANES - 1;

/** One row per quantum cache: the objects of one size of one arena. */
export const quantumCacheTable = table('quantumCache', 'quantumCaches', 'columns', {
  lock: i32('A', 'mutex of the depot and the slabs', { padded: true }),
  arena: i32('A', 'arena + 1, 0 for a row that is not in use'),
  closed: i32('L', '1 while the arena is being destroyed: nothing is cached any more'),
  objectSize: f64('c', 'size of an object, a multiple of the quantum'),
  slabSize: f64('c', 'size and alignment of a slab, a power of two'),
  slabObjects: i32('c', 'objects in a slab'),
  rounds: i32('L', 'objects put into a magazine; read without the lock as a hint'),
  collisions: i32('L', 'entries that met another owner since rounds changed'),
  visits: i32('L', 'entries since rounds changed'),
  fullHead: i32('L', 'first full magazine of the depot, magazine + 1'),
  fullCount: i32('L', 'full magazines in the depot'),
  emptyHead: i32('L', 'first empty magazine of the depot, magazine + 1'),
  partialHead: i32('L', 'first slab that has free objects, slab + 1'),
  slabCount: i32('L', 'slabs'),
  idleSlabs: i32('L', 'slabs with all objects free'),
  refills: f64('L', 'slabs taken from the arena'),
  depotHits: f64('L', 'magazines handed from the depot to a slot'),
});

/** What each slot has loaded: one lane per cache. */
export const magazineSlotTable = table('magazineSlot', 'slots', 'columns', {
  loaded: i32('W', 'magazine + 1 that the slot allocates from and frees to', { lanes: 'quantumCaches', padded: true }),
  previous: i32('W', 'magazine + 1 that was loaded before', { lanes: 'quantumCaches', padded: true }),
  pending: i32('W', 'object + 1 whose state is being changed to cached', { lanes: 'quantumCaches', padded: true }),
  hits: f64('W', 'allocations from the loaded magazine', { lanes: 'quantumCaches', padded: true }),
  misses: f64('W', 'allocations that went to the depot', { lanes: 'quantumCaches' }),
  freeMisses: f64('W', 'frees that went to the depot', { lanes: 'quantumCaches' }),
  parked: i32('L', 'magazine + 1 that was loaded when others emptied it, until the slot looks', {
    lanes: 'quantumCaches',
  }),
  parkedLeft: i32('L', 'objects of it that are not back in slabs', { lanes: 'quantumCaches' }),
});

/** One row per magazine. */
export const magazineTable = table('magazine', 'magazines', 'records', {
  count: i32('W', 'objects in the magazine'),
  next: i32('L', 'list of the depot or the pool, magazine + 1'),
  objects: i32('W', 'object numbers', { lanes: MAGAZINE_LANES }),
});

/** One row per slab. */
export const slabTable = table('slab', 'slabs', 'columns', {
  base: f64('L', 'first address'),
  cache: i32('L', 'cache + 1, 0 for a row that is not in use'),
  free: i32('L', 'objects that are in the slab'),
  next: i32('L', 'list of slabs with free objects, slab + 1'),
  previous: i32('L', 'the same list backwards, slab + 1'),
  chain: i32('L', 'hash chain, slab + 1; read without the lock as a hint'),
  object: i32('A', 'OBJECT_STATE or the attachment that allocated', { lanes: MAGAZINE_LANES }),
});

/** Buckets of the hash from address to slab. */
export const slabBucketTable = table('slabBucket', 'slabBuckets', 'columns', {
  head: i32('L', 'slab + 1; read without the lock as a hint'),
});

/** Rows of magazines and slabs that are not in use, and the lock of the slab hash. */
export const slabPoolTable = table('slabPool', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  magazineHead: i32('L', 'first magazine given back, magazine + 1', { padded: true }),
  magazineFresh: i32('L', 'magazines that were never used start here'),
  slabHead: i32('L', 'first slab row given back, slab + 1'),
  slabFresh: i32('L', 'slab rows that were never used start here'),
});
