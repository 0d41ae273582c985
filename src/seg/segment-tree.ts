/**
 * The segments of a space by address: a treap.
 *
 * PROBLEM     Every fault asks which segment an address lies in; segments come, go and are cut, and a thread may die while
 *             it links one.
 * STRUCTURE   A binary tree threaded through the segments' rows: keys are first addresses, priorities are hashes of them, so
 *             that the shape depends on the addresses alone and is balanced by chance.
 * INVARIANTS  I1 in-order addresses ascend, and segments do not overlap.   I2 no child has a higher priority than its parent.
 * LOCKING     Changed while the space is held exclusively, journaled; walked by whoever holds it shared.
 * COSTS       Expected 2 ln n steps; a change logs one word for each.
 * FAILURE     None.
 * REJECTED    The tree of spans in vmem: its rows are boundary tags. A balanced tree: more cases, more journal entries.
 * REFERENCES  Seidel and Aragon 1996, randomized search trees; illumos vm_as.c (an AVL tree).
 */

import { assert } from '../base/assert.ts';
import type { Int32Column } from '../layout/column.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Thread } from '../sync/index.ts';
import type { SegmentIndex, SpaceIndex } from './space-kinds.ts';

/** A place that names a segment: the root of a space, or a child of a segment. */
interface Link {
  column: Int32Column;
  row: number;
}

/** The trees as one thread sees them. */
export class SegmentTree {
  private readonly thread: Thread;
  private readonly spaces: BoundTables['addressSpace'];
  private readonly segments: BoundTables['segment'];

  constructor(thread: Thread) {
    this.thread = thread;
    this.spaces = thread.region.tables.addressSpace;
    this.segments = thread.region.tables.segment;
  }

  /** The segment with the highest first address that is not above `address`, or -1. */
  atOrBelow(space: SpaceIndex, address: number): SegmentIndex {
    const { base, left, right } = this.segments;
    let found = 0;
    for (let link = this.spaces.root.get(space); link !== 0; ) {
      if (base.get(link - 1) <= address) {
        found = link;
        link = right.get(link - 1);
      } else {
        link = left.get(link - 1);
      }
    }
    return found - 1;
  }

  /** The segment that an address lies in, or -1. */
  find(space: SpaceIndex, address: number): SegmentIndex {
    const segment = this.atOrBelow(space, address);
    if (segment < 0) return -1;
    return address < this.segments.base.get(segment) + this.segments.size.get(segment) ? segment : -1;
  }

  /** The segment with the lowest first address that is not below `address`, or -1. */
  atOrAbove(space: SpaceIndex, address: number): SegmentIndex {
    const { base, left, right } = this.segments;
    let found = 0;
    for (let link = this.spaces.root.get(space); link !== 0; ) {
      if (base.get(link - 1) >= address) {
        found = link;
        link = left.get(link - 1);
      } else {
        link = right.get(link - 1);
      }
    }
    return found - 1;
  }

  /** The lowest segment that shares an address with `[start, end)`, or -1. */
  firstIn(space: SpaceIndex, start: number, end: number): SegmentIndex {
    const below = this.find(space, start);
    if (below >= 0) return below;
    const above = this.atOrAbove(space, start);
    return above >= 0 && this.segments.base.get(above) < end ? above : -1;
  }

  /** All segments of a space in the order of addresses. */
  list(space: SpaceIndex): SegmentIndex[] {
    const found: SegmentIndex[] = [];
    const open: SegmentIndex[] = [];
    const { left, right } = this.segments;
    for (let link = this.spaces.root.get(space); link !== 0 || open.length > 0; ) {
      if (link !== 0) {
        open.push(link - 1);
        link = left.get(link - 1);
        continue;
      }
      const segment = open.pop() as SegmentIndex;
      found.push(segment);
      link = right.get(segment);
    }
    return found;
  }

  /** Journaled: puts a segment into the tree. Its base is stored; nobody else overlaps it. */
  insert(space: SpaceIndex, segment: SegmentIndex): void {
    const { journal } = this.thread;
    const { base, left, right } = this.segments;
    const address = base.get(segment);
    const priority = priorityOf(address);
    // 1. Down to the first segment with a lower priority: the new one takes its place.
    const place: Link = { column: this.spaces.root, row: space };
    let link = place.column.get(place.row);
    while (link !== 0 && priorityOf(base.get(link - 1)) >= priority) {
      place.column = base.get(link - 1) < address ? right : left;
      place.row = link - 1;
      link = place.column.get(place.row);
    }
    journal.set(place.column, place.row, segment + 1);
    // 2. What was there is split by the address into the two sides of the new one.
    const lower: Link = { column: left, row: segment };
    const upper: Link = { column: right, row: segment };
    while (link !== 0) {
      const below = base.get(link - 1) < address;
      const side = below ? lower : upper;
      journal.set(side.column, side.row, link);
      side.column = below ? right : left;
      side.row = link - 1;
      link = side.column.get(side.row);
    }
    journal.set(lower.column, lower.row, 0);
    journal.set(upper.column, upper.row, 0);
  }

  /** Journaled: takes a segment out of the tree. */
  remove(space: SpaceIndex, segment: SegmentIndex): void {
    const { journal } = this.thread;
    const { base, left, right } = this.segments;
    const address = base.get(segment);
    const place: Link = { column: this.spaces.root, row: space };
    for (let link = place.column.get(place.row); link !== segment + 1; link = place.column.get(place.row)) {
      assert(link !== 0, 'seg/segment-tree I1: a segment is found by its address');
      place.column = base.get(link - 1) < address ? right : left;
      place.row = link - 1;
    }
    // Its two sides are merged into its place, the higher priority first.
    let lower = left.get(segment);
    let upper = right.get(segment);
    while (lower !== 0 && upper !== 0) {
      const takeLower = priorityOf(base.get(lower - 1)) >= priorityOf(base.get(upper - 1));
      const taken = takeLower ? lower : upper;
      journal.set(place.column, place.row, taken);
      place.column = takeLower ? right : left;
      place.row = taken - 1;
      if (takeLower) lower = right.get(taken - 1);
      else upper = left.get(taken - 1);
    }
    journal.set(place.column, place.row, lower !== 0 ? lower : upper);
  }

  /** Appends what is wrong with a space's tree to `problems`. */
  check(space: SpaceIndex, problems: string[]): void {
    const { base, size, left, right } = this.segments;
    let end = 0;
    for (const segment of this.list(space)) {
      if (base.get(segment) < end) problems.push(`seg/segment-tree I1: segment ${segment} of space ${space} overlaps`);
      end = base.get(segment) + size.get(segment);
      for (const child of [left.get(segment), right.get(segment)]) {
        if (child !== 0 && priorityOf(base.get(child - 1)) > priorityOf(base.get(segment))) {
          problems.push(`seg/segment-tree I2: segment ${child - 1} stands below ${segment}`);
        }
      }
    }
  }
}

/** A hash of an address: equal for equal addresses only by chance. */
function priorityOf(address: number): number {
  const low = address % 4294967296;
  let mixed = Math.imul(low ^ Math.imul((address - low) / 4294967296, 0x9e3779b1), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
