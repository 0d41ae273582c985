/** Threads that wait for each other with a condition variable. */

import { Condition } from '../../../src/sync/condvar.ts';
import { Mutex } from '../../../src/sync/mutex.ts';
import { RANK } from '../../../src/sync/ranks.ts';
import { WORD, World } from './world.ts';

/** What each thread does, as a string of steps: see `ConditionWorld`. */
export interface ConditionOptions {
  readonly programs: readonly string[];
  readonly mortal?: readonly number[];
}

/**
 * Steps: `p` put an item and signal, `P` the same with a broadcast, `t` take an item, waiting for it, `T` take it or give
 * up after a time, `a` take it in an event loop.
 */
export class ConditionWorld extends World {
  readonly programs: readonly string[];

  constructor({ programs, mortal = [] }: ConditionOptions) {
    super(programs.length, mortal);
    this.programs = programs;
  }

  async run(thread: number): Promise<void> {
    const mutex = new Mutex(this.member(thread), this.address(WORD.lock), RANK.user);
    const condition = new Condition(this.member(thread), this.address(WORD.other));
    const program = this.programs[thread] as string;
    for (let step = 0; step < program.length; step++) {
      const kind = program[step];
      if (kind === 'a') {
        await condition.untilAsync(mutex, () => this.takeIfAny(thread));
        continue;
      }
      mutex.enter();
      if (kind === 'p' || kind === 'P') {
        this.section(thread);
        this.set(thread, WORD.items, this.word(WORD.items) + 1);
        if (kind === 'p') condition.signal();
        else condition.broadcast();
      } else {
        let waits = true;
        while (waits && this.word(WORD.items) === 0) waits = condition.wait(mutex, kind === 'T' ? 10 : undefined);
        this.takeIfAny(thread);
      }
      mutex.exit();
    }
  }

  takeIfAny(thread: number): true | undefined {
    const items = this.word(WORD.items);
    if (items === 0) return undefined;
    this.section(thread);
    this.set(thread, WORD.items, items - 1);
    return true;
  }

  verdict(dead: number): string | null {
    if (this.word(WORD.lock) !== 0) return 'the mutex is still held';
    if (this.word(WORD.other + 1) !== 0) return 'waiter bits are left';
    const puts = this.programs.join('').replace(/[^pP]/g, '').length;
    return this.leftovers(dead, 0, this.programs.join('').length) ?? (this.word(WORD.items) > puts ? 'too many' : null);
  }
}
