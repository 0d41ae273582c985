/**
 * Rests of movers: one that has refused is left alone for a while.
 *
 * A request for a run tries many windows, and one that waits tries again and again; a cookie that stands in them all would have
 * its mover asked each time, and its frames taken and given back around that. After each refusal in a row the mover is not
 * asked for twice as long, by this thread; after a move at once again. What is noted here is private to the thread.
 */

import type { Thread } from '../sync/thread.ts';
import type { Cookie } from './kinds.ts';

/** How long a mover rests after its first refusal, */
export const REST_FIRST_MS = 2;

/** and at most. */
export const REST_MAX_MS = 64;

/** Refusals noted before those of cookies that rest no more are forgotten. */
const NOTED_MAX = 256;

interface Rest {
  readonly generation: number;
  readonly until: number;
  readonly lengthMs: number;
}

/** Which movers this thread does not ask at present. */
export class MoverRests {
  readonly #thread: Thread;
  readonly #rests = new Map<number, Rest>();

  constructor(thread: Thread) {
    this.#thread = thread;
  }

  /** True while the mover of a cookie is not to be asked. */
  has(cookie: number, generation: number): boolean {
    const rest = this.#rests.get(cookie);
    return rest !== undefined && rest.generation === generation && this.#thread.clock.now() < rest.until;
  }

  /** The mover of a cookie has refused, thrown, or is not known in this thread. */
  refused({ cookie, generation }: Cookie): void {
    const now = this.#thread.clock.now();
    const before = this.#rests.get(cookie);
    const again = before !== undefined && before.generation === generation;
    const lengthMs = again ? Math.min(2 * before.lengthMs, REST_MAX_MS) : REST_FIRST_MS;
    if (this.#rests.size >= NOTED_MAX) {
      for (const [row, { until }] of this.#rests) if (until + REST_MAX_MS <= now) this.#rests.delete(row);
    }
    this.#rests.set(cookie, { generation, until: now + lengthMs, lengthMs });
  }

  /** A cookie has moved. */
  moved({ cookie }: Cookie): void {
    if (this.#rests.size > 0) this.#rests.delete(cookie);
  }
}
