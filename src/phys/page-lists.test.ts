import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Prng } from '../base/index.ts';
import { FRAME_ORDER, type Geometry } from '../layout/index.ts';
import { createOwner, releaseSlot } from '../sync/index.ts';
import { singleRun } from './frame-runs.ts';
import { FRAME_USE } from './frame-uses.ts';
import { type FrameReclaimer, Frames } from './frames.ts';
import { LIST_STAGE } from './list-hand.ts';
import type { PageListRequest } from './page-list-request.ts';
import { PageLists } from './page-lists.ts';
import type { PhysSegmentOptions } from './phys-segments.ts';

const PAGE = 4096;
const SMALL: Partial<Geometry> = {
  tags: 64,
  tagBuckets: 64,
  pathBytes: 256,
  vnodes: 4,
  magazines: 4,
  slabs: 4,
  arenas: 2,
};

interface SetUp {
  readonly frames?: number;
  readonly segments?: readonly PhysSegmentOptions[];
  readonly classes?: number;
  readonly order?: number;
  readonly bankFrames?: number;
}

function setUp({ frames = 512, segments, classes = 1, order = FRAME_ORDER.lowest, bankFrames = frames }: SetUp = {}) {
  const ordered = order !== FRAME_ORDER.lowest;
  const geometry = { ...SMALL, frames, bankFrames, frameClasses: classes, frameLists: classes };
  const { region, thread } = testRegion({ ...geometry, linkFrames: ordered ? frames : 0 });
  region.tables.frameOrder.source.put(0, order);
  createOwner(region, 'default');
  const room = new Frames(thread);
  for (const segment of segments ?? [{ start: 0, end: frames }]) room.addSegment(segment);
  const lists = new PageLists(room);
  const seed = new PageLists(room, { compat: 'seed' });
  /** Takes single frames, so that exactly those stay free for which `keep` says so. */
  const leaveFree = (keep: (frame: number) => boolean) => {
    const { runs } = lists.alloc({ size: room.counts().free * PAGE, segments: frames });
    for (const { first, count } of runs) {
      for (let frame = first; frame < first + count; frame++) if (keep(frame)) lists.giveFrame(frame);
    }
  };
  return { region, thread, frames: room, lists, seed, leaveFree };
}

function expectSound(lists: PageLists): void {
  expect(lists.check().problems).toEqual([]);
}

describe('page lists', () => {
  it('serve one run, the lowest that fits, and take it back whole or in parts', () => {
    const { lists, frames } = setUp();
    const list = lists.alloc({ size: 10 * PAGE - 5 });
    expect(list).toEqual({ runs: [{ first: 0, count: 10 }], frameCount: 10 });
    expect(lists.alloc({ size: PAGE, alignment: 8 * PAGE }).runs[0]?.first).toBe(16);
    expect(lists.alloc({ size: 6 * PAGE, boundary: 8 * PAGE }).runs[0]?.first).toBe(10);
    expect(lists.outstanding).toBe(17);
    lists.free({ runs: [{ first: 4, count: 6 }], frameCount: 6 });
    lists.free({ runs: [{ first: 0, count: 4 }], frameCount: 4 });
    expect(frames.counts().list).toBe(7);
    expectSound(lists);
  });

  it('refuse what breaks a rule, and change nothing', () => {
    const { lists, seed } = setUp();
    const list = lists.alloc({ size: 4 * PAGE });
    const bad: PageListRequest[] = [
      { size: 0 },
      { size: 1.5 },
      { size: -1 },
      { size: PAGE, alignment: 3 * PAGE },
      { size: PAGE, boundary: 12288 },
      { size: PAGE, low: 5, high: 4 },
      { size: PAGE, segments: 0 },
      { size: 4 * PAGE, boundary: 2 * PAGE },
      { size: PAGE, sice: 1 } as unknown as PageListRequest,
    ];
    for (const request of bad) expect(() => lists.tryAlloc(request), JSON.stringify(request)).toThrow(/EINVAL/);
    expect(() => seed.tryAlloc({ size: 4 * PAGE, boundary: 2 * PAGE })).toThrow(/EINVAL/);
    for (const runs of [
      [{ first: 3, count: 2 }],
      [
        { first: 0, count: 2 },
        { first: 1, count: 1 },
      ],
      [{ first: -1, count: 1 }],
      [{ first: 511, count: 2 }],
      [{ first: 0.5, count: 1 }],
    ]) {
      expect(() => lists.free({ runs, frameCount: 2 }), JSON.stringify(runs)).toThrow(/EINVAL/);
    }
    expect(() => lists.giveFrame(9)).toThrow(/EINVAL/);
    expect(() => new PageLists(setUp().frames, { compat: 'sead' as 'seed' })).toThrow(/EINVAL/);
    expect(lists.outstanding).toBe(4);
    expectSound(lists);
    lists.free(list);
    expect(() => lists.free(list)).toThrow(/EINVAL/);
  });

  it('find a run across the hint, which the seed misses', () => {
    const again = setUp();
    again.seed.alloc({ size: 100 * PAGE, alignment: 2 * PAGE });
    again.lists.free({ runs: [{ first: 96, count: 4 }], frameCount: 4 });
    again.leaveFree((frame) => frame >= 96 && frame < 104);
    expect(again.seed.snapshot().hints).toEqual([100]);
    expect(again.seed.tryAlloc({ size: 8 * PAGE, segments: 1 })).toBeNull();
    expect(again.lists.alloc({ size: 8 * PAGE }).runs).toEqual([{ first: 96, count: 8 }]);
  });

  it('honour the number of runs, where the seed wants one', () => {
    const { lists, seed, leaveFree } = setUp();
    leaveFree((frame) => (frame >= 8 && frame < 12) || (frame >= 50 && frame < 57) || frame === 100);
    const request = { size: 10 * PAGE, segments: 2 };
    expect(seed.tryAlloc(request)).toBeNull();
    expect(lists.tryAlloc({ size: 12 * PAGE, segments: 2 })).toBeNull();
    expect(lists.tryAlloc({ size: 10 * PAGE, segments: 1 })).toBeNull();
    expect(lists.alloc(request)).toEqual({
      runs: [
        { first: 8, count: 3 },
        { first: 50, count: 7 },
      ],
      frameCount: 10,
    });
    expect(lists.alloc({ size: 2 * PAGE, segments: 2 }).runs).toEqual([
      { first: 11, count: 1 },
      { first: 100, count: 1 },
    ]);
    expectSound(lists);
  });

  it('cut runs at boundaries when a few runs may be used', () => {
    const { lists } = setUp();
    const { runs } = lists.alloc({ size: 20 * PAGE, boundary: 8 * PAGE, segments: 3 });
    expect(runs.every(({ first, count }) => Math.floor(first / 8) === Math.floor((first + count - 1) / 8))).toBe(true);
    expect(runs.reduce((sum, { count }) => sum + count, 0)).toBe(20);
  });

  it('take inclusive limits as they are meant', () => {
    const { lists, seed } = setUp();
    const request = { size: 8 * PAGE, low: 16 * PAGE, high: 24 * PAGE - 1, segments: 8 };
    expect(seed.tryAlloc(request)).toBeNull();
    expect(lists.alloc(request).runs).toEqual([{ first: 16, count: 8 }]);
    expect(lists.tryAlloc({ ...request, size: 1 })).toBeNull();
    expect(lists.alloc({ size: PAGE, low: 32 * PAGE, high: 33 * PAGE }).runs).toEqual([{ first: 32, count: 1 }]);
  });

  it('read limits of 53 bits, of which the seed keeps 32 of the page number; serve alignments above boundaries', () => {
    const { lists, seed } = setUp();
    const request = { size: 4 * PAGE, high: 2 ** 44, alignment: 2 * PAGE };
    expect(seed.tryAlloc(request)).toBeNull();
    expect(lists.alloc(request).runs).toEqual([{ first: 0, count: 4 }]);
    const narrow = { size: 2 * PAGE, alignment: 8 * PAGE, boundary: 4 * PAGE };
    expect(lists.allocWait(narrow, { timeoutMs: 0 }).runs).toEqual([{ first: 8, count: 2 }]);
    expectSound(lists);
  });

  it('join segments that touch, also of different classes, but never banks', () => {
    const segments = [
      { start: 0, end: 64, freeList: 1 },
      { start: 64, end: 128 },
      { start: 128, end: 256, availableStart: 130 },
    ];
    const { lists, seed } = setUp({ frames: 256, segments, classes: 2, bankFrames: 256 });
    expect(seed.tryAlloc({ size: 127 * PAGE })).toBeNull();
    expect(lists.alloc({ size: 128 * PAGE }).runs).toEqual([{ first: 0, count: 128 }]);
    const banks = setUp({ frames: 256, bankFrames: 128 });
    expect(banks.lists.tryAlloc({ size: 129 * PAGE })).toBeNull();
    expect(banks.lists.alloc({ size: 256 * PAGE, segments: 2 }).runs.length).toBe(2);
  });

  it('use lower classes first', () => {
    const segments = [
      { start: 0, end: 64, freeList: 1 },
      { start: 64, end: 128 },
    ];
    const { lists } = setUp({ frames: 128, segments, classes: 2 });
    expect(lists.alloc({ size: 4 * PAGE }).runs[0]?.first).toBe(64);
    expect(lists.alloc({ size: 100 * PAGE, segments: 100 }).runs).toEqual([
      { first: 68, count: 60 },
      { first: 0, count: 40 },
    ]);
  });

  it('leave the reserves alone, whatever the size; the seed asks only whether any frame is above them', () => {
    const { lists, seed } = setUp({ frames: 128 });
    lists.setReserves(4, 8);
    expect(lists.tryAlloc({ size: 117 * PAGE, segments: 117 })).toBeNull();
    lists.free(lists.alloc({ size: 116 * PAGE }));
    lists.free(seed.alloc({ size: 128 * PAGE, segments: 128 }));
  });

  it('count before they take: a failure moves nothing', () => {
    const { lists, seed, leaveFree } = setUp({ order: FRAME_ORDER.lastIn });
    leaveFree((frame) => frame % 7 === 0);
    const before = lists.snapshot();
    expect(lists.tryAlloc({ size: 400 * PAGE, segments: 400 })).toBeNull();
    expect(lists.snapshot()).toEqual(before);
    expect(seed.tryAlloc({ size: 400 * PAGE, segments: 400 })).toBeNull();
    expect(lists.snapshot()).not.toEqual(before);
    expectSound(lists);
  });

  it('kick the pagedaemon when frames are low, also for a run, and begin at the lowest whatever came before', () => {
    const { lists, seed, frames } = setUp({ frames: 128 });
    const { watermarks } = frames;
    let kicks = 0;
    seed.setPressure({ reclaimable: () => false, reclaim: () => undefined, kick: () => void kicks++ });
    watermarks.set({ freeMin: 100, freeTarget: 100, desiredFree: 100, lotsFree: 100 });
    watermarks.takeKick();
    const run = { size: 40 * PAGE, alignment: 2 * PAGE };
    lists.free(seed.alloc(run));
    expect([kicks, watermarks.takeKick()]).toEqual([0, false]);
    lists.free(lists.alloc(run));
    expect(watermarks.takeKick()).toBe(true);
    const narrow = { size: 8 * PAGE, segments: 8, low: 100 * PAGE, high: 104 * PAGE };
    expect([lists.tryAlloc(narrow), seed.tryAlloc(narrow), kicks]).toEqual([null, null, 1]);
    expect(lists.alloc({ size: 8 * PAGE }).runs).toEqual([{ first: 0, count: 8 }]);
    expect(seed.alloc({ size: 8 * PAGE, segments: 8 }).runs).toEqual([{ first: 40, count: 8 }]);
    expectSound(lists);
  });

  it('give single frames out in the order of the source', () => {
    const order = (source: number) => {
      const { lists } = setUp({ frames: 32, order: source });
      const taken = [0, 1, 2].map(() => lists.tryTakeFrame());
      lists.giveFrame(taken[1] as number);
      return [...taken, lists.tryTakeFrame()];
    };
    expect(order(FRAME_ORDER.lowest)).toEqual([0, 1, 2, 1]);
    expect(order(FRAME_ORDER.lastIn)).toEqual([31, 30, 29, 30]);
    expect(order(FRAME_ORDER.firstIn)).toEqual([0, 1, 2, 3]);
  });

  it('refuse to wait for what can never be, and wait for what can', () => {
    const { lists, seed, leaveFree, frames } = setUp({ frames: 64 });
    expect(() => lists.alloc({ size: 65 * PAGE, wait: true })).toThrow(/EINVAL.*waiting cannot help/);
    expect(() => lists.alloc({ size: PAGE, low: 64 * PAGE, wait: true })).toThrow(/EINVAL/);
    leaveFree((frame) => frame % 2 === 0);
    expect(() => lists.alloc({ size: 2 * PAGE, wait: { timeoutMs: 1 } })).toThrow(/ETIMEDOUT/);
    expect(seed.tryAlloc({ size: 2 * PAGE })).toBeNull();
    // Pages that can be given up: the window with the fewest is chosen.
    const held: number[] = [];
    for (let frame = frames.tryTake(FRAME_USE.page); frame >= 0; frame = frames.tryTake(FRAME_USE.page))
      held.push(frame);
    for (const frame of [21, 22]) if (frame % 2 === 1) lists.giveFrame(frame);
    frames.give(20, FRAME_USE.page);
    const stubborn = new Set([22]);
    const reclaimer: FrameReclaimer = {
      reclaim(frame, use) {
        if (stubborn.has(frame)) return false;
        frames.convert(frame, FRAME_USE.page, use);
        return true;
      },
    };
    frames.setReclaimer(reclaimer);
    lists.giveFrame(19);
    expect(lists.alloc({ size: 4 * PAGE, wait: { timeoutMs: 60_000 } }).runs).toEqual([{ first: 18, count: 4 }]);
    expect(() => lists.alloc({ size: 5 * PAGE, wait: { timeoutMs: 1 } })).toThrow(/ETIMEDOUT/);
    expect(lists.alloc({ size: 3 * PAGE, segments: 3, wait: { timeoutMs: 60_000 } }).frameCount).toBe(3);
    expectSound(lists);
  });

  it.each([FRAME_ORDER.lowest, FRAME_ORDER.lastIn, FRAME_ORDER.firstIn])(
    'keep in step with a naive model, source %d',
    (order) => {
      const seed = 1000 + order;
      const random = new Prng(seed);
      const total = 300;
      const { lists } = setUp({ frames: total, order });
      const taken = new Uint8Array(total);
      const live: { runs: readonly { first: number; count: number }[]; frameCount: number }[] = [];
      for (let step = 0; step < 3000; step++) {
        if (live.length > 0 && random.chance(0.48)) {
          const [list] = live.splice(random.below(live.length), 1) as [(typeof live)[0]];
          lists.free(list);
          for (const { first, count } of list.runs) taken.fill(0, first, first + count);
        } else {
          const count = random.between(1, random.chance(0.1) ? 120 : 12);
          const segments = random.pick([1, 1, 2, 3, count]);
          const alignment = 2 ** random.below(4);
          const low = random.below(200);
          const high = random.between(low, total);
          const list = lists.tryAlloc({
            size: count * PAGE,
            low: low * PAGE,
            high: high * PAGE - (high > low && random.chance(0.5) ? 1 : 0),
            alignment: alignment * PAGE,
            segments,
          });
          const free = taken.subarray(low, high).reduce((sum, bit) => sum + 1 - bit, 0);
          if (list === null) {
            // Nothing was missed: no single run fits, and with as many runs as frames there are too few.
            if (alignment === 1 && segments >= count) expect(free).toBeLessThan(count);
            for (let first = Math.ceil(low / alignment) * alignment; first + count <= high; first += alignment) {
              expect(taken.subarray(first, first + count).includes(1)).toBe(true);
            }
            continue;
          }
          live.push(list);
          expect(list.runs.length).toBeLessThanOrEqual(segments);
          expect(list.runs.reduce((sum, run) => sum + run.count, 0)).toBe(count);
          for (const run of list.runs) {
            expect(run.first % alignment).toBe(0);
            expect(run.first).toBeGreaterThanOrEqual(low);
            expect(run.first + run.count).toBeLessThanOrEqual(high);
            expect(taken.subarray(run.first, run.first + run.count).includes(1)).toBe(false);
            taken.fill(1, run.first, run.first + run.count);
          }
        }
        if (step % 200 === 0) expectSound(lists);
      }
      for (const list of live) lists.free(list);
      expectSound(lists);
      expect(lists.outstanding).toBe(0);
      expect(lists.alloc({ size: total * PAGE }).runs).toEqual([{ first: 0, count: total }]);
    },
  );
});

describe('page lists and deaths', () => {
  const cases: [string, (lists: PageLists) => void, readonly number[]][] = [
    ['a run', (lists) => void lists.alloc({ size: 70 * PAGE }), [40, 110]],
    ['scattered frames', (lists) => void lists.alloc({ size: 60 * PAGE, segments: 60, low: 20 * PAGE }), [40, 100]],
    ['a few runs', (lists) => void lists.alloc({ size: 170 * PAGE, segments: 2 }), [40, 210]],
    ['a list given back', (lists) => lists.free({ runs: [{ first: 10, count: 40 }], frameCount: 40 }), [40, 0]],
    ['a list given back as it was taken', (lists) => lists.free(singleRun(10, 40)), [40, 0]],
    ['a single frame', (lists) => void lists.tryTakeFrame(), [40, 41]],
    ['a single frame given back', (lists) => lists.giveFrame(30), [40, 39]],
  ];
  for (const order of [FRAME_ORDER.lowest, FRAME_ORDER.lastIn]) {
    it.each(cases)(`leave all or nothing: %s, source ${order}`, (_name, operation, outcomes) => {
      const { region, thread, lists, frames } = setUp({ frames: 256, order });
      lists.alloc({ size: 50 * PAGE });
      lists.free({ runs: [{ first: 0, count: 10 }], frameCount: 10 });
      const victim = testThread(region);
      const theirs = new PageLists(new Frames(victim));
      const steps = dieAtEveryStep({
        region,
        self: thread,
        victim,
        recoverers: [(_self, dead) => lists.recover(dead)],
        operation: () => operation(theirs),
        verify: () => {
          expectSound(lists);
          expect(outcomes).toContain(lists.outstanding);
          expect(frames.counts().free).toBe(256 - lists.outstanding);
        },
      });
      expect(steps).toBeGreaterThan(2);
      expectSound(lists);
    });
  }

  it('free all of a run whose giver died after the source had it and before its uses were rewritten', () => {
    const { region, lists, frames } = setUp({ frames: 256 });
    const victim = testThread(region);
    const theirs = new PageLists(new Frames(victim));
    const list = theirs.alloc({ size: 8 * PAGE });
    const word = frames.core.wordOf(0);
    theirs.free(list);
    const { frame, pageListSlot } = region.tables;
    for (let index = 3; index < 8; index++) frame.use.put(index, word);
    pageListSlot.stage.put(victim.slot, LIST_STAGE.givingRun);
    expect(lists.check().problems).not.toEqual([]);
    lists.recover(victim.slot);
    expectSound(lists);
    expect(lists.outstanding).toBe(0);
    expect(pageListSlot.stage.get(victim.slot)).toBe(LIST_STAGE.empty);
  });

  it('are found by who took them, and freed for a thread that has ended, not for the next one in its slot', () => {
    const { region, lists, frames } = setUp({ frames: 256 });
    const gone = testThread(region);
    const theirs = new PageLists(new Frames(gone));
    const mine = lists.alloc({ size: 5 * PAGE });
    theirs.alloc({ size: 70 * PAGE });
    theirs.tryTakeFrame();
    const given = theirs.alloc({ size: 3 * PAGE });
    theirs.free(given);
    expect(lists.listOf(gone.attachment)).toEqual({ runs: [{ first: 5, count: 71 }], frameCount: 71 });
    expect(() => lists.freeOf(gone.attachment)).toThrow(/EBUSY/);
    releaseSlot(gone);
    const next = testThread(region);
    expect(next.slot).toBe(gone.slot);
    const nextLists = new PageLists(new Frames(next));
    const kept = nextLists.alloc({ size: 4 * PAGE });
    expect(lists.freeOf(gone.attachment)).toBe(71);
    expect(lists.freeOf(gone.attachment)).toBe(0);
    expect(nextLists.listOf(next.attachment)).toEqual({ runs: kept.runs, frameCount: 4 });
    expectSound(lists);
    nextLists.free(kept);
    lists.free(mine);
    expect(frames.counts().free).toBe(256);
    expect(lists.alloc({ size: 256 * PAGE }).runs).toEqual([{ first: 0, count: 256 }]);
  });
});
