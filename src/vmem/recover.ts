/**
 * Cleaning up in the arenas after a slot whose thread has ended.
 *
 * The takeover has undone the slot's journal and freed its locks before. What is left is what the slot had in flight
 * between two arenas, what it had cached, charges without an allocation, and rows that it was creating or destroying. Its
 * allocations stay: they belong to the program.
 */

import { InvariantError } from '../base/index.ts';
import { redeemPledge, type SlotIndex } from '../sync/index.ts';
import type { ArenaCores } from './arena-cores.ts';
import { STATE_CREATING, STATE_DESTROYING, STATE_READY } from './kinds.ts';
import { dismantle } from './lifecycle.ts';
import { releaseParked } from './quantum-caches.ts';
import { recoverRecordings } from './recorder.ts';
import { recoverQueue } from './space-queue.ts';
import { abandonImports } from './span-service.ts';
import { returnInFlight } from './transfer.ts';

/** See the file's header. Runs without any lock; may be repeated. */
export function recoverArenas(cores: ArenaCores, dead: SlotIndex): void {
  const { arena } = cores.thread.region.tables;
  try {
    returnInFlight(cores, dead);
  } catch (error) {
    // A release function that cannot be had in this thread, or that fails, must not stop the recovery of the rest.
    if (error instanceof InvariantError) throw error;
  }
  redeemPledge(cores.thread, dead);
  recoverRecordings(cores, dead);
  abandonImports(cores, dead);
  recoverQueue(cores.thread, dead);
  for (let row = 0; row < arena.rowCount; row++) {
    const state = arena.state.get(row);
    if (state === STATE_READY) cores.at(row).caches?.recoverSlot(dead);
    const halfway = state === STATE_CREATING || state === STATE_DESTROYING;
    if (halfway && arena.actor.get(row) === dead + 1) dismantle(cores, row);
  }
  releaseParked(cores.thread, dead);
}
