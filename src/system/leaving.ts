/** What a thread must have given back before it leaves, and what it gives back itself. */

import { fail } from '../base/index.ts';
import type { VirtualMemory } from './virtual-memory.ts';

/** Throws `EBUSY` while the thread holds pins or pages, and says which. */
export function requireNothingHeld({ slot, spaces, pagelock, mappings, pages: all }: VirtualMemory): void {
  const pins = spaces.pinsHeld() || pagelock.pinsHeld();
  if (pins !== 0) fail('EBUSY', 'detach', { slot, pins }, 'a thread releases its pins before it detaches');
  mappings.close();
  const { pages, exclusivePages } = all.holds;
  if (pages === 0 && exclusivePages === 0) return;
  const frames = all.holds.held(8).join(' ');
  fail('EBUSY', 'detach', { slot, pages, exclusivePages, frames }, 'a thread releases its pages before it detaches');
}

/** Closes all files of the thread; returns what went wrong while modified pages were written back. */
export function closeFiles({ vnodes }: VirtualMemory): unknown {
  try {
    vnodes.closeAll();
    return undefined;
  } catch (error) {
    return error;
  }
}
