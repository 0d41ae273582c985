import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { FRAME_USE, Frames } from './frames.ts';
import { PageLists } from './page-lists.ts';

const PAGE = 4096;
const TINY = { tags: 64, tagBuckets: 128, pagelockEntries: 8, pagelockPins: 8, pagelockBuckets: 8 } as const;

function setUp(count = 128, room = 8) {
  const { region, thread } = testRegion({ frames: count, bankFrames: count, frameCacheFrames: room, ...TINY });
  const frames = new Frames(thread);
  frames.online(0, count);
  return { region, thread, frames, lists: new PageLists(frames) };
}

const expectSound = (frames: Frames) => expect(frames.check().problems).toEqual([]);

describe('slot caches', () => {
  it('serve single frames from a stack that is filled and emptied in halves', () => {
    const { frames } = setUp();
    expect([0, 1, 2, 3, 4].map(() => frames.tryTake(FRAME_USE.page))).toEqual([0, 1, 2, 3, 4]);
    expect(frames.caches.frames).toBe(3);
    expect(frames.counts()).toMatchObject({ free: 123, page: 5 });
    expect(frames.core.free).toBe(120);
    for (const frame of [0, 1, 2, 3, 4]) frames.give(frame, FRAME_USE.page);
    expect(frames.caches.frames).toBe(8);
    const taken = Array.from({ length: 9 }, () => frames.tryTake(FRAME_USE.page));
    expect(new Set(taken).size).toBe(9);
    for (const frame of taken) frames.give(frame, FRAME_USE.page);
    expect(frames.caches.frames).toBeLessThanOrEqual(8);
    expect(frames.counts()).toMatchObject({ free: 128, page: 0 });
    expect(frames.statistics()).toMatchObject({ cacheTakes: 14 });
    expect(() => frames.give(taken[0] as number, FRAME_USE.page)).toThrow(/EINVAL/);
    expectSound(frames);
    expect(frames.takeRun(128)).toBe(0);
    expect(frames.caches.frames).toBe(0);
    expectSound(frames);
  });

  it('let go of their frames when others need them, and stay empty while somebody searches', () => {
    const { region, frames, lists } = setUp();
    const other = new Frames(testThread(region));
    other.give(other.tryTake(FRAME_USE.page), FRAME_USE.page);
    expect(other.caches.frames).toBe(4);
    expect(lists.tryAlloc({ size: 128 * PAGE })?.frameCount).toBe(128);
    expect(frames.tryTake(FRAME_USE.page)).toBe(-1);
    lists.free({ runs: [{ first: 0, count: 128 }], frameCount: 128 });
    other.give(other.tryTake(FRAME_USE.page), FRAME_USE.page);
    const out = new Int32Array(128);
    let got = 0;
    while (got < 128) got += frames.tryTakeSeveral(FRAME_USE.page, Math.min(32, 128 - got), out, got);
    expect(new Set(out).size).toBe(128);
    for (const frame of out) frames.give(frame, FRAME_USE.page);
    frames.caches.paused(() => {
      expect(frames.caches.frames).toBe(0);
      const frame = other.tryTake(FRAME_USE.page);
      other.give(frame, FRAME_USE.page);
      frames.give(frames.tryTake(FRAME_USE.page), FRAME_USE.page);
      expect(frames.caches.frames).toBe(0);
    });
    other.give(other.tryTake(FRAME_USE.page), FRAME_USE.page);
    expect(frames.caches.frames).toBeGreaterThan(0);
    frames.watermarks.set({ desiredFree: 127, lotsFree: 127 });
    frames.caches.drain();
    const scarce = [frames.tryTake(FRAME_USE.page), frames.tryTake(FRAME_USE.page)];
    for (const frame of scarce) frames.give(frame, FRAME_USE.page);
    expectSound(frames);
    frames.compact();
    expect(frames.caches.frames).toBe(0);
    expect(frames.core.free).toBe(128);
  });

  it('keep in step with a model over several slots', () => {
    const random = new Prng(testSeed('slot caches', 20261121));
    const { region, frames } = setUp(96, 6);
    const sides = [frames, new Frames(testThread(region)), new Frames(testThread(region))];
    const owned = new Set<number>();
    for (let step = 0; step < 5000; step++) {
      const side = random.pick(sides);
      const choice = random.below(20);
      if (choice < 9) {
        const frame = side.tryTake(FRAME_USE.page);
        expect(frame >= 0).toBe(owned.size < 96);
        if (frame < 0) continue;
        expect(owned.has(frame)).toBe(false);
        owned.add(frame);
      } else if (choice < 18 && owned.size > 0) {
        const frame = random.pick([...owned]);
        owned.delete(frame);
        side.give(frame, FRAME_USE.page);
      } else if (choice === 18) side.caches.drain();
      else {
        const count = random.between(1, 12);
        const first = side.tryTakeRun(count);
        if (first >= 0) side.giveRun(first, count);
      }
      expect(frames.counts()).toMatchObject({ page: owned.size, free: 96 - owned.size, run: 0 });
      if (step % 100 === 0) expectSound(frames);
    }
    for (const frame of owned) frames.give(frame, FRAME_USE.page);
    expect(frames.takeRun(96)).toBe(0);
  });

  it('lose nothing when their thread dies at any step, or while it pauses them', () => {
    const { region, thread, frames } = setUp(48, 4);
    const victim = testThread(region);
    const theirs = new Frames(victim);
    const note = region.tables.page.state;
    const steps = dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [(_self, dead) => frames.recover(dead)],
      operation: () => {
        const taken = Array.from({ length: 7 }, () => theirs.tryTake(FRAME_USE.page));
        for (const frame of taken) theirs.give(frame, FRAME_USE.page, note, 0);
        theirs.caches.paused(() => theirs.give(theirs.tryTake(FRAME_USE.page), FRAME_USE.page));
      },
      verify: () => {
        expectSound(frames);
        expect(frames.core.free + frames.counts().page).toBe(48);
        expect(frames.caches.frames).toBe(0);
        frames.give(frames.tryTake(FRAME_USE.page), FRAME_USE.page);
        expect(frames.caches.frames).toBeGreaterThan(0);
      },
    });
    console.log(`${steps} steps`);
    expect(steps).toBeGreaterThan(80);
  });
});
