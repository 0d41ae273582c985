/**
 * The streams of one open file that are not read in order: backwards, in strides of any length, or several at a time.
 *
 * PROBLEM     Who reads every tenth record, from the end to the beginning, or two parts of a file in turn, is as predictable
 *             as who reads in order (read-pattern.ts). Bringing all that lies between its reads would fill the memory with it.
 * STRUCTURE   Only reads that missed a page are looked at. The last eight that belong to no stream are remembered; a stream is
 *
 *               forward   two that touch:               |y|x|......ahead......|
 *               backward  the same, the other way:      |......ahead......|x|y|
 *               strided   three at equal distances:     |z|....|y|....|x|....|a|....|h|....|e|
 *
 *             and has a window: pages side by side, brought with one call, or the pages that the next steps of a stride touch, a
 *             call for each. The stream's next miss is expected behind the window; then the window doubles. A miss inside of it
 *             says that pages left before they were read: it is halved.
 * INVARIANTS  I1 a window is at most as long as one fetch, or STEPS_MAX steps.
 *             I2 of a stride only pages are brought that the stride touches.
 * LOCKING     None: it belongs to one open file of one thread.
 * COSTS       Nothing for a hit. A miss that follows no stream: at most 36 comparisons.
 * FAILURE     None: a wrong guess brings a first window that nobody asks for.
 * REJECTED    Looking at hits, too: what is in memory need not be brought. Strides by pages: those of 1000 bytes and more would
 *             have none that stays the same.
 * REFERENCES  Linux mm/readahead.c; Gill and Bathen, AMP: adaptive multi-stream prefetching, FAST 2007.
 */

/** Streams of one open file. */
const STREAMS = 4;

/** Misses that are remembered. */
const MISSES = 8;

/** Pages of the first and the longest window of pages side by side. */
const PAGES_FIRST = 4;
const PAGES_MAX = 31;

/** Steps of the first and the longest window of a stride. */
const STEPS_FIRST = 2;
const STEPS_MAX = 8;

/** What should be brought: pages that lie side by side, or as long a read at each of the next steps. Parts lie outside the file. */
export interface Window {
  /** Without a stride: the first of so many pages. */
  readonly first: number;
  readonly pages: number;
  /** Bytes from one step to the next, 0 for none; so many steps from the read that missed, which began there. */
  readonly stride: number;
  readonly steps: number;
  readonly from: number;
}

/** A read that missed: its first byte, and its first and last page. */
interface Miss {
  readonly offset: number;
  readonly first: number;
  readonly last: number;
}

interface Stream {
  /** 1 forward, -1 backward, 0 in strides. */
  readonly direction: number;
  readonly stride: number;
  /** Where the read that missed last began, */
  begin: number;
  /** its page that is next to the window, */
  page: number;
  /** and the page at the other end of the window. */
  edge: number;
  /** Pages of the window, or steps. */
  size: number;
}

/** The streams of one open file. */
export class MissStreams {
  readonly #pageSize: number;
  /** Latest use first. */
  readonly #streams: Stream[] = [];
  /** Latest first. */
  readonly #misses: Miss[] = [];

  constructor(pageSize: number) {
    this.#pageSize = pageSize;
  }

  /** Notes a read that missed a page. What should come along, or null when it follows no stream. */
  note(offset: number, length: number): Window | null {
    const first = Math.floor(offset / this.#pageSize);
    const miss = { offset, first, last: Math.floor((offset + length - 1) / this.#pageSize) };
    for (const [at, stream] of this.#streams.entries()) {
      if (!this.#follows(stream, miss)) continue;
      this.#streams.splice(at, 1);
      this.#streams.unshift(stream);
      return this.#window(stream, miss);
    }
    const stream = this.#begun(miss);
    this.#misses.unshift(miss);
    if (this.#misses.length > MISSES) this.#misses.pop();
    if (stream === null) return null;
    this.#streams.unshift(stream);
    if (this.#streams.length > STREAMS) this.#streams.pop();
    return this.#window(stream, miss);
  }

  /** True for a miss that the stream leads to; its window then has its next size. */
  #follows(stream: Stream, { offset, first, last }: Miss): boolean {
    const { direction, stride, page, edge, size } = stream;
    let isBehind: boolean;
    if (direction === 0) {
      const steps = (offset - stream.begin) / stride;
      if (!Number.isInteger(steps) || steps < 1 || steps > size + 1) return false;
      isBehind = steps === size + 1;
    } else {
      const from = direction > 0 ? first : last;
      const to = direction > 0 ? last : first;
      if ((from - page) * direction <= 0 || (from - edge) * direction > 1) return false;
      isBehind = (to - edge) * direction > 0;
    }
    const most = direction === 0 ? STEPS_MAX : PAGES_MAX;
    stream.size = isBehind ? Math.min(2 * size, most) : Math.max(1, size >>> 1);
    return true;
  }

  /** A stream that a miss begins together with those that are remembered, or null. */
  #begun(miss: Miss): Stream | null {
    const misses = this.#misses;
    // What touches comes first: parts at equal distances that are read in turn are no stride.
    for (const { offset, first, last } of misses) {
      // They may share a page: then it was the other one that this read missed.
      if (miss.offset > offset && miss.first <= last + 1) return newStream(1, 0, PAGES_FIRST);
      if (miss.offset < offset && miss.last >= first - 1) return newStream(-1, 0, PAGES_FIRST);
    }
    for (let at = 0; at < misses.length; at++) {
      const { offset } = misses[at] as Miss;
      const stride = miss.offset - offset;
      if (stride === 0) continue;
      for (let before = at + 1; before < misses.length; before++) {
        if (offset - (misses[before] as Miss).offset === stride) return newStream(0, stride, STEPS_FIRST);
      }
    }
    return null;
  }

  #window(stream: Stream, { offset, first, last }: Miss): Window {
    const { direction, stride, size } = stream;
    stream.begin = offset;
    if (direction === 0) return { first: 0, pages: 0, stride, steps: size, from: offset };
    stream.page = direction > 0 ? last : first;
    stream.edge = stream.page + direction * size;
    return { first: direction > 0 ? last + 1 : first - size, pages: size, stride: 0, steps: 0, from: offset };
  }
}

function newStream(direction: number, stride: number, size: number): Stream {
  return { direction, stride, begin: 0, page: 0, edge: 0, size };
}
