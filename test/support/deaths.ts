/**
 * Deaths at every step: an operation is stopped before each of its shared operations and journaled stores in turn, as a
 * terminated thread would be, and what a takeover leaves is looked at.
 *
 * A stop is made by copying the region when the step comes and putting the copy back when the operation has ended: that is
 * what other threads would see of a thread that never ran on.
 */

import type { Region } from '../../src/layout/index.ts';
import { type SlotRecoverer, setSeam, type Thread, takeOver } from '../../src/sync/index.ts';

/** What to stop, and how to look at what is left. */
export interface DeathPlan {
  readonly region: Region;
  /** Does the takeovers. */
  readonly self: Thread;
  /** Runs the operation and dies. */
  readonly victim: Thread;
  readonly recoverers: readonly SlotRecoverer[];
  /** Memory beside the region that stops with it: banks, what stands for a disk. */
  readonly beside?: readonly Uint8Array[];
  /** The operation; everything it changes lies in the region and beside it. */
  readonly operation: () => void;
  /** Called after each takeover with the number of the step. */
  readonly verify: (step: number) => void;
  /** Called when the stop comes: what lies in files is copied here, and put back by `verify`. */
  readonly stopped?: () => void;
  /** Only every so many-th step, from `first` on. Default: every step. */
  readonly stride?: number;
  readonly first?: number;
}

/** Stops the operation before every step, one run each; the region is at the end as it was. Returns the steps. */
export function dieAtEveryStep(plan: DeathPlan): number {
  const { region, self, victim, recoverers, operation, verify } = plan;
  const memories = [new Uint8Array(region.buffer), ...(plan.beside ?? [])];
  const copyAll = () => memories.map((bytes) => Uint8Array.from(bytes));
  const putBack = (copies: readonly Uint8Array[]) => {
    for (const [i, bytes] of memories.entries()) bytes.set(copies[i] as Uint8Array);
  };
  const before = copyAll();
  const { journal } = victim;
  const log1 = journal.log1.bind(journal);
  const log2 = journal.log2.bind(journal);
  const log3 = journal.log3.bind(journal);
  const log8 = journal.log8.bind(journal);
  const log7MarkingAnd8 = journal.log7MarkingAnd8.bind(journal);
  const logRange = journal.logRange.bind(journal);
  for (let stop = plan.first ?? 0; ; stop += plan.stride ?? 1) {
    putBack(before);
    let step = 0;
    let stopped: readonly Uint8Array[] | null = null;
    const count = () => {
      if (step++ !== stop) return;
      stopped = copyAll();
      plan.stopped?.();
    };
    journal.log1 = (address) => {
      count();
      log1(address);
    };
    journal.log2 = (first, second) => {
      count();
      log2(first, second);
    };
    journal.log3 = (first, second, third) => {
      count();
      log3(first, second, third);
    };
    journal.log8 = (address) => {
      count();
      log8(address);
    };
    journal.log7MarkingAnd8 = (marked, record) => {
      count();
      log7MarkingAnd8(marked, record);
    };
    journal.logRange = (address, words) => {
      count();
      logRange(address, words);
    };
    const hook = setSeam(count);
    try {
      operation();
    } finally {
      setSeam(hook);
      journal.log1 = log1;
      journal.log2 = log2;
      journal.log3 = log3;
      journal.log8 = log8;
      journal.log7MarkingAnd8 = log7MarkingAnd8;
      journal.logRange = logRange;
    }
    if (stopped === null) {
      putBack(before);
      return step;
    }
    putBack(stopped);
    takeOver(self, victim.slot, recoverers);
    verify(stop);
  }
}
