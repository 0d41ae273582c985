/**
 * Map of free frames: the page source that gives out the lowest frame first.
 *
 * PROBLEM     Find a free frame without walking over those that are taken, and say of any frame whether it is free.
 * STRUCTURE   One bit per frame in words, one bit per word in groups, and a mark below which no group has a free frame:
 *
 *               group   ...0010|                     lowestGroup = 0
 *               words   0000..00|0110..00|0000..00|  one group stands for 1024 frames
 *
 *             Runs are found by the run tree, which is told of every word that changes.
 * INVARIANTS  I1 a word's bit in its group is set iff the word is not 0.  I2 no group below the mark is other than 0.
 *             I3 bits beyond the last frame are 0.
 * LOCKING     Everything under the frames' lock, through the journal.
 * COSTS       Taking and giving: a few stores; runs are changed by whole words. The mark makes a search for one frame
 *             constant while frames come and go near it.
 * FAILURE     -1 when nothing fits; an assertion for a frame that is free already or not free.
 * REJECTED    A list of free frames: adjacent frames could not be found, and every page filled by one vectored read
 *             would need a view of its own.
 * REFERENCES  BSD vm_phys, bitmaps of vm_reserv.
 */

import { assert } from '../base/assert.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameSource } from './frame-source.ts';
import { FRAME_USE } from './frame-uses.ts';
import { ALL_FREE, lowestBit, WORD_BITS, wordMask } from './map-words.ts';
import { type RunShape, RunTree } from './run-tree.ts';

/** Frames that a bit of a group's word stands for, all together. */
const GROUP_FRAMES = WORD_BITS * WORD_BITS;

/** The map as one thread sees it. */
export class FrameMap implements FrameSource {
  /** A word takes up to three journal entries, and 65 words are touched at most. */
  readonly pieceFrames = 2048;
  /** Where runs are. */
  readonly tree: RunTree;
  readonly #thread: Thread;
  readonly #words: BoundTables['frameMap']['free'];
  readonly #groups: BoundTables['frameGroup']['free'];
  readonly #pool: BoundTables['framePool'];
  readonly #groupCount: number;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.tree = new RunTree(thread);
    this.#thread = thread;
    this.#words = tables.frameMap.free;
    this.#groups = tables.frameGroup.free;
    this.#pool = tables.framePool;
    this.#groupCount = tables.frameGroup.rowCount;
  }

  has(frame: FrameIndex): boolean {
    return (this.#words.get(frame >>> 5) & (1 << (frame & 31))) !== 0;
  }

  takeNext(reserve = 0): FrameIndex {
    if (reserve > 0 && this.#pool.counts.at(0, FRAME_USE.free) <= reserve) return -1;
    const hint = this.#pool.lowestGroup.get(0);
    for (let group = hint; group < this.#groupCount; group++) {
      const words = this.#groups.get(group);
      if (words === 0) continue;
      if (group !== hint) this.#thread.journal.set(this.#pool.lowestGroup, 0, group);
      const word = group * WORD_BITS + lowestBit(words);
      const frame = word * WORD_BITS + lowestBit(this.#words.get(word));
      this.take(frame);
      return frame;
    }
    return -1;
  }

  take(frame: FrameIndex): void {
    this.#clear(frame >>> 5, 1 << (frame & 31));
  }

  give(frame: FrameIndex): void {
    this.#set(frame >>> 5, 1 << (frame & 31));
  }

  takeRun(first: FrameIndex, count: number): void {
    const end = first + count;
    for (let word = first >>> 5; word * WORD_BITS < end; word++) {
      this.#clear(word, wordMask(Math.max(0, first - word * WORD_BITS), end - word * WORD_BITS));
    }
  }

  giveRun(first: FrameIndex, count: number): void {
    const end = first + count;
    for (let word = first >>> 5; word * WORD_BITS < end; word++) {
      this.#set(word, wordMask(Math.max(0, first - word * WORD_BITS), end - word * WORD_BITS));
    }
  }

  /** Goes by words, and by groups where a word has nothing: always right, also for what was changed just now. */
  nextFree(from: FrameIndex, limit: FrameIndex): FrameIndex {
    for (let at = from; at < limit; ) {
      const index = at >>> 5;
      const rest = this.#words.get(index) & (ALL_FREE << (at & 31));
      if (rest !== 0) {
        const frame = index * WORD_BITS + lowestBit(rest);
        return frame < limit ? frame : -1;
      }
      let next = index + 1;
      while ((next & 31) === 0 && next * WORD_BITS < limit && this.#groups.get(next >>> 5) === 0) next += WORD_BITS;
      at = next * WORD_BITS;
    }
    return -1;
  }

  /** Like `nextFree`, but begins at the mark, and moves it up to what is found when nothing free can lie below. */
  lowestFree(from: FrameIndex, limit: FrameIndex): FrameIndex {
    const hint = this.#pool.lowestGroup.get(0);
    const mark = hint * GROUP_FRAMES;
    const frame = this.nextFree(Math.max(from, mark), limit);
    if (from <= mark && frame >= mark + GROUP_FRAMES) {
      this.#thread.journal.set(this.#pool.lowestGroup, 0, Math.floor(frame / GROUP_FRAMES));
    }
    return frame;
  }

  findRun(shape: RunShape, low: FrameIndex, high: FrameIndex): FrameIndex {
    this.tree.refresh();
    return this.tree.find(shape, low, high);
  }

  problems(): string[] {
    const found = this.tree.problems();
    const wordCount = this.#thread.region.tables.frameMap.rowCount;
    for (let word = 0; word < wordCount; word++) {
      const listed = (this.#groups.get(word >>> 5) & (1 << (word & 31))) !== 0;
      if (listed !== (this.#words.get(word) !== 0)) found.push(`phys/frame-map I1: word ${word}, group bit ${listed}`);
    }
    const mark = this.#pool.lowestGroup.get(0);
    for (let group = 0; group < mark; group++) {
      if (this.#groups.get(group) !== 0) found.push(`phys/frame-map I2: group ${group} below the mark ${mark}`);
    }
    const { frames } = this.#thread.region.geometry;
    for (let frame = frames; frame < wordCount * WORD_BITS; frame++) {
      if (this.has(frame)) found.push(`phys/frame-map I3: bit of frame ${frame} of ${frames}`);
    }
    return found;
  }

  #clear(word: number, mask: number): void {
    const { journal } = this.#thread;
    const before = this.#words.get(word);
    assert((before & mask) === mask, 'phys/frame-map: a frame that is taken must be free');
    journal.set(this.#words, word, before & ~mask);
    this.tree.mark(word);
    if ((before & ~mask) !== 0) return;
    const group = word >>> 5;
    journal.set(this.#groups, group, this.#groups.get(group) & ~(1 << (word & 31)));
  }

  #set(word: number, mask: number): void {
    const { journal } = this.#thread;
    const before = this.#words.get(word);
    assert((before & mask) === 0, 'phys/frame-map: a frame that is given back must not be free');
    journal.set(this.#words, word, before | mask);
    this.tree.mark(word);
    if (before !== 0) return;
    const group = word >>> 5;
    journal.set(this.#groups, group, this.#groups.get(group) | (1 << (word & 31)));
    if (group < this.#pool.lowestGroup.get(0)) journal.set(this.#pool.lowestGroup, 0, group);
  }
}
