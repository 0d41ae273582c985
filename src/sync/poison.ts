/**
 * Poison: the end of a region whose invariants no longer hold.
 *
 * A thread that finds a structure broken marks the region and wakes every sleeper. Each wait loop looks at the mark
 * after waking, and attaching refuses, so that no thread goes on computing with memory that cannot be trusted. A system
 * that is shut down in order ends the same way, but the mark says so: what runs until then has nothing to report.
 */

import { VmError } from '../base/errors.ts';
import type { Region } from '../layout/region.ts';
import { ALL_WAITERS, compareExchange, load, notify } from './atomics.ts';

const BROKEN = 1;
const SHUT_DOWN = 2;

/** Marks the region as broken, for the given reason, and wakes all sleepers. Only the first reason is kept. */
export function poisonRegion(region: Region, reason: string): void {
  endRegion(region, reason, BROKEN);
}

/** Ends the region in order: like `poisonRegion`, but `isShutDown` tells the two apart. */
export function shutDownRegion(region: Region): void {
  endRegion(region, 'the system was shut down', SHUT_DOWN);
}

/** True when the region has ended in order. */
export function isShutDown(region: Region): boolean {
  return load(region.words, region.tables.header.poison.address(0)) === SHUT_DOWN;
}

function endRegion(region: Region, reason: string, kind: number): void {
  const { header, slot: slots } = region.tables;
  const mark = header.poison.address(0);
  if (load(region.words, mark) === 0) {
    // The reason first: whoever sees the mark can say why.
    let text = reason;
    while (new TextEncoder().encode(text).length >= header.poisonText.lanes) text = text.slice(0, text.length - 16);
    header.poisonText.putText(0, text);
    compareExchange(region.words, mark, 0, kind);
  }
  for (let slot = 0; slot < slots.rowCount; slot++) {
    const address = slots.waitAddress.get(slot) - 1;
    if (address >= 0) notify(region.words, address, ALL_WAITERS);
  }
}

/** Why the region is poisoned, or null when it is sound. */
export function poisonReason(region: Region): string | null {
  const { header } = region.tables;
  return load(region.words, header.poison.address(0)) === 0 ? null : header.poisonText.text(0);
}

/** Throws `EPOISONED` with the reason when the region is poisoned. */
export function refusePoisoned(region: Region, call: string): void {
  const reason = poisonReason(region);
  if (reason !== null) throw new VmError('EPOISONED', `${call}: the region is poisoned: ${reason}`);
}
