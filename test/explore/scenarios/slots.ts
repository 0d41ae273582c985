/** Threads that attach, use a mutex, and detach, while others are recovered. */

import { Mutex } from '../../../src/sync/mutex.ts';
import { RANK } from '../../../src/sync/ranks.ts';
import { claimSlot, findSlotsByWatch, releaseSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import { WORD, World } from './world.ts';

/** How often each of two threads attaches. */
export interface SlotOptions {
  readonly stays: number;
  readonly mortal?: readonly number[];
}

/** Each stay claims a slot under a watch id of its own. The monitor's slot is the last. */
export class SlotWorld extends World {
  readonly stays: number;

  constructor({ stays, mortal = [] }: SlotOptions) {
    super(2, mortal);
    this.stays = stays;
  }

  override setUp(): void {
    super.setUp();
    // The members only look at the slots, but for the monitor: the threads claim theirs themselves.
    for (const thread of [0, 1]) this.region.tables.slot.claim.put(thread, 0);
  }

  watchId(thread: number): number {
    return 10 + thread;
  }

  run(thread: number): void {
    for (let stay = 0; stay < this.stays; stay++) {
      const slot = claimSlot(this.region, this.watchId(thread));
      const self = new Thread(this.region, slot, this.sliceMs);
      const mutex = new Mutex(self, this.address(WORD.lock), RANK.user);
      mutex.enter();
      this.sectionOf(self);
      mutex.exit();
      releaseSlot(self);
    }
  }

  override recover(dead: number): void {
    const found = findSlotsByWatch(this.region, this.watchId(dead));
    for (let at = 0; at < found.length; at++) {
      takeOver(this.member(2), found[at] as number, [], this.watchId(dead));
    }
  }

  verdict(dead: number): string | null {
    const { claim } = this.region.tables.slot;
    for (let slot = 0; slot < 5; slot++) {
      if (slot !== 2 && claim.get(slot) !== 0) return `slot ${slot} is still claimed by ${claim.get(slot)}`;
    }
    if (this.word(WORD.lock) !== 0) return 'the mutex is still held';
    return this.leftovers(-1, dead < 0 ? 2 * this.stays : this.stays, 2 * this.stays);
  }
}
