/** Readers and writers of one lock, with upgrades and downgrades. */

import { RANK } from '../../../src/sync/ranks.ts';
import { RwLock } from '../../../src/sync/rwlock-class.ts';
import { WORD, World } from './world.ts';

/** What each thread does, as a string of steps: see `RwLockWorld`. */
export interface RwLockOptions {
  readonly programs: readonly string[];
  readonly mortal?: readonly number[];
}

/**
 * Steps: `r` read, `w` write, `R` and `W` the same with a time limit, `u` read, then try to become the writer, `d` write,
 * then go on as a reader, `n` read twice, nested, `x` and `y` write and read from an event loop, `?` and `!` read and
 * write if that can be had at once.
 */
export class RwLockWorld extends World {
  readonly programs: readonly string[];

  constructor({ programs, mortal = [] }: RwLockOptions) {
    super(programs.length, mortal);
    this.programs = programs;
  }

  async run(thread: number): Promise<void> {
    const lock = new RwLock(this.member(thread), this.address(WORD.lock), RANK.user);
    const program = this.programs[thread] as string;
    for (let step = 0; step < program.length; step++) {
      const kind = program[step] as string;
      if (kind === 'x') await lock.enterExclusiveAsync();
      else if (kind === 'y') await lock.enterSharedAsync();
      else if (!this.enter(lock, kind)) continue;
      this.inside(lock, kind, thread);
    }
  }

  enter(lock: RwLock, kind: string): boolean {
    if (kind === '?') return lock.tryEnterShared();
    if (kind === '!') return lock.tryEnterExclusive();
    const timeoutMs = kind === 'R' || kind === 'W' ? 10 : undefined;
    return 'wWd'.includes(kind) ? lock.enterExclusive(timeoutMs) : lock.enterShared(timeoutMs);
  }

  inside(lock: RwLock, kind: string, thread: number): void {
    let writer = 'wWdx!'.includes(kind);
    if (writer) this.section(thread);
    else this.look();
    if (kind === 'd') {
      lock.downgrade();
      writer = false;
      this.look();
    } else if (kind === 'u') {
      writer = lock.tryUpgrade();
      if (writer) this.section(thread);
      else this.look();
    } else if (kind === 'n') {
      lock.enterShared();
      this.look();
      lock.exitShared();
      this.look();
    }
    if (writer) lock.exitExclusive();
    else lock.exitShared();
  }

  verdict(dead: number): string | null {
    for (let word = 0; word < 2; word++) {
      if (this.word(WORD.lock + word) !== 0) return `word ${word} of the lock is not empty`;
    }
    return this.leftovers(dead, 0, this.programs.join('').length);
  }
}
