/**
 * Free lists of an arena, segregated by powers of two.
 *
 * PROBLEM     Find a free segment of at least n quanta without looking at many, from any thread.
 * STRUCTURE   List k holds the segments with 2^k <= size / quantum < 2^(k+1), newest first; bit k of the freemap.
 *
 *               freemap  0010 0110        head[1] -> tag <-> tag      head[2] -> tag      head[5] -> tag <-> tag
 *
 * INVARIANTS  I1 bit k is set if and only if list k is not empty.   I2 every listed tag is free.
 *             I3 a tag is on the list of its size.   I4 links go both ways; the head has no predecessor.
 * LOCKING     The arena's lock. The header words of the arena are logged by the caller (`saveHeader`), and so is the tag
 *             itself unless it is fresh; neighbours and heads are logged here.
 * COSTS       Insert and remove touch at most three tags. Finding the first list that is not empty is two bit operations.
 * FAILURE     A broken link is an `InvariantError`.
 * REJECTED    Scanning the heads (up to 54 words for a search that fails); one tree by size (logarithmic, and the order
 *             in which segments are reused would no longer be newest first).
 * REFERENCES  Bonwick and Adams 2001, section 4.4; Knuth, TAOCP 2.5, buddy and segregated lists.
 */

import { assert, log2Floor } from '../base/index.ts';
import {
  ARENA_FREE_HEAD,
  ARENA_FREE_MAP,
  ARENA_FREE_MAP_HIGH,
  TAG_DOUBLE_SHIFT,
  TAG_LINK_NEXT,
  TAG_LINK_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import type { TagIndex } from './kinds.ts';

/** Number of the list for a size. */
export function orderOf(core: ArenaCore, size: number): number {
  return log2Floor(size * core.inverseQuantum);
}

/** Word address of the freemap's word for a list. */
function mapWord(base: number, order: number): number {
  return order < 32 ? base + ARENA_FREE_MAP : base + ARENA_FREE_MAP_HIGH;
}

/** Puts a free tag at the head of its list. */
export function freeListInsert(core: ArenaCore, tag: TagIndex): void {
  const { words, journal, base } = core;
  const order = orderOf(core, core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number);
  const record = tag << TAG_SHIFT;
  const headAt = base + ARENA_FREE_HEAD + order;
  const head = words[headAt] as number;
  words[record + TAG_LINK_PREVIOUS] = 0;
  words[record + TAG_LINK_NEXT] = head;
  if (head === 0) {
    journal.log1(headAt);
    words[mapWord(base, order)]! |= 1 << (order & 31);
  } else {
    const backAt = (head << TAG_SHIFT) + TAG_LINK_PREVIOUS;
    assert(words[backAt] === 0, 'vmem/free-lists I4: the head has no predecessor');
    journal.log2(headAt, backAt);
    words[backAt] = tag;
  }
  words[headAt] = tag;
}

/** Takes a free tag off its list. Its own links are left as they are. */
export function freeListRemove(core: ArenaCore, tag: TagIndex): void {
  const { words, journal, base } = core;
  const record = tag << TAG_SHIFT;
  const previous = words[record + TAG_LINK_PREVIOUS] as number;
  const next = words[record + TAG_LINK_NEXT] as number;
  const backAt = (next << TAG_SHIFT) + TAG_LINK_PREVIOUS;
  assert(next === 0 || words[backAt] === tag, 'vmem/free-lists I4: the successor points back');
  if (previous !== 0) {
    const forwardAt = (previous << TAG_SHIFT) + TAG_LINK_NEXT;
    assert(words[forwardAt] === tag, 'vmem/free-lists I4: the predecessor points here');
    if (next === 0) {
      journal.log1(forwardAt);
    } else {
      journal.log2(forwardAt, backAt);
      words[backAt] = previous;
    }
    words[forwardAt] = next;
    return;
  }
  const order = orderOf(core, core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number);
  const headAt = base + ARENA_FREE_HEAD + order;
  assert(words[headAt] === tag, 'vmem/free-lists I3: a tag is on the list of its size');
  if (next === 0) {
    journal.log1(headAt);
    words[mapWord(base, order)]! &= ~(1 << (order & 31));
  } else {
    journal.log2(headAt, backAt);
    words[backAt] = 0;
  }
  words[headAt] = next;
}

/** The first list from `order` on that is not empty, or -1. */
export function firstListFrom(core: ArenaCore, order: number): number {
  const { words, base } = core;
  if (order < 32) {
    const low = (words[base + ARENA_FREE_MAP] as number) & (-1 << order);
    if (low !== 0) return 31 - Math.clz32(low & -low);
  }
  const from = order < 32 ? 0 : order - 32;
  if (from > 31) return -1;
  const high = (words[base + ARENA_FREE_MAP_HIGH] as number) & (-1 << from);
  return high === 0 ? -1 : 63 - Math.clz32(high & -high);
}
