/**
 * Write sections, and the counts by which translations are known to be current.
 *
 * PROBLEM     A thread that has found out where a page is uses that without a lock; then the page is unmapped, protected, or
 *             shared with a fork. Whoever does that must know when nobody uses the old translation any more, without
 *             stopping threads that work elsewhere, and although threads die.
 * STRUCTURE   Each slot publishes the space that it is writing into; each space counts its changes, by part:
 *
 *               writer    1 section := space   2 count of the part as it was when the translation was made? if not: leave
 *                         3 store               4 section := 0, waking whoever announced himself in it
 *               changer   1 count + 1            2 for each slot: while its section is this space, announce and sleep
 *                         3 change
 *
 *             Each side stores its own word before it loads the other's, so of a writer and a changer that race, the writer
 *             sees the new count and leaves, or the changer sees the section and waits. Writers that come later find the
 *             new count and look the page up again, for which they need the lock that the changer holds. The moment
 *             between steps 2 and 3 of the changer is the instant that a fork shows.
 * INVARIANTS  I1 a translation is used for a store only inside a section, and with the count that it was made with.
 *             I2 after step 2 of the changer no store through an older translation is on its way.
 * LOCKING     None inside a section: a writer leaves it before it waits for anything. The changer holds the space exclusively.
 * COSTS       Three atomic operations a write; a change costs a load for each slot.
 * FAILURE     A thread that dies in a section is no longer waited for once the monitor has found it dead; its recovery ends the
 *             section.
 * REJECTED    A count of writers in the space: all of them would meet in one word, and a dead one could not be subtracted.
 *             Sections for readers: a page is kept still by its page lock, and a reader may see what was there before.
 * REFERENCES  Dekker's flags; epochs and hazard pointers; RCU grace periods.
 */

import { VERIFY } from '../base/verify.ts';
import { TRANSLATION_LANES } from '../layout/space-tables.ts';
import {
  ALL_WAITERS,
  add,
  compareExchange,
  exchange,
  faultPoint,
  load,
  notify,
  RECOVERING,
  type SlotIndex,
  sleepOn,
  store,
  type Thread,
} from '../sync/index.ts';
import { SECTION_AWAITED, type SpaceIndex } from './space-kinds.ts';

/** How long a changer sleeps before it looks whether the thread in a section still lives. */
const PATIENCE_MS = 10;

/** Pages of one chunk share a count. */
const LANE_PAGES = 64;

/** Sections and counts as one thread sees them. */
export class WriteSections {
  private readonly thread: Thread;
  private readonly words: Int32Array;
  private readonly own: number;
  private readonly claims: Thread['region']['tables']['slot']['claim'];
  private readonly sections: Thread['region']['tables']['spaceSlot']['section'];
  private readonly counts: Thread['region']['tables']['addressSpace']['translations'];

  constructor(thread: Thread) {
    const { addressSpace, spaceSlot, slot } = thread.region.tables;
    this.thread = thread;
    this.words = thread.words;
    this.sections = spaceSlot.section;
    this.counts = addressSpace.translations;
    this.claims = slot.claim;
    this.own = spaceSlot.section.address(thread.slot);
  }

  /** Where the count lies that a page of a space belongs to. */
  countAddress(space: SpaceIndex, page: number): number {
    return this.counts.address(space, Math.floor(page / LANE_PAGES) % TRANSLATION_LANES);
  }

  /** Step 1 of a writer. What follows must not wait. */
  enter(space: SpaceIndex): void {
    store(this.words, this.own, space + 1);
  }

  /** Step 4 of a writer. */
  leave(): void {
    const word = exchange(this.words, this.own, 0);
    if ((word & SECTION_AWAITED) !== 0) notify(this.words, this.own, ALL_WAITERS);
  }

  /** Step 1 of a changer for the part that a page belongs to: reads through older translations have begun before. */
  changePage(space: SpaceIndex, page: number): void {
    add(this.words, this.countAddress(space, page), 1);
  }

  /** Steps 1 and 2 of a changer, for all pages of a space that this thread holds exclusively. */
  changeAll(space: SpaceIndex): void {
    for (let lane = 0; lane < TRANSLATION_LANES; lane++) add(this.words, this.counts.address(space, lane), 1);
    if (VERIFY) faultPoint(this.thread, 'seg.space.changed');
    for (let slot = 0; slot < this.sections.view.length / this.sections.stride; slot++) this.awaitSlot(space, slot);
  }

  /** Ends the section of a thread that has died. */
  recover(dead: SlotIndex): void {
    const address = this.sections.address(dead);
    exchange(this.words, address, 0);
    // In any case: it may have died between leaving the section and waking who waits for it.
    notify(this.words, address, ALL_WAITERS);
  }

  /** True while a slot is in a section: for checks at quiet points. */
  isInside(slot: SlotIndex): boolean {
    return load(this.words, this.sections.address(slot)) !== 0;
  }

  private awaitSlot(space: SpaceIndex, slot: SlotIndex): void {
    const address = this.sections.address(slot);
    for (let spins = this.thread.spinLimit; ; spins--) {
      const word = load(this.words, address);
      if ((word & ~SECTION_AWAITED) !== space + 1) break;
      if (spins > 0) continue;
      const announced = word | SECTION_AWAITED;
      if (word !== announced && compareExchange(this.words, address, word, announced) !== word) continue;
      // A dead thread stores nothing more. Its recovery may come after one that waits for what this thread holds.
      if (load(this.words, this.claims.address(slot)) === RECOVERING) break;
      sleepOn(this.thread, address, announced, PATIENCE_MS);
    }
    this.thread.clearWait();
  }
}
