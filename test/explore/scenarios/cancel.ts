/** A thread that waits for a mutex until another one cancels the wait. */

import { VmError } from '../../../src/base/errors.ts';
import { CancelToken } from '../../../src/sync/cancel.ts';
import { Mutex } from '../../../src/sync/mutex.ts';
import { RANK } from '../../../src/sync/ranks.ts';
import { WORD, World } from './world.ts';

/** Whether thread 0 uses the mutex, and who may die. */
export interface CancelOptions {
  readonly holder: boolean;
  readonly mortal?: readonly number[];
}

/** Thread 0 uses the mutex (or does nothing), thread 1 waits for it with a token, thread 2 cancels the token. */
export class CancelWorld extends World {
  readonly holder: boolean;

  constructor({ holder, mortal = [] }: CancelOptions) {
    super(3, mortal, 1000);
    this.holder = holder;
  }

  override setUp(): void {
    super.setUp();
    CancelToken.create(this.member(2));
  }

  run(thread: number): void {
    const mutex = new Mutex(this.member(thread), this.address(WORD.lock), RANK.user);
    // The first token of the canceller's slot, as if its handle had come in a message.
    const token = CancelToken.from(this.region, { token: 2 * 64, state: 5 });
    if (thread === 2) {
      token.cancel();
    } else if (thread === 0) {
      if (!this.holder) return;
      mutex.enter();
      this.section(thread);
      mutex.exit();
    } else {
      this.enterOrCancel(mutex, token, thread);
    }
  }

  enterOrCancel(mutex: Mutex, token: CancelToken, thread: number): void {
    try {
      if (!mutex.enterWithin(1e8, token)) throw new Error('the time did not run out');
    } catch (error) {
      if (error instanceof VmError && error.code === 'ECANCELED') return;
      throw error;
    }
    this.section(thread);
    mutex.exit();
  }

  verdict(dead: number): string | null {
    if (this.word(WORD.lock) !== 0) return 'the mutex is still held';
    return this.leftovers(dead, 0, 2);
  }
}
