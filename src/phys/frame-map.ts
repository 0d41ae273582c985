/**
 * Map of free frames: the page source that gives out the lowest frame first.
 *
 * PROBLEM     Find a free frame, and runs of adjacent free frames, without walking over those that are taken.
 * STRUCTURE   One bit per frame in words, one bit per word in groups, and a mark below which no group has a free frame:
 *
 *               group   ...0010|                     lowestGroup = 0
 *               words   0000..00|0110..00|0000..00|  one group stands for 1024 frames
 *
 * INVARIANTS  I1 a word's bit in its group is set iff the word is not 0.  I2 no group below the mark is other than 0.
 *             I3 bits beyond the last frame are 0.
 * LOCKING     Everything under the frames' lock, through the journal.
 * COSTS       Taking and giving: a few stores. The mark makes a search for one frame constant while frames come and go
 *             near it. A search for a run reads one word per 32 frames, and one group per 1024 where nothing is free.
 * FAILURE     -1 when nothing fits; an assertion for a frame that is free already or not free.
 * REJECTED    A list of free frames: adjacent frames could not be found, and every page filled by one vectored read
 *             would need a view of its own.
 * REFERENCES  BSD vm_phys, bitmaps of vm_reserv.
 */

import { assert } from '../base/assert.ts';
import { MAP_WORD_BITS } from '../layout/page-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameSource } from './frame-source.ts';

const ALL_FREE = -1;

/** Position of the lowest bit that is set in a word other than 0. */
function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

/** The map as one thread sees it. */
export class FrameMap implements FrameSource {
  readonly #thread: Thread;
  readonly #words: BoundTables['frameMap']['free'];
  readonly #groups: BoundTables['frameGroup']['free'];
  readonly #pool: BoundTables['framePool'];
  readonly #groupCount: number;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#words = tables.frameMap.free;
    this.#groups = tables.frameGroup.free;
    this.#pool = tables.framePool;
    this.#groupCount = tables.frameGroup.rowCount;
  }

  has(frame: FrameIndex): boolean {
    return (this.#words.get(frame >>> 5) & (1 << (frame & 31))) !== 0;
  }

  takeNext(): FrameIndex {
    const { journal } = this.#thread;
    const hint = this.#pool.lowestGroup.get(0);
    for (let group = hint; group < this.#groupCount; group++) {
      const words = this.#groups.get(group);
      if (words === 0) continue;
      if (group !== hint) journal.set(this.#pool.lowestGroup, 0, group);
      const word = group * MAP_WORD_BITS + lowestBit(words);
      const frame = word * MAP_WORD_BITS + lowestBit(this.#words.get(word));
      this.take(frame);
      return frame;
    }
    return -1;
  }

  take(frame: FrameIndex): void {
    const { journal } = this.#thread;
    const word = frame >>> 5;
    const bit = 1 << (frame & 31);
    const before = this.#words.get(word);
    assert((before & bit) !== 0, 'phys/frame-map: a frame that is taken must be free');
    journal.set(this.#words, word, before & ~bit);
    if ((before & ~bit) !== 0) return;
    const group = word >>> 5;
    journal.set(this.#groups, group, this.#groups.get(group) & ~(1 << (word & 31)));
  }

  give(frame: FrameIndex): void {
    const { journal } = this.#thread;
    const word = frame >>> 5;
    const bit = 1 << (frame & 31);
    const before = this.#words.get(word);
    assert((before & bit) === 0, 'phys/frame-map: a frame that is given back must not be free');
    journal.set(this.#words, word, before | bit);
    if (before !== 0) return;
    const group = word >>> 5;
    journal.set(this.#groups, group, this.#groups.get(group) | (1 << (word & 31)));
    if (group < this.#pool.lowestGroup.get(0)) journal.set(this.#pool.lowestGroup, 0, group);
  }

  /**
   * Goes through `[low, high)` in alternating stretches of free and taken frames, whole words at a time:
   * 1 a word without a free frame ends the run; an empty group lets the search skip 32 words
   * 2 a word that is all free, met at its first bit, lengthens the run by 32
   * 3 else the stretch of ones at the position lengthens the run, and the stretch of zeros behind it ends it
   */
  findRun(count: number, low: FrameIndex, high: FrameIndex): FrameIndex {
    let start = low;
    let at = low;
    while (start + count <= high) {
      if (at - start >= count) return start;
      if (at >= high) return -1;
      const index = at >>> 5;
      const word = this.#words.get(index);
      const shift = at & 31;
      if (word === 0) {
        // 1.
        const group = index >>> 5;
        at = this.#groups.get(group) === 0 ? (group + 1) * MAP_WORD_BITS * MAP_WORD_BITS : (index + 1) * MAP_WORD_BITS;
        start = at;
      } else if (word === ALL_FREE && shift === 0) {
        // 2.
        at += MAP_WORD_BITS;
      } else {
        // 3.
        const rest = word >>> shift;
        const ones = rest === -1 >>> shift ? MAP_WORD_BITS - shift : lowestBit(~rest);
        at += ones;
        if (at - start >= count || shift + ones === MAP_WORD_BITS) continue;
        const behind = word >>> (shift + ones);
        at += behind === 0 ? MAP_WORD_BITS - shift - ones : lowestBit(behind);
        start = at;
      }
    }
    return -1;
  }

  problems(): string[] {
    const found: string[] = [];
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
    for (let frame = frames; frame < wordCount * MAP_WORD_BITS; frame++) {
      if (this.has(frame)) found.push(`phys/frame-map I3: bit of frame ${frame} of ${frames}`);
    }
    return found;
  }
}
