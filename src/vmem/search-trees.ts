/**
 * Exact fit and next fit, by the trees of free-index.ts.
 *
 * PROBLEM     Exact fit leaves the smallest rest; next fit hands out places one behind the other, so that what was freed is
 *             used again as late as possible, as identifiers want it.
 * STRUCTURE   exact   segments by (size, address) from the size on; under constraints the first of them that fits
 *             next    a cursor, the end of the last allocation made so: 1 the rest behind the cursor of the segment that it
 *                     lies in   2 segments behind it by address   3 segments from the lowest address up to the cursor, the one
 *                     that it lies in last, and whole
 *
 *             The cursor is an address and no tag: whatever is freed, joined or removed around it, it stays good, and a thread
 *             that dies leaves it where it was.
 * LOCKING     The arena's lock; the section has logged nothing yet. The cursor is logged.
 * COSTS       2 ln n steps; under constraints as many again for each segment that is large enough but does not fit.
 * FAILURE     0: no free segment can hold the request.
 * REJECTED    A cursor in the segment list, as the sources of next fit have: it keeps neighbours apart until the next request
 *             comes by, must be moved by whoever frees, and is one more thing to repair after a death.
 * REFERENCES  illumos vmem.c, vmem_nextfit_alloc; FreeBSD subr_vmem.c, vmem_xalloc_nextfit; Knuth, TAOCP 2.5 (roving pointer).
 */

import {
  ARENA_BIN_MAP,
  BIN_MASK,
  BIN_SHIFT,
  INDEX_CURSOR,
  TAG_DOUBLE_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { placeRoot, requireTree, sizeRootAt, TREE_PLACE, TREE_SIZE } from './free-index.ts';
import { binOf, firstListFrom } from './free-lists.ts';
import type { TagIndex } from './kinds.ts';

/** The smallest segment that fits, the lowest among equals, or 0. */
export function searchExact(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  requireTree(core, TREE_SIZE);
  const { words, base } = core;
  const firstBin = binOf(core, size);
  const floor = firstBin >>> BIN_SHIFT;
  for (let order = firstListFrom(core, floor); order >= 0; order = firstListFrom(core, order + 1)) {
    let bins = words[base + ARENA_BIN_MAP + order] as number;
    if (order === floor) bins &= -1 << (firstBin & BIN_MASK);
    for (; bins !== 0; bins &= bins - 1) {
      const bin = 31 - Math.clz32(bins & -bins);
      const tag = exactInBin(core, words[sizeRootAt(core, (order << BIN_SHIFT) + bin)] as number, size, constraints);
      core.looked += core.trees.size.takeSteps();
      if (tag !== 0) return tag;
    }
  }
  return 0;
}

function exactInBin(core: ArenaCore, root: TagIndex, size: number, constraints: Constraints | null): TagIndex {
  const { doubles } = core;
  let tag = core.trees.size.firstFrom(root, size, 0);
  while (tag !== 0 && constraints !== null) {
    const start = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
    const segmentSize = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
    if (fitSegment(start, segmentSize, size, constraints) >= 0) break;
    tag = core.trees.size.firstFrom(root, segmentSize, start + 1);
  }
  return tag;
}

/** The segment with the first place behind the cursor, from the lowest address when there is none, or 0. */
export function searchNext(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  requireTree(core, TREE_PLACE);
  const { place } = core.trees;
  const root = placeRoot(core);
  const cursor = core.doubles[core.indexDouble + INDEX_CURSOR] as number;
  const around = place.lastBelow(root, cursor);
  const inPlace = around !== 0 && nextPlace(core, around, size, constraints, false) >= 0;
  const tag = inPlace
    ? around
    : firstFitting(core, root, size, constraints, cursor, Infinity) ||
      firstFitting(core, root, size, constraints, 0, cursor);
  core.looked += place.takeSteps();
  return tag;
}

/** The first segment that fits among those that start from `from` on and below `end`, or 0. */
function firstFitting(
  core: ArenaCore,
  root: TagIndex,
  size: number,
  constraints: Constraints | null,
  from: number,
  end: number,
): TagIndex {
  const { doubles } = core;
  const { place } = core.trees;
  let tag = place.firstLargeFrom(root, from, size);
  while (tag !== 0) {
    const start = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
    if (start >= end) return 0;
    if (nextPlace(core, tag, size, constraints, true) >= 0) return tag;
    tag = place.firstLargeFrom(root, start + 1, size);
  }
  return 0;
}

/** The address in a segment that next fit takes: behind the cursor when it fits there, else (if `whole`) anywhere; or -1. */
export function nextPlace(
  core: ArenaCore,
  tag: TagIndex,
  size: number,
  constraints: Constraints | null,
  whole: boolean,
): number {
  const { doubles } = core;
  const cursor = doubles[core.indexDouble + INDEX_CURSOR] as number;
  const start = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
  const segmentSize = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  const rest = start + segmentSize - cursor;
  if (start < cursor && rest >= size) {
    const behind = constraints === null ? cursor : fitSegment(cursor, rest, size, constraints);
    if (behind >= 0) return behind;
  }
  if (!whole && start < cursor) return -1;
  if (segmentSize < size) return -1;
  return constraints === null ? start : fitSegment(start, segmentSize, size, constraints);
}

/** Moves the cursor behind an allocation. In the section that made it. */
export function moveCursor(core: ArenaCore, address: number): void {
  core.journal.logRange(core.indexAt + 2 * INDEX_CURSOR, 2);
  core.doubles[core.indexDouble + INDEX_CURSOR] = address;
}
