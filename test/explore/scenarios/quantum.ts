/** Threads that allocate and free through one quantum cache: their own objects, each other's, and the same one twice. */

import { GEOMETRY_KEYS, type Geometry } from '../../../src/layout/geometry.ts';
import { Region } from '../../../src/layout/region.ts';
import { exchange, FOREVER, store } from '../../../src/sync/atomics.ts';
import { claimSlot } from '../../../src/sync/slots.ts';
import { takeOver } from '../../../src/sync/takeover.ts';
import { Thread } from '../../../src/sync/thread.ts';
import type { SlabSource } from '../../../src/vmem/quantum-cache.ts';
import { createQuantumCaches, QuantumCaches } from '../../../src/vmem/quantum-caches.ts';
import { digestThreads, type Scenario } from '../scenario.ts';

const SMALL: Partial<Geometry> = {
  slots: 4,
  slotLanes: 1,
  lockLanes: 2,
  heldLanes: 17,
  journalLanes: 129,
  tagBuckets: 8,
  quantumCaches: 1,
  magazines: 6,
  slabs: 2,
  slabBuckets: 1,
};

/** Rows of words that threads use beside the cache. */
const WORD = { mailbox: 0, refused: 1, accepted: 2, slabTaken: 3 } as const;

/** Size of the objects: a slab then has four. */
const SIZE = 1;

/** There is one slab. */
class OneSlab implements SlabSource {
  readonly #words: Int32Array;
  readonly #address: number;

  constructor(region: Region) {
    this.#words = region.words;
    this.#address = region.tables.bucket.head.address(WORD.slabTaken);
  }

  takeSlab(): number {
    return exchange(this.#words, this.#address, 1) === 0 ? 0 : -1;
  }
  settleSlab(): void {}
  recordReturn(): void {}
  returnSlab(): void {
    store(this.#words, this.#address, 0);
  }
}

/** What the threads do. */
export interface QuantumOptions {
  readonly threads: number;
  /**
   * What each thread does, in order: `a` allocate, `f` free its newest, `p` pass it on, `t` free what was passed on, `e` empty
   * all magazines, `d` its own.
   */
  readonly programs: readonly string[];
  readonly mortal?: readonly number[];
  /** Objects in a full magazine. */
  readonly rounds?: number;
  /** All threads free the same object, which the first allocated before they start. */
  readonly sameObject?: boolean;
}

/** See the file's header. */
export class QuantumWorld implements Scenario {
  readonly threads: number;
  readonly mortal: readonly number[];
  readonly options: QuantumOptions;
  readonly members: Thread[] = [];
  readonly caches: QuantumCaches[] = [];
  region!: Region;
  words!: Int32Array;

  constructor(options: QuantumOptions) {
    this.options = options;
    this.threads = options.threads;
    this.mortal = options.mortal ?? [];
  }

  setUp(): void {
    const zeros = Object.fromEntries(GEOMETRY_KEYS.map((key) => [key, 0]));
    this.region = Region.create({ ...zeros, ...SMALL } as Geometry, { spinLimit: 1, virtualClock: true });
    this.words = this.region.words;
    createQuantumCaches(this.region, 0, SIZE, SIZE);
    this.region.tables.quantumCache.rounds.put(0, this.options.rounds ?? 1);
    const source = new OneSlab(this.region);
    for (let thread = 0; thread <= this.threads; thread++) {
      const member = new Thread(this.region, claimSlot(this.region, thread + 1), FOREVER);
      this.members.push(member);
      this.caches.push(new QuantumCaches(member, 0, SIZE, source));
    }
    // The slab is there before the threads start.
    const first = this.cachesOf(this.threads);
    first.free(first.tryAlloc(SIZE), SIZE);
    first.recoverSlot((this.members[this.threads] as Thread).slot);
    if (this.options.sameObject) this.put(WORD.mailbox, this.cachesOf(0).tryAlloc(SIZE) + 1);
  }

  run(thread: number): void {
    const caches = this.cachesOf(thread);
    const mine: number[] = [];
    for (const letter of this.options.programs[thread] as string) {
      if (letter === 'a') {
        const address = caches.tryAlloc(SIZE);
        if (mine.includes(address)) throw new Error(`object ${address} was given out twice`);
        if (address >= 0) mine.push(address);
      } else if (letter === 'f') {
        const address = mine.pop();
        if (address !== undefined && !caches.free(address, SIZE)) throw new Error('an object was not found');
      } else if (letter === 'e') {
        caches.drainAll();
      } else if (letter === 'd') {
        caches.drain();
      } else if (letter === 'p') {
        const address = mine.pop();
        if (address !== undefined) mine.push(...this.swap(address + 1));
      } else {
        this.take(caches);
      }
    }
  }

  /** Frees what is in the mailbox; with `sameObject` it stays there for the others to try. */
  take(caches: QuantumCaches): void {
    if (!this.options.sameObject) {
      for (const address of this.swap(0)) caches.free(address, SIZE);
      return;
    }
    try {
      caches.free(this.word(WORD.mailbox) - 1, SIZE);
    } catch {
      this.put(WORD.refused, this.word(WORD.refused) + 1);
      return;
    }
    this.put(WORD.accepted, this.word(WORD.accepted) + 1);
  }

  swap(value: number): number[] {
    const before = exchange(this.words, this.region.tables.bucket.head.address(WORD.mailbox), value);
    return before === 0 ? [] : [before - 1];
  }

  recover(dead: number): void {
    const monitor = this.cachesOf(this.threads);
    takeOver(this.members[this.threads] as Thread, dead, [(_self, slot) => monitor.recoverSlot(slot)]);
  }

  passTime(): void {}

  digest(into: number[]): void {
    const { quantumCache, magazine, magazineSlot, slab, slabPool, bucket } = this.region.tables;
    for (let row = 0; row < 4; row++) into.push(bucket.head.get(row));
    const { lock, rounds, collisions, visits, fullHead, fullCount, emptyHead } = quantumCache;
    for (const column of [lock, rounds, collisions, visits, fullHead, fullCount, emptyHead]) into.push(column.get(0));
    for (const column of [quantumCache.partialHead, quantumCache.slabCount, quantumCache.idleSlabs]) {
      into.push(column.get(0));
    }
    for (const column of [slabPool.lock, slabPool.magazineHead, slabPool.magazineFresh, slabPool.slabHead]) {
      into.push(column.get(0));
    }
    for (let row = 0; row < magazine.rowCount; row++) {
      into.push(magazine.count.get(row), magazine.next.get(row));
      for (let lane = 0; lane < 4; lane++) into.push(magazine.objects.at(row, lane));
    }
    for (let slot = 0; slot <= this.threads; slot++) {
      into.push(magazineSlot.loaded.at(slot, 0), magazineSlot.previous.at(slot, 0), magazineSlot.pending.at(slot, 0));
      into.push(magazineSlot.parked.at(slot, 0), magazineSlot.parkedLeft.at(slot, 0));
    }
    for (const column of [slab.cache, slab.free, slab.next, slab.previous, slab.chain]) into.push(column.get(0));
    for (let lane = 0; lane < 4; lane++) into.push(slab.object.at(0, lane));
    digestThreads(this.members, into);
  }

  verdict(dead: number): string | null {
    const problems: string[] = [];
    const seen = this.cachesOf(0).check(problems);
    if (problems.length > 0) return problems.join('; ');
    // Where a slab is that a dead thread had in flight, an arena knows: not this source.
    const expected = this.word(WORD.slabTaken) === 0 || (dead >= 0 && seen === 0) ? 0 : 4;
    if (seen !== expected) return `${seen} objects instead of ${expected}`;
    if (this.region.tables.quantumCache.lock.get(0) !== 0) return 'the lock of the cache is still held';
    if (dead >= 0 && this.region.tables.slot.claim.get(dead) !== 0) return `slot ${dead} cannot be claimed again`;
    if (dead >= 0 && this.region.tables.magazineSlot.loaded.at(dead, 0) !== 0) return 'a dead slot has a magazine';
    if (!this.options.sameObject) return null;
    const accepted = this.word(WORD.accepted);
    if (dead < 0 && accepted !== 1) return `${accepted} frees of one object were accepted`;
    return null;
  }

  cachesOf(thread: number): QuantumCaches {
    return this.caches[thread] as QuantumCaches;
  }

  word(row: number): number {
    return this.region.tables.bucket.head.get(row);
  }

  put(row: number, value: number): void {
    this.region.tables.bucket.head.put(row, value);
  }
}
