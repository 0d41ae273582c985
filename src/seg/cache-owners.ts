/**
 * Owners of cached ranges: segments and anon maps, as far as the cache is concerned.
 *
 * PROBLEM     All ranges of a segment or an anon map must be found at once, and neither may go while a reclaim is due.
 * STRUCTURE   A row with a lock, a list of entries, and the driver that reclaims. A row lives until nothing is claimed:
 *
 *               destroy   at once, or `EBUSY`        retire   as soon as the last claim ends, in whatever thread
 *
 * INVARIANTS  I1 a row in use has a driver.   I2 a row of the pool has no entries.   I3 a retired row has claims.
 * LOCKING     The cache's lock for taking and giving rows; the list under the row's own lock.
 * COSTS       40 bytes a row.
 * FAILURE     `ENOMEM` when no row is left, `EBUSY` for one that still has ranges.
 * REJECTED    Links inside segments and anon maps: the cache would know both.
 * REFERENCES  illumos seg.h and anon.h (s_phead, a_phead).
 */

import { fail, requireInteger } from '../base/index.ts';
import type { CallbackIndex } from '../sync/index.ts';
import type { PagelockCore } from './pagelock-core.ts';
import type { CacheOwner } from './pagelock-kinds.ts';

/** Lowest bit of an owner's state: its driver joins shadow lists. */
export const OWNER_JOINS = 1;

/** Sign bit of an owner's state: it goes with its last claim. */
export const OWNER_RETIRED = -(2 ** 31);

/** A row for a new owner, whose ranges the driver reclaims. `note`: journaled stores that are part of the transaction. */
export function createCacheOwner(
  core: PagelockCore,
  driver: CallbackIndex,
  joins: boolean,
  tag: number,
  note?: (owner: CacheOwner) => void,
): CacheOwner {
  requireInteger('pagelock.createOwner', 'tag', tag, 0, Number.MAX_SAFE_INTEGER);
  const { control, owners, thread, lock } = core;
  const { journal } = thread;
  lock.enter();
  let owner = control.ownerHead.get(0) - 1;
  if (owner >= 0) journal.set(control.ownerHead, 0, owners.classes.get(owner));
  else {
    owner = control.ownerFresh.get(0);
    if (owner === owners.rowCount) {
      lock.exit();
      fail('ENOMEM', 'pagelock.createOwner', { owners: owners.rowCount }, 'boot with more `pagelockOwners`');
    }
    journal.set(control.ownerFresh, 0, owner + 1);
  }
  owners.tag.put(owner, tag);
  journal.set(owners.head, owner, 0);
  journal.set(owners.count, owner, 0);
  journal.set(owners.classes, owner, 0);
  journal.set(owners.state, owner, ((driver + 1) << 1) | (joins ? OWNER_JOINS : 0));
  note?.(owner);
  lock.exit();
  return owner;
}

/** Gives a row back. Throws `EBUSY` while ranges of the owner are cached, pinned or being reclaimed. */
export function destroyCacheOwner(core: PagelockCore, owner: CacheOwner): void {
  requireOwner(core, owner, 'pagelock.destroyOwner');
  const { owners, lock } = core;
  lock.enter();
  if (!isCacheOwner(core, owner)) {
    lock.exit();
    fail('EINVAL', 'pagelock.destroyOwner', { owner }, 'another thread has just destroyed it');
  }
  const claims = owners.claims.get(owner);
  if (claims !== 0) {
    lock.exit();
    fail('EBUSY', 'pagelock.destroyOwner', { owner, claims }, 'purge it first; pinned ranges must be released');
  }
  freeCacheOwner(core, owner);
  lock.exit();
}

/**
 * Gives a row back as soon as nothing of it is claimed. Nobody inserts for it any more. `note`: journaled stores that are part
 * of the transaction.
 */
export function retireCacheOwner(core: PagelockCore, owner: CacheOwner, note: () => void): void {
  requireOwner(core, owner, 'pagelock.retireOwner');
  const { owners, thread, lock } = core;
  lock.enter();
  note();
  if (owners.claims.get(owner) === 0) freeCacheOwner(core, owner);
  else thread.journal.set(owners.state, owner, owners.state.get(owner) | OWNER_RETIRED);
  lock.exit();
}

/** Journaled: puts a row without claims into the pool. Needs the cache's lock. */
export function freeCacheOwner({ control, owners, thread }: PagelockCore, owner: CacheOwner): void {
  const { journal } = thread;
  journal.set(owners.state, owner, 0);
  // The list stays empty: another thread may be about to purge the owner that was.
  journal.set(owners.classes, owner, control.ownerHead.get(0));
  journal.set(control.ownerHead, 0, owner + 1);
}

/** Throws `EINVAL` unless the row is in use. */
export function requireOwner(core: PagelockCore, owner: CacheOwner, call: string): void {
  if (!isCacheOwner(core, owner)) fail('EINVAL', call, { owner }, 'no such owner');
}

/** True for a row in use. */
export function isCacheOwner({ owners }: PagelockCore, owner: CacheOwner): boolean {
  return Number.isInteger(owner) && owner >= 0 && owner < owners.rowCount && owners.state.get(owner) !== 0;
}
