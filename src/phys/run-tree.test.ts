import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { leaveUnbalanced, testRegion, testThread } from '../../test/support/region.ts';
import { Prng } from '../base/index.ts';
import { Mutex, RANK } from '../sync/index.ts';
import { FrameMap } from './frame-map.ts';
import { onesCount, wordMask } from './map-words.ts';
import { placeRun } from './run-tree.ts';

function setUp(frames: number) {
  const { region, thread } = testRegion({ frames, bankFrames: frames });
  // The map alone: nothing here has a use.
  leaveUnbalanced();
  const map = new FrameMap(thread);
  const mutex = new Mutex(thread, region.tables.framePool.lock.address(0), RANK.frames);
  return { region, thread, map, mutex };
}

describe('words of the map', () => {
  it('are counted and masked', () => {
    expect(onesCount(0)).toBe(0);
    expect(onesCount(-1)).toBe(32);
    expect(onesCount(0x80000001 | 0)).toBe(2);
    expect(wordMask(0, 32)).toBe(-1);
    expect(wordMask(0, 40)).toBe(-1);
    expect(wordMask(4, 8)).toBe(0xf0);
    expect(wordMask(31, 32)).toBe(0x80000000 | 0);
  });
});

describe('run tree', () => {
  it('places runs by alignment and boundary', () => {
    expect(placeRun(5, { count: 3, alignment: 1, boundary: 0 })).toBe(5);
    expect(placeRun(5, { count: 3, alignment: 4, boundary: 0 })).toBe(8);
    expect(placeRun(6, { count: 3, alignment: 1, boundary: 8 })).toBe(8);
    expect(placeRun(5, { count: 3, alignment: 1, boundary: 8 })).toBe(5);
    expect(placeRun(17, { count: 2, alignment: 16, boundary: 4 })).toBe(32);
  });

  it.each([1, 33, 256, 257, 700, 5000, 20_000])('agrees with a naive search over %d frames', (frames) => {
    const seed = 7 + frames;
    const random = new Prng(seed);
    const { map, mutex } = setUp(frames);
    const free = new Uint8Array(frames);
    const flip = (first: number, count: number, value: 0 | 1) => {
      for (let frame = first; frame < first + count; frame++) {
        if (free[frame] === value) continue;
        if (value === 1) map.give(frame);
        else map.take(frame);
        free[frame] = value;
      }
    };
    const naiveFind = (count: number, alignment: number, boundary: number, low: number, high: number) => {
      for (let first = Math.ceil(low / alignment) * alignment; first + count <= high; first += alignment) {
        if (boundary !== 0 && Math.floor(first / boundary) !== Math.floor((first + count - 1) / boundary)) continue;
        let fits = true;
        for (let frame = first; frame < first + count && fits; frame++) fits = free[frame] === 1;
        if (fits) return first;
      }
      return -1;
    };
    for (let step = 0; step < 400; step++) {
      mutex.enter();
      for (let change = 0; change < 4; change++) {
        const first = random.below(frames);
        const most = random.pick([1, 4, 40, 600]);
        flip(first, Math.min(most, frames - first), random.chance(0.55) ? 1 : 0);
        mutex.exit();
        mutex.enter();
      }
      mutex.exit();
      mutex.enter();
      map.tree.refresh();
      const count = random.pick([1, 2, 7, 32, 33, 100, 300]);
      const alignment = 2 ** random.below(6);
      const boundary = random.chance(0.5) ? 0 : 2 ** Math.ceil(Math.log2(count) + random.below(2));
      const low = random.below(frames);
      const high = random.between(low, frames);
      const shape = { count, alignment, boundary };
      expect(map.tree.find(shape, low, high)).toBe(naiveFind(count, alignment, boundary, low, high));
      expect(map.tree.countFree(low, high)).toBe(free.subarray(low, high).reduce((sum, bit) => sum + bit, 0));
      const next = free.indexOf(1, low);
      expect(map.nextFree(low, frames)).toBe(next);
      if (next >= 0) {
        const end = free.indexOf(0, next);
        expect(map.tree.runEnd(next, frames)).toBe(end < 0 ? frames : end);
      }
      mutex.exit();
      if (step % 50 === 0) expect(map.problems()).toEqual([]);
    }
    expect(map.problems()).toEqual([]);
  });

  it('is right after a death at any step of a change and of a search', () => {
    const { region, thread, map, mutex } = setUp(3000);
    for (let frame = 0; frame < 3000; frame += 3) {
      mutex.enter();
      map.give(frame);
      mutex.exit();
    }
    const victim = testThread(region);
    const theirs = new FrameMap(victim);
    const lock = new Mutex(victim, region.tables.framePool.lock.address(0), RANK.frames);
    const steps = dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [],
      operation: () => {
        lock.enter();
        expect(theirs.findRun({ count: 1, alignment: 2, boundary: 0 }, 1, 3000)).toBe(6);
        theirs.takeRun(6, 1);
        lock.exit();
        lock.enter();
        theirs.giveRun(700, 2);
        lock.exit();
      },
      verify: () => {
        expect(map.problems()).toEqual([]);
        mutex.enter();
        expect([6, 12]).toContain(map.findRun({ count: 1, alignment: 2, boundary: 0 }, 1, 3000));
        mutex.exit();
        expect(map.problems()).toEqual([]);
      },
    });
    expect(steps).toBeGreaterThan(8);
  });

  it.each([
    ['all the way up after a search that died between a leaf and what is above it', 1],
    ['no further than something changes after one that ended', 0],
  ])('goes %s', (_, stale) => {
    const { region, map, mutex } = setUp(20_000);
    const { runNode, framePool } = region.tables;
    const search = (): void => {
      mutex.enter();
      map.findRun({ count: 1, alignment: 1, boundary: 0 }, 0, 20_000);
      mutex.exit();
    };
    mutex.enter();
    map.giveRun(8000, 1000);
    mutex.exit();
    search();
    mutex.enter();
    map.giveRun(9000, 40);
    // The leaf of frames 8960 to 9215, as a search writes it first.
    const lane = 35 * runNode.free.stride;
    runNode.prefix.view[lane] = 80;
    runNode.suffix.view[lane] = 0;
    runNode.longest.view[lane] = 80;
    runNode.free.view[lane] = 80;
    framePool.treeStale.put(0, stale);
    mutex.exit();
    search();
    expect(framePool.treeStale.get(0)).toBe(0);
    // Without the mark the nodes above would stay behind: that is what it is for.
    expect(map.problems().length > 0).toBe(stale === 0);
  });
});
