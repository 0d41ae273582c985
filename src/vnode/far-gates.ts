/**
 * How many requests for far pages of one vnode a thread may have posted: more would only wait, and in rows that others need.
 *
 * One store that never answers must not take up the rows of requests, of which there are few. The others wait here, in order.
 */

import type { VnodeIndex } from '../page/page-hash.ts';

/** One that is served, and the next. */
const POSTED_MAX = 2;

/** The gate of one vnode: who is inside, and who waits. */
interface Gate {
  inside: number;
  readonly waiting: Set<() => void>;
}

/** The gates of one thread. */
export class FarGates {
  readonly #gates = new Map<VnodeIndex, Gate>();

  /** Runs an action when fewer than the most are inside, or when the signal is aborted: the action is to look at it first. */
  async pass<Result>(
    vnode: VnodeIndex,
    signal: AbortSignal | undefined,
    action: () => Promise<Result>,
  ): Promise<Result> {
    if (signal?.aborted) return action();
    const gate = this.#gates.get(vnode) ?? { inside: 0, waiting: new Set<() => void>() };
    this.#gates.set(vnode, gate);
    if (gate.inside < POSTED_MAX) gate.inside++;
    else if (!(await this.#enters(gate, signal))) return action();
    try {
      return await action();
    } finally {
      const [next] = gate.waiting;
      // Who comes next takes the place over: nobody slips in between.
      if (next !== undefined) next();
      else if (--gate.inside === 0) this.#gates.delete(vnode);
    }
  }

  /** Waits to be let in; false when the signal was aborted before. */
  #enters(gate: Gate, signal: AbortSignal | undefined): Promise<boolean> {
    return new Promise((resolve) => {
      const enter = () => {
        gate.waiting.delete(enter);
        signal?.removeEventListener('abort', giveUp);
        resolve(true);
      };
      const giveUp = () => {
        gate.waiting.delete(enter);
        resolve(false);
      };
      gate.waiting.add(enter);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }
}
