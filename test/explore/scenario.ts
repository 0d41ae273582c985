/** What an exploration is given: a small world, the programs of its threads, and what must hold at the end. */

import type { Thread } from '../../src/sync/thread.ts';

/** One world with a few threads. Its modules are transformed: `run` and `recover` become generators. */
export interface Scenario {
  /** Threads that run; the takeover's own slot comes after them. */
  readonly threads: number;
  /** The shared words, all of them; there after `setUp`. */
  readonly words: Int32Array;
  /** Threads that may die. */
  readonly mortal: readonly number[];
  /** Makes the world. Runs in one piece, before the threads. */
  setUp(): void;
  /** Program of a thread. Throws when something is wrong. */
  run(thread: number): void | Promise<void>;
  /** Cleans up after a dead thread, as the monitor does. */
  recover(dead: number): void;
  /** Moves the clock beyond every deadline. Runs in one piece. */
  passTime(): void;
  /** Appends what matters of the shared memory. */
  digest(into: number[]): void;
  /** What is wrong when all is over, or null. `dead` is the thread that died, -1 none. */
  verdict(dead: number): string | null;
}

/** Records and journals up to their lengths, and claims: what a takeover reads of each slot. */
export function digestThreads(threads: readonly Thread[], into: number[]): void {
  for (const { slot, region } of threads) {
    const { slot: slots, journal } = region.tables;
    into.push(slots.claim.get(slot));
    into.push(slots.waitAddress.get(slot));
    into.push(slots.waitToken.get(slot));
    const held = slots.held.at(slot, 0);
    for (let lane = 0; lane <= 4 * held; lane++) into.push(slots.held.at(slot, lane));
    const entries = journal.entries.at(slot, 0);
    for (let lane = 0; lane <= entries; lane++) into.push(journal.entries.at(slot, lane));
  }
}
