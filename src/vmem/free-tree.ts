/**
 * A tree of free segments: a treap whose nodes know the best of their subtree.
 *
 * PROBLEM     Bins answer "the newest of about this size". Exact fit asks for the smallest that is large enough, next fit for
 *             the first one behind an address, best fit for the newest in a bin that is large enough: each without passing
 *             segments that are none of these.
 * STRUCTURE   Two kinds, made of three words per tag: left child, right child, best of the subtree.
 *
 *               by size    key (size, address), best the newest      one tree per bin, in the tag records
 *               by place   key address, best the largest             one tree per arena, in the table of places
 *
 *             The priority that keeps the shape balanced is a hash of the tag's number, so that it takes no word.
 * INVARIANTS  I1 in-order keys ascend.   I2 no child has a higher priority than its parent.   I3 `best` of a node is the best
 *             of its subtree.
 * LOCKING     The arena's lock. Every word that changes is logged here.
 * COSTS       Expected 2 ln n steps. Insert and remove log a word or two for each.
 * FAILURE     `InvariantError` when a tag to be removed is not found.
 * REJECTED    Red-black and AVL trees: colours to log, and more cases. A skip list: words that depend on chance.
 * REFERENCES  Seidel and Aragon 1996, randomized search trees; Cormen et al., augmenting data structures.
 */

import { assert } from '../base/index.ts';
import { TAG_DOUBLE_SHIFT, TAG_SHIFT, TAG_SIZE, TAG_STAMP, TAG_START, type WordAddress } from '../layout/index.ts';
import type { Journal, Thread } from '../sync/index.ts';
import type { TagIndex } from './kinds.ts';

const LEFT = 0;
const RIGHT = 1;
const BEST = 2;

/** Levels of a tree that can be walked: 2^27 tags stay far below. */
const DEPTH_MAX = 512;

/** A hash of a tag's number. */
function priorityOf(tag: TagIndex): number {
  const hash = Math.imul(tag ^ (tag >>> 15), 0x2c1b3c6d);
  return Math.imul(hash ^ (hash >>> 12), 0x297a2d39);
}

/** One thread's view of all trees of one kind. */
export class FreeTree {
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  readonly #journal: Journal;
  readonly #bySize: boolean;
  /** Where the three words of tag 0 would lie. */
  readonly #linksAt: WordAddress;
  /** `tag << shift` words further lie those of a tag. */
  readonly #shift: number;
  readonly #path = new Int32Array(DEPTH_MAX);
  #steps = 0;

  constructor(thread: Thread, bySize: boolean, linksAt: WordAddress, shift: number) {
    this.#words = thread.region.words;
    this.#doubles = thread.region.doubles;
    this.#journal = thread.journal;
    this.#bySize = bySize;
    this.#linksAt = linksAt;
    this.#shift = shift;
  }

  /** Puts a tag into the tree whose root is the word at `rootAt`. */
  insert(rootAt: WordAddress, tag: TagIndex): void {
    const words = this.#words;
    const journal = this.#journal;
    const path = this.#path;
    const priority = priorityOf(tag);
    // 1. Down to the first node with a lower priority: the new one takes its place.
    let at = rootAt;
    let node = words[at] as number;
    while (node !== 0 && priorityOf(node) >= priority) {
      const links = this.#links(node);
      if (this.#isBetter(tag, words[links + BEST] as number)) {
        journal.log1(links + BEST);
        words[links + BEST] = tag;
      }
      at = links + (this.#precedes(node, tag) ? RIGHT : LEFT);
      node = words[at] as number;
    }
    const own = this.#links(tag);
    journal.log2(at, own + BEST);
    words[at] = tag;
    // 2. What was below is split by the new key: the lower part left, the higher part right.
    let lowAt = own + LEFT;
    let highAt = own + RIGHT;
    let depth = 0;
    while (node !== 0) {
      path[depth++] = node;
      const below = this.#precedes(node, tag);
      journal.log1(below ? lowAt : highAt);
      words[below ? lowAt : highAt] = node;
      const childAt = this.#links(node) + (below ? RIGHT : LEFT);
      if (below) lowAt = childAt;
      else highAt = childAt;
      node = words[childAt] as number;
    }
    journal.log2(lowAt, highAt);
    words[lowAt] = 0;
    words[highAt] = 0;
    // 3. Nodes on the split know less than before.
    while (depth > 0) this.#refresh(path[--depth] as number);
    this.#refresh(tag);
  }

  /** Takes a tag out, whose key and stamp are what they were when it came. */
  remove(rootAt: WordAddress, tag: TagIndex): void {
    const words = this.#words;
    const journal = this.#journal;
    const path = this.#path;
    let depth = 0;
    let at = rootAt;
    for (let node = words[at] as number; node !== tag; node = words[at] as number) {
      assert(node !== 0, 'vmem/free-tree I1: a tag is found by its key');
      path[depth++] = node;
      at = this.#links(node) + (this.#precedes(node, tag) ? RIGHT : LEFT);
    }
    const above = depth;
    // The two subtrees are merged from the top: the higher priority goes first.
    let low = words[this.#links(tag) + LEFT] as number;
    let high = words[this.#links(tag) + RIGHT] as number;
    while (low !== 0 && high !== 0) {
      const node = priorityOf(low) >= priorityOf(high) ? low : high;
      journal.log1(at);
      words[at] = node;
      path[depth++] = node;
      at = this.#links(node) + (node === low ? RIGHT : LEFT);
      if (node === low) low = words[at] as number;
      else high = words[at] as number;
    }
    journal.log1(at);
    words[at] = low === 0 ? high : low;
    // A node above that knew another one as its best still does, and so do those above it: but not among equals, of which
    // a node may know one and the node above it another.
    while (depth > 0) {
      const node = path[--depth] as number;
      if (depth < above && words[this.#links(node) + BEST] !== tag) {
        if (this.#bySize) break;
        continue;
      }
      this.#refresh(node);
    }
  }

  /** Nodes that were looked at to find something, since this was asked last. */
  takeSteps(): number {
    const steps = this.#steps;
    this.#steps = 0;
    return steps;
  }

  /** By size: the newest that is not smaller than `size`, or 0. */
  newestAtLeast(root: TagIndex, size: number): TagIndex {
    const words = this.#words;
    let newest = 0;
    for (let node = root; node !== 0; ) {
      this.#steps++;
      const links = this.#links(node);
      if (this.#size(node) < size) {
        node = words[links + RIGHT] as number;
        continue;
      }
      const right = words[links + RIGHT] as number;
      const best = right === 0 ? 0 : (words[this.#links(right) + BEST] as number);
      if (newest === 0 || this.#isBetter(node, newest)) newest = node;
      if (best !== 0 && this.#isBetter(best, newest)) newest = best;
      node = words[links + LEFT] as number;
    }
    return newest;
  }

  /** By size: the first in order that is at least as large and, when as large, not below `start`; or 0. */
  firstFrom(root: TagIndex, size: number, start: number): TagIndex {
    const words = this.#words;
    let found = 0;
    for (let node = root; node !== 0; ) {
      this.#steps++;
      const nodeSize = this.#size(node);
      const reaches = nodeSize > size || (nodeSize === size && this.#start(node) >= start);
      if (reaches) found = node;
      node = words[this.#links(node) + (reaches ? LEFT : RIGHT)] as number;
    }
    return found;
  }

  /** By place: the first that does not start below `start` and is at least so large, or 0. */
  firstLargeFrom(node: TagIndex, start: number, size: number): TagIndex {
    if (node === 0) return 0;
    this.#steps++;
    const words = this.#words;
    const links = this.#links(node);
    if (this.#size(words[links + BEST] as number) < size) return 0;
    if (this.#start(node) >= start) {
      const before = this.firstLargeFrom(words[links + LEFT] as number, start, size);
      if (before !== 0) return before;
      if (this.#size(node) >= size) return node;
    }
    return this.firstLargeFrom(words[links + RIGHT] as number, start, size);
  }

  /** By place: the last that starts below `start`, or 0. */
  lastBelow(root: TagIndex, start: number): TagIndex {
    const words = this.#words;
    let found = 0;
    for (let node = root; node !== 0; ) {
      this.#steps++;
      const below = this.#start(node) < start;
      if (below) found = node;
      node = words[this.#links(node) + (below ? RIGHT : LEFT)] as number;
    }
    return found;
  }

  /** What is broken in the tree of `root`, which should hold these tags and no others. Bounded by their number. */
  check(root: TagIndex, tags: readonly TagIndex[]): string[] {
    const words = this.#words;
    const problems: string[] = [];
    const order: TagIndex[] = [];
    const visit = (node: TagIndex): TagIndex => {
      if (order.length > tags.length) return 0;
      const links = this.#links(node);
      let best = node;
      for (const side of [LEFT, RIGHT]) {
        const child = words[links + side] as number;
        const found = child === 0 ? 0 : visit(child);
        if (found !== 0 && this.#isBetter(found, best)) best = found;
        if (child !== 0 && priorityOf(child) > priorityOf(node)) problems.push('free-tree I2: a child is above');
        if (side === LEFT) order.push(node);
      }
      const known = words[links + BEST] as number;
      if (this.#isBetter(best, known)) problems.push('free-tree I3: a better one in the subtree');
      return best;
    };
    if (root !== 0) visit(root);
    const ordered = order.every((tag, at) => at === 0 || this.#precedes(order[at - 1] as number, tag));
    if (!ordered) problems.push('free-tree I1: keys ascend');
    const held = new Set(order);
    if (order.length !== tags.length || tags.some((tag) => !held.has(tag))) {
      problems.push(`free-tree: holds ${order.length} of ${tags.length} free segments`);
    }
    return problems;
  }

  /** Finds the best of a node's subtree again. */
  #refresh(node: TagIndex): void {
    const words = this.#words;
    const links = this.#links(node);
    const left = words[links + LEFT] as number;
    const right = words[links + RIGHT] as number;
    let best = node;
    if (left !== 0) {
      const other = words[this.#links(left) + BEST] as number;
      if (this.#isBetter(other, best)) best = other;
    }
    if (right !== 0) {
      const other = words[this.#links(right) + BEST] as number;
      if (this.#isBetter(other, best)) best = other;
    }
    if (words[links + BEST] === best) return;
    this.#journal.log1(links + BEST);
    words[links + BEST] = best;
  }

  #links(tag: TagIndex): WordAddress {
    return this.#linksAt + (tag << this.#shift);
  }

  #start(tag: TagIndex): number {
    return this.#doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
  }

  #size(tag: TagIndex): number {
    return this.#doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  }

  /** True when the key of the first comes before that of the second. */
  #precedes(first: TagIndex, second: TagIndex): boolean {
    if (this.#bySize) {
      const difference = this.#size(first) - this.#size(second);
      if (difference !== 0) return difference < 0;
    }
    return this.#start(first) < this.#start(second);
  }

  /** By size: newer. By place: larger. */
  #isBetter(first: TagIndex, second: TagIndex): boolean {
    if (!this.#bySize) return this.#size(first) > this.#size(second);
    const newer = this.#words[(first << TAG_SHIFT) + TAG_STAMP] as number;
    return ((newer - (this.#words[(second << TAG_SHIFT) + TAG_STAMP] as number)) | 0) > 0;
  }
}
