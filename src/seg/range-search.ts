/**
 * Finding cached ranges that cover, lie in, or touch a range.
 *
 * PROBLEM     A hash finds a key, but a request for the middle of a cached range has another key, and a tree per owner would
 *             cost a dozen cache misses where a hit may cost one.
 * STRUCTURE   A range of p pages has length class k, the smallest with p <= 2^k, and is hashed by the block of 2^k pages in
 *             which it starts:
 *
 *               class 2     | block 0   | block 1   | block 2   |          key (owner, 2, 1)
 *               range             [.......]                                starts in block 1, ends in block 1 or 2
 *
 *             So a range of class k that contains a page starts in that page's block or in the one before: two look-ups for
 *             each class that the owner has, and the first one is right for a request of the same range.
 * INVARIANTS  I1 the bucket of an entry follows from its owner, class and first block.   I2 a class that an owner has entries
 *             of is in its `classes`.   I3 an owner of a range that reaches beyond its block has `STRADDLES` there.
 * LOCKING     A bucket is locked only if it is not empty. Under the owner's lock nothing is missed; without it, a range that
 *             is just being inserted may be.
 *             A range that does not reach beyond its block needs the first look-up only: an owner says by one bit whether all
 *             of its ranges are like that, as ranges of 2^k pages at multiples of their length are.
 * COSTS       One bucket for a repeated request; one or two per class of the owner for a miss.
 * FAILURE     -1, with no bucket locked.
 * REJECTED    A tree per owner; one look-up per page of the range.
 * REFERENCES  The hash of boundary blocks in the buddy system, Knowlton 1965, turned to look-ups.
 */

import type { PagelockCore } from './pagelock-core.ts';
import { type BucketIndex, type CacheOwner, ENTRY_FLAG, type EntryIndex } from './pagelock-kinds.ts';

const INVERSE_32 = 1 / 4294967296;

/** Neighbouring blocks share a group of buckets: half a kilobyte, so that a dense cache touches few lines and pages. */
const GROUP_SHIFT = 6;
const GROUP_MASK = 2 ** GROUP_SHIFT - 1;

/** Length classes: 2^30 pages at most. */
const CLASSES = 31;

/** 2^-k. */
const CLASS_INVERSE = Float64Array.from({ length: CLASSES }, (_, k) => 2 ** -k);

/** Look-ups of smaller classes that an insertion makes at most: what it leaves is dropped by the reaper. */
const CONTAINED_LOOKUPS_MAX = 64;

/** Bit of an owner's `classes`: it may have ranges that reach beyond the block in which they start. */
export const STRADDLES = -(2 ** 31);

/** What a range adds to its owner's `classes`. */
export function classBits(page: number, pages: number): number {
  const k = classOf(pages);
  const inverse = CLASS_INVERSE[k] as number;
  const straddles = Math.floor(page * inverse) !== Math.floor((page + pages - 1) * inverse);
  return (1 << k) | (straddles ? STRADDLES : 0);
}

/** The smallest k with pages <= 2^k. */
export function classOf(pages: number): number {
  return pages <= 1 ? 0 : 32 - Math.clz32(pages - 1);
}

/** One thread's searches. */
export class RangeSearch {
  readonly #core: PagelockCore;

  constructor(core: PagelockCore) {
    this.#core = core;
  }

  /** Bucket of the ranges of an owner and a class that start in a block. */
  bucketOf(owner: CacheOwner, k: number, block: number, wired: boolean): BucketIndex {
    // The low and the high word of the block's group, the class and the owner, mixed twice (Murmur's finaliser).
    const low = block | 0;
    const high = block < 4294967296 ? 0 : (block * INVERSE_32) | 0;
    let mixed = Math.imul(low >>> GROUP_SHIFT, 0x9e3779b1) ^ Math.imul(high + (owner << 5) + k + 1, 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    // Blocks of a group lie side by side, since the one before is looked at too; each group starts elsewhere.
    mixed = (mixed & ~GROUP_MASK) | ((low + (mixed >>> 16)) & GROUP_MASK);
    return wired ? this.#core.windowBuckets + (mixed & this.#core.wiredMask) : mixed & this.#core.windowMask;
  }

  /** Bucket in which a range of its own belongs. */
  ownBucket(owner: CacheOwner, page: number, pages: number, wired: boolean): BucketIndex {
    const k = classOf(pages);
    return this.bucketOf(owner, k, Math.floor(page * (CLASS_INVERSE[k] as number)), wired);
  }

  /**
   * A range that covers the request, with its bucket locked; -1 with no lock. The newest range of the request's own class
   * comes first, then smaller classes before larger ones.
   */
  lockCovering(owner: CacheOwner, page: number, pages: number, writable: boolean, wired: boolean): EntryIndex {
    const k = classOf(pages);
    const block = Math.floor(page * (CLASS_INVERSE[k] as number));
    const bucket = this.bucketOf(owner, k, block, wired);
    const { words, bucketHeadAt, bucketStride } = this.#core;
    if (words[bucketHeadAt + bucket * bucketStride] !== 0) {
      const entry = this.#lockIn(bucket, owner, page, pages, writable);
      if (entry >= 0) return entry;
    }
    return this.#lockCoveringSlow(owner, page, pages, writable, wired, k);
  }

  /** The request's own class in the block before, then the larger classes. */
  #lockCoveringSlow(
    owner: CacheOwner,
    page: number,
    pages: number,
    writable: boolean,
    wired: boolean,
    own: number,
  ): EntryIndex {
    const { buckets, owners } = this.#core;
    const classes = owners.classes.get(owner);
    const reach = classes < 0 ? 1 : 0;
    for (let left = ((classes & ~STRADDLES) >>> own) << own; left !== 0; left &= left - 1) {
      const k = 31 - Math.clz32(left & -left);
      const block = Math.floor(page * (CLASS_INVERSE[k] as number));
      for (let from = k === own ? block - 1 : block; from >= 0 && from >= block - reach; from--) {
        const bucket = this.bucketOf(owner, k, from, wired);
        if (buckets.head.get(bucket) === 0) continue;
        const entry = this.#lockIn(bucket, owner, page, pages, writable);
        if (entry >= 0) return entry;
      }
    }
    return -1;
  }

  #lockIn(bucket: BucketIndex, owner: CacheOwner, page: number, pages: number, writable: boolean): EntryIndex {
    const core = this.#core;
    const { words, doubles, entryStride, ownerAt, flagsAt, chainNextAt, addressAt, addressStride } = core;
    const lengthAt = writable ? core.writableAt : core.pagesAt;
    core.lockBucket(bucket);
    const address = page * core.pageSize;
    for (let link = words[core.bucketHeadAt + bucket * core.bucketStride] as number; link !== 0; ) {
      const entry = link - 1;
      const at = entry * entryStride;
      link = words[chainNextAt + at] as number;
      if (words[ownerAt + at] !== owner + 1) continue;
      const skipped = (address - (doubles[addressAt + entry * addressStride] as number)) * core.inversePageSize;
      if (skipped < 0 || skipped + pages > (words[lengthAt + at] as number)) continue;
      if (((words[flagsAt + at] as number) & ENTRY_FLAG.doomed) === 0) return entry;
    }
    core.unlockBucket(bucket);
    return -1;
  }

  /** False when no range of the owner can overlap the request, without a look at any of them. Needs the owner's lock. */
  mayOverlap(owner: CacheOwner, page: number, pages: number, wired: boolean): boolean {
    const { buckets, owners } = this.#core;
    const k = classOf(pages);
    if ((owners.classes.get(owner) & ~(1 << k)) !== 0) return true;
    const inverse = CLASS_INVERSE[k] as number;
    const block = Math.floor(page * inverse);
    if (block !== Math.floor((page + pages - 1) * inverse)) return true;
    return buckets.head.get(this.bucketOf(owner, k, block, wired)) !== 0;
  }

  /** Calls back for the buckets that may hold ranges inside the request, smallest block first. Needs the owner's lock. */
  forEachBucketInside(
    owner: CacheOwner,
    page: number,
    pages: number,
    wired: boolean,
    see: (bucket: BucketIndex) => void,
  ): void {
    const { buckets, owners } = this.#core;
    let lookups = 0;
    for (let k = classOf(pages); k >= 0; k--) {
      if ((owners.classes.get(owner) & (1 << k)) === 0) continue;
      const inverse = CLASS_INVERSE[k] as number;
      const last = Math.floor((page + pages - 1) * inverse);
      for (let block = Math.floor(page * inverse); block <= last; block++) {
        if (++lookups > CONTAINED_LOOKUPS_MAX) return;
        const bucket = this.bucketOf(owner, k, block, wired);
        if (buckets.head.get(bucket) !== 0) see(bucket);
      }
    }
  }

  /** Calls back, under its bucket's lock, for each range that overlaps the request, some of them twice. Needs the owner's lock. */
  forEachOverlapping(
    owner: CacheOwner,
    page: number,
    pages: number,
    wired: boolean,
    see: (entry: EntryIndex) => void,
  ): void {
    const core = this.#core;
    const { owners, entries, inversePageSize } = core;
    const look = (entry: EntryIndex) => {
      const start = entries.address.get(entry) * inversePageSize;
      if (start < page + pages && start + entries.pages.get(entry) > page) see(entry);
    };
    const buckets = this.#bucketsOverlapping(owner, page, pages, wired, owners.count.get(owner));
    if (buckets === null) {
      for (let link = owners.head.get(owner); link !== 0; link = entries.ownerNext.get(link - 1)) {
        if (((entries.flags.get(link - 1) & ENTRY_FLAG.wired) !== 0) !== wired) continue;
        const bucket = entries.bucket.get(link - 1);
        core.lockBucket(bucket);
        look(link - 1);
        core.unlockBucket(bucket);
      }
      return;
    }
    for (const bucket of buckets) {
      core.lockBucket(bucket);
      for (let link = core.buckets.head.get(bucket); link !== 0; link = entries.chainNext.get(link - 1)) {
        if (entries.owner.get(link - 1) === owner + 1) look(link - 1);
      }
      core.unlockBucket(bucket);
    }
  }

  /** Buckets that may hold ranges which overlap the request; null when there are more than `most` to look at. */
  #bucketsOverlapping(
    owner: CacheOwner,
    page: number,
    pages: number,
    wired: boolean,
    most: number,
  ): BucketIndex[] | null {
    const { buckets, owners } = this.#core;
    const classes = owners.classes.get(owner);
    const reach = classes < 0 ? 1 : 0;
    const found: BucketIndex[] = [];
    let lookups = 0;
    for (let left = classes & ~STRADDLES; left !== 0; left &= left - 1) {
      const k = 31 - Math.clz32(left & -left);
      const inverse = CLASS_INVERSE[k] as number;
      const first = Math.max(0, Math.floor(page * inverse) - reach);
      const last = Math.floor((page + pages - 1) * inverse);
      lookups += last - first + 1;
      if (lookups > most) return null;
      for (let block = first; block <= last; block++) {
        const bucket = this.bucketOf(owner, k, block, wired);
        if (buckets.head.get(bucket) !== 0) found.push(bucket);
      }
    }
    return found;
  }

  /** A range that starts at a page, or ends right before it, with its bucket locked; -1 with no lock. */
  lockNeighbour(owner: CacheOwner, page: number, side: 'after' | 'before', wired: boolean): EntryIndex {
    const { buckets, owners } = this.#core;
    const at = side === 'after' ? page : page - 1;
    if (at < 0) return -1;
    const classes = owners.classes.get(owner);
    const reach = classes < 0 && side === 'before' ? 1 : 0;
    for (let left = classes & ~STRADDLES; left !== 0; left &= left - 1) {
      const k = 31 - Math.clz32(left & -left);
      const block = Math.floor(at * (CLASS_INVERSE[k] as number));
      const first = Math.max(0, block - reach);
      for (let from = block; from >= first; from--) {
        const bucket = this.bucketOf(owner, k, from, wired);
        if (buckets.head.get(bucket) === 0) continue;
        const entry = this.#lockTouching(bucket, owner, page, side);
        if (entry >= 0) return entry;
      }
    }
    return -1;
  }

  #lockTouching(bucket: BucketIndex, owner: CacheOwner, page: number, side: 'after' | 'before'): EntryIndex {
    const core = this.#core;
    const { entries } = core;
    core.lockBucket(bucket);
    for (let link = core.buckets.head.get(bucket); link !== 0; link = entries.chainNext.get(link - 1)) {
      const entry = link - 1;
      if (entries.owner.get(entry) !== owner + 1) continue;
      const start = entries.address.get(entry) * core.inversePageSize;
      if ((side === 'after' ? start : start + entries.pages.get(entry)) === page) return entry;
    }
    core.unlockBucket(bucket);
    return -1;
  }
}
