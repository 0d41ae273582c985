/**
 * How one open file is being read: one after another, in strides, or anyhow.
 *
 * PROBLEM     A page that is missing costs a system call; whoever reads in order should pay for one in many pages. And whoever
 *             reads a file that is larger than the memory from end to end would only push out what others need.
 * STRUCTURE   Where the last read began and ended, how far apart the last two began, and a window that doubles while reads
 *             follow the pattern and is 0 when one does not:
 *
 *               |read|read|read|......ahead......|        a miss brings the request and the window in one call
 *               |read|....|read|....|read|.......|        strides up to 16 pages count as reading in order
 *
 *             A run is a scan once it is longer than an eighth of the memory, in a file larger than half of it: what is then
 *             missing goes straight to the reader, and no page is made of it.
 * INVARIANTS  I1 the window never makes a request longer than one fetch.
 * LOCKING     None: it belongs to one open file of one thread.
 * COSTS       A few comparisons for each read.
 * FAILURE     None: a wrong guess brings pages that nobody asks for, at most as many as were read before.
 * REJECTED    Patterns kept with the vnode: readers in several threads would disturb each other.
 * REFERENCES  Linux mm/readahead.c; illumos ufs_getpage read-ahead by i_nextr.
 */

/** Most pages that are brought ahead; with the request they fill one fetch. */
const AHEAD_PAGES_MAX = 31;

/** Pages ahead when a pattern begins. */
const AHEAD_PAGES_FIRST = 4;

/** Longest stride that counts, in pages. */
const STRIDE_PAGES_MAX = 16;

/** Shortest direct read, in pages: below, one call for many pages through the cache costs less. */
const DIRECT_PAGES_MIN = 4;

/** Part of the memory that a run must have passed, and part that the file must have, to be a scan. */
const SCAN_RUN_PART = 8;
const SCAN_FILE_PART = 2;

/** The pattern of one open file. */
export class ReadPattern {
  readonly #pageSize: number;
  readonly #memoryBytes: number;
  #begin = -1;
  #end = -1;
  #stride = 0;
  #run = 0;
  #ahead = 0;

  constructor(pageSize: number, memoryBytes: number) {
    this.#pageSize = pageSize;
    this.#memoryBytes = memoryBytes;
  }

  /** Pages that a miss should bring behind the request that was noted last. */
  get ahead(): number {
    return this.#ahead;
  }

  /** Notes a read. */
  note(offset: number, length: number): void {
    const stride = offset - this.#begin;
    const follows = offset === this.#end;
    const strides = stride > 0 && stride === this.#stride && stride <= STRIDE_PAGES_MAX * this.#pageSize;
    if (follows || strides) {
      this.#run += stride;
      this.#ahead = Math.min(AHEAD_PAGES_MAX, Math.max(AHEAD_PAGES_FIRST, 2 * this.#ahead));
    } else if (offset !== this.#begin) {
      this.#run = 0;
      this.#ahead = 0;
    }
    this.#stride = stride;
    this.#begin = offset;
    this.#end = offset + length;
  }

  /** True when pages for the read that was noted last would push out others in vain. */
  isScan(length: number, fileBytes: number): boolean {
    return (
      length >= DIRECT_PAGES_MIN * this.#pageSize &&
      this.#run * SCAN_RUN_PART > this.#memoryBytes &&
      fileBytes * SCAN_FILE_PART > this.#memoryBytes
    );
  }
}
