/**
 * Requests that wait, against the naive model, in one thread: each grant was allowed and passed nobody, and whenever all is
 * still nobody waits who could be served. Time is the clock's of the test.
 */

import { describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { ALL_WAITERS, notify } from '../src/sync/atomics.ts';
import { CancelToken, createOwner, type Thread } from '../src/sync/index.ts';
import { type Arena, Arenas, type ConstraintOptions } from '../src/vmem/index.ts';
import { WAITER_STATE } from '../src/vmem/space-queue.ts';
import { deprivedBy, isLegal, type ModelArena, type ModelWaiter, placeOf, spansOf } from './models/waiting-model.ts';
import { testRegion } from './support/region.ts';
import { testSeed } from './support/seed.ts';

const SIZE = 128;

interface Pair extends ModelArena {
  readonly arena: Arena;
}

interface Waiter extends ModelWaiter {
  readonly arena: Pair;
  readonly deadline: number;
  end: 'abort' | 'cancel' | null;
  readonly controller: AbortController;
  readonly token: CancelToken | null;
  settled: boolean;
}

type Outcome = 'granted' | 'timeouts' | 'cancelled' | 'overtook' | 'refused' | 'immediate' | 'quiet';

class Run {
  readonly random: Prng;
  readonly thread: Thread;
  readonly region = testRegion({}, true);
  readonly pairs: Pair[] = [];
  readonly waiters: Waiter[] = [];
  readonly counts: Record<Outcome, number> = {
    granted: 0,
    timeouts: 0,
    cancelled: 0,
    overtook: 0,
    refused: 0,
    immediate: 0,
    quiet: 0,
  };
  readonly errors: unknown[] = [];
  readonly arenas: Arenas;
  #ticket = 0;
  readonly ownerLimit: number;

  constructor(seed: number, stream: number, charge: boolean) {
    this.random = new Prng(seed, stream);
    this.thread = this.region.thread;
    this.arenas = new Arenas(this.thread, this.region.callbacks);
    this.ownerLimit = charge ? 70 : Number.POSITIVE_INFINITY;
    if (charge) createOwner(this.region.region, 'default', { arenaBytes: this.ownerLimit });
    const root = this.#pair('root', this.arenas.create('root', { size: SIZE, charge }), null);
    if (charge) return;
    const child = (name: string, parent: Pair, limit?: number) => {
      const limits = limit === undefined ? {} : { limit };
      return this.#pair(name, this.arenas.create(name, { import: { from: parent.arena }, ...limits }), parent, limit);
    };
    const middle = child('middle', root);
    child('leaf', middle);
    child('limited', root, 40);
    child('beside', root);
  }

  #pair(name: string, arena: Arena, parent: Pair | null, limit = Number.POSITIVE_INFINITY): Pair {
    const spans = () => spansOf(arena.snapshot().segments);
    const pair: Pair = { name, arena, parent, limit, busy: new Set(), children: [], spans };
    parent?.children.push(pair);
    this.pairs.push(pair);
    return pair;
  }

  /** What the owner has left. */
  get #quota(): number {
    let used = 0;
    for (const { busy } of this.pairs) for (const { size } of busy) used += size;
    return this.ownerLimit - used;
  }

  /** Often of one class, so that requests are in each other's way. */
  #size(): number {
    return this.random.chance(0.5) ? this.random.between(16, 24) : this.random.between(1, 40);
  }

  #constraints(size: number): ConstraintOptions {
    if (this.random.chance(0.5)) return {};
    const align = 2 ** this.random.below(5);
    const phase = align > 1 && this.random.chance(0.3) ? this.random.below(align) : 0;
    const nocross = 2 ** this.random.between(4, 7);
    const crosses = Math.floor(phase / nocross) !== Math.floor((phase + size - 1) / nocross);
    const min = this.random.chance(0.4) ? this.random.below(SIZE) : 0;
    return {
      align,
      phase,
      ...(this.random.chance(0.3) && size <= nocross && !crosses ? { nocross } : {}),
      min,
      ...(this.random.chance(0.4) ? { max: min + size - 1 + this.random.below(SIZE) } : {}),
    };
  }

  /** Somebody has what the arena gave. Earlier requests of the class that lost their last place by it. */
  #take(waiter: Pick<ModelWaiter, 'arena' | 'size' | 'constraints'>, start: number, ticket: number): ModelWaiter[] {
    const what = `${waiter.arena.name} ${waiter.size} ${JSON.stringify(waiter.constraints)} at ${start}`;
    expect(isLegal(waiter, start), what).toBe(true);
    const range = { start, size: waiter.size };
    waiter.arena.busy.add(range);
    if (this.#quota < 0) throw new Error(`${what}: above the limit of the owner`);
    const open = this.waiters.filter((other) => other.size <= this.#quota + waiter.size && other.end === null);
    return deprivedBy(open, waiter.arena, range, ticket);
  }

  async ask(pair: Pair): Promise<void> {
    const size = this.#size();
    const constraints = this.#constraints(size);
    if (size > pair.limit) return;
    const ticket = this.#ticket++;
    const timeoutMs = this.random.chance(0.5) ? this.random.between(1, 200) : 1e9;
    const controller = new AbortController();
    const token = this.random.chance(0.3) ? CancelToken.create(this.thread) : null;
    const deadline = this.thread.clock.now() + timeoutMs;
    const waiter: Waiter = {
      arena: pair,
      size,
      constraints,
      ticket,
      passed: 0,
      deadline,
      end: null,
      controller,
      token,
      settled: false,
    };
    const before = pair.arena.stats().waiting;
    const options = {
      ...constraints,
      timeoutMs,
      signal: controller.signal,
      ...(token === null ? {} : { cancel: token }),
    };
    const promise = pair.arena.allocAsync(size, options);
    const waits = pair.arena.stats().waiting > before;
    if (waits) this.waiters.push(waiter);
    const outcome = promise
      .then(
        (address) => this.#granted(waiter, address, waits),
        (error: Error) => this.#failed(waiter, error),
      )
      .catch((error: unknown) => this.errors.push(error));
    // What it got at once is known before anything else happens.
    if (!waits) await outcome;
  }

  #granted(waiter: Waiter, address: number, waited: boolean): void {
    this.#leave(waiter);
    const deprived = this.#take(waiter, address, waiter.ticket);
    if (waited) {
      this.counts.granted++;
      // Who waits never takes the last place of somebody who came earlier.
      expect(deprived.map(({ ticket }) => ticket)).toEqual([]);
      return;
    }
    this.counts.immediate++;
    this.#pass(deprived);
  }

  #pass(deprived: readonly ModelWaiter[]): void {
    for (const other of deprived) {
      this.counts.overtook++;
      other.passed++;
      expect(other.passed).toBeLessThanOrEqual(this.region.region.geometry.slots);
    }
  }

  #failed(waiter: Waiter, error: Error): void {
    this.#leave(waiter);
    if (waiter.end !== null) {
      this.counts.cancelled++;
      expect(error.message).toMatch(/ECANCELED/);
      return;
    }
    if (/EDQUOT/.test(error.message)) {
      expect(waiter.size).toBeGreaterThan(this.ownerLimit);
      return;
    }
    this.counts.timeouts++;
    expect(error.message).toMatch(/ETIMEDOUT/);
    expect(this.thread.clock.now()).toBeGreaterThanOrEqual(waiter.deadline);
  }

  #leave(waiter: Waiter): void {
    waiter.settled = true;
    const at = this.waiters.indexOf(waiter);
    if (at >= 0) this.waiters.splice(at, 1);
    waiter.token?.release(this.thread);
  }

  /** A request that does not wait. */
  tryOne(pair: Pair): void {
    const size = this.#size();
    const constraints = this.#constraints(size);
    const request = { arena: pair, size, constraints };
    const place = size <= this.#quota ? placeOf(request) : -1;
    const start = pair.arena.tryXalloc(size, constraints);
    if (start < 0) {
      this.counts.refused++;
      if (place < 0) return;
      // Kept for somebody who was passed often enough, by requests of importers too.
      const { slot, overtaken, rowCount } = this.region.region.tables.spaceWaiter;
      const { slots } = this.region.region.geometry;
      let kept = false;
      for (let row = 0; row < rowCount; row++) kept ||= slot.get(row) !== 0 && overtaken.get(row) >= slots;
      expect(kept, `${pair.name} ${size} ${JSON.stringify(constraints)} at ${place}`).toBe(true);
      return;
    }
    this.#pass(this.#take(request, start, Number.POSITIVE_INFINITY));
  }

  freeOne(pair: Pair): void {
    const range = this.random.pick([...pair.busy, null]);
    if (range === null) return;
    pair.arena.free(range.start, range.size);
    pair.busy.delete(range);
  }

  endOne(): void {
    const open = this.waiters.filter(({ end }) => end === null);
    if (open.length === 0) return;
    const waiter = this.random.pick(open);
    waiter.end = waiter.token === null ? 'abort' : 'cancel';
    if (waiter.token === null) waiter.controller.abort();
    else waiter.token.cancel();
  }

  /** Time passes; everybody who sleeps looks at the clock. */
  passTime(): void {
    this.thread.clock.advance(this.random.between(1, 60));
    const { spaceWaiter: rows } = this.region.region.tables;
    for (let row = 0; row < rows.rowCount; row++) notify(this.thread.words, rows.state.address(row), ALL_WAITERS);
  }

  /** Until nobody is awake. */
  async settle(): Promise<void> {
    const { spaceWaiter: rows } = this.region.region.tables;
    for (let still = 0; still < 3; ) {
      await new Promise((resolve) => setImmediate(resolve));
      let awake = this.waiters.some(({ end, deadline }) => end !== null || deadline <= this.thread.clock.now());
      for (let row = 0; row < rows.rowCount; row++) {
        awake ||= rows.slot.get(row) !== 0 && rows.state.get(row) !== WAITER_STATE.waiting;
      }
      still = awake ? 0 : still + 1;
      if (this.errors.length > 0) throw this.errors[0];
    }
    for (const waiter of this.waiters) {
      if (waiter.size > this.#quota) continue;
      const place = placeOf(waiter);
      const { size, constraints, arena } = waiter;
      expect(place, `${arena.name} waits for ${size} ${JSON.stringify(constraints)}: there is a place`).toBe(-1);
    }
    this.counts.quiet++;
  }

  async step(): Promise<void> {
    const pair = this.random.pick(this.pairs);
    const what = this.random.below(100);
    if (what < 35) this.freeOne(pair);
    else if (what < 60 && this.waiters.length < 14) await this.ask(pair);
    else if (what < 85) this.tryOne(pair);
    else if (what < 90) this.endOne();
    else if (what < 96) this.passTime();
    else pair.arena.trim();
  }
}

describe('requests that wait, against the naive model', () => {
  const seed = testSeed('waiting fuzz', 20261123);

  it.each([
    ['one arena with a limit of its owner', seed, 1, true],
    ['arenas that import from each other', seed, 2, false],
    ['arenas that import from each other, again', seed, 3, false],
    // Found with this seed: a request that imports what is kept for another one, and loses it to its source again.
    ['a request that tells itself, time and again', 9, 2, false],
  ])('%s', async (_title, chosen, stream, charge) => {
    const run = new Run(chosen, stream, charge);
    for (let step = 0; step < 1500; step++) {
      await run.step();
      if (run.random.chance(0.25)) await run.settle();
      if (step % 100 === 0) expect(run.arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
    }
    await run.settle();
    console.log(`waiting fuzz: ${JSON.stringify(run.counts)}`);
    for (const outcome of ['granted', 'timeouts', 'cancelled', 'immediate', 'refused'] as const) {
      expect(run.counts[outcome], outcome).toBeGreaterThan(2);
    }
    // The end: whoever waits still is served as space comes back, all of which can be had in one piece then.
    for (
      let round = 0;
      round < 200 && (run.waiters.length > 0 || run.pairs.some(({ busy }) => busy.size > 0));
      round++
    ) {
      for (const pair of run.pairs) for (let piece = 0; piece < 4; piece++) run.freeOne(pair);
      // Some ask for addresses that there are not.
      for (const waiter of round > 150 ? run.waiters : []) {
        waiter.end = 'abort';
        waiter.controller.abort();
      }
      await run.settle();
    }
    expect(run.waiters).toEqual([]);
    for (const { arena } of run.pairs.toReversed()) arena.trim();
    const [root] = run.pairs as [Pair];
    if (!charge) expect(root.arena.alloc(SIZE)).toBe(0);
    else expect(root.arena.stats().largestFree).toBe(SIZE);
    expect(run.arenas.check().flatMap(({ problems }) => problems)).toEqual([]);
  });
});
