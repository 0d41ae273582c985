/** Slots as people want to see them. */

import type { Region } from '../layout/index.ts';
import { load, RECOVERING, type SlotIndex, UNWATCHED } from '../sync/index.ts';

/** One attached thread. */
export interface SlotReport {
  readonly slot: SlotIndex;
  readonly state: 'active' | 'recovering';
  /** How its end would be noticed. */
  readonly watchedBy: 'port' | 'thread id' | 'nobody';
  /** Lock entries that met another owner. */
  readonly contended: number;
  /** Sleeps in the operating system. */
  readonly slept: number;
}

/** All attached threads. */
export function describeSlots(region: Region): SlotReport[] {
  const { slot: slots } = region.tables;
  const list: SlotReport[] = [];
  for (let slot = 0; slot < slots.rowCount; slot++) {
    const claim = load(region.words, slots.claim.address(slot));
    if (claim === 0) continue;
    list.push({
      slot,
      state: claim === RECOVERING ? 'recovering' : 'active',
      watchedBy: claim > 0 ? 'port' : claim === UNWATCHED || claim === RECOVERING ? 'nobody' : 'thread id',
      contended: slots.contended.get(slot),
      slept: slots.slept.get(slot),
    });
  }
  return list;
}
