/**
 * Owners that come, get other limits, or go.
 *
 * PROBLEM     An owner is a number in many places: in slots, in address spaces, in what was allocated. Its row must not come to
 *             another owner while any of them has it.
 * STRUCTURE   Whoever removes an owner marks its row, then looks; whoever brings the number to a new place stores it, then looks
 *             at the mark. So of the two at least one sees the other:
 *
 *               remove     1 state `removing`   2 look at charges, slots, and where rooms say   3 state `free`, or as it was
 *               chargeTo   1 own slot's owner   2 the state: `removing` waits for the end, what is gone takes 1 back
 *
 *             A thread that serves a request for which another owner is charged has its own one beside: `ownerAfter`, from before
 *             it turns to the other one until it has turned back and step 2 is over. So whoever looks first at the one, then at the
 *             other, finds it. A request that waits keeps no owner; it knows its row's generation, and is refused when that is over.
 *
 * INVARIANTS  I1 a row that is free is charged nothing, and no slot and no room names it.
 * LOCKING     The owner's lock (RANK.ownerLedger), that of the default owner for new ones; the state is journaled, so that a dead
 *             remover's mark is undone.
 * COSTS       A look at every slot, and at the tables that name owners.
 * FAILURE     `EBUSY` says what is charged and who charges; `ENOENT` for what is no owner. Nothing has changed then.
 * REJECTED    Moving charges to the default owner: it has a limit, too. A generation beside the number everywhere.
 * REFERENCES  owners.ts, owner-ledger.ts.
 */

import { fail, failMisuse, requireObject } from '../base/errors.ts';
import { load, store } from './atomics.ts';
import { mutexEnter, mutexExit } from './mutex.ts';
import {
  chargeOf,
  createOwner,
  DEFAULT_OWNER,
  findOwner,
  noLimit,
  OWNER_RESOURCE,
  OWNER_STATE,
  type OwnerIndex,
  type OwnerLimits,
  type OwnerResource,
  ownerNameOf,
  requireLimit,
} from './owners.ts';
import { RANK } from './ranks.ts';
import type { Thread } from './thread.ts';

/** New limits of an owner: what is left out stays, null takes the limit away. */
export type OwnerLimitChanges = Partial<Record<OwnerResource, number | null>>;

/** Where a room names an owner although nothing is charged, for the message; '' for nowhere. Takes no lock, logs nothing. */
export type OwnerUse = (owner: OwnerIndex) => string;

/**
 * Makes an owner beside others who do: in one critical section, so that a name is not given twice. Throws as `createOwner`.
 */
export function registerOwner(thread: Thread, name: string, limits: OwnerLimits = {}): OwnerIndex {
  const lock = thread.region.tables.ownerLedger.lock.address(DEFAULT_OWNER);
  mutexEnter(thread, lock, RANK.ownerLedger);
  try {
    return createOwner(thread.region, name, limits);
  } finally {
    mutexExit(thread, lock);
  }
}

/**
 * Changes limits of an owner, for everybody from now on. A limit below what is charged takes nothing away: it refuses more.
 * What is being charged at this moment may still go by the old one.
 */
export function setOwnerLimits(thread: Thread, owner: OwnerIndex | string, limits: OwnerLimitChanges): void {
  const call = 'setOwnerLimits';
  const { region } = thread;
  requireObject(call, 'limits', limits);
  for (const [resource, limit] of Object.entries(limits)) {
    if (limit === null && Object.hasOwn(OWNER_RESOURCE, resource)) continue;
    requireLimit(call, resource, limit);
  }
  withOwner(thread, call, owner, (row) => {
    for (const [resource, limit] of Object.entries(limits)) {
      const lane = OWNER_RESOURCE[resource as OwnerResource];
      region.tables.owner.limit.putAt(row, lane, limit ?? noLimit(lane));
    }
  });
}

/**
 * Ends an owner: its row and its name are free for another one. Throws `EBUSY` while anything is charged to it, a thread
 * charges it, or a room names it; `EINVAL` for the default owner, `ENOENT`.
 */
export function removeOwner(thread: Thread, owner: OwnerIndex | string, uses: readonly OwnerUse[] = []): void {
  const call = 'removeOwner';
  const { region, words, journal } = thread;
  const { owner: owners, ownerLedger: ledger } = region.tables;
  withOwner(thread, call, owner, (row) => {
    if (row === DEFAULT_OWNER) failMisuse(call, { owner }, 'the default owner is charged by threads that choose none');
    const state = owners.state.address(row);
    // 1.
    journal.log1(state);
    store(words, state, OWNER_STATE.removing);
    // 2.
    const values: Record<string, unknown> = chargesOf(thread, row);
    const slots = slotsCharging(thread, row);
    if (slots.length > 0) values.slots = slots.join(' ');
    const named = uses.map((use) => use(row)).filter((where) => where !== '');
    if (named.length > 0) values.usedBy = named.join(', ');
    // 3.
    if (Object.keys(values).length > 0) {
      store(words, state, OWNER_STATE.inUse);
      const rule = 'an owner is removed when nothing is charged to it, and nobody charges it';
      fail('EBUSY', call, { owner: ownerNameOf(region, row), ...values }, rule);
    }
    for (const lane of Object.values(OWNER_RESOURCE)) owners.peak.putAt(row, lane, 0);
    journal.setDouble(ledger.peak, row, 0);
    const generation = owners.generation.address(row);
    journal.log1(generation);
    store(words, generation, load(words, generation) + 1);
    store(words, state, OWNER_STATE.free);
  });
}

/** Runs an action under the lock of an owner. Throws `ENOENT` when there is none. */
function withOwner(thread: Thread, call: string, owner: OwnerIndex | string, action: (row: OwnerIndex) => void): void {
  const { owner: owners, ownerLedger: ledger } = thread.region.tables;
  const row = typeof owner === 'string' ? findOwner(thread.region, owner) : owner;
  if (!Number.isInteger(row) || row < 0 || row >= owners.rowCount) fail('ENOENT', call, { owner }, 'no such owner');
  const lock = ledger.lock.address(row);
  mutexEnter(thread, lock, RANK.ownerLedger);
  try {
    const isThere = load(thread.words, owners.state.address(row)) === OWNER_STATE.inUse;
    if (!isThere || (typeof owner === 'string' && ownerNameOf(thread.region, row) !== owner)) {
      fail('ENOENT', call, { owner }, 'no such owner');
    }
    action(row);
  } finally {
    mutexExit(thread, lock);
  }
}

/** What an owner is charged at the moment, by resource. */
function chargesOf(thread: Thread, row: OwnerIndex): Record<string, number> {
  const { region } = thread;
  const charges: Record<string, number> = {};
  for (const [resource, lane] of Object.entries(OWNER_RESOURCE)) {
    const used =
      lane === OWNER_RESOURCE.arenaBytes ? region.tables.ownerLedger.used.get(row) : chargeOf(region, row, lane);
    if (used !== 0) charges[resource] = used;
  }
  return charges;
}

/** Slots whose threads charge an owner, also those that are being recovered. */
function slotsCharging(thread: Thread, row: OwnerIndex): number[] {
  const { slot: slots } = thread.region.tables;
  const found: number[] = [];
  for (let slot = 0; slot < slots.rowCount; slot++) {
    const isClaimed = load(thread.words, slots.claim.address(slot)) !== 0;
    if (!isClaimed) continue;
    // In this order: see above.
    const charges = load(thread.words, slots.owner.address(slot)) === row;
    if (load(thread.words, slots.ownerAfter.address(slot)) === row + 1 || charges) found.push(slot);
  }
  return found;
}
