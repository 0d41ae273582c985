/**
 * In which order a provider gets what it is to take: for the remote I/O worker.
 *
 * PROBLEM     A write that was given up when its time was over may still arrive. If it arrived after the next one of the same
 *             bytes, it would replace them; after a cut, it would bring back what was cut.
 * STRUCTURE   By name of the vnode, the ranges that the provider has been given and has not answered. Who has something for
 *             such a range waits until it has, as long as its own time allows.
 * INVARIANTS  I1 of two ranges that overlap, the later one is given when the earlier one was answered.
 * LOCKING     None: it belongs to one event loop.
 * COSTS       A look at the ranges of one vnode.
 * FAILURE     Who has no more time is not begun. A provider that never answers keeps its range for as long as the worker lives.
 * REJECTED    One at a time for each vnode: a page that the provider never answers for would keep all others from being written.
 * REFERENCES  io-requests.ts; time-limit.ts for what ends the waiting.
 */

/** A range that the provider has. */
interface Put {
  readonly start: number;
  readonly end: number;
  readonly answered: Promise<void>;
}

/** What was begun: its answer. An object, so that who waits for the beginning does not wait for the answer. */
export interface Begun {
  readonly answer: Promise<void>;
}

/** The ranges that providers have. */
export class PutOrder {
  readonly #puts = new Map<string, Set<Put>>();

  /**
   * Begins an action on bytes `start` to `end - 1` of a vnode when all before it that overlap were answered; null, without
   * beginning, when the signal was aborted by then.
   */
  async begin(
    name: string,
    start: number,
    end: number,
    signal: AbortSignal | undefined,
    action: () => void | Promise<void>,
  ): Promise<Begun | null> {
    for (;;) {
      const before = [...(this.#puts.get(name) ?? [])].filter((put) => put.start < end && start < put.end);
      if (signal?.aborted) return null;
      if (before.length === 0) break;
      const answered: Promise<unknown> = Promise.all(before.map((put) => put.answered));
      // Who has given up must not be kept, with its bytes, by one that never answers.
      await (signal === undefined ? answered : Promise.race([answered, whenAborted(signal)]));
    }
    const puts = this.#puts.get(name) ?? new Set<Put>();
    this.#puts.set(name, puts);
    const answer = (async () => action())();
    const forget = () => {
      puts.delete(put);
      if (puts.size === 0 && this.#puts.get(name) === puts) this.#puts.delete(name);
    };
    const put: Put = { start, end, answered: answer.then(forget, forget) };
    puts.add(put);
    return { answer };
  }
}

function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
