/**
 * Owners: who is charged for what a thread uses.
 *
 * PROBLEM     Several parts of a program share one memory; one of them must not starve the others.
 * STRUCTURE   A row per owner with a limit and a charge for each resource. Every slot names the owner that it charges;
 *             owner 0 exists from the start and is what threads charge when they choose none.
 *             A charge has two parts: one that is changed under the owner's lock, one that a room changes under a lock of its
 *             own. Either way what the charge is for is written down in the same critical section.
 * INVARIANTS  I1 no charge takes both parts together above the limit.  I2 no part goes below zero.
 * LOCKING     Limits change under the owner's lock: see owner-changes.ts. Each side stores its part, then reads the other's: of two that
 *             would exceed the limit together at least one sees it and takes its part back.
 * COSTS       A lock pair a charge.
 * FAILURE     `EDQUOT` names owner, resource, charge and limit.
 * REJECTED    Compare-and-swap without a lock: a thread that died between the charge and its note left the charge behind.
 * REFERENCES  Solaris projects and zones (project.max-locked-memory).
 */

import { assert } from '../base/assert.ts';
import { fail, failMisuse, requireInteger, requireObject, showCall, VmError } from '../base/errors.ts';
import { ByteColumn } from '../layout/column.ts';
import type { Region } from '../layout/region.ts';
import { add, load, store } from './atomics.ts';
import { mutexEnter, mutexExit } from './mutex.ts';
import { RANK } from './ranks.ts';
import type { Thread } from './thread.ts';

/** Resources that owners are charged for; the value is the lane. */
export const OWNER_RESOURCE = {
  /** Frames that an owner's mappings and pins keep from moving. */
  lockedFrames: 0,
  /** Bytes, or units, of allocations from arenas that charge: see owner-ledger.ts, where they are counted. */
  arenaBytes: 3,
  /** Frames in page lists and in cookies. */
  frames: 2,
  /** Pages of swap that private mappings and shared anonymous memory have reserved. */
  swap: 1,
} as const;

/** The part of a resource's charge that is changed under a lock lies this many lanes behind the other one. */
export const UNDER_LOCK = 4;

/** Name of a resource. */
export type OwnerResource = keyof typeof OWNER_RESOURCE;

/** Number of an owner. */
export type OwnerIndex = number & { readonly __unit?: 'owner' };

/** Limits of an owner; a resource that is left out has none. */
export type OwnerLimits = Partial<Record<OwnerResource, number>>;

/** Charges of an owner as they are now. */
export interface OwnerUsage {
  readonly name: string;
  readonly resources: Readonly<Record<OwnerResource, { used: number; peak: number; limit: number | null }>>;
}

/** States of an owner's row; `removing`: somebody looks whether it may go. */
export const OWNER_STATE = { free: 0, inUse: 1, removing: 2 } as const;

/** The limit of who has none. */
export const NO_LIMIT = 0x7fffffff;
const NAME_BYTES_MAX = 63;

/** The owner that threads charge when they choose none. */
export const DEFAULT_OWNER = 0;

/**
 * Makes an owner in a region that no other thread makes owners in at the same time; `registerOwner` is for all others.
 * Throws `EEXIST` for a name in use and `ENOMEM` when the table is full. It is there from the last store on.
 */
export function createOwner(region: Region, name: string, limits: OwnerLimits = {}): OwnerIndex {
  const { owner: owners } = region.tables;
  if (typeof name !== 'string' || name === '' || ByteColumn.sizeOf(name) > NAME_BYTES_MAX) {
    failMisuse('createOwner', { name }, `a name is a text of 1 to ${NAME_BYTES_MAX} bytes`);
  }
  if (!ByteColumn.keeps(name))
    failMisuse('createOwner', { name }, 'a name is well-formed text without zero characters');
  requireObject('createOwner', 'limits', limits);
  for (const [resource, limit] of Object.entries(limits)) requireLimit('createOwner', resource, limit);
  if (findOwner(region, name) >= 0) fail('EEXIST', 'createOwner', { name }, 'an owner of this name exists');
  const row = freeRow(region);
  if (row < 0) {
    const rule = `all ${owners.rowCount} rows are taken; boot with a larger \`owners\``;
    fail('ENOMEM', 'createOwner', { name }, rule);
  }
  owners.name.putText(row, name);
  for (const [resource, lane] of Object.entries(OWNER_RESOURCE)) {
    owners.limit.putAt(row, lane, limits[resource as OwnerResource] ?? noLimit(lane));
  }
  store(region.words, owners.state.address(row), OWNER_STATE.inUse);
  return row;
}

/** A row that no owner has, or -1. */
function freeRow(region: Region): number {
  const { owner: owners } = region.tables;
  for (let row = 0; row < owners.rowCount; row++) {
    if (load(region.words, owners.state.address(row)) === OWNER_STATE.free) return row;
  }
  return -1;
}

/** Throws `EINVAL` for what is no limit of a resource. */
export function requireLimit(call: string, resource: string, limit: unknown): void {
  if (!Object.hasOwn(OWNER_RESOURCE, resource)) {
    fail('EINVAL', call, { resource }, `known resources: ${Object.keys(OWNER_RESOURCE).join(', ')}`);
  }
  requireInteger(call, `limits.${resource}`, limit, 0, limitMax(resource));
}

/** What stands for no limit of a resource. */
export function noLimit(lane: number): number {
  return lane === OWNER_RESOURCE.arenaBytes ? Number.POSITIVE_INFINITY : NO_LIMIT;
}

function limitMax(resource: string): number {
  return resource === 'arenaBytes' ? Number.MAX_SAFE_INTEGER : NO_LIMIT;
}

/** The owner of a name, or -1. */
export function findOwner(region: Region, name: string): OwnerIndex {
  const { owner: owners } = region.tables;
  for (let row = 0; row < owners.rowCount; row++) {
    if (isRegistered(region, row) && owners.name.text(row) === name) return row;
  }
  return -1;
}

/** Charges this thread's owner; false when the limit would be exceeded. */
export function tryCharge(thread: Thread, resource: number, amount: number): boolean {
  return tryChargeNoted(thread, ownerOf(thread), resource, amount, nothing);
}

/**
 * Charges an owner; false when the limit would be exceeded. `note` runs in the critical section that charges, and stores
 * through the journal what the charge is for: so neither is there without the other. Called with nothing logged.
 */
export function tryChargeNoted(
  thread: Thread,
  owner: OwnerIndex,
  resource: number,
  amount: number,
  note: () => void,
): boolean {
  const { owner: owners, ownerLedger: ledger } = thread.region.tables;
  const address = owners.used.address(owner, resource);
  const underLock = owners.used.address(owner, resource + UNDER_LOCK);
  const limit = owners.limit.at(owner, resource);
  const lock = ledger.lock.address(owner);
  mutexEnter(thread, lock, RANK.ownerLedger);
  const used = load(thread.words, address);
  let charged = used + load(thread.words, underLock) + amount <= limit;
  if (charged) {
    thread.journal.log1(address);
    store(thread.words, address, used + amount);
    const total = used + amount + load(thread.words, underLock);
    charged = total <= limit;
    if (!charged) store(thread.words, address, used);
    else if (total > owners.peak.at(owner, resource)) owners.peak.putAt(owner, resource, total);
  }
  if (charged) note();
  mutexExit(thread, lock);
  return charged;
}

/** Takes a charge back, with a note as in `tryChargeNoted`. */
export function unchargeNoted(
  thread: Thread,
  owner: OwnerIndex,
  resource: number,
  amount: number,
  note: () => void,
): void {
  const { owner: owners, ownerLedger: ledger } = thread.region.tables;
  const address = owners.used.address(owner, resource);
  const lock = ledger.lock.address(owner);
  mutexEnter(thread, lock, RANK.ownerLedger);
  try {
    const used = load(thread.words, address);
    assert(used >= amount, 'sync/owners I2: a charge never goes below zero');
    thread.journal.log1(address);
    store(thread.words, address, used - amount);
    note();
  } finally {
    mutexExit(thread, lock);
  }
}

function nothing(): void {}

/**
 * Charges an owner in a critical section; false when the limit would be exceeded. Journaled. All charges of this kind are
 * made under one and the same lock.
 */
export function tryChargeUnderLock(thread: Thread, owner: OwnerIndex, resource: number, amount: number): boolean {
  const { owner: owners } = thread.region.tables;
  const address = owners.used.address(owner, resource);
  const underLock = owners.used.address(owner, resource + UNDER_LOCK);
  const limit = owners.limit.at(owner, resource);
  const used = load(thread.words, underLock);
  if (used + load(thread.words, address) + amount > limit) return false;
  thread.journal.log1(underLock);
  store(thread.words, underLock, used + amount);
  const total = used + amount + load(thread.words, address);
  if (total > limit) {
    store(thread.words, underLock, used);
    return false;
  }
  if (total > owners.peak.at(owner, resource)) owners.peak.putAt(owner, resource, total);
  return true;
}

/** What an owner is charged of a resource, both parts. */
export function chargeOf(region: Region, owner: OwnerIndex, resource: number): number {
  const { used } = region.tables.owner;
  return (
    load(region.words, used.address(owner, resource)) + load(region.words, used.address(owner, resource + UNDER_LOCK))
  );
}

/** What an owner is charged of a resource by `tryChargeUnderLock`. */
export function chargedUnderLock(region: Region, owner: OwnerIndex, resource: number): number {
  return load(region.words, region.tables.owner.used.address(owner, resource + UNDER_LOCK));
}

/** The most that an owner may be charged of a resource. */
export function limitOf(region: Region, owner: OwnerIndex, resource: number): number {
  return region.tables.owner.limit.at(owner, resource);
}

/** An owner's name. */
export function ownerNameOf(region: Region, owner: OwnerIndex): string {
  return region.tables.owner.name.text(owner);
}

/** True for a row that is registered, whether somebody looks if it may go or not. Whoever charges it may rely on it. */
export function isRegistered(region: Region, owner: OwnerIndex): boolean {
  return load(region.words, region.tables.owner.state.address(owner)) !== OWNER_STATE.free;
}

/** True for a row that is registered and not about to go. */
export function isOwner(region: Region, owner: OwnerIndex): boolean {
  return load(region.words, region.tables.owner.state.address(owner)) === OWNER_STATE.inUse;
}

/** The same behind everything that was stored before: for whoever has just named the owner in a new place. */
export function isOwnerStill(region: Region, owner: OwnerIndex): boolean {
  return add(region.words, region.tables.owner.state.address(owner), 0) === OWNER_STATE.inUse;
}

/** Takes a charge of `tryChargeUnderLock` back, under the same lock. Journaled. */
export function unchargeUnderLock(thread: Thread, owner: OwnerIndex, resource: number, amount: number): void {
  const underLock = thread.region.tables.owner.used.address(owner, resource + UNDER_LOCK);
  const used = load(thread.words, underLock);
  assert(used >= amount, 'sync/owners I2: a charge never goes below zero');
  thread.journal.log1(underLock);
  store(thread.words, underLock, used - amount);
}

/**
 * Says which owner this thread charges from now on, by number or name. What it was charged for before stays where it was
 * charged. Throws `ENOENT` for an unknown name, `EINVAL` for an unknown number.
 */
export function chargeTo(thread: Thread, owner: OwnerIndex | string): void {
  if (typeof owner === 'string') {
    chargeToNamed(thread, owner);
    return;
  }
  const known = Number.isInteger(owner) && owner >= 0 && owner < thread.region.tables.owner.rowCount;
  if (known && chargeToRow(thread, owner)) return;
  fail('EINVAL', 'chargeTo', { owner }, 'no such owner');
}

/** A row may come to an owner of another name before it is charged, and to none afterwards: so the name is looked at then. */
function chargeToNamed(thread: Thread, name: string): void {
  const { slot: slots } = thread.region.tables;
  const before = slots.owner.get(thread.slot);
  let row = findOwner(thread.region, name);
  while (row >= 0) {
    if (chargeToRow(thread, row)) {
      if (ownerNameOf(thread.region, row) === name) return;
      store(thread.words, slots.owner.address(thread.slot), before);
    }
    row = findOwner(thread.region, name);
  }
  fail('ENOENT', 'chargeTo', { owner: name }, 'no such owner');
}

/** Charges the owner of a row from now on; false, and as before, when there is none. */
function chargeToRow(thread: Thread, row: OwnerIndex): boolean {
  const { slot: slots } = thread.region.tables;
  const before = slots.owner.get(thread.slot);
  // In this order: see owner-changes.ts.
  store(thread.words, slots.owner.address(thread.slot), row);
  if (isOwnerLasting(thread, row)) return true;
  slots.owner.put(thread.slot, before);
  return false;
}

/** An owner, as long as it has its row. */
export interface OwnerStay {
  readonly owner: OwnerIndex;
  readonly generation: number;
}

/** The owner that this thread charges, to be charged later as well if it is still there. */
export function ownerStay(thread: Thread): OwnerStay {
  const owner = ownerOf(thread);
  return { owner, generation: generationOf(thread, owner) };
}

function generationOf(thread: Thread, owner: OwnerIndex): number {
  return load(thread.words, thread.region.tables.owner.generation.address(owner));
}

/**
 * Runs `act` while this thread charges the owner of `stay`: for what was asked for when it did, and is served later. Throws
 * `EINVAL`, in the name of the `call` that asked, when that owner is gone, also if its row has another one. Whom the thread charged
 * is charged again afterwards, and is not removed meanwhile.
 */
export function chargingTo<Result>(thread: Thread, stay: OwnerStay, call: string, act: () => Result): Result {
  const { owner, generation } = stay;
  const before = ownerOf(thread);
  if (before === owner) {
    if (generationOf(thread, owner) !== generation) failGone(call, owner);
    return act();
  }
  const { slot: slots } = thread.region.tables;
  // Inside another call of this function the outermost one's stays where it is.
  const isOutermost = load(thread.words, slots.ownerAfter.address(thread.slot)) === 0;
  if (isOutermost) store(thread.words, slots.ownerAfter.address(thread.slot), before + 1);
  try {
    if (!chargeToRow(thread, owner) || generationOf(thread, owner) !== generation) failGone(call, owner);
    return act();
  } finally {
    store(thread.words, slots.owner.address(thread.slot), before);
    if (!isOwnerLasting(thread, before)) slots.owner.put(thread.slot, DEFAULT_OWNER);
    if (isOutermost) store(thread.words, slots.ownerAfter.address(thread.slot), 0);
  }
}

function failGone(call: string, owner: OwnerIndex): never {
  fail('EINVAL', call, { owner }, 'the owner that this is charged to was removed meanwhile');
}

/** `isOwner`, but waits for the end of a removal: true when the owner stayed. With no lock held from the owner's lock on. */
export function isOwnerLasting(thread: Thread, row: OwnerIndex): boolean {
  const { owner: owners, ownerLedger: ledger } = thread.region.tables;
  const state = load(thread.words, owners.state.address(row));
  if (state !== OWNER_STATE.removing) return state === OWNER_STATE.inUse;
  mutexEnter(thread, ledger.lock.address(row), RANK.ownerLedger);
  const kept = isOwner(thread.region, row);
  mutexExit(thread, ledger.lock.address(row));
  return kept;
}

/** Charges this thread's owner. Throws `EDQUOT` when the limit would be exceeded. */
export function charge(thread: Thread, resource: OwnerResource, amount: number): void {
  if (tryCharge(thread, OWNER_RESOURCE[resource], amount)) return;
  const { owner: owners, slot: slots } = thread.region.tables;
  const row = slots.owner.get(thread.slot);
  const lane = OWNER_RESOURCE[resource];
  const values = { owner: owners.name.text(row), amount, used: load(thread.words, owners.used.address(row, lane)) };
  const limit = owners.limit.at(row, lane);
  throw new VmError('EDQUOT', `${showCall(`charge ${resource}`, values)}: the owner's limit is ${limit}`);
}

/** Takes a charge of an owner back. */
export function uncharge(thread: Thread, owner: OwnerIndex, resource: number, amount: number): void {
  unchargeNoted(thread, owner, resource, amount, nothing);
}

/** The owner that this thread charges. */
export function ownerOf(thread: Thread): OwnerIndex {
  return thread.region.tables.slot.owner.get(thread.slot);
}

/** Charges, peaks and limits of every owner. */
export function ownerUsage(region: Region): OwnerUsage[] {
  const { owner: owners } = region.tables;
  const list: OwnerUsage[] = [];
  for (let row = 0; row < owners.rowCount; row++) {
    if (!isRegistered(region, row)) continue;
    const resources = {} as Record<OwnerResource, { used: number; peak: number; limit: number | null }>;
    for (const [resource, lane] of Object.entries(OWNER_RESOURCE)) {
      const limit = owners.limit.at(row, lane);
      resources[resource as OwnerResource] = {
        ...usageOf(region, row, lane),
        limit: limit === noLimit(lane) ? null : limit,
      };
    }
    list.push({ name: owners.name.text(row), resources });
  }
  return list;
}

function usageOf(region: Region, row: OwnerIndex, lane: number): { used: number; peak: number } {
  const { owner: owners, ownerLedger: ledger } = region.tables;
  if (lane === OWNER_RESOURCE.arenaBytes) return { used: ledger.used.get(row), peak: ledger.peak.get(row) };
  const atomicPart = load(region.words, owners.used.address(row, lane));
  const lockedPart = load(region.words, owners.used.address(row, lane + UNDER_LOCK));
  return { used: atomicPart + lockedPart, peak: owners.peak.at(row, lane) };
}
