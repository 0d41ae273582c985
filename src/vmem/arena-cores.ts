/** The cores of one thread, by row: made on first use, made anew when a row has another generation. */

import type { Callbacks, Thread } from '../sync/index.ts';
import { load } from '../sync/index.ts';
import { ArenaCore } from './arena-core.ts';
import type { ArenaIndex } from './kinds.ts';

/** See the file's header. */
export class ArenaCores {
  readonly thread: Thread;
  readonly callbacks: Callbacks;
  readonly #cores: (ArenaCore | undefined)[] = [];

  constructor(thread: Thread, callbacks: Callbacks) {
    this.thread = thread;
    this.callbacks = callbacks;
  }

  /** The core of the arena that is in a row now. */
  at(row: ArenaIndex): ArenaCore {
    const { arena } = this.thread.region.tables;
    const generation = load(this.thread.words, arena.generation.address(row));
    const known = this.#cores[row];
    if (known !== undefined && known.generation === generation) return known;
    const core = new ArenaCore(this, row, generation);
    this.#cores[row] = core;
    return core;
  }
}
