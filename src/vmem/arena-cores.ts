/** The cores of one thread, by row: made on first use, made anew when a row has another generation. */

import type { Callbacks, Thread } from '../sync/index.ts';
import { load } from '../sync/index.ts';
import { ArenaCore } from './arena-core.ts';
import { type FreeTrees, freeTreesOf } from './free-index.ts';
import { type ArenaIndex, STATE_READY } from './kinds.ts';

/** Told, without any lock held, that a request of this thread found no space and is about to wait. */
export type PressureListener = (arena: string, size: number) => void;

/** See the file's header. */
export class ArenaCores {
  readonly thread: Thread;
  readonly callbacks: Callbacks;
  readonly trees: FreeTrees;
  /** Who is told about requests that are about to wait. */
  readonly pressureListeners = new Set<PressureListener>();
  /** Arenas whose reclaim callback is running in this thread. */
  readonly reclaiming = new Set<ArenaIndex>();
  readonly #cores: (ArenaCore | undefined)[] = [];

  constructor(thread: Thread, callbacks: Callbacks) {
    this.thread = thread;
    this.callbacks = callbacks;
    this.trees = freeTreesOf(thread);
  }

  /** Tells the listeners that a request is about to wait. */
  press(core: ArenaCore, size: number): void {
    for (const listener of this.pressureListeners) listener(core.name, size);
  }

  /** The core of the arena that is in a row now. */
  at(row: ArenaIndex): ArenaCore {
    const { arena } = this.thread.region.tables;
    const address = arena.generation.address(row);
    const generation = load(this.thread.words, address);
    const known = this.#cores[row];
    if (known !== undefined && known.generation === generation) return known;
    const core = new ArenaCore(this, row, generation);
    // A core of an arena that is being made may lack what is not there yet, its caches for one: it is not kept.
    if (arena.state.get(row) === STATE_READY && load(this.thread.words, address) === generation)
      this.#cores[row] = core;
    return core;
  }
}
