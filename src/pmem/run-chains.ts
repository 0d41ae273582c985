/**
 * Run chains: lists of frames as runs, in shared memory.
 *
 * PROBLEM     A cookie has any number of frames in a certain order, and the seed's pool is a queue of frames; neither should
 *             cost memory for each frame there is.
 * STRUCTURE   A chain is a head and a tail somewhere, and rows between them:
 *
 *               head -> |first 512, count 100| <-> |first 90, count -3: 90 89 88| <-> |first 7, count 1| <- tail
 *
 *             What continues the last run lengthens it, upward or downward.
 * INVARIANTS  I1 counts are not 0.  I2 `previous` undoes `next`.
 * LOCKING     Everything under the pmem lock, through the journal.
 * COSTS       16 bytes a run. Each operation on one run takes a few stores.
 * FAILURE     False when the rows are used up: nothing is changed then.
 * REJECTED    Links for every frame: 8 bytes a frame of memory that may never see pmem.
 * REFERENCES  Extents of file systems.
 */

import type { Int32Column } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import type { Thread } from '../sync/thread.ts';

/** Where a chain's head and tail are kept. */
export interface ChainPlace {
  readonly head: Int32Column;
  readonly tail: Int32Column;
  readonly row: number;
}

/** Frames of a run in their order: `count` below 0 descends. */
export interface OrderedRun {
  readonly first: FrameIndex;
  readonly count: number;
}

/** All chains as one thread sees them. */
export class RunChains {
  readonly #thread: Thread;
  readonly #runs: BoundTables['pmemRun'];
  readonly #pool: BoundTables['pmemPool'];

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#runs = thread.region.tables.pmemRun;
    this.#pool = thread.region.tables.pmemPool;
  }

  /** Rows that are left. */
  get spare(): number {
    let rows = this.#runs.rowCount - this.#pool.runFresh.get(0);
    for (let row = this.#pool.runFree.get(0); row !== 0; row = this.#runs.next.get(row - 1)) rows++;
    return rows;
  }

  /** True when at least `count` rows are left. */
  hasSpare(count: number): boolean {
    let rows = this.#runs.rowCount - this.#pool.runFresh.get(0);
    for (let row = this.#pool.runFree.get(0); row !== 0 && rows < count; row = this.#runs.next.get(row - 1)) rows++;
    return rows >= count;
  }

  /** Appends frames. False when there is no row for them. */
  append(place: ChainPlace, first: FrameIndex, count: number): boolean {
    const { journal } = this.#thread;
    const runs = this.#runs;
    const last = place.tail.get(place.row) - 1;
    if (last >= 0) {
      const joined = joinedCount(runs.first.get(last), runs.count.get(last), first, count);
      if (joined !== 0) {
        journal.set(runs.count, last, joined);
        return true;
      }
    }
    const row = this.#take();
    if (row < 0) return false;
    journal.set(runs.first, row, first);
    journal.set(runs.count, row, count);
    journal.set(runs.next, row, 0);
    journal.set(runs.previous, row, last + 1);
    if (last < 0) journal.set(place.head, place.row, row + 1);
    else journal.set(runs.next, last, row + 1);
    journal.set(place.tail, place.row, row + 1);
    return true;
  }

  /** Row of the first run, or -1. */
  headOf(place: ChainPlace): number {
    return place.head.get(place.row) - 1;
  }

  /** Row of the last run, or -1. */
  tailOf(place: ChainPlace): number {
    return place.tail.get(place.row) - 1;
  }

  /** The run behind a row, or -1. */
  after(row: number): number {
    return this.#runs.next.get(row) - 1;
  }

  /** What a row holds. */
  run(row: number): OrderedRun {
    return { first: this.#runs.first.get(row), count: this.#runs.count.get(row) };
  }

  /** Removes up to `frames` frames from the front of a run of a chain; returns them. */
  cutFront(place: ChainPlace, row: number, frames: number): OrderedRun {
    const { first, count } = this.run(row);
    const taken = Math.min(frames, Math.abs(count));
    const direction = Math.sign(count);
    if (taken === Math.abs(count)) {
      this.remove(place, row);
    } else {
      this.#thread.journal.set(this.#runs.first, row, first + direction * taken);
      this.#thread.journal.set(this.#runs.count, row, count - direction * taken);
    }
    return { first, count: direction * taken };
  }

  /** Removes up to `frames` frames from the end of a run of a chain; returns them in the run's order. */
  cutBack(place: ChainPlace, row: number, frames: number): OrderedRun {
    const { first, count } = this.run(row);
    const taken = Math.min(frames, Math.abs(count));
    const direction = Math.sign(count);
    if (taken === Math.abs(count)) this.remove(place, row);
    else this.#thread.journal.set(this.#runs.count, row, count - direction * taken);
    return { first: first + count - direction * taken, count: direction * taken };
  }

  /**
   * Removes the frames of `[low, high)` from a run of a chain; what lies on both sides of them stays in its place. False
   * when that needs a row and there is none.
   */
  cutRange(place: ChainPlace, row: number, low: FrameIndex, high: FrameIndex): boolean {
    const { first, count } = this.run(row);
    const direction = Math.sign(count);
    const frames = Math.abs(count);
    // Positions in the run, from its first frame on, that lie in the range.
    const from = Math.max(0, direction > 0 ? low - first : first - high + 1);
    const to = Math.min(frames, direction > 0 ? high - first : first - low + 1);
    if (from >= to) return true;
    if (from === 0) {
      this.cutFront(place, row, to);
      return true;
    }
    if (to < frames) {
      const behind = this.#take();
      if (behind < 0) return false;
      this.#insertAfter(place, row, behind, first + direction * to, direction * (frames - to));
    }
    this.#thread.journal.set(this.#runs.count, row, direction * from);
    return true;
  }

  /** Puts another frame in the place of one; takes up to two rows, which the caller has seen to be there. */
  replace(place: ChainPlace, row: number, frame: FrameIndex, by: FrameIndex): void {
    const { journal } = this.#thread;
    const runs = this.#runs;
    const { first, count } = this.run(row);
    const direction = Math.sign(count);
    const position = Math.abs(frame - first);
    const behind = Math.abs(count) - position - 1;
    let at = row;
    if (position > 0) {
      journal.set(runs.count, row, direction * position);
      at = this.#take();
      this.#insertAfter(place, row, at, by, 1);
    } else {
      journal.set(runs.first, row, by);
      journal.set(runs.count, row, 1);
    }
    if (behind > 0) this.#insertAfter(place, at, this.#take(), frame + direction, direction * behind);
  }

  /** The frames of a run lie somewhere else now. */
  shift(row: number, first: FrameIndex): void {
    this.#thread.journal.set(this.#runs.first, row, first);
  }

  /** Removes a run from its chain. */
  remove(place: ChainPlace, row: number): void {
    const { journal } = this.#thread;
    const runs = this.#runs;
    const next = runs.next.get(row);
    const previous = runs.previous.get(row);
    if (previous === 0) journal.set(place.head, place.row, next);
    else journal.set(runs.next, previous - 1, next);
    if (next === 0) journal.set(place.tail, place.row, previous);
    else journal.set(runs.previous, next - 1, previous);
    journal.set(runs.next, row, this.#pool.runFree.get(0));
    journal.set(this.#pool.runFree, 0, row + 1);
  }

  /** All runs of a chain. For quiet points. */
  list(place: ChainPlace): OrderedRun[] {
    const found: OrderedRun[] = [];
    for (let row = this.headOf(place); row >= 0; row = this.after(row)) found.push(this.run(row));
    return found;
  }

  #insertAfter(place: ChainPlace, row: number, added: number, first: FrameIndex, count: number): void {
    const { journal } = this.#thread;
    const runs = this.#runs;
    const next = runs.next.get(row);
    journal.set(runs.first, added, first);
    journal.set(runs.count, added, count);
    journal.set(runs.previous, added, row + 1);
    journal.set(runs.next, added, next);
    journal.set(runs.next, row, added + 1);
    if (next === 0) journal.set(place.tail, place.row, added + 1);
    else journal.set(runs.previous, next - 1, added + 1);
  }

  #take(): number {
    const { journal } = this.#thread;
    const { runFree, runFresh } = this.#pool;
    const row = runFree.get(0) - 1;
    if (row >= 0) {
      journal.set(runFree, 0, this.#runs.next.get(row));
      return row;
    }
    const fresh = runFresh.get(0);
    if (fresh === this.#runs.rowCount) return -1;
    journal.set(runFresh, 0, fresh + 1);
    return fresh;
  }
}

/** Count of two runs in one, or 0 when they do not join. */
function joinedCount(first: FrameIndex, count: number, nextFirst: FrameIndex, nextCount: number): number {
  if (first + count !== nextFirst) {
    // A single frame may become the start of a descending run.
    const descends = count === 1 && nextFirst === first - 1 && (nextCount < 0 || nextCount === 1);
    return descends ? -1 - Math.abs(nextCount) : 0;
  }
  if (Math.abs(nextCount) === 1) return count + Math.sign(count);
  return Math.sign(count) === Math.sign(nextCount) ? count + nextCount : 0;
}
