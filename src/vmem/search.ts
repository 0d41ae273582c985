/**
 * Searching the free segments of an arena.
 *
 * PROBLEM     Choose a free segment for a request, in the order that the strategies promise.
 * STRUCTURE   instant   from the first class in which every segment is large enough, the newest of each class; else best
 *             best      from the class that the size belongs to, each class from the newest: the first that fits
 *             exact, next   see search-trees.ts
 *
 *             Classes and bins that are empty are skipped through the maps. `best` goes through the bins of a class instead
 *             of the class: what it looks for is the newest that fits, so each bin is left at the first segment that fits or
 *             is older than the best one so far. Only the bin that the size itself belongs to can hold segments that are too
 *             small; when passing those has cost more than trees would, the arena keeps trees by size (free-index.ts).
 *             A constrained request that nothing fits is remembered: see refused.ts.
 * LOCKING     The arena's lock; the section has logged nothing yet.
 * COSTS       Instant: one tag per bin of one class. Best, without constraints: the same, and in the bin of the size at most
 *             16 or 2 ln n steps, whichever is more, on average over many requests; none up to 31 quanta, where a bin is one
 *             size. Under constraints every segment that is large enough may be looked at, once until others come.
 * FAILURE     0: no free segment can hold the request.
 * REFERENCES  Bonwick and Adams 2001, section 4.4.2; docs/differences.md.
 */

import { isPowerOfTwo } from '../base/index.ts';
import {
  ARENA_BIN_MAP,
  ARENA_FREE_HEAD,
  BIN_MASK,
  BIN_SHIFT,
  INDEX_TREES,
  TAG_DOUBLE_SHIFT,
  TAG_LINK_NEXT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_STAMP,
  TAG_START,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { noteWalk, sizeRootAt, TREE_SIZE } from './free-index.ts';
import { binOf, firstListFrom, isNewer, newestOf, orderOf } from './free-lists.ts';
import { COUNT_PASSED, STRATEGY_EXACT, STRATEGY_INSTANT, STRATEGY_NEXT, type TagIndex } from './kinds.ts';
import { noteRefused, refusedBefore } from './refused.ts';
import { searchExact, searchNext } from './search-trees.ts';

/** A free segment for a request, by a strategy; 0 when no free segment can hold it. */
export function findSegment(
  core: ArenaCore,
  size: number,
  strategy: number,
  constraints: Constraints | null,
): TagIndex {
  if (strategy === STRATEGY_INSTANT) {
    const tag = searchInstant(core, size, constraints);
    if (tag !== 0) {
      if (constraints !== null) countPassed(core, tag);
      return tag;
    }
  }
  const known = constraints !== null && refusedBefore(core, size, constraints);
  const tag = known ? 0 : searchOn(core, size, strategy, constraints);
  if (!known && tag === 0 && constraints !== null) noteRefused(core, size, constraints);
  countPassed(core, tag);
  return tag;
}

/** Counts what was looked at in vain. The plain instant request, which takes the first segment that it sees, does not come here. */
function countPassed(core: ArenaCore, taken: TagIndex): void {
  const passed = core.looked - (taken === 0 ? 0 : 1);
  core.looked = 0;
  if (passed > 0) core.count(COUNT_PASSED, passed);
}

function searchOn(core: ArenaCore, size: number, strategy: number, constraints: Constraints | null): TagIndex {
  switch (strategy) {
    case STRATEGY_EXACT:
      return searchExact(core, size, constraints);
    case STRATEGY_NEXT:
      return searchNext(core, size, constraints);
    default:
      return searchBest(core, size, constraints);
  }
}

/** The newest segment of the first class whose segments are all large enough, or 0. */
function searchInstant(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  const floor = orderOf(core, size);
  const first = isPowerOfTwoQuanta(core, size) ? floor : floor + 1;
  for (let order = firstListFrom(core, first); order >= 0; order = firstListFrom(core, order + 1)) {
    const tag = newestOf(core, order);
    if (constraints === null) return tag;
    core.looked++;
    if (fits(core, tag, size, constraints)) return tag;
  }
  return 0;
}

/** The newest segment that fits, of the lowest class that has one, or 0. */
function searchBest(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  const floor = orderOf(core, size);
  for (let order = firstListFrom(core, floor); order >= 0; order = firstListFrom(core, order + 1)) {
    const firstBin = order === floor ? binOf(core, size) & BIN_MASK : 0;
    const tag = newestFitting(core, order, firstBin, size, constraints);
    if (tag !== 0) return tag;
  }
  return 0;
}

/** The newest segment that fits among the bins of a class from `firstBin` on, or 0. Higher bins first: all of theirs are large. */
function newestFitting(
  core: ArenaCore,
  order: number,
  firstBin: number,
  size: number,
  constraints: Constraints | null,
): TagIndex {
  const { words, doubles, base } = core;
  const headsAt = base + ARENA_FREE_HEAD + (order << BIN_SHIFT);
  let newest = 0;
  let newestStamp = 0;
  let looked = 0;
  for (let bins = (words[base + ARENA_BIN_MAP + order] as number) & (-1 << firstBin); bins !== 0; ) {
    const bin = 31 - Math.clz32(bins);
    bins &= ~(1 << bin);
    let tag = words[headsAt + bin] as number;
    if (constraints === null && (doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number) < size) {
      tag = newestLarge(core, (order << BIN_SHIFT) + bin, tag, size);
    }
    for (; tag !== 0; tag = words[(tag << TAG_SHIFT) | TAG_LINK_NEXT] as number) {
      const stamp = words[(tag << TAG_SHIFT) | TAG_STAMP] as number;
      looked++;
      if (newest !== 0 && !isNewer(stamp, newestStamp)) break;
      if (constraints !== null) {
        if ((doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number) < size) continue;
        if (!fits(core, tag, size, constraints)) continue;
      }
      newest = tag;
      newestStamp = stamp;
      break;
    }
  }
  core.looked += looked;
  return newest;
}

/** The newest of a bin, whose head is too small, that is large enough, or 0. */
function newestLarge(core: ArenaCore, bin: number, head: TagIndex, size: number): TagIndex {
  const { words, doubles } = core;
  if (((words[core.indexAt + INDEX_TREES] as number) & TREE_SIZE) !== 0) {
    const newest = core.trees.size.newestAtLeast(words[sizeRootAt(core, bin)] as number, size);
    core.looked += core.trees.size.takeSteps();
    return newest;
  }
  let tag = head;
  let steps = 0;
  while (tag !== 0 && (doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number) < size) {
    tag = words[(tag << TAG_SHIFT) | TAG_LINK_NEXT] as number;
    steps++;
  }
  core.looked += steps;
  noteWalk(core, steps);
  return tag;
}

function fits(core: ArenaCore, tag: TagIndex, size: number, constraints: Constraints): boolean {
  const start = core.doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_START] as number;
  const segmentSize = core.doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number;
  return fitSegment(start, segmentSize, size, constraints) >= 0;
}

/** True when every segment of the size's own class is large enough: the size is the smallest of that class. */
function isPowerOfTwoQuanta(core: ArenaCore, size: number): boolean {
  const quanta = size * core.inverseQuantum;
  if (quanta <= 0x7fffffff) return (quanta & (quanta - 1)) === 0;
  return isPowerOfTwo(quanta);
}
