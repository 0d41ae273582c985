/**
 * Residual pools: frames of large pages that no cookie has.
 *
 * PROBLEM     The rest of a large page must serve the next cookies, and in an order that lets large pages empty.
 * STRUCTURE   Two ways over the bits of large-pages.ts:
 *
 *               fullest   take from the large page with the fewest free frames    nothing but the bits
 *               seed      first in, first out                                     a chain of runs besides
 *
 * INVARIANTS  I1 the seed's chain has exactly the frames whose bits are set, but those of large pages that are leaving.
 * LOCKING     Under the pmem lock, with nothing logged; every method commits what it has done, run by run.
 * COSTS       fullest: a run of free frames at a time. seed: leaving takes a walk over the chain.
 * FAILURE     False or fewer frames when the rows for runs are used up.
 * REJECTED    A queue by default: pages are reused in the order in which they were freed, which spreads live ones over many
 *             large pages (58 of them pinned 2560 in a recorded run).
 * REFERENCES  pmem.c: mpool_break, mpool_append, lpg_free.
 */

import { assert } from '../base/assert.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import type { Thread } from '../sync/thread.ts';
import { LARGE_STATE } from './kinds.ts';
import type { LargePages } from './large-pages.ts';
import type { ChainPlace, OrderedRun, RunChains } from './run-chains.ts';

/** Adjacent frames of one large page, and the order in which they come. */
export interface Piece {
  readonly low: FrameIndex;
  readonly count: number;
  readonly descends: boolean;
}

/** A pool. */
export interface ResidualPool {
  /** Moves up to `frames` frames to the end of a chain; returns how many. */
  take(frames: number, to: ChainPlace): number;
  /** Adds a piece; journaled, not committed. */
  give(piece: Piece): void;
  /** Takes the frames of a large page that are all here out of the order; the bits stay. May commit. */
  leave(large: number): void;
}

/** The pieces of a run, in its order, cut where large pages end. */
export function piecesOf(run: OrderedRun, largeFrames: number): Piece[] {
  const pieces: Piece[] = [];
  const direction = Math.sign(run.count);
  for (let done = 0; done < Math.abs(run.count); ) {
    const at = run.first + direction * done;
    const within = at % largeFrames;
    const room = direction > 0 ? largeFrames - within : within + 1;
    const count = Math.min(room, Math.abs(run.count) - done);
    pieces.push({ low: direction > 0 ? at : at - count + 1, count, descends: direction < 0 });
    done += count;
  }
  return pieces;
}

/** The default: the large page with the fewest free frames serves first. */
export class FullestPool implements ResidualPool {
  readonly #thread: Thread;
  readonly #large: LargePages;
  readonly #chains: RunChains;

  constructor(thread: Thread, large: LargePages, chains: RunChains) {
    this.#thread = thread;
    this.#large = large;
    this.#chains = chains;
  }

  take(frames: number, to: ChainPlace): number {
    let taken = 0;
    while (taken < frames) {
      const large = this.#large.fullest();
      if (large < 0) break;
      const { first, count } = this.#large.firstRun(large, frames - taken);
      assert(count > 0, 'pmem/large-pages I2: a listed large page has a free frame');
      if (!this.#chains.append(to, first, count)) break;
      this.#large.unpool(first, count);
      this.#thread.commit();
      taken += count;
    }
    return taken;
  }

  give(piece: Piece): void {
    this.#large.pool(piece.low, piece.count);
  }

  leave(): void {}
}

/** The seed's way: first in, first out. */
export class SeedPool implements ResidualPool {
  readonly #thread: Thread;
  readonly #large: LargePages;
  readonly #chains: RunChains;
  readonly #place: ChainPlace;
  readonly #journalWords: number;

  constructor(thread: Thread, large: LargePages, chains: RunChains) {
    const pool: BoundTables['pmemPool'] = thread.region.tables.pmemPool;
    this.#thread = thread;
    this.#large = large;
    this.#chains = chains;
    this.#place = { head: pool.poolHead, tail: pool.poolTail, row: 0 };
    this.#journalWords = thread.region.geometry.journalLanes;
  }

  /** The chain, for snapshots. */
  get place(): ChainPlace {
    return this.#place;
  }

  take(frames: number, to: ChainPlace): number {
    let taken = 0;
    let row = this.#chains.headOf(this.#place);
    while (taken < frames && row >= 0) {
      const { first } = this.#chains.run(row);
      const next = this.#chains.after(row);
      if (this.#large.stateOf(this.#large.of(first)) === LARGE_STATE.leaving) {
        row = next;
        continue;
      }
      const [piece] = piecesOf(this.#chains.run(row), this.#large.size) as [Piece];
      if (!this.#chains.hasSpare(1)) break;
      const run = this.#chains.cutFront(this.#place, row, Math.min(piece.count, frames - taken));
      this.#chains.append(to, run.first, run.count);
      const count = Math.abs(run.count);
      this.#large.unpool(run.count > 0 ? run.first : run.first + run.count + 1, count);
      this.#thread.commit();
      taken += count;
      row = this.#chains.headOf(this.#place);
    }
    return taken;
  }

  give(piece: Piece): void {
    this.#large.pool(piece.low, piece.count);
    const first = piece.descends ? piece.low + piece.count - 1 : piece.low;
    const appended = this.#chains.append(this.#place, first, piece.descends ? -piece.count : piece.count);
    assert(appended, 'pmem/residual-pool: boot with more rows for runs');
  }

  leave(large: number): void {
    const low = large * this.#large.size;
    const high = low + this.#large.size;
    this.#large.leave(large);
    for (let row = this.#chains.headOf(this.#place); row >= 0; ) {
      const next = this.#chains.after(row);
      const cut = this.#chains.cutRange(this.#place, row, low, high);
      assert(cut, 'pmem/residual-pool: boot with more rows for runs');
      if (this.#thread.journal.length > this.#journalWords / 2) this.#thread.commit();
      row = next;
    }
  }
}
