/** Tables of `vmem/`: arenas, boundary tags, the buckets of allocation hashes, and what each slot has in flight. */

import { bytes, f64, i32, table } from './table.ts';

/** Lanes for one free list per power of two up to 2^53 quanta. */
export const ORDER_LANES = 54;

/** One row per arena. */
export const arenaTable = table('arena', 'arenas', 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  state: i32('A', 'ARENA_STATE'),
  generation: i32('A', 'times that the row was destroyed'),
  quantum: f64('c', 'smallest unit of allocation, a power of two'),
  strategy: i32('c', 'STRATEGY used when a call names none'),
  flags: i32('c', 'ARENA_FLAG bits'),
  importArena: i32('c', 'arena + 1 that spans come from, 0 none'),
  importCallback: i32('c', 'callback + 1 that spans come from, 0 none'),
  importUnit: f64('c', 'imports are rounded up to a multiple of this, 0 not at all'),
  name: bytes('c', 'name', 64),
  sizeTotal: f64('L', 'sum of span sizes'),
  sizeInUse: f64('L', 'sum of busy sizes'),
  busyTags: i32('L', 'live allocations'),
  busyTagsPeak: i32('L', 'most live allocations since the last rehash'),
  spanCount: i32('L', 'spans'),
  segmentHead: i32('L', 'first tag of the segment list, tag + 1'),
  segmentTail: i32('L', 'last tag of the segment list, tag + 1'),
  spanRoot: i32('L', 'root of the tree of spans by address, tag + 1'),
  spareHead: i32('L', 'first tag of the reserve, tag + 1'),
  spareCount: i32('L', 'tags in the reserve'),
  freeMap: i32('L', 'bit k of word w: list 32 w + k is not empty', { lanes: 2 }),
  freeHead: i32('L', 'first tag of a free list, tag + 1', { lanes: ORDER_LANES }),
  bucketBase: i32('L', 'first bucket of the allocation hash'),
  bucketCount: i32('L', 'buckets, a power of two'),
  oldBucketBase: i32('L', 'first bucket of the hash being emptied'),
  oldBucketCount: i32('L', 'its buckets, 0 when no rehash is under way'),
  rehashNext: i32('L', 'next old bucket to move'),
  statistics: f64('L', 'ARENA_COUNTER values', { lanes: 24 }),
});

/** One row per boundary tag: a record of one cache line, because allocations touch tags at random. */
export const tagTable = table('tag', 'tags', 'records', {
  start: f64('L', 'first address'),
  size: f64('L', 'bytes or units, a multiple of the quantum'),
  kind: i32('L', 'TAG_KIND'),
  arena: i32('L', 'arena + 1'),
  segmentPrevious: i32('L', 'tag + 1'),
  segmentNext: i32('L', 'tag + 1'),
  linkPrevious: i32('L', 'free list or hash chain; left child for a span; tag + 1'),
  linkNext: i32('L', 'free list, hash chain or reserve; right child for a span; tag + 1'),
  stamp: i32('L', 'order of insertion on a free list; priority for a span'),
  owner: i32('L', 'slot + 1 of the thread that allocated'),
  binPrevious: i32('L', 'size bin, tag + 1'),
  binNext: i32('L', 'size bin, tag + 1'),
  aux1: i32('L', 'spare'),
  aux2: i32('L', 'spare'),
});

/** Buckets of the allocation hashes: each arena holds a range of them. */
export const bucketTable = table('bucket', 'tagBuckets', 'columns', {
  head: i32('L', 'first tag of the chain, tag + 1'),
});

/** The pool that arena reserves refill from: one row. */
export const tagPoolTable = table('tagPool', 1, 'columns', {
  lock: i32('A', 'mutex', { padded: true }),
  head: i32('L', 'first tag given back, tag + 1', { padded: true }),
  count: i32('L', 'tags given back'),
  fresh: i32('L', 'tags that were never used start here'),
  registryLock: i32('A', 'mutex of the list of arenas', { padded: true }),
});

/** What a thread has in flight between two arenas: an import that is not yet a span, a release not yet returned. */
export const transferTable = table('transfer', 'slots', 'columns', {
  arena: i32('W', 'arena + 1 that must get the range back if the slot dies, 0 none', { padded: true }),
  callback: i32('W', 'callback + 1 instead of an arena'),
  start: f64('W', 'first address'),
  size: f64('W', 'size'),
});
