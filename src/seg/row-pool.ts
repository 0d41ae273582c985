/** Rows of a table that come and go: a list of those given back, and those that were never used. */

import type { Int32Column } from '../layout/column.ts';
import type { Journal } from '../sync/index.ts';

/** Where a pool keeps what it knows. */
export interface RowPoolPlace {
  /** First row given back, row + 1. */
  readonly free: Int32Column;
  /** Rows from here on were never used. */
  readonly fresh: Int32Column;
  /** Rows in use. */
  readonly count: Int32Column;
  /** Next row given back, row + 1. */
  readonly link: Int32Column;
  /** -1 when links are stored as negative numbers, since other values of the column mean something else. */
  readonly sign: 1 | -1;
  readonly rowCount: number;
}

/** Takes and gives rows, journaled, under the lock that guards the place. */
export class RowPool {
  private readonly journal: Journal;
  private readonly place: RowPoolPlace;

  constructor(journal: Journal, place: RowPoolPlace) {
    this.journal = journal;
    this.place = place;
  }

  /** Rows of the table. */
  get rowCount(): number {
    return this.place.rowCount;
  }

  /** Rows in use. */
  get used(): number {
    return this.place.count.get(0);
  }

  /** Rows that `take` can still give. */
  get left(): number {
    return this.place.rowCount - this.used;
  }

  /** Rows that were ever used: what walks look at. */
  get walkEnd(): number {
    return this.place.fresh.get(0);
  }

  /** A row, or -1. Its link is the caller's to overwrite. */
  take(): number {
    const { journal, place } = this;
    let row = place.free.get(0) - 1;
    if (row >= 0) {
      journal.set(place.free, 0, place.link.get(row) * place.sign);
    } else {
      row = place.fresh.get(0);
      if (row === place.rowCount) return -1;
      journal.set(place.fresh, 0, row + 1);
    }
    journal.set(place.count, 0, this.used + 1);
    return row;
  }

  /** Gives a row back. */
  give(row: number): void {
    const { journal, place } = this;
    journal.set(place.link, row, place.free.get(0) * place.sign);
    journal.set(place.free, 0, row + 1);
    journal.set(place.count, 0, this.used - 1);
  }
}
