/** Threads that share a named mutex, and somebody who may remove it. What it guards is a program's: no takeover undoes it. */

import { store } from '../../../src/sync/atomics.ts';
import { LockPlace, LockWaits } from '../../../src/sync/lock-place.ts';
import { clearWaits } from '../../../src/sync/lock-report.ts';
import { Locks } from '../../../src/sync/named-locks.ts';
import { NamedMutex } from '../../../src/sync/named-mutex.ts';
import { digestNamedLocks, WORD, World } from './world.ts';

/** What a scenario with a named mutex does. */
export interface NamedMutexOptions {
  /** Per thread a letter for each step: `s` a section, `t` one if the lock is free, `x` removes the lock. */
  readonly programs: readonly string[];
  /** Threads that may die. */
  readonly mortal?: readonly number[];
}

/** See the file's header. */
export class NamedMutexWorld extends World {
  readonly programs: readonly string[];

  constructor({ programs, mortal = [] }: NamedMutexOptions) {
    super(programs.length, mortal);
    this.programs = programs;
  }

  override setUp(): void {
    super.setUp();
    new Locks(this.member(this.threads)).mutex('m');
  }

  run(thread: number): void {
    const program = this.programs[thread] as string;
    // Made anew for each schedule: what handles know of their own waits is private.
    const member = this.member(thread);
    const locks = new Locks(member);
    const mutex = new NamedMutex(new LockPlace(member, new LockWaits(member), 'm', 0, { repair: () => this.repair() }));
    for (let step = 0; step < program.length; step++) {
      const letter = program.charAt(step);
      try {
        if (letter === 'x') {
          locks.remove('m');
          continue;
        }
        if (letter === 't' && !mutex.tryEnter()) continue;
        if (letter === 's') mutex.enter();
      } catch (error) {
        const { code } = error as { code?: string };
        // Whoever removes may come too early, whoever enters too late, when somebody removes at all.
        const removes = this.programs.some((other) => other.includes('x'));
        if (removes && (code === 'ESTALE' || code === 'EBUSY' || code === 'ENOENT')) return;
        throw error;
      }
      this.change();
      mutex.exit();
    }
  }

  /** What the lock is for: two words of a program, which agree whenever nobody is inside. */
  change(): void {
    const first = this.word(WORD.first);
    if (first !== this.word(WORD.second)) throw new Error('the words disagree, and nobody was told');
    store(this.words, this.address(WORD.first), first + 1);
    this.pause();
    if (this.word(WORD.first) !== first + 1) throw new Error('two threads are inside');
    store(this.words, this.address(WORD.second), first + 1);
  }

  repair(): void {
    store(this.words, this.address(WORD.second), this.word(WORD.first));
  }

  override recover(dead: number): void {
    super.recover(dead);
    clearWaits(this.region, dead);
  }

  override digest(into: number[]): void {
    super.digest(into);
    digestNamedLocks(this.region, into);
  }

  verdict(dead: number): string | null {
    const { namedLock } = this.region.tables;
    const left = namedLock.holder.get(0) !== 0 || namedLock.abandonedBy.get(0) !== 0;
    if (left && dead < 0) return 'a holder is named, and nobody died';
    if (namedLock.words.at(0, 0) !== 0) return 'the mutex is still held';
    // Whoever removes a lock says that what it guards is no longer needed.
    const isGone = namedLock.kind.get(0) === 0;
    if (this.word(WORD.first) !== this.word(WORD.second) && !left && !isGone)
      return 'the words disagree, and nobody will be told';
    // What is left is repaired by whoever comes next.
    if (left || isGone) this.region.tables.bucket.head.put(WORD.second, this.word(WORD.first));
    return this.leftovers(dead, 0, 99);
  }
}
