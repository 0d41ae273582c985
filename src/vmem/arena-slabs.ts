/**
 * Slabs out of an arena: what its quantum caches are refilled from.
 *
 * A slab is an allocation of the arena that names the arena itself as its importer. On the way between the arena and the
 * cache it is recorded like an import, so that a death in between gives it back.
 */

import { ADDRESS_MAX } from '../base/index.ts';
import type { SlotIndex } from '../sync/index.ts';
import { allocate } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import { STRATEGY_INSTANT } from './kinds.ts';
import type { SlabSource } from './quantum-cache.ts';
import { clearTransfer, recordImport, returnInFlight } from './transfer.ts';

/** See the file's header. */
export class ArenaSlabs implements SlabSource {
  readonly #core: ArenaCore;
  readonly #slot: SlotIndex;

  constructor(core: ArenaCore) {
    this.#core = core;
    this.#slot = core.thread.slot;
  }

  takeSlab(size: number): number {
    const aligned = { align: size, phase: 0, nocross: 0, min: 0, max: ADDRESS_MAX };
    return allocate(this.#core, size, STRATEGY_INSTANT, aligned, this.#core.row);
  }

  settleSlab(): void {
    clearTransfer(this.#core);
  }

  recordReturn(base: number, size: number): void {
    recordImport(this.#core, base, size);
  }

  returnSlab(): void {
    returnInFlight(this.#core.cores, this.#slot);
  }
}
