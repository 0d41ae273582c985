/** Named locks as people want to see them, and what must hold of each. */

import type { CheckReport } from '../base/check.ts';
import { LOCK_LANE } from '../layout/lock-tables.ts';
import type { Region } from '../layout/region.ts';
import { and, load } from './atomics.ts';
import { LOCK_KIND, type LockKind } from './lock-place.ts';
import { LOCK_OWNER } from './mutex.ts';
import { isAttached, type SlotIndex, slotOfAttachment } from './thread.ts';

/** One named lock. Slots may have changed by the time that it is looked at. */
export interface NamedLockReport {
  readonly name: string;
  readonly kind: LockKind;
  /** Who holds the mutex, or is the writer or about to be; null for nobody, and for conditions. */
  readonly holder: SlotIndex | null;
  /** Readers that are in. */
  readonly readers: readonly SlotIndex[];
  /** Slots that wait, blocked or in an event loop. */
  readonly waiting: readonly SlotIndex[];
  /** The slot of a thread that died inside, while nobody has repaired what it left. */
  readonly abandonedBy: SlotIndex | null;
}

const KIND_NAMES = Object.keys(LOCK_KIND) as LockKind[];

/** What a row in use says. Under the registry's lock. */
export function describeLock(region: Region, row: number): NamedLockReport {
  const { namedLock } = region.tables;
  const kind = KIND_NAMES[namedLock.kind.get(row) - 1] as LockKind;
  const owner =
    kind === 'condition' ? 0 : load(region.words, namedLock.words.address(row, LOCK_LANE[kind])) & LOCK_OWNER;
  const inside = namedLock.holder.get(row);
  const left = inside !== 0 && slotOfAttachment(inside) + 1 !== owner ? inside : namedLock.abandonedBy.get(row);
  return {
    name: namedLock.name.text(row),
    kind,
    holder: owner === 0 ? null : owner - 1,
    readers: kind === 'rwlock' ? slotsIn(region, row, LOCK_LANE.rwlock + 1) : [],
    waiting: waitersOf(region, row),
    abandonedBy: left === 0 ? null : slotOfAttachment(left),
  };
}

/** Slots that wait for a lock. */
export function waitersOf(region: Region, row: number): SlotIndex[] {
  return slotsIn(region, row, LOCK_LANE.waiting);
}

/** Takes a dead slot from those who wait, everywhere. */
export function clearWaits(region: Region, dead: SlotIndex): void {
  const { words, rowCount } = region.tables.namedLock;
  const bit = 1 << (dead & 31);
  for (let row = 0; row < rowCount; row++) {
    const address = words.address(row, LOCK_LANE.waiting + (dead >>> 5));
    if ((load(region.words, address) & bit) !== 0) and(region.words, address, ~bit);
  }
}

/** Checks every row. Under the registry's lock, at a quiet point. */
export function checkNamedLocks(region: Region): CheckReport {
  const { namedLock, slot: slots } = region.tables;
  const problems: string[] = [];
  const names = new Set<string>();
  for (let row = 0; row < namedLock.rowCount; row++) {
    const kind = namedLock.kind.get(row);
    if (kind === 0) {
      const held = load(region.words, namedLock.words.address(row, LOCK_LANE.mutex));
      const written = load(region.words, namedLock.words.address(row, LOCK_LANE.rwlock));
      const readers = slotsIn(region, row, LOCK_LANE.rwlock + 1).length;
      const named = namedLock.holder.get(row) + namedLock.abandonedBy.get(row);
      if (held + written + readers + waitersOf(region, row).length + named !== 0) {
        problems.push(`sync/named-locks I2: row ${row} is free, but held or waited for, or names a holder`);
      }
      continue;
    }
    if (kind < 0 || kind > KIND_NAMES.length) {
      problems.push(`sync/named-locks I3: row ${row} has kind ${kind}`);
      continue;
    }
    const { name, holder, readers, waiting } = describeLock(region, row);
    if (names.has(name)) problems.push(`sync/named-locks I1: ${JSON.stringify(name)} has two rows`);
    names.add(name);
    for (const slot of [...(holder === null ? [] : [holder]), ...readers, ...waiting]) {
      const isClaimed = slot < slots.rowCount && load(region.words, slots.claim.address(slot)) !== 0;
      if (!isClaimed) problems.push(`sync/named-locks I4: ${JSON.stringify(name)} names slot ${slot}, which is free`);
    }
    const inside = namedLock.holder.get(row);
    if (inside !== 0 && isAttached(region, inside) && slotOfAttachment(inside) !== holder) {
      problems.push(`sync/lock-place I1: ${JSON.stringify(name)} has holder ${inside}, but is slot ${holder}'s`);
    }
  }
  return { structure: 'sync/named-locks', checked: namedLock.rowCount, problems };
}

/** The slots whose bits are set in the words from a lane on. */
function slotsIn(region: Region, row: number, lane: number): SlotIndex[] {
  const { words } = region.tables.namedLock;
  const found: SlotIndex[] = [];
  for (let word = 0; word < region.geometry.slotLanes; word++) {
    const bits = load(region.words, words.address(row, lane + word));
    for (let bit = 0; bit < 32; bit++) if ((bits & (1 << bit)) !== 0) found.push(word * 32 + bit);
  }
  return found;
}
