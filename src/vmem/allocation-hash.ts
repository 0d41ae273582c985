/**
 * The hash of live allocations of an arena, by first address.
 *
 * PROBLEM     Freeing needs the tag of an address with a bounded number of memory touches, from 10 to 10^7 allocations,
 *             without a pause while the table grows.
 * STRUCTURE   Chains through `linkNext`, one bucket per allocation or a little more. While the table changes its size there
 *             are two: each operation moves a few tags from the old to the new one.
 *
 *               old   | moved, empty ......... | rehashNext: being moved | not yet moved ......... |
 *               new   | everything whose old bucket is left of rehashNext, and what was inserted there since |
 *
 * INVARIANTS  I1 every busy tag is in exactly one chain: the old table's if its old bucket is right of rehashNext, either if
 *             it is rehashNext, otherwise the new table's.   I2 no two busy tags start at the same address.
 *             I3 the buckets of a table that is given back are zero.
 * LOCKING     The arena's lock. Extents are taken and given back in `maintainHash`, at the start of a section.
 * COSTS       A look-up touches one bucket and on average one tag. An operation moves at most MOVE_TAGS tags and looks at
 *             MOVE_BUCKETS buckets, which empties the old table before the new one is full.
 * FAILURE     When no larger extent is left the chains grow and nothing else happens; it is tried again at twice the load.
 * REJECTED    Rehashing in one go (a pause that grows with the load); open addressing (tombstones, and a journal entry for
 *             each displaced slot); one table for all arenas (their locks would meet).
 * REFERENCES  Larson 1988, dynamic hash tables; murmur3's finalizer.
 */

import { assert, ceilPowerOfTwo, log2Floor, VERIFY } from '../base/index.ts';
import {
  ARENA_BUCKET_BASE,
  ARENA_BUCKET_COUNT,
  ARENA_BUSY_TAGS,
  ARENA_GROW_AT,
  ARENA_OLD_BUCKET_BASE,
  ARENA_OLD_BUCKET_COUNT,
  ARENA_REHASH_NEXT,
  ARENA_SHRINK_AT,
  TAG_DOUBLE_SHIFT,
  TAG_LINK_NEXT,
  TAG_SHIFT,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint, mutexEnter, mutexExit, RANK } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { EXTENT_ORDER_MIN, giveExtent, takeExtent } from './bucket-extents.ts';
import { COUNT_REHASHES, type TagIndex } from './kinds.ts';

/** Tags that one step moves. */
const MOVE_TAGS = 4;

/** Old buckets that one step looks at. */
const MOVE_BUCKETS = 4;

/** A table shrinks when it has more than this many buckets for each allocation. */
const SHRINK_RATIO = 8;

const TWO_MINUS_32 = 2 ** -32;

/** Spreads an address over 32 bits: one round, since every operation that allocates or frees waits for it. */
export function hashOf(core: ArenaCore, address: number): number {
  const quanta = address * core.inverseQuantum;
  let hash = quanta <= 0x7fffffff ? quanta | 0 : foldLarge(quanta);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return hash ^ (hash >>> 15);
}

function foldLarge(quanta: number): number {
  return (quanta | 0) ^ Math.imul((quanta * TWO_MINUS_32) | 0, 0x9e3779b1);
}

/** Word address of the bucket that a new tag with this hash goes to. */
function bucketFor(core: ArenaCore, hash: number): number {
  const { words, base } = core;
  const oldCount = words[base + ARENA_OLD_BUCKET_COUNT] as number;
  if (oldCount !== 0) {
    const old = hash & (oldCount - 1);
    if (old > (words[base + ARENA_REHASH_NEXT] as number)) {
      return core.bucketsAt + (words[base + ARENA_OLD_BUCKET_BASE] as number) + old;
    }
  }
  const mask = (words[base + ARENA_BUCKET_COUNT] as number) - 1;
  return core.bucketsAt + (words[base + ARENA_BUCKET_BASE] as number) + (hash & mask);
}

/** Puts a busy tag, fresh or logged, into its chain. */
export function hashInsert(core: ArenaCore, tag: TagIndex): void {
  const { words } = core;
  const start = core.doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_START] as number;
  const bucketAt = bucketFor(core, hashOf(core, start));
  core.journal.log1(bucketAt);
  words[(tag << TAG_SHIFT) | TAG_LINK_NEXT] = words[bucketAt] as number;
  words[bucketAt] = tag;
}

/** The word that points to the tag of an allocation: a bucket or a chain link; -1 when no allocation starts there. */
export function hashFind(core: ArenaCore, address: number): number {
  const { words, base } = core;
  const hash = hashOf(core, address);
  const at = searchChain(core, bucketFor(core, hash), address);
  if (at >= 0) return at;
  const oldCount = words[base + ARENA_OLD_BUCKET_COUNT] as number;
  if (oldCount === 0 || (hash & (oldCount - 1)) !== words[base + ARENA_REHASH_NEXT]) return -1;
  const oldBase = words[base + ARENA_OLD_BUCKET_BASE] as number;
  return searchChain(core, core.bucketsAt + oldBase + (hash & (oldCount - 1)), address);
}

function searchChain(core: ArenaCore, bucketAt: number, address: number): number {
  const { words, doubles } = core;
  let at = bucketAt;
  for (let tag = words[at] as number; tag !== 0; tag = words[at] as number) {
    if (doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_START] === address) return at;
    at = (tag << TAG_SHIFT) | TAG_LINK_NEXT;
  }
  return -1;
}

/** True when `maintainHash` has something to do. */
export function hashNeedsCare(core: ArenaCore): boolean {
  const { words, base } = core;
  const busy = words[base + ARENA_BUSY_TAGS] as number;
  return (
    words[base + ARENA_OLD_BUCKET_COUNT] !== 0 ||
    busy >= (words[base + ARENA_GROW_AT] as number) ||
    busy < (words[base + ARENA_SHRINK_AT] as number)
  );
}

/** Starts, continues or ends a change of size. At the start of a section, which has logged nothing; commits. */
export function maintainHash(core: ArenaCore): void {
  const { words, base } = core;
  if (words[base + ARENA_OLD_BUCKET_COUNT] !== 0) {
    if ((words[base + ARENA_REHASH_NEXT] as number) < (words[base + ARENA_OLD_BUCKET_COUNT] as number)) {
      moveTags(core);
      core.thread.commit();
    } else {
      endRehash(core);
    }
    return;
  }
  const busy = words[base + ARENA_BUSY_TAGS] as number;
  const count = words[base + ARENA_BUCKET_COUNT] as number;
  if (busy >= (words[base + ARENA_GROW_AT] as number)) startRehash(core, count * 2);
  else if (busy < (words[base + ARENA_SHRINK_AT] as number)) startRehash(core, count / 2);
}

/** Gives the arena a first table. False when no extent is left. */
export function createHash(core: ArenaCore): boolean {
  return startRehash(core, 2 ** EXTENT_ORDER_MIN);
}

/** Gives all buckets back; the hash holds nothing. At the start of a section; commits. */
export function destroyHash(core: ArenaCore): void {
  const { words, base, thread } = core;
  while (words[base + ARENA_OLD_BUCKET_COUNT] !== 0) maintainHash(core);
  const count = words[base + ARENA_BUCKET_COUNT] as number;
  if (count === 0) return;
  const lock = core.tables.tagPool.lock.address(0);
  mutexEnter(thread, lock, RANK.tagPool);
  giveExtent(thread, words[base + ARENA_BUCKET_BASE] as number, log2Floor(count));
  core.journal.log1(base + ARENA_BUCKET_COUNT);
  words[base + ARENA_BUCKET_COUNT] = 0;
  mutexExit(thread, lock);
}

/** Makes the table fit for `allocations` at once, moving in short steps. Called without the lock; leaves without it. */
export function rehashTo(core: ArenaCore, allocations: number): void {
  const { words, base } = core;
  let started = false;
  for (;;) {
    core.enter();
    for (let step = 0; step < 64 && words[base + ARENA_OLD_BUCKET_COUNT] !== 0; step++) maintainHash(core);
    if (words[base + ARENA_OLD_BUCKET_COUNT] === 0) {
      const wanted = Math.max(2 ** EXTENT_ORDER_MIN, Math.min(ceilPowerOfTwo(allocations), 2 ** 29));
      if (!started && wanted !== words[base + ARENA_BUCKET_COUNT]) startRehash(core, wanted);
      // A table that was asked for stays until the load outgrows it.
      core.journal.log1(base + ARENA_SHRINK_AT);
      words[base + ARENA_SHRINK_AT] = 0;
      if (started || words[base + ARENA_OLD_BUCKET_COUNT] === 0) break;
      started = true;
    }
    core.exit();
  }
  core.exit();
}

/** Takes a table of `count` buckets and makes the present one the old one. False when there is no extent. */
function startRehash(core: ArenaCore, count: number): boolean {
  const { words, base, thread, journal } = core;
  assert(journal.length === 0, 'vmem/allocation-hash: a rehash starts a section');
  const lock = core.tables.tagPool.lock.address(0);
  mutexEnter(thread, lock, RANK.tagPool);
  const extent = VERIFY && faultPoint(thread, 'vmem.rehash.step') ? -1 : takeExtent(thread, log2Floor(count));
  journal.logRange(base + ARENA_BUCKET_BASE, 7);
  if (extent < 0) {
    const busy = words[base + ARENA_BUSY_TAGS] as number;
    words[base + ARENA_GROW_AT] = Math.max(2 * busy, words[base + ARENA_GROW_AT] as number);
    words[base + ARENA_SHRINK_AT] = 0;
  } else {
    words[base + ARENA_OLD_BUCKET_BASE] = words[base + ARENA_BUCKET_BASE] as number;
    words[base + ARENA_OLD_BUCKET_COUNT] = words[base + ARENA_BUCKET_COUNT] as number;
    words[base + ARENA_REHASH_NEXT] = 0;
    words[base + ARENA_BUCKET_BASE] = extent;
    words[base + ARENA_BUCKET_COUNT] = count;
    words[base + ARENA_GROW_AT] = count;
    words[base + ARENA_SHRINK_AT] = count <= 2 ** EXTENT_ORDER_MIN ? 0 : Math.floor(count / SHRINK_RATIO);
    core.count(COUNT_REHASHES);
  }
  mutexExit(thread, lock);
  return extent >= 0;
}

/** Moves a few tags from the old table to the new one. */
function moveTags(core: ArenaCore): void {
  const { words, base, journal } = core;
  const oldBase = core.bucketsAt + (words[base + ARENA_OLD_BUCKET_BASE] as number);
  const oldCount = words[base + ARENA_OLD_BUCKET_COUNT] as number;
  const newBase = core.bucketsAt + (words[base + ARENA_BUCKET_BASE] as number);
  const mask = (words[base + ARENA_BUCKET_COUNT] as number) - 1;
  journal.log1(base + ARENA_REHASH_NEXT);
  let next = words[base + ARENA_REHASH_NEXT] as number;
  let moved = 0;
  for (let looked = 0; looked < MOVE_BUCKETS && next < oldCount; looked++) {
    while (words[oldBase + next] !== 0 && moved < MOVE_TAGS) {
      const tag = words[oldBase + next] as number;
      const linkAt = (tag << TAG_SHIFT) | TAG_LINK_NEXT;
      const start = core.doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_START] as number;
      const bucketAt = newBase + (hashOf(core, start) & mask);
      journal.log3(oldBase + next, linkAt, bucketAt);
      words[oldBase + next] = words[linkAt] as number;
      words[linkAt] = words[bucketAt] as number;
      words[bucketAt] = tag;
      moved++;
    }
    if (words[oldBase + next] !== 0) break;
    next++;
  }
  words[base + ARENA_REHASH_NEXT] = next;
}

/** Gives the emptied table back. */
function endRehash(core: ArenaCore): void {
  const { words, base, thread } = core;
  const lock = core.tables.tagPool.lock.address(0);
  mutexEnter(thread, lock, RANK.tagPool);
  const count = words[base + ARENA_OLD_BUCKET_COUNT] as number;
  giveExtent(thread, words[base + ARENA_OLD_BUCKET_BASE] as number, log2Floor(count));
  core.journal.log1(base + ARENA_OLD_BUCKET_COUNT);
  words[base + ARENA_OLD_BUCKET_COUNT] = 0;
  mutexExit(thread, lock);
}
