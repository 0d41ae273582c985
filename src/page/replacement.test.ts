import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { attachRooms, moreRooms, problemsOf, type TestRooms, testRooms } from '../../test/support/rooms.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { type Geometry, REPLACEMENT, type ReplacementName, replacementGeometry } from '../layout/index.ts';
import { pageStatistics } from './page-counters.ts';
import type { PageStore } from './page-store.ts';
import { recoverPages } from './recovery.ts';

const POLICIES = Object.keys(REPLACEMENT) as ReplacementName[];

const STORE: PageStore = { fill: () => 0, write: () => undefined };

function roomsWith(policy: ReplacementName, frames: number, geometry: Partial<Geometry> = {}): TestRooms {
  const rooms = testRooms({
    frames,
    bankFrames: frames,
    ...geometry,
    ...replacementGeometry(REPLACEMENT[policy], frames, 4),
  });
  rooms.region.tables.policy.kind.put(0, REPLACEMENT[policy]);
  // Rooms read the policy when they are made.
  return { ...rooms, ...attachRooms(rooms.region, rooms.thread, rooms.banks) };
}

function touch({ pages }: TestRooms, vnode: number, index: number): void {
  const out = new Int32Array(1);
  pages.fetch(vnode, index, 1, out, 0, STORE, true);
  pages.release(out[0] as number);
}

/** Brings pages side by side, and some behind them that are not held. */
function fetchRun({ pages }: TestRooms, vnode: number, index: number, count: number, ahead: number): void {
  const out = new Int32Array(count + ahead);
  const held = pages.fetch(vnode, index, count, out, 0, STORE, false, ahead);
  for (let lane = 0; lane < held; lane++) pages.release(out[lane] as number);
}

function endAll(rooms: TestRooms): void {
  const { frames } = rooms.region.geometry;
  for (const vnode of [0, 1, 2]) expect(rooms.pages.invalidate(vnode, 0)).toBe(0);
  expect(problemsOf(rooms)).toEqual([]);
  expect(rooms.frames.counts().free).toBe(frames);
  expect(rooms.frames.takeRun(frames)).toBe(0);
  rooms.frames.giveRun(0, frames);
}

describe.each(POLICIES)('replacement by %s', (policy) => {
  it('keeps its structures sound under a random load with pins, drops, runs and relocations', () => {
    const random = new Prng(testSeed(`replacement ${policy}`, 17));
    const rooms = roomsWith(policy, 48);
    const { pages, frames } = rooms;
    const out = new Int32Array(32);
    const pins: number[] = [];
    const runs: [number, number][] = [];
    for (let step = 0; step < 6000; step++) {
      const kind = random.below(20);
      const vnode = random.below(3);
      if (kind < 12) touch(rooms, vnode, random.chance(0.5) ? random.below(12) : random.below(120));
      else if (kind < 15) {
        const ahead = random.below(12);
        const count = pages.fetch(vnode, random.below(100), random.between(1, 8), out, 0, STORE, false, ahead);
        for (let lane = 0; lane < count; lane++) pages.release(out[lane] as number);
      } else if (kind < 17 && pins.length < 12) {
        pages.fetch(vnode, random.below(60), 1, out, 0, STORE, true);
        pins.push(out[0] as number);
      } else if (kind < 18 && pins.length > 0) {
        pages.release(pins.splice(random.below(pins.length), 1)[0] as number);
      } else if (kind < 19) {
        pages.invalidate(vnode, random.below(100), random.between(100, 120));
      } else if (runs.length < 2) {
        const count = random.between(1, 6);
        const first = frames.tryTakeRun(count);
        if (first >= 0) {
          frames.settle();
          runs.push([first, count]);
        }
      } else {
        frames.giveRun(...(runs.pop() as [number, number]));
      }
      if (step % 500 === 0) expect(problemsOf(rooms)).toEqual([]);
    }
    for (const frame of pins) pages.release(frame);
    for (const [first, count] of runs) frames.giveRun(first, count);
    expect(pageStatistics(rooms.region).evictions).toBeGreaterThan(1000);
    endAll(rooms);
  });

  it('evicts a page that was never hit before those that were', () => {
    const rooms = roomsWith(policy, 32);
    for (let round = 0; round < 6; round++) for (let page = 0; page < 8; page++) touch(rooms, 0, page);
    for (let page = 0; page < 200; page++) {
      touch(rooms, 1, page);
      if (page % 4 === 0) for (let hot = 0; hot < 8; hot++) touch(rooms, 0, hot);
    }
    const before = pageStatistics(rooms.region).misses;
    for (let page = 0; page < 8; page++) touch(rooms, 0, page);
    expect(pageStatistics(rooms.region).misses - before).toBe(0);
    endAll(rooms);
  });

  it('is sound after a thread that evicts ends at any step', () => {
    const rooms = roomsWith(policy, 16, { pathBytes: 4096, tags: 256, tagBuckets: 256, slabs: 16, magazines: 16 });
    for (let page = 0; page < 40; page++) touch(rooms, 0, page % 20);
    const victim = moreRooms(rooms);
    const steps = dieAtEveryStep({
      region: rooms.region,
      self: rooms.thread,
      victim: victim.thread,
      recoverers: [recoverPages, (_self, dead) => rooms.frames.recover(dead)],
      operation: () => {
        const fresh = attachRooms(rooms.region, victim.thread, rooms.banks);
        for (const page of [100, 101, 102, 5]) touch(fresh, 1, page);
        fresh.pages.invalidate(1, 101, 102);
        fetchRun(fresh, 2, 14, 4, 3);
      },
      verify: (step) => {
        const problems = problemsOf(rooms);
        if (problems.length > 0) throw new Error(`step ${step}: ${problems.join('; ')}`);
      },
    });
    console.log(`${policy}: ${steps} steps`);
    expect(steps).toBeGreaterThan(100);
    endAll(rooms);
  });
});

describe('pages that are used once', () => {
  const hitsOf = (policy: ReplacementName): number => {
    const rooms = roomsWith(policy, 64);
    let cold = 0;
    for (let round = 0; round < 40; round++) {
      for (let again = 0; again < 3; again++) for (let page = 0; page < 32; page++) touch(rooms, 0, page);
      for (let page = 0; page < 80; page++) touch(rooms, 1, cold++);
    }
    const { hits } = pageStatistics(rooms.region);
    rooms.pages.invalidate(0, 0);
    expect(rooms.pages.invalidate(1, 0)).toBe(0);
    endAll(rooms);
    return hits;
  };

  it('push pages out that are used again and again, but not with policies that tell them apart', () => {
    // Of 96 touches in a round 64 are hits even if the scan has pushed everything out.
    expect(hitsOf('clock')).toBeLessThan(40 * 70);
    expect(hitsOf('s3fifo')).toBeGreaterThan(40 * 90);
    expect(hitsOf('clockPro')).toBeGreaterThan(40 * 80);
  });
});
