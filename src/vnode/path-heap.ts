/**
 * Path heap: the paths of vnodes in shared memory.
 *
 * PROBLEM     A path has up to 4096 bytes, most have less than 100, and every slot must be able to read it in order to
 *             open its own descriptor.
 * STRUCTURE   Cells of 60 bytes and a link, 64 bytes each; a path is a chain of cells, and so are the free cells:
 *
 *               path 1   |/home/ann/music/...|-> |...flac|-> 0        free -> | | -> | | -> 0      fresh cells ...
 *
 * INVARIANTS  I1 each cell below the fresh ones is in one path or in the free chain.  I2 `cellsInUse` counts the former.
 * LOCKING     Under the vnode pool's lock, journaled, so that a path is taken in the same critical section as its row. A
 *             path does not change while a slot has its vnode open, and may then be read without the lock.
 * COSTS       One journaled store per cell.
 * FAILURE     -1 when too few cells are free.
 * REJECTED    An arena: taking a range and writing it into the row would be two critical sections, and a death between
 *             them would leak the range. Fixed rows of 4096 bytes: forty times the memory.
 * REFERENCES  BSD clists.
 */

import { assert } from '../base/assert.ts';
import { PATH_CELL_BYTES } from '../layout/page-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';

/** Longest path in bytes. */
export const PATH_BYTES_MAX = 4096;

/** Cells that a path of this many bytes needs. */
export function cellsFor(lengthBytes: number): number {
  return Math.max(1, Math.ceil(lengthBytes / PATH_CELL_BYTES));
}

/** The heap as one thread sees it. */
export class PathHeap {
  readonly #thread: Thread;
  readonly #cells: BoundTables['pathCell'];
  readonly #pool: BoundTables['vnodePool'];

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#cells = thread.region.tables.pathCell;
    this.#pool = thread.region.tables.vnodePool;
  }

  /** Cells that no path uses. */
  get free(): number {
    return this.#cells.rowCount - this.#pool.cellsInUse.get(0);
  }

  /** Stores a path and returns its first cell, or -1 when too few are free. Under the pool's lock. */
  store(bytes: Uint8Array): number {
    const count = cellsFor(bytes.length);
    if (count > this.free) return -1;
    const { journal } = this.#thread;
    let first = 0;
    for (let left = count; left > 0; left--) {
      const cell = this.#take();
      const from = (left - 1) * PATH_CELL_BYTES;
      const piece = bytes.subarray(from, from + PATH_CELL_BYTES);
      this.#cells.text.view.set(piece, cell * this.#cells.text.stride);
      journal.set(this.#cells.next, cell, first);
      first = cell + 1;
    }
    journal.set(this.#pool.cellsInUse, 0, this.#pool.cellsInUse.get(0) + count);
    return first - 1;
  }

  /** Frees a path. Under the pool's lock. */
  release(first: number, lengthBytes: number): void {
    const { journal } = this.#thread;
    const count = cellsFor(lengthBytes);
    let last = first;
    for (let left = count; left > 1; left--) last = this.#cells.next.get(last) - 1;
    assert(this.#cells.next.get(last) === 0, 'vnode/path-heap I1: a path ends where its length says');
    journal.set(this.#cells.next, last, this.#pool.cellHead.get(0));
    journal.set(this.#pool.cellHead, 0, first + 1);
    journal.set(this.#pool.cellsInUse, 0, this.#pool.cellsInUse.get(0) - count);
  }

  /** The text of a path. */
  read(first: number, lengthBytes: number): string {
    const bytes = new Uint8Array(lengthBytes);
    let cell = first;
    for (let done = 0; done < lengthBytes; done += PATH_CELL_BYTES) {
      const start = cell * this.#cells.text.stride;
      const count = Math.min(PATH_CELL_BYTES, lengthBytes - done);
      bytes.set(this.#cells.text.view.subarray(start, start + count), done);
      cell = this.#cells.next.get(cell) - 1;
    }
    return new TextDecoder().decode(bytes);
  }

  /** Cells in the free chain, for checks; more than there are when the chain is a circle. */
  countFree(): number {
    let count = this.#cells.rowCount - this.#pool.freshCell.get(0);
    let link = this.#pool.cellHead.get(0);
    for (; link !== 0 && count <= this.#cells.rowCount; link = this.#cells.next.get(link - 1)) count++;
    return count;
  }

  #take(): number {
    const { journal } = this.#thread;
    const head = this.#pool.cellHead.get(0);
    if (head !== 0) {
      journal.set(this.#pool.cellHead, 0, this.#cells.next.get(head - 1));
      return head - 1;
    }
    const fresh = this.#pool.freshCell.get(0);
    assert(fresh < this.#cells.rowCount, 'vnode/path-heap I2: free cells are where the count says');
    journal.set(this.#pool.freshCell, 0, fresh + 1);
    return fresh;
  }
}
