/**
 * What a dead slot leaves in the pagelock cache.
 *
 * Its transactions were undone before this runs. Left are its pins, an entry that it had charged and not linked, entries
 * whose reclaim was due, its place as the reaper, and its list of pins that are not in use. Every step leaves less to do
 * when it is repeated.
 */

import type { SlotIndex } from '../sync/index.ts';
import type { PagelockCore } from './pagelock-core.ts';
import type { RangeCache } from './range-cache.ts';
import type { Reclaimer } from './reclaimer.ts';

/** Rows of pins that one transaction gives to the pool. */
const PIN_BATCH = 64;

/** Gives back what a dead slot had. Runs no driver: what is due becomes orphans, for whoever reaps or purges next. */
export function recoverPagelock(core: PagelockCore, ranges: RangeCache, reclaimer: Reclaimer, dead: SlotIndex): void {
  if (!core.enabled) return;
  const { control, slots, thread, pins, lock } = core;
  const { journal } = thread;
  // 1. Its walk is over, and so are its disables.
  lock.enter();
  if (control.reaper.get(0) === dead + 1) journal.set(control.reaper, 0, 0);
  const disables = slots.disables.get(dead);
  if (disables !== 0) {
    journal.set(control.disabled, 0, control.disabled.get(0) - disables);
    journal.set(slots.disables, dead, 0);
  }
  // 2. An entry that nobody has seen.
  const reserved = slots.reserved.get(dead) - 1;
  if (reserved >= 0) {
    core.charge(reserved, -1, core.entries.pages.get(reserved));
    core.freeEntry(reserved);
    journal.set(slots.reserved, dead, 0);
  }
  lock.exit();
  // 3. Pins: entries that were only its own become idle, or go.
  for (const pin of pins.pinsOf(dead)) ranges.releaseRow(pins.rowOf(pin, 'pagelock.recover'));
  // 4. Reclaims, its own and those of step 3.
  reclaimer.orphan(dead);
  reclaimer.orphan(thread.slot);
  // 5. Pins that it had in store.
  const rows = core.thread.region.tables.pagelockPin;
  while (slots.pinHead.get(dead) !== 0) {
    lock.enter();
    for (let count = 0; count < PIN_BATCH && slots.pinHead.get(dead) !== 0; count++) {
      const row = slots.pinHead.get(dead) - 1;
      journal.set(slots.pinHead, dead, rows.next.get(row));
      journal.set(rows.next, row, control.pinHead.get(0));
      journal.set(rows.slot, row, 0);
      journal.set(control.pinHead, 0, row + 1);
    }
    lock.exit();
  }
}
