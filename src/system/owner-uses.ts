/** Where an owner is named although nothing is charged to it: what keeps it from being removed; see sync/owner-changes.ts. */

import { SPACE_STATE } from '../seg/space-kinds.ts';
import type { OwnerUse } from '../sync/index.ts';
import type { VirtualMemory } from './virtual-memory.ts';

/** What rooms say. */
export function ownerUses({ region }: VirtualMemory): OwnerUse[] {
  const { addressSpace: spaces, frameReservation } = region.tables;
  return [
    (owner) => {
      const rows = Array.from({ length: spaces.rowCount }, (_, row) => row);
      const owned = rows.filter((row) => spaces.state.get(row) !== SPACE_STATE.free && spaces.owner.get(row) === owner);
      return owned.map((row) => `address space ${row}`).join(', ');
    },
    (owner) => {
      const frames = frameReservation.frames.get(owner);
      return frames === 0 ? '' : `a reservation of ${frames} frames`;
    },
  ];
}
