/**
 * Free segments of an arena, by size.
 *
 * PROBLEM     Find the newest free segment of a size class, or the newest in it that is large enough for a request, without
 *             looking at many, from any thread.
 * STRUCTURE   Class k holds the segments with 2^k <= size / quantum < 2^(k+1), in 16 bins of equal width (one per size up to
 *             31 quanta). A bin is a list, newest first; every segment bears a stamp of when it came, so that the newest of
 *             a class is the newest of its bins' heads, and the class in the order of coming is a merge of its bins.
 *
 *               freemap   0010 0110            classes that are not empty
 *               binmap[5] 0000 1000 0000 0011  bins of class 5: [32,33] [34,35] ... [62,63]
 *               head[5][0] -> tag 90 <-> tag 17 <-> tag 3      head[5][1] -> tag 88      head[5][11] -> tag 91
 *
 *             Maps and the newest of each class follow from the heads, and are not logged. An undo leaves `mapsStale` set, and
 *             the next section makes them anew.
 * INVARIANTS  I1 a bit of a map is set if and only if what it stands for is not empty.   I2 every listed tag is free.
 *             I3 a tag is in the bin of its size.   I4 links go both ways; the head has no predecessor.
 *             I5 stamps descend in a bin.   I6 the newest of a class is known from when it came until it is taken.
 * LOCKING     The arena's lock. The header words of the arena are logged by the caller (`saveHeader`), and so is the tag
 *             itself unless it is fresh; neighbours and heads are logged here.
 * COSTS       Insert and remove touch at most three tags. The newest of a class: known, or one tag per bin in use.
 * FAILURE     A broken link is an `InvariantError`. Stamps wrap: segments that came more than 2^31 others apart may be taken
 *             in another order.
 * REJECTED    One list per class (a request that its newest segments cannot hold walks past all of them: 10 us among 10^5
 *             segments); bins beside such a list (twice the links to keep, and to log).
 * REFERENCES  Bonwick and Adams 2001, section 4.4; Masmano et al. 2004, TLSF, for bins of a class.
 */

import { assert, log2Floor } from '../base/index.ts';
import {
  ARENA_BIN_MAP,
  ARENA_FREE_HEAD,
  ARENA_FREE_MAP,
  ARENA_FREE_MAP_HIGH,
  ARENA_MAPS_STALE,
  ARENA_NEWEST,
  ARENA_STAMP_NEXT,
  BIN_MASK,
  BIN_SHIFT,
  INDEX_TREES,
  ORDER_LANES,
  TAG_DOUBLE_SHIFT,
  TAG_LINK_NEXT,
  TAG_LINK_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_STAMP,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { indexInsert, indexRemove } from './free-index.ts';
import type { TagIndex } from './kinds.ts';

/** Number of the class for a size. */
export function orderOf(core: ArenaCore, size: number): number {
  return log2Floor(size * core.inverseQuantum);
}

/** Number of the bin for a size, counted over all classes. */
export function binOf(core: ArenaCore, size: number): number {
  const exact = size * core.inverseQuantum;
  if (exact > 0x7fffffff) return binOfLarge(exact);
  const quanta = exact | 0;
  const order = 31 - Math.clz32(quanta);
  const part = order < BIN_SHIFT ? quanta << (BIN_SHIFT - order) : quanta >> (order - BIN_SHIFT);
  return (order << BIN_SHIFT) + (part & BIN_MASK);
}

function binOfLarge(quanta: number): number {
  const order = log2Floor(quanta);
  return (order << BIN_SHIFT) + (Math.floor(quanta / 2 ** (order - BIN_SHIFT)) & BIN_MASK);
}

/** Word address of the freemap's word for a class. */
function mapWord(base: number, order: number): number {
  return order < 32 ? base + ARENA_FREE_MAP : base + ARENA_FREE_MAP_HIGH;
}

/** Puts a free tag at the head of its bin, with a stamp. */
export function freeListInsert(core: ArenaCore, tag: TagIndex): void {
  const { words, journal, base } = core;
  const bin = binOf(core, core.doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number);
  const record = tag << TAG_SHIFT;
  const headAt = base + ARENA_FREE_HEAD + bin;
  const head = words[headAt] as number;
  const order = bin >>> BIN_SHIFT;
  words[record | TAG_LINK_PREVIOUS] = 0;
  words[record | TAG_LINK_NEXT] = head;
  words[record | TAG_STAMP] = words[base + ARENA_STAMP_NEXT]!++;
  if (head === 0) {
    journal.log1(headAt);
    words[base + ARENA_BIN_MAP + order]! |= 1 << (bin & BIN_MASK);
    words[mapWord(base, order)]! |= 1 << (order & 31);
  } else {
    const backAt = (head << TAG_SHIFT) | TAG_LINK_PREVIOUS;
    assert(words[backAt] === 0, 'vmem/free-lists I4: the head has no predecessor');
    journal.log2(headAt, backAt);
    words[backAt] = tag;
  }
  words[headAt] = tag;
  words[base + ARENA_NEWEST + order] = tag;
  if (words[core.indexAt + INDEX_TREES] !== 0) indexInsert(core, tag, bin);
}

/** Takes a free tag out of its bin. Its own links are left as they are. */
export function freeListRemove(core: ArenaCore, tag: TagIndex): void {
  const { words, journal, base } = core;
  if (words[core.indexAt + INDEX_TREES] !== 0) indexRemove(core, tag);
  const record = tag << TAG_SHIFT;
  const previous = words[record | TAG_LINK_PREVIOUS] as number;
  const next = words[record | TAG_LINK_NEXT] as number;
  const backAt = (next << TAG_SHIFT) | TAG_LINK_PREVIOUS;
  assert(next === 0 || words[backAt] === tag, 'vmem/free-lists I4: the successor points back');
  if (previous !== 0) {
    const forwardAt = (previous << TAG_SHIFT) | TAG_LINK_NEXT;
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
  const bin = binOf(core, core.doubles[(tag << TAG_DOUBLE_SHIFT) | TAG_SIZE] as number);
  const order = bin >>> BIN_SHIFT;
  const newestAt = base + ARENA_NEWEST + order;
  if (words[newestAt] === tag) words[newestAt] = 0;
  const headAt = base + ARENA_FREE_HEAD + bin;
  assert(words[headAt] === tag, 'vmem/free-lists I3: a tag is in the bin of its size');
  if (next === 0) {
    const binMapAt = base + ARENA_BIN_MAP + order;
    journal.log1(headAt);
    const bins = (words[binMapAt] as number) & ~(1 << (bin & BIN_MASK));
    words[binMapAt] = bins;
    if (bins === 0) words[mapWord(base, order)]! &= ~(1 << (order & 31));
  } else {
    journal.log2(headAt, backAt);
    words[backAt] = 0;
  }
  words[headAt] = next;
}

/** Makes the maps anew, and forgets which segment is the newest of its class. Under the lock; may be repeated. */
export function rebuildMaps(core: ArenaCore): void {
  const { words, base } = core;
  let low = 0;
  let high = 0;
  for (let order = 0; order < ORDER_LANES; order++) {
    let bins = 0;
    for (let bin = 0; bin <= BIN_MASK; bin++) {
      if (words[base + ARENA_FREE_HEAD + (order << BIN_SHIFT) + bin] !== 0) bins |= 1 << bin;
    }
    words[base + ARENA_BIN_MAP + order] = bins;
    words[base + ARENA_NEWEST + order] = 0;
    if (bins !== 0 && order < 32) low |= 1 << order;
    else if (bins !== 0) high |= 1 << (order - 32);
  }
  words[base + ARENA_FREE_MAP] = low;
  words[base + ARENA_FREE_MAP_HIGH] = high;
  words[base + ARENA_MAPS_STALE] = 0;
}

/** The first class from `order` on that is not empty, or -1. */
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

/** True when the first of two stamps was given later. */
export function isNewer(first: number, second: number): boolean {
  return ((first - second) | 0) > 0;
}

/** Number of the lowest bit that is set. */
function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

/** The newest tag of a class that is not empty. */
export function newestOf(core: ArenaCore, order: number): TagIndex {
  const { words, base } = core;
  const known = words[base + ARENA_NEWEST + order] as number;
  return known !== 0 ? known : newestOfBins(core, order);
}

function newestOfBins(core: ArenaCore, order: number): TagIndex {
  const { words, base } = core;
  const headsAt = base + ARENA_FREE_HEAD + (order << BIN_SHIFT);
  let bins = words[base + ARENA_BIN_MAP + order] as number;
  let newest = words[headsAt + lowestBit(bins)] as number;
  for (bins &= bins - 1; bins !== 0; bins &= bins - 1) {
    const tag = words[headsAt + lowestBit(bins)] as number;
    const stamp = words[(tag << TAG_SHIFT) | TAG_STAMP] as number;
    if (isNewer(stamp, words[(newest << TAG_SHIFT) | TAG_STAMP] as number)) newest = tag;
  }
  return newest;
}

/** The tags of a class, newest first. Cold: sorts. */
export function listClass(core: ArenaCore, order: number): TagIndex[] {
  const { words, base } = core;
  const tags: TagIndex[] = [];
  const first = base + ARENA_FREE_HEAD + (order << BIN_SHIFT);
  for (let bin = 0; bin <= BIN_MASK; bin++) {
    for (let tag = words[first + bin] as number; tag !== 0; ) {
      tags.push(tag);
      tag = words[(tag << TAG_SHIFT) | TAG_LINK_NEXT] as number;
    }
  }
  const stampOf = (tag: TagIndex) => words[(tag << TAG_SHIFT) | TAG_STAMP] as number;
  return tags.sort((a, b) => (stampOf(b) - stampOf(a)) | 0);
}
