/**
 * Tables of `vmem/`: arenas, boundary tags, the buckets of allocation hashes, and what each slot has in flight.
 *
 * Tags and the working state of arenas are records that hot code reaches by word: `TAG_WORD`, `TAG_DOUBLE`,
 * `ARENA_WORD` and `ARENA_DOUBLE` say where each field lies in its record, and are compared with the declared tables
 * when this module is loaded.
 */

import { assert } from '../base/assert.ts';
import { log2Floor } from '../base/exact.ts';
import { GEOMETRY_KEYS, type Geometry } from './geometry.ts';
import { bytes, f64, i32, placeTable, type TableSpec, table } from './table.ts';

/** Classes of free segments: one per power of two up to 2^53 quanta. */
export const ORDER_LANES = 54;

/** `order << BIN_SHIFT` is the first of the 16 bins that a class is divided into. */
export const BIN_SHIFT = 4;

/** Bins of a class, less 1. */
export const BIN_MASK = 15;

/** Bins of all classes. */
export const BIN_LANES = ORDER_LANES * 16;

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
  spareHead: i32('L', 'first tag of the reserve'),
  spareCount: i32('L', 'tags in the reserve'),
  mapsStale: i32('L', '1 after an undo: what free lists keep without logging must be made anew'),
  idleHead: i32('L', 'first imported span without allocations'),
  freeMap: i32('L', 'bit k: class k has a free segment; not logged'),
  segmentHead: i32('L', 'first tag of the segment list'),
  segmentTail: i32('L', 'last tag of the segment list'),
  spanCount: i32('L', 'spans'),
  busyTagsPeak: i32('L', 'most live allocations so far; not logged'),
  changes: i32('L', 'sections that changed the segment list, wrapping; not logged'),
  spanRoot: i32('L', 'root of the tree of spans by address'),
  bucketBase: i32('L', 'first bucket of the allocation hash'),
  bucketCount: i32('L', 'buckets, a power of two'),
  growAt: i32('L', 'live allocations above which the hash grows'),
  shrinkAt: i32('L', 'live allocations below which it shrinks'),
  oldBucketBase: i32('L', 'first bucket of the hash being emptied'),
  oldBucketCount: i32('L', 'its buckets, 0 when no rehash is under way'),
  rehashNext: i32('L', 'next old bucket to move'),
  stampNext: i32('L', 'stamp of the next free segment, wrapping; not logged'),
  binMap: i32('L', 'bit b of lane k: bin b of class k is not empty; not logged', { lanes: ORDER_LANES }),
  newest: i32('L', 'newest tag of a class; 0 when the bins must be asked; not logged', { lanes: ORDER_LANES }),
  freeHead: i32('L', 'first tag of a bin', { lanes: BIN_LANES }),
  freeMapHigh: i32('L', 'bit k: class 32 + k has a free segment; not logged'),
});

/** Double `statistics` of an arena's record. */
export const ARENA_STATISTICS = 0;
/** Double `sizeTotal` of an arena's record. */
export const ARENA_SIZE_TOTAL = 24;
/** Double `sizeInUse` of an arena's record. */
export const ARENA_SIZE_IN_USE = 25;

/** Doubles of an arena's record. */
export const ARENA_DOUBLE = {
  statistics: ARENA_STATISTICS,
  sizeTotal: ARENA_SIZE_TOTAL,
  sizeInUse: ARENA_SIZE_IN_USE,
} as const;

/** Word `sizeTotal` of an arena's record. */
export const ARENA_SIZE_TOTAL_WORD = 48;
/** Word `sizeInUse` of an arena's record. */
export const ARENA_SIZE_IN_USE_WORD = 50;
/** Word `busyTags` of an arena's record. */
export const ARENA_BUSY_TAGS = 52;
/** Word `busyTagsPeak` of an arena's record. */
export const ARENA_BUSY_TAGS_PEAK = 61;
/** Word `spareHead` of an arena's record. */
export const ARENA_SPARE_HEAD = 53;
/** Word `spareCount` of an arena's record. */
export const ARENA_SPARE_COUNT = 54;
/** Word `mapsStale` of an arena's record. */
export const ARENA_MAPS_STALE = 55;
/** Word `freeMap` of an arena's record. */
export const ARENA_FREE_MAP = 57;
/** Word `freeMapHigh` of an arena's record. */
export const ARENA_FREE_MAP_HIGH = 1044;
/** Word `segmentHead` of an arena's record. */
export const ARENA_SEGMENT_HEAD = 58;
/** Word `segmentTail` of an arena's record. */
export const ARENA_SEGMENT_TAIL = 59;
/** Word `changes` of an arena's record. */
export const ARENA_CHANGES = 62;
/** Word `spanCount` of an arena's record. */
export const ARENA_SPAN_COUNT = 60;
/** Word `idleHead` of an arena's record. */
export const ARENA_IDLE_HEAD = 56;
/** Word `spanRoot` of an arena's record. */
export const ARENA_SPAN_ROOT = 63;
/** Word `bucketBase` of an arena's record. */
export const ARENA_BUCKET_BASE = 64;
/** Word `bucketCount` of an arena's record. */
export const ARENA_BUCKET_COUNT = 65;
/** Word `growAt` of an arena's record. */
export const ARENA_GROW_AT = 66;
/** Word `shrinkAt` of an arena's record. */
export const ARENA_SHRINK_AT = 67;
/** Word `oldBucketBase` of an arena's record. */
export const ARENA_OLD_BUCKET_BASE = 68;
/** Word `oldBucketCount` of an arena's record. */
export const ARENA_OLD_BUCKET_COUNT = 69;
/** Word `rehashNext` of an arena's record. */
export const ARENA_REHASH_NEXT = 70;
/** Word `stampNext` of an arena's record. */
export const ARENA_STAMP_NEXT = 71;
/** Word `binMap` of an arena's record. */
export const ARENA_BIN_MAP = 72;
/** Word `newest` of an arena's record. */
export const ARENA_NEWEST = 126;
/** Word `freeHead` of an arena's record. */
export const ARENA_FREE_HEAD = 180;

/** Words of an arena's record. */
export const ARENA_WORD = {
  sizeTotal: ARENA_SIZE_TOTAL_WORD,
  sizeInUse: ARENA_SIZE_IN_USE_WORD,
  busyTags: ARENA_BUSY_TAGS,
  busyTagsPeak: ARENA_BUSY_TAGS_PEAK,
  spareHead: ARENA_SPARE_HEAD,
  spareCount: ARENA_SPARE_COUNT,
  mapsStale: ARENA_MAPS_STALE,
  freeMap: ARENA_FREE_MAP,
  freeMapHigh: ARENA_FREE_MAP_HIGH,
  segmentHead: ARENA_SEGMENT_HEAD,
  segmentTail: ARENA_SEGMENT_TAIL,
  changes: ARENA_CHANGES,
  spanCount: ARENA_SPAN_COUNT,
  idleHead: ARENA_IDLE_HEAD,
  spanRoot: ARENA_SPAN_ROOT,
  bucketBase: ARENA_BUCKET_BASE,
  bucketCount: ARENA_BUCKET_COUNT,
  growAt: ARENA_GROW_AT,
  shrinkAt: ARENA_SHRINK_AT,
  oldBucketBase: ARENA_OLD_BUCKET_BASE,
  oldBucketCount: ARENA_OLD_BUCKET_COUNT,
  rehashNext: ARENA_REHASH_NEXT,
  stampNext: ARENA_STAMP_NEXT,
  binMap: ARENA_BIN_MAP,
  newest: ARENA_NEWEST,
  freeHead: ARENA_FREE_HEAD,
} as const;

/** First of the seven words, `sizeInUse` to `idleHead`, that nearly every operation changes: logged together. */
export const ARENA_HEADER = ARENA_SIZE_IN_USE_WORD;

/**
 * One record per boundary tag: a cache line, because allocations touch tags at random. A tag is named by its record's
 * number in the region, which is never 0, so 0 is none.
 */
export const tagTable = table('tag', 'tags', 'records', {
  start: f64('L', 'first address'),
  size: f64('L', 'bytes or units, a multiple of the quantum'),
  kind: i32('L', 'TAG_KIND'),
  linkPrevious: i32('L', 'tag: free list; left child for a span; owner + 1 that was charged for an allocation'),
  linkNext: i32('L', 'tag: free list, hash chain; right child for a span'),
  stamp: i32('L', 'order of coming among free segments; priority for a span'),
  segmentPrevious: i32('L', 'tag'),
  segmentNext: i32('L', 'tag'),
  owner: i32('L', 'attachment that allocated, -1 - arena for an import, 0 unknown'),
  spareNext: i32('L', 'tag: reserve or pool'),
  arena: i32('L', 'arena + 1 for a live tag'),
  binPrevious: i32('L', 'tag: idle spans; left child in the tree of a bin for a free segment'),
  binNext: i32('L', 'tag: idle spans; right child in the tree of a bin'),
  binNewest: i32('L', 'tag: newest of the subtree below and including this one'),
});

/** Words of one tag record. The first eight, `start` to `stamp`, are logged together. */
export const TAG_WORDS = 16;

/** `record << TAG_SHIFT` is the word address of a tag record. */
export const TAG_SHIFT = 4;

/** `record << TAG_DOUBLE_SHIFT` is the double index of a tag record. */
export const TAG_DOUBLE_SHIFT = 3;

/** Double `start` of a tag's record. */
export const TAG_START = 0;
/** Double `size` of a tag's record. */
export const TAG_SIZE = 1;

/** Doubles of a tag's record. */
export const TAG_DOUBLE = {
  start: TAG_START,
  size: TAG_SIZE,
} as const;

/** Word `kind` of a tag's record. */
export const TAG_KIND_AT = 4;
/** Word `linkPrevious` of a tag's record. */
export const TAG_LINK_PREVIOUS = 5;
/** Word `linkNext` of a tag's record. */
export const TAG_LINK_NEXT = 6;
/** Word `segmentPrevious` of a tag's record. */
export const TAG_SEGMENT_PREVIOUS = 8;
/** Word `segmentNext` of a tag's record. */
export const TAG_SEGMENT_NEXT = 9;
/** Word `stamp` of a tag's record. */
export const TAG_STAMP = 7;
/** Word `owner` of a tag's record. */
export const TAG_OWNER = 10;
/** Word `spareNext` of a tag's record. */
export const TAG_SPARE_NEXT = 11;
/** Word `arena` of a tag's record. */
export const TAG_ARENA = 12;
/** Word `binPrevious` of a tag's record. */
export const TAG_BIN_PREVIOUS = 13;
/** Word `binNext` of a tag's record. */
export const TAG_BIN_NEXT = 14;
/** Word `binNewest` of a tag's record. */
export const TAG_BIN_NEWEST = 15;

/** Words of a tag's record. */
export const TAG_WORD = {
  kind: TAG_KIND_AT,
  linkPrevious: TAG_LINK_PREVIOUS,
  linkNext: TAG_LINK_NEXT,
  segmentPrevious: TAG_SEGMENT_PREVIOUS,
  segmentNext: TAG_SEGMENT_NEXT,
  stamp: TAG_STAMP,
  owner: TAG_OWNER,
  spareNext: TAG_SPARE_NEXT,
  arena: TAG_ARENA,
  binPrevious: TAG_BIN_PREVIOUS,
  binNext: TAG_BIN_NEXT,
  binNewest: TAG_BIN_NEWEST,
} as const;

/** Place of every free segment in its arena's tree by address: see vmem/free-index.ts. Untouched without one. */
export const tagPlaceTable = table('tagPlace', 'tags', 'records', {
  left: i32('L', 'tag: left child'),
  right: i32('L', 'tag: right child'),
  largest: i32('L', 'tag: largest of the subtree below and including this one'),
});

/** `tag << PLACE_SHIFT` is the distance of a tag's place from that of tag 0. */
export const PLACE_SHIFT = 2;

/** What an arena keeps for strategies that need more than the bins: a record, untouched in arenas that need none. */
export const arenaIndexTable = table('arenaIndex', 'arenas', 'records', {
  cursor: f64('L', 'where next fit goes on'),
  refused: f64('L', 'size, align, phase, nocross, min, max of a constrained request that nothing fits', { lanes: 6 }),
  refusedAt: f64('L', 'allocations so far when it was refused'),
  trees: i32('L', 'INDEX_TREE bits: which trees are kept'),
  walked: i32(
    'L',
    'segments that best fit has passed in bins without a tree, beyond what each walk is allowed; not logged',
  ),
  refusedSet: i32('L', '1 when `refused` says something; not logged'),
  refusedStamp: i32('L', 'stamp that came next when it was refused; not logged'),
  placeRoot: i32('L', 'root of the tree of free segments by address'),
  sizeRoot: i32('L', 'root of the tree of a bin by size and address', { lanes: BIN_LANES }),
});

/** Double `cursor` of an arena's index. */
export const INDEX_CURSOR = 0;

/** Doubles of an arena's index. */
export const INDEX_DOUBLE = {
  cursor: INDEX_CURSOR,
} as const;

/** Word `trees` of an arena's index. */
export const INDEX_TREES = 16;
/** Word `walked` of an arena's index. */
export const INDEX_WALKED = 17;
/** Word `placeRoot` of an arena's index. */
export const INDEX_PLACE_ROOT = 20;
/** Word `sizeRoot` of an arena's index. */
export const INDEX_SIZE_ROOT = 21;

/** Words of an arena's index. */
export const INDEX_WORD = {
  trees: INDEX_TREES,
  walked: INDEX_WALKED,
  placeRoot: INDEX_PLACE_ROOT,
  sizeRoot: INDEX_SIZE_ROOT,
} as const;

/** Buckets of the allocation hashes: each arena holds extents of them; see vmem/bucket-extents.ts. */
export const bucketTable = table('bucket', 'tagBuckets', 'columns', {
  head: i32('L', 'first tag of the chain; in a free extent minus its order - 1, then next and previous extent + 1'),
});

/** The pool that arena reserves refill from: one row. */
export const tagPoolTable = table('tagPool', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  head: i32('L', 'first chunk with some tags free, chunk + 1', { padded: true }),
  count: i32('L', 'free tags of all chunks in the pool'),
  wholeHead: i32('L', 'first chunk with all tags free, chunk + 1'),
  extentFresh: i32('L', 'buckets from here on were never used'),
  extentHead: i32('L', 'first free extent of an order, bucket + 1', { lanes: EXTENT_LANES }),
  registryLock: i32('A', 'mutex of the list of arenas', { padded: true }),
  wholeCount: i32('L', 'chunks with all tags free; read without the lock as a hint'),
  chunks: i32('L', 'chunks in the pool; read without the lock as a hint'),
  chunksPeak: i32('L', 'most chunks that were in the pool at a time; not logged'),
  starved: i32('L', '1 when somebody wanted tags and got none since tags came back last; not logged'),
});

/** Rows of the tag table that a chunk has at most. */
const TAG_CHUNK_SHIFT_MAX = 10;

/** Rows that it has at least. */
const TAG_CHUNK_SHIFT_MIN = 4;

/** A chunk of the tag table has `1 << tagChunkShift(tags)` rows: one in 32, from 16 to 1024. */
export function tagChunkShift(tags: number): number {
  return Math.min(TAG_CHUNK_SHIFT_MAX, Math.max(TAG_CHUNK_SHIFT_MIN, log2Floor(Math.max(1, tags)) - 5));
}

/** What follows from the number of boundary tags. */
export function tagGeometry(tags: number): Pick<Geometry, 'tagChunks'> {
  return { tagChunks: Math.max(1, tags >>> tagChunkShift(tags)) };
}

/** One row per chunk of the tag table: the unit in which rows come from the arena of tags. See vmem/tag-chunks.ts. */
export const tagChunkTable = table('tagChunk', 'tagChunks', 'records', {
  head: i32('L', 'tag: first one given back'),
  count: i32('L', 'free tags: given back, or never used since the chunk came'),
  fresh: i32('L', 'rows that were used since the chunk came'),
  next: i32('L', 'list of chunks, chunk + 1'),
  previous: i32('L', 'list of chunks, chunk + 1'),
  open: i32('L', '1 while the chunk is in the pool'),
});

/** One row per request that waits for space in an arena. */
export const spaceWaiterTable = table('spaceWaiter', 'spaceWaiters', 'columns', {
  state: i32('A', 'WAITER_STATE; what the waiter sleeps on', { padded: true }),
  slot: i32('L', 'slot + 1 of the waiter, 0 for a row that is not in use'),
  arena: i32('L', 'arena + 1'),
  order: i32('L', 'class: floor of the binary logarithm of the quanta wanted'),
  overtaken: i32('L', 'later requests of its class that took the last place it had'),
  ticket: f64('L', 'order of arrival'),
  generation: i32('L', 'generation of the arena'),
  cached: i32('L', '1: an object of a quantum cache will do'),
  barred: i32('L', '1: something else than space keeps it from being served'),
  held: i32('W', '1: it may have been refused a place that is kept for another one'),
  misfit: i32('L', '1: no segment with a stamp below `misfitStamp` fits; 0 while the two below are written'),
  misfitStamp: i32('L', 'stamp of the next segment when that was found'),
  misfitAt: f64('L', 'allocations that the arena had made then'),
  size: f64('L', 'what it asks for, whole quanta'),
  align: f64('L', 'its constraints, or 0 without any'),
  phase: f64('L', ''),
  nocross: f64('L', ''),
  min: f64('L', ''),
  max: f64('L', ''),
});

/** What the rows above share: one row. */
export const spaceQueueTable = table('spaceQueue', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  count: i32('L', 'requests that wait; read without the lock as a hint', { padded: true }),
  ticketNext: f64('L', 'ticket of the next one'),
  served: f64('L', 'requests that waited and were served'),
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
assertFields(arenaIndexTable, INDEX_WORD, 4);
assertFields(arenaIndexTable, INDEX_DOUBLE, 8);
