/** Slots as people want to see them. */

import type { Region } from '../layout/index.ts';
import { load, SLOT_STATE, type SlotIndex, UNWATCHED } from '../sync/index.ts';

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
    const state = load(region.words, slots.state.address(slot));
    list.push({
      slot,
      state: state === SLOT_STATE.recovering ? 'recovering' : 'active',
      watchedBy: claim > 0 ? 'port' : claim === UNWATCHED ? 'nobody' : 'thread id',
      contended: slots.contended.get(slot),
      slept: slots.slept.get(slot),
    });
  }
  return list;
}
