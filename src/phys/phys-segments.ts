/**
 * Physical segments: ranges of frames with a class, a part that can be free, and a place in the order of searches.
 *
 * PROBLEM     Memory comes in pieces that differ: some must be kept for those who can use no other (low addresses, one
 *             bank), some have holes at their ends, some come while the system runs.
 * STRUCTURE   A row per segment; one whose frames have gone is empty until another takes it. `walk` lists the rows in the
 *             order in which searches visit them:
 *
 *               row 0   start ... |availableStart  ......  availableEnd| ... end     class 1
 *               row 1   ...                                                          class 0
 *               walk    1, 0         first: by address; bigFirst: smallest first, later ones first among equals
 *
 *             Adjacent available ranges of one bank form a stretch: what a run may span.
 * INVARIANTS  I1 segments do not overlap.  I2 start <= availableStart <= availableEnd <= end.  I3 `walk` is a permutation.
 * LOCKING     Rows are added under the frames' lock; the generation tells other threads to read them again.
 * COSTS       Classes of single frames: a scan over the rows, cached per thread.
 * FAILURE     `EINVAL` for a segment that overlaps another or lies outside; `ENOMEM` when the rows are used up.
 * REJECTED    Sorting rows themselves: their numbers are names that others keep.
 * REFERENCES  uvm_physseg.c and its three strategies.
 */

import { fail, failMisuse, rejectUnknownOptions, requireInteger, requireObject } from '../base/errors.ts';
import type { BoundTables, Region } from '../layout/region.ts';
import { load } from '../sync/atomics.ts';
import type { Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';

/** What a segment is made of; in frames. */
export interface PhysSegmentOptions {
  readonly start: FrameIndex;
  readonly end: FrameIndex;
  /** First frame that can be free. Default: `start`. */
  readonly availableStart?: FrameIndex;
  /** Frame behind the last one that can be free. Default: `end`. */
  readonly availableEnd?: FrameIndex;
  /** Class: frames of lower classes are used first. Default 0. */
  readonly freeList?: number;
}

const SEGMENT_OPTIONS = ['start', 'end', 'availableStart', 'availableEnd', 'freeList'] as const;

/** Throws `EINVAL` unless a segment is an object with nothing unknown in it; its values are looked at when it is added. */
export function requireSegment(call: string, options: PhysSegmentOptions): void {
  requireObject(call, 'segment', options);
  rejectUnknownOptions(call, options, SEGMENT_OPTIONS);
}

/** A range of frames that a run may span. */
export interface Stretch {
  readonly low: FrameIndex;
  readonly high: FrameIndex;
}

/** Frames that are online and can be free. Read without a lock: exact but for a moment in which memory comes or goes. */
export function onlineFrames({ tables }: Region): number {
  const { availableStart, availableEnd } = tables.physSegment;
  const count = tables.physSegments.count.get(0);
  let frames = 0;
  for (let row = 0; row < count; row++) frames += availableEnd.get(row) - availableStart.get(row);
  return frames;
}

/** The segments as one thread sees them. */
export class PhysSegments {
  readonly #thread: Thread;
  readonly #rows: BoundTables['physSegment'];
  readonly #all: BoundTables['physSegments'];
  #generation = -1;
  #byClass: Stretch[][] = [];
  #joined: Stretch[] = [];
  #lastRow = 0;

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#rows = thread.region.tables.physSegment;
    this.#all = thread.region.tables.physSegments;
  }

  /** Segments. */
  get count(): number {
    return this.#all.count.get(0);
  }

  /** The columns, for searches that keep hints. */
  get rows(): BoundTables['physSegment'] {
    return this.#rows;
  }

  /** The row at a position of the order of searches. */
  rowAt(position: number): number {
    return this.#rows.walk.get(position);
  }

  /** Under the frames' lock, with nothing logged: adds a segment, whose frames stay absent. Returns its row. */
  add(options: PhysSegmentOptions, call: 'frames.online' | 'physSegments.add' = 'physSegments.add'): number {
    requireSegment('physSegments.add', options);
    const { frames, frameClasses } = this.#thread.region.geometry;
    const { start, end, availableStart = start, availableEnd = end, freeList = 0 } = options;
    requireInteger('physSegments.add', 'start', start, 0, frames);
    requireInteger('physSegments.add', 'end', end, start + 1, frames);
    requireInteger('physSegments.add', 'availableStart', availableStart, start, end);
    requireInteger('physSegments.add', 'availableEnd', availableEnd, availableStart, end);
    requireInteger('physSegments.add', 'freeList', freeList, 0, frameClasses - 1);
    const rows = this.#rows;
    for (let row = 0; row < this.count; row++) {
      if (start < rows.end.get(row) && rows.start.get(row) < end) {
        if (call !== 'frames.online') failMisuse(call, { start, end }, `the frames overlap with segment ${row}`);
        failMisuse(call, { first: start, count: end - start }, `frames are online already, in segment ${row}`);
      }
    }
    const row = this.#spareRow();
    if (row < 0) {
      fail('ENOMEM', call, { start, end }, `there are ${rows.rowCount} segments already`);
    }
    this.#store(row, start, end, availableStart, availableEnd);
    this.#thread.journal.set(rows.freeList, row, freeList);
    this.#list(row);
    this.#changed();
    return row;
  }

  /** True when `carve` would find the rows that it needs. */
  canCarve(first: FrameIndex, count: number): boolean {
    const { start, end } = this.#rows;
    for (let row = 0; row < this.count; row++) {
      if (start.get(row) < first && end.get(row) > first + count) return this.#spareRow() >= 0;
    }
    return true;
  }

  /** Under the frames' lock, with nothing logged: takes a range out of all segments; `canCarve` has said that it can. */
  carve(first: FrameIndex, count: number): void {
    const behind = first + count;
    const { start, end, availableStart, availableEnd, freeList } = this.#rows;
    const rowsBefore = this.count;
    for (let row = 0; row < rowsBefore; row++) {
      const [low, high] = [start.get(row), end.get(row)];
      if (low >= behind || high <= first) continue;
      const [from, to] = [availableStart.get(row), availableEnd.get(row)];
      const clip = (at: FrameIndex, least: FrameIndex, most: FrameIndex) => Math.min(Math.max(at, least), most);
      if (low < first) {
        this.#store(row, low, first, clip(from, low, first), clip(to, low, first));
        if (high <= behind) continue;
        const rest = this.#spareRow();
        this.#store(rest, behind, high, clip(from, behind, high), clip(to, behind, high));
        this.#thread.journal.set(freeList, rest, freeList.get(row));
        this.#list(rest);
      } else if (high > behind) {
        this.#store(row, behind, high, clip(from, behind, high), clip(to, behind, high));
      } else {
        this.#store(row, 0, 0, 0, 0);
      }
    }
    this.#changed();
  }

  /** The class of a frame; 0 for a frame of no segment. */
  classOf(frame: FrameIndex): number {
    const rows = this.#rows;
    if (frame >= rows.start.get(this.#lastRow) && frame < rows.end.get(this.#lastRow)) {
      return rows.freeList.get(this.#lastRow);
    }
    const { count } = this;
    for (let row = 0; row < count; row++) {
      if (frame < rows.start.get(row) || frame >= rows.end.get(row)) continue;
      this.#lastRow = row;
      return rows.freeList.get(row);
    }
    return 0;
  }

  /** The row whose available range has the frame, or -1. */
  rowOf(frame: FrameIndex): number {
    const { count } = this;
    for (let row = 0; row < count; row++) {
      if (frame >= this.#rows.availableStart.get(row) && frame < this.#rows.availableEnd.get(row)) return row;
    }
    return -1;
  }

  /** Stretches of one class, in the order of searches. */
  stretches(freeList: number): readonly Stretch[] {
    this.#refresh();
    return this.#byClass[freeList] ?? [];
  }

  /** Stretches of any classes together, by address. */
  joined(): readonly Stretch[] {
    this.#refresh();
    return this.#joined;
  }

  /** Frames in the longest of those. */
  longestStretch(): number {
    return this.joined().reduce((longest, { low, high }) => Math.max(longest, high - low), 0);
  }

  /** Broken invariants, for `check()`. */
  problems(): string[] {
    const found: string[] = [];
    const rows = this.#rows;
    const { count } = this;
    const seen = new Set<number>();
    for (let row = 0; row < count; row++) {
      seen.add(rows.walk.get(row));
      const marks = [rows.start.get(row), rows.availableStart.get(row), rows.availableEnd.get(row), rows.end.get(row)];
      if (marks.some((mark, at) => at > 0 && mark < (marks[at - 1] as number))) {
        found.push(`phys/phys-segments I2: segment ${row}: ${marks.join(' ')}`);
      }
      for (let other = 0; other < row; other++) {
        if (rows.start.get(row) < rows.end.get(other) && rows.start.get(other) < rows.end.get(row)) {
          found.push(`phys/phys-segments I1: segments ${other} and ${row}`);
        }
      }
    }
    for (let row = 0; row < count; row++) if (!seen.has(row)) found.push(`phys/phys-segments I3: segment ${row}`);
    return found;
  }

  /** A row without frames: one whose segment has gone, or one that was never used; -1 when there is none. */
  #spareRow(): number {
    const { count } = this;
    for (let row = 0; row < count; row++) if (this.#rows.end.get(row) === 0) return row;
    return count < this.#rows.rowCount ? count : -1;
  }

  #store(row: number, start: number, end: number, availableStart: number, availableEnd: number): void {
    const { journal } = this.#thread;
    const rows = this.#rows;
    journal.set(rows.start, row, start);
    journal.set(rows.end, row, end);
    journal.set(rows.availableStart, row, availableStart);
    journal.set(rows.availableEnd, row, availableEnd);
    journal.set(rows.hint, row, 0);
  }

  /** Puts a row in its place in the order of searches, wherever it was before. */
  #list(row: number): void {
    const { journal } = this.#thread;
    const { walk } = this.#rows;
    const order: number[] = [];
    for (let position = 0; position < this.count; position++) {
      if (walk.get(position) !== row) order.push(walk.get(position));
    }
    let position = order.length;
    while (position > 0 && this.#before(row, order[position - 1] as number)) position--;
    order.splice(position, 0, row);
    for (const [at, listed] of order.entries())
      if (walk.get(at) !== listed || at >= this.count) journal.set(walk, at, listed);
    if (order.length > this.count) journal.set(this.#all.count, 0, order.length);
  }

  #changed(): void {
    this.#thread.journal.set(this.#all.generation, 0, this.#all.generation.get(0) + 1);
  }

  #before(row: number, other: number): boolean {
    const rows = this.#rows;
    if (this.#all.bigFirst.get(0) === 0) return rows.start.get(row) < rows.start.get(other);
    // Later rows come first among equals.
    return rows.end.get(row) - rows.start.get(row) <= rows.end.get(other) - rows.start.get(other);
  }

  #refresh(): void {
    const generation = load(this.#thread.words, this.#all.generation.address(0));
    if (generation === this.#generation) return;
    const { frameClasses } = this.#thread.region.geometry;
    const byAddress = Array.from({ length: this.count }, (_, row) => row);
    byAddress.sort((a, b) => this.#rows.start.get(a) - this.#rows.start.get(b));
    this.#joined = this.#join(byAddress);
    this.#byClass = Array.from({ length: frameClasses }, (_, freeList) => {
      const list = this.#join(byAddress.filter((row) => this.#rows.freeList.get(row) === freeList));
      if (this.#all.bigFirst.get(0) === 1) list.sort((a, b) => a.high - a.low - (b.high - b.low));
      return list;
    });
    this.#generation = generation;
  }

  #join(rowsByAddress: readonly number[]): Stretch[] {
    const { bankFrames } = this.#thread.region.geometry;
    const list: { low: number; high: number }[] = [];
    for (const row of rowsByAddress) {
      let low = this.#rows.availableStart.get(row);
      const high = this.#rows.availableEnd.get(row);
      const last = list[list.length - 1];
      while (low < high) {
        const end = Math.min(high, (Math.floor(low / bankFrames) + 1) * bankFrames);
        if (last !== undefined && last.high === low && low % bankFrames !== 0) last.high = end;
        else list.push({ low, high: end });
        low = end;
      }
    }
    return list;
  }
}
