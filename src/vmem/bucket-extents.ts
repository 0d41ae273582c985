/**
 * Extents of hash buckets: a buddy allocator over the bucket table.
 *
 * PROBLEM     Allocation hashes grow and shrink by powers of two, and a new one must hold only empty chains without
 *             anybody clearing it.
 * STRUCTURE   An extent is 2^k buckets at a multiple of 2^k, k from MIN_ORDER. A free one says so in its first words:
 *
 *               bucket   | -1 - k | next + 1 | previous + 1 | 0 | 0 ... 0 |      list of order k: extentHead[k]
 *
 *             Chains that were emptied leave zeros behind, so whoever gives an extent back gives back zeros.
 * INVARIANTS  I1 a free extent is zero but for its first three words.   I2 two free buddies are never apart.
 *             I3 buckets from `extentFresh` on were never used, and are zero.
 * LOCKING     The tag pool's lock; `takeExtent` and `giveExtent` are called inside it.
 * COSTS       One step per order.
 * FAILURE     -1 when no extent of the size is left.
 * REJECTED    Clearing on the way out (a pause of milliseconds for the largest); one extent per arena of the size that it
 *             might reach (most arenas are small).
 * REFERENCES  Knowlton 1965, buddy systems.
 */

import { assert } from '../base/index.ts';
import type { Thread } from '../sync/index.ts';

/** The smallest extent has 2^4 buckets. */
export const EXTENT_ORDER_MIN = 4;

const NEXT = 1;
const PREVIOUS = 2;

/** Takes an extent of 2^order buckets, all zero; -1 when there is none. */
export function takeExtent(thread: Thread, order: number): number {
  const { tagPool, bucket } = thread.region.tables;
  const { journal } = thread;
  for (let have = order; have < 31; have++) {
    const base = tagPool.extentHead.at(0, have) - 1;
    if (base < 0) continue;
    unlink(thread, base, have);
    for (let word = 0; word < 3; word++) journal.set(bucket.head, base + word, 0);
    for (let half = have - 1; half >= order; half--) link(thread, base + 2 ** half, half);
    return base;
  }
  const size = 2 ** order;
  const fresh = tagPool.extentFresh.get(0);
  const base = Math.ceil(fresh / size) * size;
  if (base + size > bucket.rowCount) return -1;
  // What lies between is given to the lists in pieces as large as their place allows.
  let gap = Math.ceil(fresh / 2 ** EXTENT_ORDER_MIN) * 2 ** EXTENT_ORDER_MIN;
  journal.set(tagPool.extentFresh, 0, base + size);
  while (gap < base) {
    const piece = 31 - Math.clz32(gap & -gap);
    link(thread, gap, piece);
    gap += 2 ** piece;
  }
  return base;
}

/** Gives an extent of zeros back and joins it with free buddies. */
export function giveExtent(thread: Thread, base: number, order: number): void {
  const { tagPool, bucket } = thread.region.tables;
  const { journal } = thread;
  let start = base;
  let size = order;
  for (; size < 30; size++) {
    const buddy = start ^ (2 ** size);
    if (buddy + 2 ** size > tagPool.extentFresh.get(0) || bucket.head.get(buddy) !== -1 - size) break;
    unlink(thread, buddy, size);
    for (let word = 0; word < 3; word++) journal.set(bucket.head, buddy + word, 0);
    start = Math.min(start, buddy);
  }
  link(thread, start, size);
}

function link(thread: Thread, base: number, order: number): void {
  const { tagPool, bucket } = thread.region.tables;
  const { journal } = thread;
  assert(bucket.head.get(base) === 0, 'vmem/bucket-extents I1: an extent that comes back is zero');
  const next = tagPool.extentHead.at(0, order);
  journal.set(bucket.head, base, -1 - order);
  journal.set(bucket.head, base + NEXT, next);
  journal.set(bucket.head, base + PREVIOUS, 0);
  if (next !== 0) journal.set(bucket.head, next - 1 + PREVIOUS, base + 1);
  journal.setAt(tagPool.extentHead, 0, order, base + 1);
}

function unlink(thread: Thread, base: number, order: number): void {
  const { tagPool, bucket } = thread.region.tables;
  const { journal } = thread;
  assert(bucket.head.get(base) === -1 - order, 'vmem/bucket-extents: a listed extent is free and of its order');
  const next = bucket.head.get(base + NEXT);
  const previous = bucket.head.get(base + PREVIOUS);
  if (next !== 0) journal.set(bucket.head, next - 1 + PREVIOUS, previous);
  if (previous !== 0) journal.set(bucket.head, previous - 1 + NEXT, next);
  else journal.setAt(tagPool.extentHead, 0, order, next);
}
