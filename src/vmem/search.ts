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

import { ARENA_WORD, TAG_DOUBLE, TAG_DOUBLE_SHIFT, TAG_SHIFT, TAG_WORD } from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { firstListFrom, orderOf } from './free-lists.ts';
import type { TagIndex } from './kinds.ts';

/** The newest segment of the first list whose segments are all large enough, or 0. */
export function searchInstant(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  const { words, base } = core;
  const floor = orderOf(core, size);
  const first = 2 ** floor * core.quantum === size ? floor : floor + 1;
  for (let order = firstListFrom(core, first); order >= 0; order = firstListFrom(core, order + 1)) {
    const tag = words[base + ARENA_WORD.freeHead + order] as number;
    if (constraints === null || fits(core, tag, size, constraints)) return tag;
  }
  return 0;
}

/** The newest segment that fits, of the lowest list that has one, or 0. */
export function searchBest(core: ArenaCore, size: number, constraints: Constraints | null): TagIndex {
  const { words, doubles, base } = core;
  const floor = orderOf(core, size);
  for (let order = firstListFrom(core, floor); order >= 0; order = firstListFrom(core, order + 1)) {
    let tag = words[base + ARENA_WORD.freeHead + order] as number;
    for (; tag !== 0; tag = words[(tag << TAG_SHIFT) + TAG_WORD.linkNext] as number) {
      if ((doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_DOUBLE.size] as number) < size) continue;
      if (constraints === null || fits(core, tag, size, constraints)) return tag;
    }
  }
  return 0;
}

function fits(core: ArenaCore, tag: TagIndex, size: number, constraints: Constraints): boolean {
  const start = core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_DOUBLE.start] as number;
  const segmentSize = core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_DOUBLE.size] as number;
  return fitSegment(start, segmentSize, size, constraints) >= 0;
}
