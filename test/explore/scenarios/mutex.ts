/** Threads that enter one mutex, some of them with a time limit. */

import { Mutex } from '../../../src/sync/mutex.ts';
import { RANK } from '../../../src/sync/ranks.ts';
import { WORD, World } from './world.ts';

/** What a scenario with one mutex does. */
export interface MutexOptions {
  readonly threads: number;
  readonly sections: number;
  /** Threads that may die. */
  readonly mortal?: readonly number[];
  /** Threads that enter with a time limit, and go without when it passes. */
  readonly timed?: readonly number[];
  /** Threads that enter from an event loop. */
  readonly async?: readonly number[];
}

/** Each thread runs a few critical sections. */
export class MutexWorld extends World {
  readonly sections: number;
  readonly timed: readonly number[];
  readonly async: readonly number[];

  constructor({ threads, sections, mortal = [], timed = [], async = [] }: MutexOptions) {
    super(threads, mortal);
    this.sections = sections;
    this.timed = timed;
    this.async = async;
  }

  async run(thread: number): Promise<void> {
    const mutex = new Mutex(this.member(thread), this.address(WORD.lock), RANK.user);
    for (let section = 0; section < this.sections; section++) {
      if (this.async.includes(thread)) await mutex.enterAsync();
      else if (!this.timed.includes(thread)) mutex.enter();
      else if (!mutex.enterWithin(10)) return;
      this.section(thread);
      mutex.exit();
    }
  }

  verdict(dead: number): string | null {
    if (this.word(WORD.lock) !== 0) return 'the mutex is still held';
    const sure = this.threads - this.timed.length - (dead >= 0 && !this.timed.includes(dead) ? 1 : 0);
    return this.leftovers(dead, sure * this.sections, this.threads * this.sections);
  }
}
