/**
 * Slabs out of an arena: what its quantum caches are refilled from.
 *
 * A slab is an allocation of the arena that names the arena itself as its importer. On the way between the arena and the
 * cache it is recorded like an import, so that a death in between gives it back.
 */

import type { SlotIndex } from '../sync/index.ts';
import { allocate } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import type { Constraints } from './fit.ts';
import { STRATEGY_INSTANT } from './kinds.ts';
import type { SlabSource } from './quantum-cache.ts';
import { clearTransfer, recordImport, returnInFlight } from './transfer.ts';

/** See the file's header. */
export class ArenaSlabs implements SlabSource {
  readonly #core: ArenaCore;
  readonly #slot: SlotIndex;
  readonly #aligned: Constraints;

  constructor(core: ArenaCore, slabSize: number) {
    this.#core = core;
    this.#slot = core.thread.slot;
    this.#aligned = { align: slabSize, phase: 0, nocross: 0, min: 0, max: Number.MAX_SAFE_INTEGER };
  }

  takeSlab(size: number): number {
    return allocate(this.#core, size, STRATEGY_INSTANT, this.#aligned, this.#core.row);
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
