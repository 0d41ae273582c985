/** Several threads with named locks, without the rest of the system. */

import { expect } from 'vitest';
import { Locks, takeOver } from '../../src/sync/index.ts';
import { testRegion, testThread } from './region.ts';

/** A system of several threads, all in this JavaScript thread. */
export function system(namedLocks = 16) {
  const { region, thread } = testRegion({ namedLocks });
  const attach = () => {
    const other = testThread(region);
    const locks = new Locks(other);
    const die = () => takeOver(thread, other.slot, [(_self, dead) => new Locks(thread).recover(dead)]);
    return { thread: other, locks, die };
  };
  return { region, thread, locks: new Locks(thread), attach };
}

/** Removes every lock, and looks whether that leaves nothing. */
export function end(locks: Locks): void {
  for (const { name } of locks.list()) locks.remove(name);
  expect(locks.check().problems).toEqual([]);
  expect(locks.list()).toEqual([]);
}
