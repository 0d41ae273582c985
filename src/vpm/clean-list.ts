/**
 * List of clean pages: those that nothing maps, in the order in which they will lose their frames.
 *
 * PROBLEM     A page that nobody maps any more is worth keeping as long as its frame is not needed, and must be found again
 *             when it is asked for.
 * STRUCTURE   head -> frame <-> frame <-> ... <- tail, linked through a record per frame; first in, first out.
 *             Pages on the list keep their identity: a look-up takes them off again.
 * INVARIANTS  I1 links, ends and count agree.   I2 a frame is marked iff it is linked.
 *             A linked frame may have lost its page to somebody who knows nothing of this list, and have another one by now,
 *             or its page may have been modified by him; it is dropped when met.
 * LOCKING     One mutex (RANK.mappingList); page locks are only tried under it.
 * COSTS       A lock pair and up to six journaled stores for each change.
 * FAILURE     `takeFirst` returns -1 when every page on the list is locked.
 * REJECTED    Reference marks and a clock: page/replacement.ts has them; this is what the source's page layer does.
 * REFERENCES  illumos vm_page.c: page_list_add, page_reclaim.
 */

import type { BoundTables } from '../layout/region.ts';
import type { PageHolds } from '../page/page-holds.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';

/** The list as one thread sees it. */
export class CleanList {
  readonly #thread: Thread;
  readonly #mutex: Mutex;
  readonly #cache: BoundTables['mappingCache'];
  readonly #frame: BoundTables['mappingFrame'];
  readonly #page: BoundTables['page'];

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#mutex = new Mutex(thread, tables.mappingCache.cleanLock.address(0), RANK.mappingList);
    this.#cache = tables.mappingCache;
    this.#frame = tables.mappingFrame;
    this.#page = tables.page;
  }

  /** True while a frame is on the list; a look without the lock is a hint. */
  has(frame: FrameIndex): boolean {
    return this.#frame.clean.get(frame) !== 0;
  }

  /** Puts a frame at the end, or at the beginning with `first`; if it is on the list it moves. */
  add(frame: FrameIndex, first: boolean): void {
    this.#mutex.enter();
    if (this.has(frame)) this.#unlink(frame);
    this.#link(frame, first);
    this.#mutex.exit();
  }

  /** Takes a frame off the list; false when it was not there. */
  remove(frame: FrameIndex): boolean {
    if (!this.has(frame)) return false;
    this.#mutex.enter();
    const listed = this.has(frame);
    if (listed) this.#unlink(frame);
    this.#mutex.exit();
    return listed;
  }

  /**
   * Takes the first frame off whose page lock can be had and whose page may leave, which is asked under that lock. The frame is
   * then held exclusively; -1 when there is none. Frames whose pages may not leave are taken off too.
   */
  takeFirst(holds: PageHolds, mayLeave: (frame: FrameIndex) => boolean): FrameIndex {
    let taken = -1;
    this.#mutex.enter();
    for (let link = this.#cache.cleanHead.get(0); link !== 0 && taken < 0; ) {
      const frame = link - 1;
      link = this.#frame.next.get(frame);
      const hasPage = this.#page.vnode.get(frame) !== 0;
      if (hasPage && !holds.tryExclusive(frame)) continue;
      this.#unlink(frame);
      this.#thread.commit();
      if (!hasPage) continue;
      if (mayLeave(frame)) taken = frame;
      else holds.releaseExclusive(frame);
    }
    this.#mutex.exit();
    return taken;
  }

  /** The frames in order, first out first. For quiet points. */
  frames(): FrameIndex[] {
    const found: FrameIndex[] = [];
    const { mappingFrames } = this.#thread.region.geometry;
    for (let link = this.#cache.cleanHead.get(0); link !== 0 && found.length <= mappingFrames; ) {
      found.push(link - 1);
      link = this.#frame.next.get(link - 1);
    }
    return found;
  }

  /** Broken invariants. For quiet points. */
  problems(): string[] {
    const problems: string[] = [];
    const listed = new Set<FrameIndex>();
    let before = 0;
    for (const frame of this.frames()) {
      if (listed.has(frame)) problems.push(`vpm/clean-list I1: frame ${frame} is linked twice`);
      listed.add(frame);
      if (this.#frame.previous.get(frame) !== before)
        problems.push(`vpm/clean-list I1: frame ${frame} points back wrong`);
      before = frame + 1;
    }
    if (this.#cache.cleanTail.get(0) !== before) problems.push('vpm/clean-list I1: the tail is not the last frame');
    if (this.#cache.cleanCount.get(0) !== listed.size) {
      problems.push(`vpm/clean-list I1: count ${this.#cache.cleanCount.get(0)}, found ${listed.size}`);
    }
    for (let frame = 0; frame < this.#frame.rowCount; frame++) {
      if (this.has(frame) !== listed.has(frame)) problems.push(`vpm/clean-list I2: frame ${frame}`);
    }
    return problems;
  }

  #link(frame: FrameIndex, first: boolean): void {
    const { journal } = this.#thread;
    const { next, previous, clean } = this.#frame;
    const { cleanHead, cleanTail, cleanCount } = this.#cache;
    const after = first ? cleanHead.get(0) : 0;
    const before = first ? 0 : cleanTail.get(0);
    journal.set(next, frame, after);
    journal.set(previous, frame, before);
    journal.set(clean, frame, 1);
    if (before === 0) journal.set(cleanHead, 0, frame + 1);
    else journal.set(next, before - 1, frame + 1);
    if (after === 0) journal.set(cleanTail, 0, frame + 1);
    else journal.set(previous, after - 1, frame + 1);
    journal.set(cleanCount, 0, cleanCount.get(0) + 1);
  }

  #unlink(frame: FrameIndex): void {
    const { journal } = this.#thread;
    const { next, previous, clean } = this.#frame;
    const { cleanHead, cleanTail, cleanCount } = this.#cache;
    const after = next.get(frame);
    const before = previous.get(frame);
    if (before === 0) journal.set(cleanHead, 0, after);
    else journal.set(next, before - 1, after);
    if (after === 0) journal.set(cleanTail, 0, before);
    else journal.set(previous, after - 1, before);
    journal.set(clean, frame, 0);
    journal.set(cleanCount, 0, cleanCount.get(0) - 1);
  }
}
