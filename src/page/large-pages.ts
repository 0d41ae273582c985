/**
 * Large pages: runs of adjacent frames that come, go, and are written back together.
 *
 * PROBLEM     A database reads, seals and writes pages of 8 to 64 KiB and wants each in one piece; everything else here, from
 *             the hash to page locks, knows pages of one frame. Whoever dies in between, nobody may find half a page.
 * STRUCTURE   Every frame of the run keeps an identity, a lock and a mark of use of its own, so that a hit is the same
 *             for all pages. What must not be divided is the head's:
 *
 *               frame      f      f + 1   f + 2   f + 3         a vnode with pages of four frames
 *               index      8      9       10      11            head: the index is a multiple of four
 *               modified   word   0       0       0             one word, one list entry, one claim for the whole run
 *               policy     node   -       -       -
 *
 *               come   1 a run of empty frames, all held exclusively   2 insert, head first   3 one call of the store fills
 *                      all   4 valid, head last   5 those that were asked for are kept shared, the others let go
 *               go     1 all frames exclusively, tried   2 the head is clean   3 the head is filling: from here on the page
 *                      counts as empty   4 out of the chains, head last   5 free
 *               move   all frames at once, to adjacent ones: page-moves.ts
 *
 *             A shared hold of any frame keeps the whole page, since nobody can take all frames then.
 * INVARIANTS  I1 a frame of a large page has an identity only while its head has the one in front of it.
 *             I2 if the head has its bytes, all frames of the page have identities, side by side in one bank, and theirs.
 *             I3 identities and states of the page change only while one thread holds all of its frames exclusively.
 *             I4 the word of modifications is 0 in all frames but the head.
 * LOCKING     Page locks of all frames; all but the first are tried, none waited for. A recoverer finds a head without bytes
 *             and takes all frames away.
 * COSTS       A hit: nothing more. A miss: a run of free frames, or one page that leaves, or a look at every frame for the
 *             window with the least to move.
 * FAILURE     False, with nothing changed, when somebody holds a frame or the page is modified.
 * REJECTED    An identity for the head alone: each release and mark of a frame would first have to find its head, also for
 *             those who never use large pages. Pieces that are not adjacent: WASM and checksums want one.
 * REFERENCES  Linux folios; illumos large pages (p_szc), whose constituents keep identities too.
 */

import type { BoundTables } from '../layout/region.ts';
import { giveAdjacent } from '../phys/adjacent-frames.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, type Frames } from '../phys/frames.ts';
import type { DirtyPages } from './dirty-pages.ts';
import { PAGE_STATE, type PageHash, type VnodeIndex } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageParts } from './page-parts.ts';
import type { PageShapes } from './page-shapes.ts';

/** Large pages as one thread handles them. */
export class LargePages {
  readonly #page: BoundTables['page'];
  readonly #frames: Frames;
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #dirty: DirtyPages;
  readonly #shapes: PageShapes;

  constructor(parts: Omit<PageParts, 'large'>) {
    this.#page = parts.thread.region.tables.page;
    this.#frames = parts.frames;
    this.#hash = parts.hash;
    this.#holds = parts.holds;
    this.#dirty = parts.dirty;
    this.#shapes = parts.shapes;
  }

  /** Step 2 of coming: gives empty frames their identities, in state filling; else the frame that has one of them already. */
  insert(first: FrameIndex, vnode: VnodeIndex, index: number, count: number): FrameIndex {
    for (let done = 0; done < count; done++) {
      const other = this.#hash.insert(first + done, vnode, index + done);
      if (other < 0) continue;
      // A recoverer is about to take what a dead thread has left there.
      for (let undone = done - 1; undone >= 0; undone--) this.#hash.remove(first + undone);
      return other;
    }
    return -1;
  }

  /** Step 4 of coming. */
  complete(first: FrameIndex, count: number, mark: number): void {
    for (let done = count - 1; done >= 0; done--) {
      this.#page.referenced.put(first + done, mark);
      this.#page.state.put(first + done, PAGE_STATE.valid);
    }
  }

  /**
   * Steps 1 to 4 of going, without those that are needed for others: takes the identity of a clean page, one frame of which
   * is held exclusively, and frees the others. False, with all let go, when that cannot be at once.
   */
  evict(frame: FrameIndex): boolean {
    const count = this.#shapes.framesAt(frame);
    const head = this.#shapes.headOf(frame);
    if (this.takeOthers(frame) >= 0) return false;
    if (!this.#dirty.isClean(head) || this.#page.state.get(head) !== PAGE_STATE.valid) {
      this.letGo(frame);
      return false;
    }
    this.empty(head);
    this.#give(head, frame - head);
    this.#give(frame + 1, head + count - frame - 1);
    return true;
  }

  /**
   * Takes the other frames of a page exclusively, one of which is held so. -1 when all are held; else the frame that could
   * not be had, and then none is held any more.
   */
  takeOthers(frame: FrameIndex): FrameIndex {
    const head = this.#shapes.headOf(frame);
    const end = head + this.#shapes.framesAt(frame);
    for (let at = head; at < end; at++) {
      if (at === frame || this.#holds.tryExclusive(at)) continue;
      for (let taken = head; taken < at; taken++) if (taken !== frame) this.#holds.releaseExclusive(taken);
      this.#holds.releaseExclusive(frame);
      return at;
    }
    return -1;
  }

  /** Gives the exclusive holds of all frames of a page back. */
  letGo(frame: FrameIndex): void {
    const count = this.#shapes.framesAt(frame);
    const head = this.#shapes.headOf(frame);
    for (let at = head; at < head + count; at++) this.#holds.releaseExclusive(at);
  }

  /** Steps 3 and 4 of going, for a page whose frames are all held exclusively; what it holds is given up. */
  empty(head: FrameIndex): void {
    const count = this.#shapes.framesAt(head);
    this.#page.state.put(head, PAGE_STATE.filling);
    this.#dirty.discard(head);
    for (let at = head + count - 1; at >= head; at--) this.#hash.remove(at);
  }

  /** Frees all frames of a page that has been emptied. */
  give(first: FrameIndex, count: number): void {
    this.#give(first, count);
  }

  /** True when a frame other than the head was used since the mark of the head was looked at: the marks move to the head. */
  gatherMarks(head: FrameIndex): boolean {
    let used = false;
    for (let at = head + this.#shapes.framesAt(head) - 1; at > head; at--) {
      if (this.#page.referenced.get(at) === 0) continue;
      this.#page.referenced.put(at, 0);
      used = true;
    }
    if (used) this.#page.referenced.put(head, 1);
    return used;
  }

  /** True when this thread holds some frame of the page that has this one. A look without a lock. */
  holdsAny(frame: FrameIndex): boolean {
    const count = this.#shapes.framesAt(frame);
    const head = frame - this.#shapes.positionOf(frame);
    for (let at = Math.max(0, head); at < head + count; at++) if (this.#holds.holds(at)) return true;
    return false;
  }

  #give(first: FrameIndex, count: number): void {
    const { state } = this.#page;
    if (count > 0) giveAdjacent(this.#frames.core, first, count, FRAME_USE.page, state, PAGE_STATE.empty);
    for (let at = first; at < first + count; at++) this.#holds.releaseExclusive(at);
  }
}

/** Broken invariants, at quiet points. */
export function largePageProblems(page: BoundTables['page'], shapes: PageShapes, bankFrames: number): string[] {
  const problems: string[] = [];
  for (let frame = 0; frame < page.rowCount; frame++) {
    const count = shapes.framesAt(frame);
    if (count === 1) continue;
    const position = shapes.positionOf(frame);
    const head = frame - position;
    const isHere = (at: number, other: number) =>
      at >= 0 &&
      at < page.rowCount &&
      page.vnode.get(at) === page.vnode.get(frame) &&
      page.index.get(at) === page.index.get(frame) - position + other;
    if (position > 0 && page.modified.get(frame) !== 0)
      problems.push(`page/large-pages I4: frame ${frame} is modified`);
    if (!isHere(head, 0)) problems.push(`page/large-pages I1: frame ${frame} is without its head`);
    else if (page.state.get(head) === PAGE_STATE.valid && page.state.get(frame) !== PAGE_STATE.valid) {
      problems.push(`page/large-pages I2: frame ${frame} has state ${page.state.get(frame)}`);
    }
    if (position > 0) continue;
    for (let other = 1; other < count; other++) {
      const there = isHere(head + other, other) && (head + other) % bankFrames !== 0;
      if (!there) problems.push(`page/large-pages I2: frame ${head + other} is missing behind head ${head}`);
    }
  }
  return problems;
}
