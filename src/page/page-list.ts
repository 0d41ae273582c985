/**
 * Lists of pages: in the order in which they were put there, with one way in and one way out.
 *
 * PROBLEM     Pages that share a fate, such as having to be written back, must be found without looking at all frames, and
 *             a page must be on one list at most.
 * STRUCTURE   Doubly linked through `pageLink`, a row per frame; heads, tails and counts by row of the table that they were
 *             given with:
 *
 *               head -> frame <-> frame <-> frame <- tail      previous of the first: PAGE_FIRST
 *               on no list: previous is one of PAGE_UNLINKED, which also says whether it was written to since it was brought
 *
 * INVARIANTS  I1 a frame is on the list of a row iff the chain from its head meets it; then it is on no other.
 *             I2 count is the length of the chain.
 * LOCKING     Everything under the mutex of the list, journaled: the caller holds it.
 * COSTS       Six journaled stores to insert, up to five to remove.
 * FAILURE     Assertions.
 * REJECTED    A map with a bit for each frame: to find the pages of one vnode it would have to look at those of all others.
 * REFERENCES  BSD vm_page queues.
 */

import { assert } from '../base/assert.ts';
import type { Int32Column } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import type { Thread } from '../sync/thread.ts';

/** What `previous` holds in the frame at the head. */
export const PAGE_FIRST = -2;

/** What `previous` holds in a frame that is on no list. */
export const PAGE_UNLINKED = {
  /** Not written to since it was brought. */
  plain: 0,
  /** Was written to since it was brought: somebody who holds it may be about to say so again. */
  written: -1,
} as const;

/** The anchors of lists: one list for each row. */
export interface ListAnchors {
  readonly head: Int32Column;
  readonly tail: Int32Column;
  readonly count: Int32Column;
}

/** Lists of one kind. */
export class PageList {
  readonly #thread: Thread;
  readonly #link: BoundTables['pageLink'];
  readonly #anchors: ListAnchors;

  constructor(thread: Thread, anchors: ListAnchors) {
    this.#thread = thread;
    this.#link = thread.region.tables.pageLink;
    this.#anchors = anchors;
  }

  /** True while the frame is on some list. */
  isLinked(frame: FrameIndex): boolean {
    const previous = this.#link.previous.get(frame);
    return previous > 0 || previous === PAGE_FIRST;
  }

  /** Pages on a list. */
  count(row: number): number {
    return this.#anchors.count.get(row);
  }

  /** The frame that was inserted first, or -1. */
  first(row: number): FrameIndex {
    return this.#anchors.head.get(row) - 1;
  }

  /** The frame inserted after this one, or -1. */
  after(frame: FrameIndex): FrameIndex {
    return this.#link.next.get(frame) - 1;
  }

  /** Puts a frame that is on no list at the tail. */
  insert(row: number, frame: FrameIndex): void {
    assert(!this.isLinked(frame), 'page/page-list I1: a frame that is inserted is on no list');
    const { journal } = this.#thread;
    const { head, tail, count } = this.#anchors;
    const last = tail.get(row) - 1;
    journal.set(this.#link.next, frame, 0);
    journal.set(this.#link.previous, frame, last < 0 ? PAGE_FIRST : last + 1);
    if (last < 0) journal.set(head, row, frame + 1);
    else journal.set(this.#link.next, last, frame + 1);
    journal.set(tail, row, frame + 1);
    journal.set(count, row, count.get(row) + 1);
  }

  /** Takes a frame off its list; `left` is a value of `PAGE_UNLINKED`. */
  remove(row: number, frame: FrameIndex, left: number): void {
    assert(this.isLinked(frame), 'page/page-list I1: a frame that is removed is on the list');
    const { journal } = this.#thread;
    const { head, tail, count } = this.#anchors;
    const next = this.#link.next.get(frame);
    const previous = this.#link.previous.get(frame);
    if (previous > 0) journal.set(this.#link.next, previous - 1, next);
    else journal.set(head, row, next);
    if (next > 0) journal.set(this.#link.previous, next - 1, previous);
    else journal.set(tail, row, Math.max(previous, 0));
    journal.set(this.#link.next, frame, 0);
    journal.set(this.#link.previous, frame, left);
    journal.set(count, row, count.get(row) - 1);
  }

  /** Puts a frame into the place of another one, which leaves the list. */
  replace(row: number, frame: FrameIndex, by: FrameIndex): void {
    assert(this.isLinked(frame) && !this.isLinked(by), 'page/page-list I1: one frame of two is on the list');
    const { journal } = this.#thread;
    const { head, tail } = this.#anchors;
    const next = this.#link.next.get(frame);
    const previous = this.#link.previous.get(frame);
    if (previous > 0) journal.set(this.#link.next, previous - 1, by + 1);
    else journal.set(head, row, by + 1);
    if (next > 0) journal.set(this.#link.previous, next - 1, by + 1);
    else journal.set(tail, row, by + 1);
    journal.set(this.#link.next, by, next);
    journal.set(this.#link.previous, by, previous);
    journal.set(this.#link.next, frame, 0);
    journal.set(this.#link.previous, frame, PAGE_UNLINKED.plain);
  }

  /** Frames of a list from the head, and what is wrong with it. For quiet points. */
  walk(row: number): { frames: FrameIndex[]; problems: string[] } {
    const frames: FrameIndex[] = [];
    const problems: string[] = [];
    let before = -1;
    for (let frame = this.first(row); frame >= 0; frame = this.after(frame)) {
      const expected = before < 0 ? PAGE_FIRST : before + 1;
      if (this.#link.previous.get(frame) !== expected) problems.push(`page/page-list I1: frame ${frame} is misplaced`);
      frames.push(frame);
      before = frame;
      if (frames.length <= this.#link.rowCount) continue;
      problems.push(`page/page-list I1: list ${row} is a circle`);
      break;
    }
    if (this.#anchors.tail.get(row) !== before + 1) problems.push(`page/page-list I1: list ${row} ends elsewhere`);
    if (frames.length !== this.count(row)) {
      problems.push(`page/page-list I2: list ${row} has ${frames.length} frames, counted ${this.count(row)}`);
    }
    return { frames, problems };
  }
}
