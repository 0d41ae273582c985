/**
 * Searching the free lists of an arena.
 *
 * PROBLEM     Choose a free segment for a request, in the order that the strategies promise.
 * STRUCTURE   instant   from the first list in which every segment is large enough, the newest of each list
 *             best      from the list that the size belongs to, each list from the newest: the first that fits
 *
 *             Lists that are empty are skipped through the freemap. A request without constraints fits in any segment that
 *             is large enough, so its search ends at the first head above its own list.
 * LOCKING     The arena's lock. Nothing is stored.
 * COSTS       Instant: a few bit operations. Best: the segments of the request's own list that are too small.
 * FAILURE     0: no free segment can hold the request (after `best`).
 * REFERENCES  Bonwick and Adams 2001, section 4.4.2; docs/differences.md.
 */

import { isPowerOfTwo } from '../base/index.ts';
import { ARENA_FREE_HEAD, TAG_DOUBLE_SHIFT, TAG_LINK_NEXT, TAG_SHIFT, TAG_SIZE, TAG_START } from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { firstListFrom, orderOf } from './free-lists.ts';
import type { TagIndex } from './kinds.ts';

/** The newest segment of the first list whose segments are all large enough, or 0. */
export function searchInstant(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  const { words, base } = core;
  const floor = orderOf(core, size);
  const first = isPowerOfTwoQuanta(core, size) ? floor : floor + 1;
  for (let order = firstListFrom(core, first); order >= 0; order = firstListFrom(core, order + 1)) {
    const tag = words[base + ARENA_FREE_HEAD + order] as number;
    if (constraints === null || fits(core, tag, size, constraints)) return tag;
  }
  return 0;
}

/** The newest segment that fits, of the lowest list that has one, or 0. */
export function searchBest(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  const { words, doubles, base } = core;
  const floor = orderOf(core, size);
  for (let order = firstListFrom(core, floor); order >= 0; order = firstListFrom(core, order + 1)) {
    let tag = words[base + ARENA_FREE_HEAD + order] as number;
    for (; tag !== 0; tag = words[(tag << TAG_SHIFT) + TAG_LINK_NEXT] as number) {
      if ((doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number) < size) continue;
      if (constraints === null || fits(core, tag, size, constraints)) return tag;
    }
  }
  return 0;
}

function fits(core: ArenaCore, tag: TagIndex, size: number, constraints: Constraints): boolean {
  const start = core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
  const segmentSize = core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  return fitSegment(start, segmentSize, size, constraints) >= 0;
}

/** True when every segment of the size's own list is large enough: the size is the smallest of that list. */
function isPowerOfTwoQuanta(core: ArenaCore, size: number): boolean {
  const quanta = size * core.inverseQuantum;
  if (quanta <= 0x7fffffff) return (quanta & (quanta - 1)) === 0;
  return isPowerOfTwo(quanta);
}
