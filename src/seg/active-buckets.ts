/**
 * Lists of active hash buckets.
 *
 * PROBLEM     A reaper must find the few buckets that hold ranges among millions, and walk them for a long time while other
 *             threads add and empty buckets.
 * STRUCTURE   Two circular lists of window buckets. Buckets join the current one at its tail; the reaper walks the other:
 *
 *               head -> bucket -> bucket -> ... -> head        list `current`: everybody's
 *               head -> bucket -> ... -> head                  the other: the reaper's while one walks
 *
 *             A walk that stops early moves the head in front of the next bucket, so that the next walk goes on there. A
 *             walk that comes to the end makes its list the current one. A third list has the wired buckets.
 * INVARIANTS  I1 a bucket is on at most one list.   I2 a bucket with entries is on a list (wired ones: under our rules only).
 *             I3 while a reaper walks, nobody else takes a bucket off the list that is not current.
 * LOCKING     Links are under the cache's lock; whether its bucket is listed is also under the bucket's. The reaper follows
 *             the links of its list without the lock, which I3 allows.
 * COSTS       Joining and leaving change four words.
 * FAILURE     None: a bucket that could not leave stays listed while empty, and is reused, or removed by the reaper. Under our
 *             rules all emptied window buckets do so, which saves purges the cache's lock.
 * REJECTED    One list: the reaper would hold its lock for the whole walk.
 * REFERENCES  illumos vm_seg.c, which also calls them active hash buckets.
 */

import { assert } from '../base/assert.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Journal, Thread } from '../sync/index.ts';
import { type BucketIndex, LIST_WIRED } from './pagelock-kinds.ts';

/** One thread's view of the lists. */
export class ActiveBuckets {
  readonly #journal: Journal;
  readonly #words: Int32Array;
  readonly #control: BoundTables['pagelock'];
  readonly #buckets: BoundTables['pagelockBucketLink'];
  readonly #windowBuckets: number;

  constructor(thread: Thread) {
    this.#journal = thread.journal;
    this.#words = thread.words;
    this.#control = thread.region.tables.pagelock;
    this.#buckets = thread.region.tables.pagelockBucketLink;
    this.#windowBuckets = this.#control.windowBuckets.get(0);
  }

  /** Journaled: puts a bucket at the tail of the current list, unless it is on a list. Needs the cache's lock. */
  join(bucket: BucketIndex): void {
    const { listed, listNext, listPrevious } = this.#buckets;
    if (listed.get(bucket) !== 0) return;
    const list = bucket >= this.#windowBuckets ? LIST_WIRED : this.#control.current.get(0);
    const words = this.#words;
    const tailAt = this.#control.headPrevious.address(0, list);
    const tail = words[tailAt] as number;
    const forwardAt = tail === 0 ? this.#control.headNext.address(0, list) : listNext.address(tail - 1);
    // The links of a bucket that is on no list mean nothing.
    this.#journal.log3(listed.address(bucket), tailAt, forwardAt);
    listed.put(bucket, list + 1);
    listNext.put(bucket, 0);
    listPrevious.put(bucket, tail);
    words[forwardAt] = bucket + 1;
    words[tailAt] = bucket + 1;
  }

  /**
   * Journaled: takes an emptied bucket off its list. Needs the cache's lock. A bucket of the list that a reaper walks stays,
   * unless the caller is that reaper, who does not need the lock either.
   */
  leave(bucket: BucketIndex, walker: boolean): void {
    const list = this.#buckets.listed.get(bucket) - 1;
    if (list < 0) return;
    const control = this.#control;
    if (!walker && list !== LIST_WIRED && list !== control.current.get(0) && control.reaper.get(0) !== 0) return;
    const { listed, listNext, listPrevious } = this.#buckets;
    const words = this.#words;
    const next = listNext.get(bucket);
    const previous = listPrevious.get(bucket);
    const forwardAt = previous === 0 ? control.headNext.address(0, list) : listNext.address(previous - 1);
    const backAt = next === 0 ? control.headPrevious.address(0, list) : listPrevious.address(next - 1);
    this.#journal.log3(forwardAt, backAt, listed.address(bucket));
    words[forwardAt] = next;
    words[backAt] = previous;
    listed.put(bucket, 0);
  }

  /** First bucket of a list + 1, 0 for none. */
  first(list: number): number {
    return this.#control.headNext.at(0, list);
  }

  /** Bucket behind a bucket + 1, 0 at the end. */
  after(bucket: BucketIndex): number {
    return this.#buckets.listNext.get(bucket);
  }

  /** Journaled: moves the head of a list in front of a bucket, so that a walk starts there. Needs the cache's lock. */
  startAt(list: number, bucket: BucketIndex): void {
    const { listNext, listPrevious, listed } = this.#buckets;
    const { headNext, headPrevious } = this.#control;
    assert(listed.get(bucket) === list + 1, 'seg/active-buckets I1: the head moves within its list');
    const previous = listPrevious.get(bucket);
    if (previous === 0) return;
    const journal = this.#journal;
    const oldFirst = headNext.at(0, list);
    const oldLast = headPrevious.at(0, list);
    journal.set(listNext, oldLast - 1, oldFirst);
    journal.set(listPrevious, oldFirst - 1, oldLast);
    journal.set(listNext, previous - 1, 0);
    journal.set(listPrevious, bucket, 0);
    journal.setAt(headNext, 0, list, bucket + 1);
    journal.setAt(headPrevious, 0, list, previous);
  }

  /** The buckets of a list from its head on. Allocates; for cold code under the cache's lock. */
  buckets(list: number): BucketIndex[] {
    const found: BucketIndex[] = [];
    for (let link = this.first(list); link !== 0; link = this.after(link - 1)) {
      found.push(link - 1);
      assert(found.length <= this.#buckets.rowCount, 'seg/active-buckets I1: a list has an end');
    }
    return found;
  }
}
