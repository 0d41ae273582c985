/** A small region with a few threads: what the scenarios of locks have in common. */

import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { Region } from '../../../src/layout/region.ts';
import { FOREVER, load } from '../../../src/sync/atomics.ts';
import { claimSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import { digestThreads, type Scenario } from '../scenario.ts';

const WORDS = 48;

/** Words of a named lock. */
const LOCK_WORDS = 9;

const SMALL: Partial<Geometry> = {
  slots: 5,
  slotLanes: 1,
  lockLanes: 2,
  heldLanes: 17,
  journalLanes: 13,
  namedLocks: 1,
};

/** Rows of the words that scenarios use. */
export const WORD = {
  /** A lock and what follows it. */
  lock: 0,
  /** A second lock, or a condition. */
  other: 8,
  /** Two words that are updated together. */
  first: 32,
  second: 33,
  /** 1 while somebody is inside. */
  inside: 34,
  /** Never written: a place to be preempted at. */
  idle: 35,
  /** Items between producers and consumers. */
  items: 36,
} as const;

/** What matters of the one named lock. */
export function digestNamedLocks(region: Region, into: number[]): void {
  const { namedLock, lockRegistry } = region.tables;
  into.push(lockRegistry.lock.get(0), namedLock.kind.get(0), namedLock.generation.get(0));
  into.push(namedLock.holder.get(0), namedLock.abandonedBy.get(0));
  for (let lane = 0; lane < LOCK_WORDS; lane++) into.push(namedLock.words.at(0, lane));
}

/** A world of threads that share the words of one table. */
export abstract class World implements Scenario {
  readonly threads: number;
  readonly mortal: readonly number[];
  /** One per thread, then the monitor's. */
  readonly members: Thread[] = [];
  region!: Region;
  words!: Int32Array;

  /** Longest single sleep; finite where a wait must end by itself. */
  readonly sliceMs: number;

  constructor(threads: number, mortal: readonly number[] = [], sliceMs: number = FOREVER) {
    this.threads = threads;
    this.mortal = mortal;
    this.sliceMs = sliceMs;
  }

  setUp(): void {
    const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0]));
    const geometry = { ...zeros, ...SMALL, tagBuckets: WORDS } as Geometry;
    this.region = Region.create(geometry, { spinLimit: 1, virtualClock: true });
    this.words = this.region.words;
    for (let thread = 0; thread <= this.threads; thread++) {
      const slot = claimSlot(this.region, thread + 1);
      this.members.push(new Thread(this.region, slot, this.sliceMs));
    }
  }

  abstract run(thread: number): void | Promise<void>;
  abstract verdict(dead: number): string | null;

  recover(dead: number): void {
    takeOver(this.member(this.threads), dead, []);
  }

  passTime(): void {
    this.region.tables.header.virtualTime.put(0, 1e9);
  }

  digest(into: number[]): void {
    const { header, bucket } = this.region.tables;
    into.push(header.poison.get(0));
    for (let row = 0; row < WORDS; row++) into.push(bucket.head.get(row));
    digestThreads(this.members, into);
  }

  member(thread: number): Thread {
    return this.members[thread] as Thread;
  }

  address(row: number): number {
    return this.region.tables.bucket.head.address(row);
  }

  word(row: number): number {
    return this.region.tables.bucket.head.get(row);
  }

  /** Stores into a guarded word, so that a takeover can undo it. */
  set(thread: number, row: number, value: number): void {
    this.member(thread).journal.set(this.region.tables.bucket.head, row, value);
  }

  /** A place to be preempted at. */
  pause(): void {
    load(this.words, this.address(WORD.idle));
  }

  /** The body of a critical section: two words that must change together, by one thread at a time. */
  section(thread: number): void {
    this.sectionOf(this.member(thread));
  }

  /** The same for a thread that is not one of the members. */
  sectionOf({ journal }: Thread): void {
    const { head } = this.region.tables.bucket;
    if (this.word(WORD.inside) !== 0) throw new Error('two threads are inside, or a dead one still is');
    journal.set(head, WORD.inside, 1);
    const first = this.word(WORD.first);
    if (first !== this.word(WORD.second)) throw new Error('the guarded words disagree');
    journal.set(head, WORD.first, first + 1);
    this.pause();
    journal.set(head, WORD.second, first + 1);
    journal.set(head, WORD.inside, 0);
  }

  /** What a reader sees: two words that agree, and nobody who changes them. */
  look(): void {
    if (this.word(WORD.inside) !== 0) throw new Error('a reader is in beside a writer');
    const first = this.word(WORD.first);
    this.pause();
    if (first !== this.word(WORD.first) || first !== this.word(WORD.second)) {
      throw new Error('the guarded words change under a reader');
    }
  }

  /** What is wrong with the guarded words and the slots when all is over. */
  leftovers(dead: number, sectionsMin: number, sectionsMax: number): string | null {
    const first = this.word(WORD.first);
    if (this.word(WORD.inside) !== 0) return 'somebody is still inside';
    if (first !== this.word(WORD.second)) return `the guarded words disagree: ${first}, ${this.word(WORD.second)}`;
    if (first < sectionsMin || first > sectionsMax) return `${first} sections instead of ${sectionsMin}-${sectionsMax}`;
    const { slot, journal } = this.region.tables;
    for (let thread = 0; thread < this.threads; thread++) {
      if (slot.held.at(thread, 0) !== 0) return `slot ${thread} has held-lock records left`;
      if (slot.waitAddress.get(thread) !== 0) return `slot ${thread} publishes a wait`;
      if (journal.entries.at(thread, 0) !== 0) return `slot ${thread} has journal entries left`;
    }
    if (dead >= 0 && slot.claim.get(dead) !== 0) return `slot ${dead} cannot be claimed again`;
    return null;
  }
}
