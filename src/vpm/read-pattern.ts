/**
 * How one open file is being read: one after another, in strides, or anyhow.
 *
 * PROBLEM     A page that is missing costs a system call; whoever reads in order should pay for one in many pages. And whoever
 *             reads a file from end to end only pushes out what others need, and pays for pages that nobody uses again.
 * STRUCTURE   Where the last read began and ended, how far apart the last two began, and a window that doubles while reads
 *             follow the pattern and is 0 when one does not:
 *
 *               |read|read|read|......ahead......|        a miss brings the request and the window in one call
 *               |read|....|read|....|read|.......|        strides up to 2 pages count as reading in order
 *
 *             A run without gaps is a scan once it is longer than 32 pages, two long reads, or an eighth of the memory: what is
 *             then missing is read past the pages, see direct-reads.ts. Whose first read is of 64 KiB or more, at the beginning
 *             of a file that goes on behind it and is no small one, makes a scan with that one, until it reads something else. The second scan of a vnode, whoever makes it, leaves
 *             its pages in memory. If they are gone by the third, or the file is larger than half of the memory, it was no use.
 * INVARIANTS  I1 the window never makes a request longer than one fetch.
 * LOCKING     None: it belongs to one open file of one thread. The count of a vnode's scans is a hint.
 * COSTS       A few comparisons for each read.
 * FAILURE     None: a wrong guess brings pages that nobody asks for, at most as many as were read before, or reads a file once
 *             more than was needed.
 * REJECTED    Patterns kept with the vnode: readers in several threads would disturb each other. Pages for whatever is read
 *             for the first time: writing them costs as much as reading the file again.
 * REFERENCES  Linux mm/readahead.c; illumos ufs_getpage read-ahead by i_nextr; PostgreSQL's ring buffers for scans.
 */

import type { VnodeIndex } from '../page/page-hash.ts';
import { MissStreams } from './miss-streams.ts';
import { ScanBuffer } from './scan-buffer.ts';

/** Most pages that are brought ahead; with the request they fill one fetch. */
const AHEAD_PAGES_MAX = 31;

/** Pages ahead when a pattern begins. */
const AHEAD_PAGES_FIRST = 4;

/** Longest stride that counts, in pages: what lies between comes along, so that longer ones would fill the memory with it. */
const STRIDE_PAGES_MAX = 2;

/** A run longer than so many pages, or than such a part of the memory, is a scan. */
const SCAN_PAGES = 32;
const SCAN_PART = 8;

/** Long reads of which two are enough. */
const LONG_READ_BYTES = 16384;

/** Reads of the beginning of a file of which one is enough, when the file is larger than such a part of the memory. */
const FIRST_READ_BYTES = 65536;
const FIRST_READ_PART = 4;

/** The scan of a vnode that leaves its pages in memory: the second one. */
const KEEPING_SCAN = 1;

/** More scans are not counted. */
const SCANS_MAX = 1000;

/** Scans of a vnode so far. */
export interface ScanCount {
  get(vnode: VnodeIndex): number;
  put(vnode: VnodeIndex, count: number): void;
}

/** The pattern of one open file. */
export class ReadPattern {
  /** What is read backwards, in longer strides, or in several places in turn. */
  readonly streams: MissStreams;
  /** What a scan has read past the pages. */
  readonly buffer = new ScanBuffer();
  readonly #pageSize: number;
  readonly #memoryBytes: number;
  readonly #scanBytes: number;
  #begin = -1;
  #end = -1;
  #stride = 0;
  #run = 0;
  #ahead = 0;
  #scanning = false;
  /** The run begins with the first read of all, which was long enough. */
  #fromStart = false;
  /** How far the scan has come, and which one of its vnode it is; -1: none. */
  #passed = 0;
  #scan = -1;

  constructor(pageSize: number, memoryBytes: number) {
    this.#pageSize = pageSize;
    this.streams = new MissStreams(pageSize);
    this.#memoryBytes = memoryBytes;
    this.#scanBytes = Math.min(SCAN_PAGES * pageSize, memoryBytes / SCAN_PART);
  }

  /** Pages that a miss should bring behind the request that was noted last. */
  get ahead(): number {
    // Else the next read would find some of its pages, and the scan would never get past them.
    return this.#scanning ? 0 : this.#ahead;
  }

  /** True from when a scan was recognised until the run ends. */
  get isScanning(): boolean {
    return this.#scanning;
  }

  /** Notes a read. False when it follows no pattern: then `scans` is false, and the buffer is empty. */
  note(offset: number, length: number): boolean {
    const stride = offset - this.#begin;
    let follows = true;
    if (this.#end < 0 && offset === 0 && length >= FIRST_READ_BYTES) {
      this.#fromStart = true;
    } else if (offset === this.#end) {
      this.#run += stride;
      this.#widen();
    } else if (stride > 0 && stride === this.#stride && stride <= STRIDE_PAGES_MAX * this.#pageSize) {
      this.#run = 0;
      this.#widen();
    } else if (stride !== 0 || (this.#fromStart && this.#run === 0)) {
      this.#break(offset);
      follows = false;
    }
    this.#stride = stride;
    this.#begin = offset;
    this.#end = offset + length;
    return follows;
  }

  /** True when what is missing of the read that was noted last should be read past the pages. */
  scans(vnode: VnodeIndex, fileBytes: number, counts: ScanCount): boolean {
    const length = this.#end - this.#begin;
    const isLong = length >= LONG_READ_BYTES && this.#run >= 2 * length;
    const isLarge = FIRST_READ_PART * fileBytes > this.#memoryBytes;
    const isFirst = this.#fromStart && isLarge && (this.#run > 0 || this.#end < fileBytes);
    if (!isLong && !isFirst && this.#run <= this.#scanBytes) return false;
    if (this.#scan < 0) {
      this.#scan = counts.get(vnode);
      counts.put(vnode, Math.min(this.#scan + 1, SCANS_MAX));
    }
    this.#passed = Math.max(this.#passed, this.#end);
    this.#scanning = this.#scan !== KEEPING_SCAN || 2 * fileBytes > this.#memoryBytes;
    return this.#scanning;
  }

  #widen(): void {
    this.#ahead = Math.min(AHEAD_PAGES_MAX, Math.max(AHEAD_PAGES_FIRST, 2 * this.#ahead));
  }

  #break(offset: number): void {
    this.#run = 0;
    this.#ahead = 0;
    this.#scanning = false;
    this.#fromStart = false;
    this.buffer.clear();
    if (offset >= this.#passed) return;
    this.#scan = -1;
    this.#passed = 0;
  }
}
