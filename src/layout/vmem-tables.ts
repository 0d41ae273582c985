/**
 * Tables of `vmem/`: arenas, boundary tags, the buckets of allocation hashes, and what each slot has in flight.
 *
 * Tags and the working state of arenas are records that hot code reaches by word: `TAG_WORD`, `TAG_DOUBLE`,
 * `ARENA_WORD` and `ARENA_DOUBLE` say where each field lies in its record, and are compared with the declared tables
 * when this module is loaded.
 */

import { assert } from '../base/assert.ts';
import { GEOMETRY_KEYS, type Geometry } from './geometry.ts';
import { bytes, f64, i32, placeTable, type TableSpec, table } from './table.ts';

/** Lanes for one free list per power of two up to 2^53 quanta. */
export const ORDER_LANES = 54;

/** Lanes of an arena's statistics: see ARENA_COUNTER in vmem/. */
export const COUNTER_LANES = 24;

/** Lanes of the lists of free bucket extents, one per power of two. */
export const EXTENT_LANES = 32;

/** One row per arena: its locks, and what does not change while it lives. */
export const arenaTable = table('arena', 'arenas', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  space: i32('A', 'condition: space came back', { lanes: 'lockLanes', padded: true }),
  state: i32('A', 'ARENA_STATE'),
  generation: i32('A', 'times that the row was destroyed'),
  actor: i32('A', 'slot + 1 that creates or destroys the arena'),
  quantum: f64('c', 'smallest unit of allocation, a power of two'),
  strategy: i32('c', 'STRATEGY used when a call names none'),
  flags: i32('c', 'ARENA_FLAG bits'),
  importArena: i32('c', 'arena + 1 that spans come from, 0 none'),
  importCallback: i32('c', 'callback + 1 that spans come from, 0 none'),
  importUnit: f64('c', 'imports are rounded up to a multiple of this, 0 not at all'),
  name: bytes('c', 'name', 64),
});

/** The working state of each arena, all of it under the arena's lock: a record, logged in one piece. */
export const arenaStateTable = table('arenaState', 'arenas', 'records', {
  statistics: f64('L', 'ARENA_COUNTER values', { lanes: COUNTER_LANES }),
  sizeTotal: f64('L', 'sum of span sizes'),
  sizeInUse: f64('L', 'sum of busy sizes'),
  busyTags: i32('L', 'live allocations'),
  busyTagsPeak: i32('L', 'most live allocations so far'),
  spareHead: i32('L', 'first tag of the reserve'),
  spareCount: i32('L', 'tags in the reserve'),
  freeMap: i32('L', 'bit k: list k is not empty'),
  freeMapHigh: i32('L', 'bit k: list 32 + k is not empty'),
  segmentHead: i32('L', 'first tag of the segment list'),
  segmentTail: i32('L', 'last tag of the segment list'),
  changes: i32('L', 'sections that changed the segment list, wrapping'),
  stampNext: i32('L', 'stamp of the next tag put on a free list, wrapping'),
  spanCount: i32('L', 'spans'),
  idleHead: i32('L', 'first imported span without allocations'),
  spanRoot: i32('L', 'root of the tree of spans by address'),
  bucketBase: i32('L', 'first bucket of the allocation hash'),
  bucketCount: i32('L', 'buckets, a power of two'),
  growAt: i32('L', 'live allocations above which the hash grows'),
  shrinkAt: i32('L', 'live allocations below which it shrinks'),
  oldBucketBase: i32('L', 'first bucket of the hash being emptied'),
  oldBucketCount: i32('L', 'its buckets, 0 when no rehash is under way'),
  rehashNext: i32('L', 'next old bucket to move'),
  freeHead: i32('L', 'first tag of a free list', { lanes: ORDER_LANES }),
});

/** Index of a double inside the record of an arena's state. */
export const ARENA_DOUBLE = { statistics: 0, sizeTotal: 24, sizeInUse: 25 } as const;

/** Index of a word inside the record of an arena's state. */
export const ARENA_WORD = {
  sizeTotal: 48,
  busyTags: 52,
  busyTagsPeak: 53,
  spareHead: 54,
  spareCount: 55,
  freeMap: 56,
  freeMapHigh: 57,
  segmentHead: 58,
  segmentTail: 59,
  changes: 60,
  stampNext: 61,
  spanCount: 62,
  idleHead: 63,
  spanRoot: 64,
  bucketBase: 65,
  bucketCount: 66,
  growAt: 67,
  shrinkAt: 68,
  oldBucketBase: 69,
  oldBucketCount: 70,
  rehashNext: 71,
  freeHead: 72,
} as const;

/** The words from `sizeTotal` to `idleHead`: what nearly every operation changes, logged together. */
export const ARENA_HEADER_WORDS = 16;

/**
 * One record per boundary tag: a cache line, because allocations touch tags at random. A tag is named by its record's
 * number in the region, which is never 0, so 0 is none.
 */
export const tagTable = table('tag', 'tags', 'records', {
  start: f64('L', 'first address'),
  size: f64('L', 'bytes or units, a multiple of the quantum'),
  kind: i32('L', 'TAG_KIND'),
  linkPrevious: i32('L', 'tag: free list; left child for a span'),
  linkNext: i32('L', 'tag: free list, hash chain; right child for a span'),
  segmentPrevious: i32('L', 'tag'),
  segmentNext: i32('L', 'tag'),
  stamp: i32('L', 'order of insertion on a free list; priority for a span'),
  owner: i32('L', 'attachment that allocated, -1 - arena for an import, 0 unknown'),
  spareNext: i32('L', 'tag: reserve or pool'),
  arena: i32('L', 'arena + 1 for a live tag'),
  binPrevious: i32('L', 'tag: idle spans'),
  binNext: i32('L', 'tag: idle spans'),
  ownerGeneration: i32('L', 'generation of the owning slot'),
});

/** Words of one tag record. */
export const TAG_WORDS = 16;

/** `record << TAG_SHIFT` is the word address of a tag record. */
export const TAG_SHIFT = 4;

/** `record << TAG_DOUBLE_SHIFT` is the double index of a tag record. */
export const TAG_DOUBLE_SHIFT = 3;

/** Index of a double inside a tag record. */
export const TAG_DOUBLE = { start: 0, size: 1 } as const;

/** Index of a word inside a tag record. */
export const TAG_WORD = {
  kind: 4,
  linkPrevious: 5,
  linkNext: 6,
  segmentPrevious: 7,
  segmentNext: 8,
  stamp: 9,
  owner: 10,
  spareNext: 11,
  arena: 12,
  binPrevious: 13,
  binNext: 14,
  ownerGeneration: 15,
} as const;

/** Buckets of the allocation hashes: each arena holds extents of them; see vmem/bucket-extents.ts. */
export const bucketTable = table('bucket', 'tagBuckets', 'columns', {
  head: i32('L', 'first tag of the chain; in a free extent minus its order - 1, then next and previous extent + 1'),
});

/** The pool that arena reserves refill from: one row. */
export const tagPoolTable = table('tagPool', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  head: i32('L', 'first tag given back', { padded: true }),
  count: i32('L', 'tags given back'),
  fresh: i32('L', 'rows of the tag table that were used at least once'),
  extentFresh: i32('L', 'buckets from here on were never used'),
  extentHead: i32('L', 'first free extent of an order, bucket + 1', { lanes: EXTENT_LANES }),
  registryLock: i32('A', 'mutex of the list of arenas', { padded: true }),
});

/** What a thread has in flight between two arenas: an import that is not yet a span, a release not yet returned. */
export const transferTable = table('transfer', 'slots', 'columns', {
  arena: i32('W', 'arena + 1 that must get the range back if the slot dies, 0 none', { padded: true }),
  callback: i32('W', 'callback + 1 whose release function must get the range instead'),
  start: f64('W', 'first address'),
  size: f64('W', 'size'),
});

/** Compares the indices above with where the declaration places the fields. */
function assertFields(spec: TableSpec, names: Readonly<Record<string, number>>, elementBytes: number): void {
  const geometry = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 1])) as Geometry;
  const place = placeTable(spec, geometry, 0);
  for (const [name, index] of Object.entries(names)) {
    const column = place.columns[name];
    assert(column?.offsetBytes === index * elementBytes, 'layout/vmem-tables: a field lies where its index says');
  }
}

assertFields(tagTable, TAG_WORD, 4);
assertFields(tagTable, TAG_DOUBLE, 8);
assertFields(arenaStateTable, ARENA_WORD, 4);
assertFields(arenaStateTable, ARENA_DOUBLE, 8);
