/**
 * Recovery of page locks and half-made pages of a thread that has ended.
 *
 * PROBLEM     Page locks write no records, so whatever the dead slot held must be found from the frames alone.
 * STRUCTURE   One pass over all frames:
 *
 *               the slot was writing the page back           -> modified, who waits for that woken
 *               the slot held a page that was written to     -> modified: it may have stored bytes without saying so
 *               the slot's bit is set                        -> cleared, a waiting writer woken
 *               the word names the slot, page is filling     -> identity taken away, frame freed, then as next; of a large
 *                                                               page, whose head comes first, all frames at once
 *               the word names the slot                      -> lock freed, waiters woken
 *               no identity, in the slot's hands (pages I2)  -> freed, whoever holds the lock: that one only looks
 *
 *             Then everybody who sleeps on a page lock is woken: the dead slot may have given one back, and died before it
 *             woke who waited for it.
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
import { ALL_WAITERS, and, exchange, load, notify } from '../sync/atomics.ts';
import { LOCK_OWNER } from '../sync/mutex.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { DirtyPages } from './dirty-pages.ts';
import { hasBytes, PAGE_STATE, PageHash } from './page-hash.ts';
import { PageShapes } from './page-shapes.ts';

/** Gives back the page locks and the unfinished pages of a dead slot. */
export function recoverPages(self: Thread, dead: SlotIndex): void {
  const { region, words } = self;
  const { page } = region.tables;
  const frames = new Frames(self);
  const hash = new PageHash(self);
  const dirty = new DirtyPages(self);
  const shapes = new PageShapes(self);
  const lane = 1 + (dead >>> 5);
  const bit = 1 << (dead & 31);
  for (let frame = 0; frame < page.rowCount; frame++) {
    const bits = page.lock.address(frame, lane);
    const word = page.lock.address(frame);
    const held = (load(words, bits) & bit) !== 0;
    const owned = (load(words, word) & LOCK_OWNER) === dead + 1;
    dirty.recover(frame, dead, held || owned);
    if (held) {
      and(words, bits, ~bit);
      notify(words, bits, ALL_WAITERS);
    }
    if (owned && page.vnode.get(frame) !== 0 && !hasBytes(page.state.get(frame))) {
      const size = shapes.framesAt(frame);
      const head = shapes.headOf(frame);
      dirty.discard(head);
      // Frames of a large page that had not come yet, or have gone already, are without it.
      for (let at = head + size - 1; at >= head; at--) {
        if (size > 1 && !isOf(page, at, frame)) continue;
        hash.remove(at);
        frames.give(at, FRAME_USE.page, page.state, PAGE_STATE.empty);
      }
    } else if (isInHand(page, frames, frame, dead)) {
      frames.giveIf(frame, () => isInHand(page, frames, frame, dead), page.state, PAGE_STATE.empty);
    }
    if (!owned) continue;
    exchange(words, word, 0);
    notify(words, word, ALL_WAITERS);
  }
  wakeSleepers(self);
}

/** Wakes all sleepers on page locks; each looks again. They publish what they sleep on. */
function wakeSleepers(self: Thread): void {
  const { page, slot: slots } = self.region.tables;
  const end = page.lock.address(page.rowCount);
  for (let slot = 0; slot < slots.rowCount; slot++) {
    const address = slots.waitAddress.get(slot) - 1;
    if (address >= page.lock.base && address < end) notify(self.words, address, ALL_WAITERS);
  }
}

/** True when one frame holds the part of a large page that belongs there when another holds its own. */
function isOf(page: BoundTables['page'], at: FrameIndex, frame: FrameIndex): boolean {
  return page.vnode.get(at) === page.vnode.get(frame) && page.index.get(at) - at === page.index.get(frame) - frame;
}

/**
 * True when a frame without an identity is in the hands of the dead slot. Certain under the frames' lock only: whoever
 * gives a frame back stores state and use there.
 */
function isInHand(page: BoundTables['page'], frames: Frames, frame: FrameIndex, dead: SlotIndex): boolean {
  if (page.vnode.get(frame) !== 0 || frames.useOf(frame) !== FRAME_USE.page) return false;
  const state = page.state.get(frame);
  if (state === PAGE_STATE.empty) return frames.takerOf(frame) === dead;
  return state === PAGE_STATE.inHand + dead + 1;
}
