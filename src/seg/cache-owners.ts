/**
 * Owners of cached ranges: segments and anon maps, as far as the cache is concerned.
 *
 * PROBLEM     All ranges of a segment or an anon map must be found at once, and neither may go while a reclaim is due.
 * STRUCTURE   A row with a lock, a list of entries, and the driver that reclaims. A row lives until nothing is claimed.
 * INVARIANTS  I1 a row in use has a driver.   I2 a row of the pool has no entries.
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

/** A row for a new owner, whose ranges the driver reclaims. */
export function createCacheOwner(core: PagelockCore, driver: CallbackIndex, joins: boolean, tag: number): CacheOwner {
  requireInteger('pagelock.createOwner', 'tag', tag, 0, Number.MAX_SAFE_INTEGER);
  const { control, owners, thread, lock } = core;
  const { journal } = thread;
  lock.enter();
  let owner = control.ownerHead.get(0) - 1;
  if (owner >= 0) journal.set(control.ownerHead, 0, owners.head.get(owner));
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
  lock.exit();
  return owner;
}

/** Gives a row back. Throws `EBUSY` while ranges of the owner are cached, pinned or being reclaimed. */
export function destroyCacheOwner(core: PagelockCore, owner: CacheOwner): void {
  requireOwner(core, owner, 'pagelock.destroyOwner');
  const { control, owners, thread, lock } = core;
  const { journal } = thread;
  lock.enter();
  const claims = owners.claims.get(owner);
  if (claims !== 0) {
    lock.exit();
    fail('EBUSY', 'pagelock.destroyOwner', { owner, claims }, 'purge it first; pinned ranges must be released');
  }
  journal.set(owners.state, owner, 0);
  journal.set(owners.head, owner, control.ownerHead.get(0));
  journal.set(control.ownerHead, 0, owner + 1);
  lock.exit();
}

/** Throws `EINVAL` unless the row is in use. */
export function requireOwner(core: PagelockCore, owner: CacheOwner, call: string): void {
  if (!Number.isInteger(owner) || owner < 0 || owner >= core.owners.rowCount || core.owners.state.get(owner) === 0) {
    fail('EINVAL', call, { owner }, 'no such owner');
  }
}
