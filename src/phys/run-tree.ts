/**
 * Run tree: where runs of free frames of a certain length are.
 *
 * PROBLEM     Find the lowest run of n adjacent free frames, or say at once that there is none, in memory of which half is
 *             taken in the worst way; without making every single frame that comes or goes pay for it.
 * STRUCTURE   A tree over the map of free frames. A node says of its frames: free at the start, free at the end, longest
 *             run inside; the two lowest levels also say free in all. A leaf stands for 8 words of the map, every other node for 8 nodes:
 *
 *               level 2   [prefix 0 | suffix 4 | longest 300]                               16384 frames
 *               level 1   [... free 900] [...] [...] [...] [...]                   2048 each
 *               level 0   [... free 90] [...] [...] [...] [...]                          256 each
 *               map       |w w w w w w w w| ...
 *
 *             Whoever changes a word of the map marks its leaf. The next search brings marked leaves up to date, and the
 *             nodes above them as far as anything changes there. So a frame pays for one bit, and many frames of one leaf
 *             pay for it once.
 * INVARIANTS  I1 a node that is not above or at a marked leaf is what its children make it.
 *             I2 a leaf's mark has its bit in the summary of marks.
 * LOCKING     Everything under the frames' lock. Marks are journaled together with the words that they stand for. Nodes are
 *             not: a search begins with nothing logged, so what it computes is computed from committed words, and a mark
 *             goes only after all nodes above it are right: a search that dies is repeated by the next one, which finds
 *             `treeStale` set and goes all the way up.
 * COSTS       A mark: one load, two journaled stores the first time. A marked leaf: 50 to 100 ns, once per search. A search:
 *             at most 8 nodes a level on the way up and down, once for every run that is long enough but does not fit
 *             alignment or boundary. 0.07 bytes a frame.
 * FAILURE     -1 when nothing fits.
 * REJECTED    Nodes kept right all the time: 200 ns more for each single frame. Counts of free frames in all levels: they
 *             change with every frame, so that each search would go all the way up. Buddy lists: runs that are no powers of two
 *             would be found in part only, and every frame would need links.
 * REFERENCES  Segment trees with prefix, suffix and maximum; Linux and BSD keep buddy systems for this.
 */

import { assert } from '../base/assert.ts';
import { alignUp, crosses } from '../base/exact.ts';
import { RUN_FANOUT, RUN_LEAF_FRAMES, runLevels } from '../layout/phys-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import { ALL_FREE, lowestBit, onesCount, WORD_BITS } from './map-words.ts';

const LEAF_SHIFT = 8;
const LEAF_WORDS = RUN_LEAF_FRAMES / WORD_BITS;
const FANOUT_SHIFT = 3;
const FANOUT_MASK = RUN_FANOUT - 1;
/** The highest level that knows how many of its frames are free. */
const COUNTED_LEVEL = 1;

/** What a run must be: a start that is a multiple of `alignment`, no multiple of `boundary` inside; both in frames. */
export interface RunShape {
  readonly count: number;
  /** A power of two; 1 for none. */
  readonly alignment: number;
  /** A power of two; 0 for none. */
  readonly boundary: number;
}

/** Longest stretch of ones in a word: bits of `four` end four ones, and so on; the stretch is put together from these. */
function longestOnes(word: number): number {
  if (word === ALL_FREE) return WORD_BITS;
  const two = word & (word << 1);
  const four = two & (two << 2);
  const eight = four & (four << 4);
  let ends = eight & (eight << 8);
  let length = ends === 0 ? 0 : 16;
  if (ends === 0) ends = ALL_FREE;
  for (let step = 8, longer = eight; ; step >>>= 1, longer = step === 4 ? four : step === 2 ? two : word) {
    const still = ends & (longer << length);
    if (still !== 0) {
      ends = still;
      length += step;
    }
    if (step === 1) return length;
  }
}

/** Bits of a word from which on `count` bits are set. */
function startsOf(word: number, count: number): number {
  if (count > WORD_BITS) return 0;
  let starts = word;
  for (let length = 1; length < count && starts !== 0; ) {
    const step = Math.min(length, count - length);
    starts &= starts >>> step;
    length += step;
  }
  return starts;
}

/** The lowest place at or above `at` that meets alignment and boundary of a shape; `count` is at most the boundary. */
export function placeRun(at: FrameIndex, shape: RunShape): FrameIndex {
  const { count, alignment, boundary } = shape;
  const start = alignUp(at, alignment);
  if (boundary === 0 || !crosses(start, start + count - 1, boundary)) return start;
  return alignUp(alignUp(start, boundary), alignment);
}

/** The tree as one thread sees it. */
export class RunTree {
  readonly #thread: Thread;
  readonly #words: Int32Array;
  readonly #dirty: BoundTables['runDirty']['nodes'];
  readonly #dirtyGroups: BoundTables['runDirtyGroup']['words'];
  readonly #groupCount: number;
  readonly #stale: BoundTables['framePool']['treeStale'];
  readonly #prefix: Int32Array;
  readonly #suffix: Int32Array;
  readonly #longest: Int32Array;
  readonly #free: Int32Array;
  readonly #stride: number;
  /** First node, nodes, and frames of a node, by level. */
  readonly #base: readonly number[];
  readonly #nodes: readonly number[];
  readonly #size: readonly number[];
  readonly #top: number;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#words = tables.frameMap.free.view;
    this.#dirty = tables.runDirty.nodes;
    this.#dirtyGroups = tables.runDirtyGroup.words;
    this.#groupCount = tables.runDirtyGroup.rowCount;
    this.#stale = tables.framePool.treeStale;
    this.#prefix = tables.runNode.prefix.view;
    this.#suffix = tables.runNode.suffix.view;
    this.#longest = tables.runNode.longest.view;
    this.#free = tables.runNode.free.view;
    this.#stride = tables.runNode.free.stride;
    this.#nodes = runLevels(geometry.frames);
    this.#top = this.#nodes.length - 1;
    const base: number[] = [];
    const size: number[] = [];
    let next = 0;
    this.#nodes.forEach((nodes, level) => {
      base.push(next);
      size.push(RUN_LEAF_FRAMES * RUN_FANOUT ** level);
      next += nodes;
    });
    this.#base = base;
    this.#size = size;
  }

  /** Notes that a word of the map changes. Journaled; call it in the same critical section. */
  mark(word: number): void {
    const leaf = word >>> (LEAF_SHIFT - 5);
    const row = leaf >>> 5;
    const bit = 1 << (leaf & 31);
    const before = this.#dirty.get(row);
    if ((before & bit) !== 0) return;
    const { journal } = this.#thread;
    journal.set(this.#dirty, row, before | bit);
    if (before !== 0) return;
    const group = row >>> 5;
    journal.set(this.#dirtyGroups, group, this.#dirtyGroups.get(group) | (1 << (row & 31)));
  }

  /** Brings the tree up to date. Call it under the lock before a search, with nothing logged. */
  refresh(): void {
    assert(this.#thread.journal.length === 0, 'phys/run-tree: a search begins with nothing logged');
    // Set by a search that died: then a node that needs no change does not say that those above it need none.
    const thorough = this.#stale.get(0) !== 0;
    for (let group = 0; group < this.#groupCount; group++) {
      const rows = this.#dirtyGroups.get(group);
      if (rows === 0) continue;
      this.#stale.put(0, 1);
      for (let left = rows; left !== 0; left &= left - 1) {
        const row = (group << 5) + lowestBit(left);
        this.#refreshLeaves(row, this.#dirty.get(row), thorough);
        this.#dirty.put(row, 0);
      }
      this.#dirtyGroups.put(group, 0);
    }
    if (this.#stale.get(0) !== 0) this.#stale.put(0, 0);
  }

  /** Longest run of free frames anywhere. After `refresh`. */
  longest(): number {
    return this.#longest[(this.#base[this.#top] as number) * this.#stride] as number;
  }

  /** First frame of the lowest run in `[low, high)` that has the shape, or -1. After `refresh`. */
  find(shape: RunShape, low: FrameIndex, high: FrameIndex): FrameIndex {
    const { count } = shape;
    if (count > this.longest()) return -1;
    for (let at = placeRun(low, shape); at + count <= high; ) {
      const start = this.next(at, count, high);
      if (start < 0) return -1;
      at = placeRun(start, shape);
      if (at === start) return start;
    }
    return -1;
  }

  /** The lowest frame at or above `from` with which `count` free frames below `limit` begin, or -1. After `refresh`. */
  next(from: FrameIndex, count: number, limit: FrameIndex): FrameIndex {
    let start = from;
    let at = from;
    while (start + count <= limit) {
      if (at - start >= count) return start;
      if ((at & (RUN_LEAF_FRAMES - 1)) === 0) {
        // Whole nodes: up while one starts here, down where a run inside is long enough.
        let level = 0;
        let node = at >>> LEAF_SHIFT;
        while (level < this.#top && (node & FANOUT_MASK) === 0) {
          node >>>= FANOUT_SHIFT;
          level++;
        }
        for (;;) {
          if (node >= (this.#nodes[level] as number)) return -1;
          const lane = ((this.#base[level] as number) + node) * this.#stride;
          if (at - start + (this.#prefix[lane] as number) >= count) return start + count <= limit ? start : -1;
          if ((this.#longest[lane] as number) >= count) {
            if (level === 0) break;
            level--;
            node <<= FANOUT_SHIFT;
            continue;
          }
          const size = this.#size[level] as number;
          if ((this.#prefix[lane] as number) !== size) start = at + size - (this.#suffix[lane] as number);
          at += size;
          if (start + count > limit) return -1;
          node++;
          while (level < this.#top && (node & FANOUT_MASK) === 0) {
            node >>>= FANOUT_SHIFT;
            level++;
          }
        }
      }
      // One word. Only the first may begin in its middle, and then no run comes in from before.
      const shift = at & 31;
      const word = (this.#words[at >>> 5] as number) & (ALL_FREE << shift);
      at -= shift;
      if (word !== ALL_FREE) {
        const lead = shift === 0 ? lowestBit(~word) : 0;
        if (at + lead - start >= count) return start + count <= limit ? start : -1;
        const inside = startsOf(word, count);
        if (inside !== 0) {
          start = at + lowestBit(inside);
          return start + count <= limit ? start : -1;
        }
        start = at + WORD_BITS - Math.clz32(~word);
      }
      at += WORD_BITS;
    }
    return -1;
  }

  /** The frame behind the run of free frames that begins at `from`, at most `limit`. After `refresh`. */
  runEnd(from: FrameIndex, limit: FrameIndex): FrameIndex {
    let at = from;
    while (at < limit) {
      if ((at & (RUN_LEAF_FRAMES - 1)) === 0) {
        const lane = ((this.#base[0] as number) + (at >>> LEAF_SHIFT)) * this.#stride;
        const prefix = this.#prefix[lane] as number;
        at += prefix;
        if (prefix !== RUN_LEAF_FRAMES) return Math.min(at, limit);
        continue;
      }
      const shift = at & 31;
      const rest = (this.#words[at >>> 5] as number) >>> shift;
      const ones = rest === -1 >>> shift ? WORD_BITS - shift : lowestBit(~rest);
      at += ones;
      if (shift + ones !== WORD_BITS) return Math.min(at, limit);
    }
    return limit;
  }

  /** Free frames in `[low, high)`; stops once there are `enough`. After `refresh`. */
  countFree(low: FrameIndex, high: FrameIndex, enough = Number.MAX_SAFE_INTEGER): number {
    let total = 0;
    let at = low;
    const top = Math.min(this.#top, COUNTED_LEVEL);
    while (at < high && total < enough) {
      let level = -1;
      while (level < top && at % (this.#size[level + 1] as number) === 0) {
        if (at + (this.#size[level + 1] as number) > high) break;
        level++;
      }
      if (level >= 0) {
        const size = this.#size[level] as number;
        total += this.#free[((this.#base[level] as number) + at / size) * this.#stride] as number;
        at += size;
        continue;
      }
      const shift = at & 31;
      const bits = Math.min(WORD_BITS - shift, high - at);
      const mask = bits === WORD_BITS ? ALL_FREE : (1 << bits) - 1;
      total += onesCount(((this.#words[at >>> 5] as number) >>> shift) & mask);
      at += bits;
    }
    return total;
  }

  /** Broken invariants, for `check()`: every node that is up to date is computed again. */
  problems(): string[] {
    const found: string[] = [];
    const leaves = this.#nodes[0] as number;
    const stale = new Set<number>();
    for (let leaf = 0; leaf < leaves; leaf++) {
      const row = leaf >>> 5;
      const marked = (this.#dirty.get(row) & (1 << (leaf & 31))) !== 0;
      if (marked && (this.#dirtyGroups.get(row >>> 5) & (1 << (row & 31))) === 0) {
        found.push(`phys/run-tree I2: leaf ${leaf} is marked, its row is not`);
      }
      if (!marked) continue;
      for (let level = 0, node = leaf; level <= this.#top; level++, node >>>= FANOUT_SHIFT) {
        stale.add((this.#base[level] as number) + node);
      }
    }
    for (let level = 0; level <= this.#top; level++) {
      for (let node = 0; node < (this.#nodes[level] as number); node++) {
        const row = (this.#base[level] as number) + node;
        if (stale.has(row)) continue;
        const before = this.#show(row);
        if (level === 0) this.#computeLeaf(node);
        else this.#compute(level, node);
        if (this.#show(row) !== before) found.push(`phys/run-tree I1: level ${level} node ${node}: ${before}`);
      }
    }
    return found;
  }

  #show(row: number): string {
    const lane = row * this.#stride;
    return `${this.#prefix[lane]} ${this.#suffix[lane]} ${this.#longest[lane]} ${this.#free[lane]}`;
  }

  /** The marked leaves of one row of marks, then the nodes above them as far as something changes, or all if `thorough`. */
  #refreshLeaves(row: number, marks: number, thorough: boolean): void {
    let changed = 0;
    for (let left = marks; left !== 0; left &= left - 1) {
      const bit = lowestBit(left);
      if (this.#computeLeaf((row << 5) + bit) || thorough) changed |= 1 << (bit >>> FANOUT_SHIFT);
    }
    // The four nodes above the leaves of a row, then the one line of nodes above those.
    let node = row << (5 - FANOUT_SHIFT);
    let climbs = false;
    if (this.#top < 1) return;
    for (let left = changed; left !== 0; left &= left - 1) {
      if (this.#compute(1, node + lowestBit(left)) || thorough) climbs = true;
    }
    for (let level = 2; climbs && level <= this.#top; level++) {
      node >>>= FANOUT_SHIFT;
      climbs = this.#compute(level, node) || thorough;
    }
  }

  /** True when what those above look at has changed. */
  #computeLeaf(leaf: number): boolean {
    const words = this.#words;
    const firstWord = leaf * LEAF_WORDS;
    const endWord = Math.min(firstWord + LEAF_WORDS, words.length);
    let prefix = -1;
    let run = 0;
    let longest = 0;
    let free = 0;
    for (let index = firstWord; index < endWord; index++) {
      const word = words[index] as number;
      if (word === ALL_FREE) {
        run += WORD_BITS;
        free += WORD_BITS;
        continue;
      }
      const before = word === 0 ? 0 : lowestBit(~word);
      run += before;
      if (prefix < 0) prefix = run;
      if (run > longest) longest = run;
      run = Math.clz32(~word);
      if (word === 0) continue;
      const ones = onesCount(word);
      free += ones;
      if (ones > longest) longest = Math.max(longest, longestOnes(word));
    }
    return this.#put((this.#base[0] as number) + leaf, prefix < 0 ? run : prefix, run, Math.max(longest, run), free);
  }

  /** True when what those above look at has changed. */
  #compute(level: number, node: number): boolean {
    const stride = this.#stride;
    const below = this.#base[level - 1] as number;
    const size = this.#size[level - 1] as number;
    const firstChild = node << FANOUT_SHIFT;
    const endChild = Math.min(firstChild + RUN_FANOUT, this.#nodes[level - 1] as number);
    let prefix = -1;
    let run = 0;
    let longest = 0;
    let free = 0;
    for (let child = firstChild; child < endChild; child++) {
      const lane = (below + child) * stride;
      const before = this.#prefix[lane] as number;
      if (level <= COUNTED_LEVEL) free += this.#free[lane] as number;
      run += before;
      if (before === size) continue;
      if (prefix < 0) prefix = run;
      if (run > longest) longest = run;
      const inside = this.#longest[lane] as number;
      if (inside > longest) longest = inside;
      run = this.#suffix[lane] as number;
    }
    return this.#put(
      (this.#base[level] as number) + node,
      prefix < 0 ? run : prefix,
      run,
      Math.max(longest, run),
      free,
    );
  }

  #put(row: number, prefix: number, suffix: number, longest: number, free: number): boolean {
    const lane = row * this.#stride;
    const changed =
      this.#free[lane] !== free ||
      this.#prefix[lane] !== prefix ||
      this.#suffix[lane] !== suffix ||
      this.#longest[lane] !== longest;
    if (!changed) return false;
    this.#prefix[lane] = prefix;
    this.#suffix[lane] = suffix;
    this.#longest[lane] = longest;
    this.#free[lane] = free;
    return true;
  }
}
