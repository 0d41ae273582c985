/**
 * Ordered free lists: the page source that gives out the frame that was given back last, or first.
 *
 * PROBLEM     Give out warm frames first, spread over the colours of a cache, and spare the classes of memory that others
 *             need more; and take any frame out of the middle when a constrained request wants it.
 * STRUCTURE   A list per class and colour (frame modulo colours), linked both ways, over the map of free frames:
 *
 *               class 0, colour 0   head -> 8 <-> 0 <-> 4 <- tail
 *               class 0, colour 1   head -> 5 <-> 9       <- tail       one frame of the other end: first in, first out
 *               class 1, ...
 *
 *             A single frame comes from the lowest class that has more than the reserve, and there from the first colour
 *             that has one, beginning with the colour behind the one that this slot used last.
 * INVARIANTS  I1 a frame is on the list of its class and colour iff the map has it.  I2 counts are lengths.
 * LOCKING     Everything under the frames' lock, through the journal; the colour that comes next is the slot's own.
 * COSTS       Taking and giving: four more journaled stores than the map. 8 bytes a frame.
 * FAILURE     As the map.
 * REJECTED    Lists in place of the map: runs could not be found.
 * REFERENCES  uvm_page.c: pgfl, buckets and colours; Kessler and Hill, page placement algorithms, 1992.
 */

import { FRAME_ORDER } from '../layout/phys-tables.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';
import type { FrameIndex } from './banks.ts';
import type { FrameMap } from './frame-map.ts';
import type { FrameSource } from './frame-source.ts';
import type { PhysSegments } from './phys-segments.ts';
import type { RunShape } from './run-tree.ts';

/** The lists as one thread sees them. */
export class FrameLists implements FrameSource {
  /** A frame takes up to nine journal entries. */
  readonly pieceFrames = 32;
  readonly #thread: Thread;
  readonly #map: FrameMap;
  readonly #segments: PhysSegments;
  readonly #list: BoundTables['frameList'];
  readonly #link: BoundTables['frameLink'];
  readonly #colour: BoundTables['pageListSlot']['colour'];
  readonly #classes: number;
  readonly #colours: number;
  readonly #lastIn: boolean;

  constructor(thread: Thread, map: FrameMap, segments: PhysSegments) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#map = map;
    this.#segments = segments;
    this.#list = tables.frameList;
    this.#link = tables.frameLink;
    this.#colour = tables.pageListSlot.colour;
    this.#classes = geometry.frameClasses;
    this.#colours = geometry.frameColours;
    this.#lastIn = tables.frameOrder.source.get(0) === FRAME_ORDER.lastIn;
  }

  has(frame: FrameIndex): boolean {
    return this.#map.has(frame);
  }

  takeNext(reserve = 0): FrameIndex {
    const { slot } = this.#thread;
    for (let freeList = 0; freeList < this.#classes; freeList++) {
      if (this.#freeOf(freeList) <= reserve) continue;
      const first = this.#colour.get(slot);
      for (let step = 0; step < this.#colours; step++) {
        const colour = (first + step) & (this.#colours - 1);
        const frame = this.#list.head.get(freeList * this.#colours + colour) - 1;
        if (frame < 0) continue;
        this.take(frame);
        this.#colour.put(slot, (colour + 1) & (this.#colours - 1));
        return frame;
      }
    }
    return -1;
  }

  take(frame: FrameIndex): void {
    const { journal } = this.#thread;
    const { next, previous } = this.#link;
    const { head, tail, count } = this.#list;
    this.#map.take(frame);
    const row = this.#rowOf(frame);
    const after = next.get(frame);
    const before = previous.get(frame);
    if (before === 0) journal.set(head, row, after);
    else journal.set(next, before - 1, after);
    if (after === 0) journal.set(tail, row, before);
    else journal.set(previous, after - 1, before);
    journal.set(count, row, count.get(row) - 1);
  }

  give(frame: FrameIndex): void {
    const { journal } = this.#thread;
    const { next, previous } = this.#link;
    const { head, tail, count } = this.#list;
    this.#map.give(frame);
    const row = this.#rowOf(frame);
    if (this.#lastIn) {
      const first = head.get(row);
      journal.set(next, frame, first);
      journal.set(previous, frame, 0);
      if (first === 0) journal.set(tail, row, frame + 1);
      else journal.set(previous, first - 1, frame + 1);
      journal.set(head, row, frame + 1);
    } else {
      const last = tail.get(row);
      journal.set(previous, frame, last);
      journal.set(next, frame, 0);
      if (last === 0) journal.set(head, row, frame + 1);
      else journal.set(next, last - 1, frame + 1);
      journal.set(tail, row, frame + 1);
    }
    journal.set(count, row, count.get(row) + 1);
  }

  takeRun(first: FrameIndex, count: number): void {
    for (let frame = first; frame < first + count; frame++) this.take(frame);
  }

  giveRun(first: FrameIndex, count: number): void {
    for (let frame = first; frame < first + count; frame++) this.give(frame);
  }

  nextFree(from: FrameIndex, limit: FrameIndex): FrameIndex {
    return this.#map.nextFree(from, limit);
  }

  findRun(shape: RunShape, low: FrameIndex, high: FrameIndex): FrameIndex {
    return this.#map.findRun(shape, low, high);
  }

  /** The frames that come next from a class and colour, at most `count`. */
  first(freeList: number, colour: number, count: number): FrameIndex[] {
    const frames: FrameIndex[] = [];
    let frame = this.#list.head.get(freeList * this.#colours + colour) - 1;
    for (; frame >= 0 && frames.length < count; frame = this.#link.next.get(frame) - 1) frames.push(frame);
    return frames;
  }

  problems(): string[] {
    const found = this.#map.problems();
    const listed = new Set<FrameIndex>();
    for (let row = 0; row < this.#list.head.view.length; row++) {
      let previous = 0;
      let length = 0;
      for (let frame = this.#list.head.get(row) - 1; frame >= 0; frame = this.#link.next.get(frame) - 1) {
        if (listed.has(frame)) {
          found.push(`phys/frame-lists I1: frame ${frame} is listed twice`);
          break;
        }
        listed.add(frame);
        length++;
        if (!this.has(frame) || this.#rowOf(frame) !== row || this.#link.previous.get(frame) !== previous) {
          found.push(`phys/frame-lists I1: frame ${frame} on list ${row}`);
        }
        previous = frame + 1;
      }
      if (length !== this.#list.count.get(row) || this.#list.tail.get(row) !== previous) {
        found.push(`phys/frame-lists I2: list ${row}: count ${this.#list.count.get(row)}, found ${length}`);
      }
    }
    for (let frame = 0; frame < this.#thread.region.geometry.frames; frame++) {
      if (this.has(frame) && !listed.has(frame)) found.push(`phys/frame-lists I1: free frame ${frame} is not listed`);
    }
    return found;
  }

  #freeOf(freeList: number): number {
    let free = 0;
    const first = freeList * this.#colours;
    for (let row = first; row < first + this.#colours; row++) free += this.#list.count.get(row);
    return free;
  }

  #rowOf(frame: FrameIndex): number {
    return this.#segments.classOf(frame) * this.#colours + (frame & (this.#colours - 1));
  }
}
