/** Tables of the locks that programs give names to: see sync/named-locks.ts. */

import { bytes, i32, table } from './table.ts';

/** Lanes of a named lock's words: each kind has words of its own, so that a stale handle never touches another kind's. */
export const LOCK_LANE = {
  /** Word of a mutex. */
  mutex: 0,
  /** Word of a readers/writer lock, then its readers' bits. */
  rwlock: 1,
  /** Sequence of a condition variable, then its waiters' bits. */
  condition: 4,
  /** Bits of the slots that wait, whatever the kind. */
  waiting: 7,
} as const;

/** Bytes of a name, the zero behind it included. */
export const LOCK_NAME_BYTES = 64;

/** One row for each named lock that can exist at a time. */
export const namedLockTable = table('namedLock', 'namedLocks', 'columns', {
  words: i32('A', 'words of the lock, by LOCK_LANE', { lanes: 9, padded: true }),
  generation: i32('A', 'times that the row was given back'),
  kind: i32('L', '0 free, or a value of LOCK_KIND'),
  hash: i32('L', 'hash of the name'),
  /** Under the named lock itself, by plain stores: what they say of a thread that has died is what they are for. */
  holder: i32('L', 'attachment of the thread inside the section, 0 none'),
  abandonedBy: i32('L', 'attachment of a thread that died inside, until somebody has repaired what it left; 0 none'),
  name: bytes('L', 'name', LOCK_NAME_BYTES),
});

/** The registry of named locks. */
export const lockRegistryTable = table('lockRegistry', 1, 'columns', {
  lock: i32('A', 'mutex of the registry', { padded: true }),
});
