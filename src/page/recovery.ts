/**
 * Recovery of page locks and half-made pages of a thread that has ended.
 *
 * PROBLEM     Page locks write no records, so whatever the dead slot held must be found from the frames alone.
 * STRUCTURE   One pass over all frames:
 *
 *               the slot's bit is set                        -> cleared, a waiting writer woken
 *               the word names the slot, page is filling     -> identity taken away, frame freed, lock freed, waiters woken
 *               the word names the slot, no identity         -> frame freed, lock freed
 *               the word names the slot, page is valid       -> lock freed
 *               nobody's word, no identity, taken by it      -> freed: it died between taking the frame and locking it
 *
 * INVARIANTS  I1 a frame's identity is taken away before its lock is freed: a waiter finds no page and starts again.
 * LOCKING     Never waits for a page lock: its holder might be dead too and be next in line for recovery.
 * COSTS       About 10 ns a frame.
 * FAILURE     None: every step may be repeated.
 * REJECTED    Held-lock records per page: two more stores on every hit, to save a pass that only a death needs.
 * REFERENCES  docs/locking.md, takeover.
 */

import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { FRAME_USE, Frames } from '../phys/frames.ts';
import { ALL_WAITERS, and, compareExchange, exchange, load, notify } from '../sync/atomics.ts';
import { LOCK_OWNER } from '../sync/mutex.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { PAGE_STATE, PageHash } from './page-hash.ts';

/** Looks at a word that a live thread owns for a moment before the frame is left to that thread. */
const GLANCES_MAX = 10_000;

/** Gives back the page locks and the unfinished pages of a dead slot. */
export function recoverPages(self: Thread, dead: SlotIndex): void {
  const { region, words } = self;
  const { page } = region.tables;
  const frames = new Frames(self);
  const hash = new PageHash(self);
  const lane = 1 + (dead >>> 5);
  const bit = 1 << (dead & 31);
  for (let frame = 0; frame < page.rowCount; frame++) {
    const bits = page.lock.address(frame, lane);
    if ((load(words, bits) & bit) !== 0) {
      and(words, bits, ~bit);
      notify(words, bits, ALL_WAITERS);
    }
    const word = page.lock.address(frame);
    if ((load(words, word) & LOCK_OWNER) === dead + 1) {
      if (page.vnode.get(frame) !== 0 && page.state.get(frame) !== PAGE_STATE.valid) hash.remove(frame);
      if (page.vnode.get(frame) === 0 && frames.useOf(frame) === FRAME_USE.page) frames.give(frame, FRAME_USE.page);
      exchange(words, word, 0);
      notify(words, word, ALL_WAITERS);
    } else if (isStray(page, frames, frame, dead)) {
      freeStray(self, page, frames, frame, dead);
    }
  }
}

/** True when the slot took the frame for a page that it did not come to insert. */
function isStray(page: BoundTables['page'], frames: Frames, frame: FrameIndex, dead: SlotIndex): boolean {
  return page.vnode.get(frame) === 0 && frames.useOf(frame) === FRAME_USE.page && frames.takerOf(frame) === dead;
}

/** Owns the word for a moment, so that no evicting thread is in between, and frees the frame if it still is a stray. */
function freeStray(self: Thread, page: BoundTables['page'], frames: Frames, frame: FrameIndex, dead: SlotIndex): void {
  const word = page.lock.address(frame);
  for (let glances = GLANCES_MAX; glances > 0; glances--) {
    if (!isStray(page, frames, frame, dead)) return;
    if (compareExchange(self.words, word, 0, self.tag) !== 0) continue;
    if (isStray(page, frames, frame, dead)) frames.give(frame, FRAME_USE.page);
    if (exchange(self.words, word, 0) !== self.tag) notify(self.words, word, ALL_WAITERS);
    return;
  }
}
