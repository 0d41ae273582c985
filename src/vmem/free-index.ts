/**
 * The index of an arena's free segments: trees beside the bins, for arenas that have use for them.
 *
 * PROBLEM     Trees cost every operation some dozen steps; most arenas need none. An arena may be asked by any strategy at any
 *             time, and best fit may meet sizes for which a bin is a long walk.
 * STRUCTURE   A tree by size for every bin, and a tree by address: see free-tree.ts. Which of the two an arena keeps is in
 *             `trees`; an arena keeps the one of its own strategy from the start, and another from when it is first asked
 *             for. Best fit asks when what it has walked would have paid for it: a tree of sizes costs each operation 400 to
 *             2000 ns more (among 10^3 and 10^5 segments of 1 to 65536 quanta, measured), so that short walks do not count.
 * INVARIANTS  I1 a tree that is kept holds every free segment.   I2 what a tree that is not kept says means nothing.
 * LOCKING     The arena's lock.
 * COSTS       To begin: n log n, once, under the lock. Then 2 ln n steps for each segment that comes or goes.
 * FAILURE     A death while a tree is made leaves it not kept.
 * REJECTED    Trees instead of the bins: the traces pin the order of coming, and instant fit would pay. Giving a tree up
 *             when nobody has asked for long: arenas that flap would make it again and again.
 * REFERENCES  free-tree.ts; free-lists.ts.
 */

import {
  ARENA_BUSY_TAGS,
  ARENA_SPAN_COUNT,
  BIN_LANES,
  BIN_MASK,
  BIN_SHIFT,
  INDEX_PLACE_ROOT,
  INDEX_SIZE_ROOT,
  INDEX_TREES,
  INDEX_WALKED,
  ORDER_LANES,
  PLACE_SHIFT,
  TAG_BIN_PREVIOUS,
  TAG_DOUBLE_SHIFT,
  TAG_SHIFT,
  TAG_SIZE,
  type WordAddress,
} from '../layout/index.ts';
import type { Thread } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { binOf, listClass } from './free-lists.ts';
import { FreeTree } from './free-tree.ts';
import { type ArenaIndex, STRATEGY_EXACT, STRATEGY_NEXT, type TagIndex } from './kinds.ts';
import { tagOfRow } from './tag-chunks.ts';

/** Trees by size are kept. */
export const TREE_SIZE = 1;
/** The tree by address is kept. */
export const TREE_PLACE = 2;

/** Segments that a walk of best fit may pass and not be counted: keeping trees would cost as much. */
const WALK_CREDIT = 16;

/** Segments passed beyond that, for each tag of the arena, before trees by size are worth their making. */
const WALK_RATIO = 8;

/** The same, in any case. */
const WALK_FREE = 4096;

/** The trees of a thread. */
export interface FreeTrees {
  /** One for each bin: `sizeRoot`. */
  readonly size: FreeTree;
  /** One for each arena: `placeRoot`. */
  readonly place: FreeTree;
}

/** The trees of a thread: nothing in them is an arena's. */
export function freeTreesOf(thread: Thread): FreeTrees {
  const { tables } = thread.region;
  const placesAt = tables.tagPlace.left.address(0) - (tagOfRow(tables, 0) << PLACE_SHIFT);
  return {
    size: new FreeTree(thread, true, TAG_BIN_PREVIOUS, TAG_SHIFT),
    place: new FreeTree(thread, false, placesAt, PLACE_SHIFT),
  };
}

/** Empties the index of a row that nobody can reach, for an arena that will be made with a strategy. */
export function clearIndex(thread: Thread, row: ArenaIndex, strategy: number): void {
  const { arenaIndex } = thread.region.tables;
  const at = arenaIndex.trees.address(row) - INDEX_TREES;
  // Roots by size that are not kept mean nothing: whoever makes the trees clears them.
  thread.words.fill(0, at, at + INDEX_SIZE_ROOT + (strategy === STRATEGY_EXACT ? BIN_LANES : 0));
  if (strategy === STRATEGY_EXACT) arenaIndex.trees.put(row, TREE_SIZE);
  else if (strategy === STRATEGY_NEXT) arenaIndex.trees.put(row, TREE_PLACE);
}

/** Word address of the root of a bin's tree. */
export function sizeRootAt(core: ArenaCore, bin: number): WordAddress {
  return core.indexAt + INDEX_SIZE_ROOT + bin;
}

/** Root of the tree by address. */
export function placeRoot(core: ArenaCore): TagIndex {
  return core.words[core.indexAt + INDEX_PLACE_ROOT] as number;
}

/** A segment that has come to a bin comes to the trees that are kept. */
export function indexInsert(core: ArenaCore, tag: TagIndex, bin: number): void {
  const trees = core.words[core.indexAt + INDEX_TREES] as number;
  if ((trees & TREE_SIZE) !== 0) core.trees.size.insert(sizeRootAt(core, bin), tag);
  if ((trees & TREE_PLACE) !== 0) core.trees.place.insert(core.indexAt + INDEX_PLACE_ROOT, tag);
}

/** A segment that leaves its bin leaves the trees. */
export function indexRemove(core: ArenaCore, tag: TagIndex): void {
  const trees = core.words[core.indexAt + INDEX_TREES] as number;
  const bin = binOf(core, core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number);
  if ((trees & TREE_SIZE) !== 0) core.trees.size.remove(sizeRootAt(core, bin), tag);
  if ((trees & TREE_PLACE) !== 0) core.trees.place.remove(core.indexAt + INDEX_PLACE_ROOT, tag);
}

/** Sees to it that a tree is kept. In a section that has logged nothing; commits. */
export function requireTree(core: ArenaCore, tree: number): void {
  if (((core.words[core.indexAt + INDEX_TREES] as number) & tree) === 0) makeTree(core, tree);
}

/** Counts what best fit had to pass beyond what trees would cost as well. In a section that has logged nothing. */
export function noteWalk(core: ArenaCore, steps: number): void {
  const { words, base } = core;
  const walked = Math.max(0, (words[core.indexAt + INDEX_WALKED] as number) + steps - WALK_CREDIT);
  const tags = (words[base + ARENA_BUSY_TAGS] as number) + (words[base + ARENA_SPAN_COUNT] as number);
  if (walked < WALK_FREE + WALK_RATIO * tags) words[core.indexAt + INDEX_WALKED] = walked;
  else requireTree(core, TREE_SIZE);
}

function makeTree(core: ArenaCore, tree: number): void {
  const { words, thread, journal } = core;
  // Nobody reads a tree that is not kept: each step is final at once, and a death leaves what the next maker clears.
  if (tree === TREE_PLACE) words[core.indexAt + INDEX_PLACE_ROOT] = 0;
  else words.fill(0, sizeRootAt(core, 0), sizeRootAt(core, BIN_LANES));
  for (let order = 0; order < ORDER_LANES; order++) {
    for (const tag of listClass(core, order)) {
      const bin = binOf(core, core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number);
      if (tree === TREE_SIZE) core.trees.size.insert(sizeRootAt(core, bin), tag);
      else core.trees.place.insert(core.indexAt + INDEX_PLACE_ROOT, tag);
      thread.commit();
    }
  }
  journal.log1(core.indexAt + INDEX_TREES);
  words[core.indexAt + INDEX_TREES]! |= tree;
  thread.commit();
}

/** Broken invariants of the trees that are kept. Under the lock. */
export function checkIndex(core: ArenaCore): string[] {
  const trees = core.words[core.indexAt + INDEX_TREES] as number;
  const problems: string[] = [];
  const all: TagIndex[] = [];
  for (let order = 0; order < ORDER_LANES; order++) {
    const tags = listClass(core, order);
    for (const tag of tags) all.push(tag);
    if ((trees & TREE_SIZE) === 0) continue;
    const byBin: TagIndex[][] = Array.from({ length: BIN_MASK + 1 }, () => []);
    for (const tag of tags)
      byBin[binOf(core, core.doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number) & BIN_MASK]?.push(tag);
    byBin.forEach((held, bin) => {
      const root = core.words[sizeRootAt(core, (order << BIN_SHIFT) + bin)] as number;
      for (const problem of core.trees.size.check(root, held)) problems.push(problem);
    });
  }
  if ((trees & TREE_PLACE) !== 0) {
    for (const problem of core.trees.place.check(placeRoot(core), all)) problems.push(problem);
  }
  return problems;
}
