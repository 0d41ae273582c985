import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Prng } from '../base/index.ts';
import { FRAME_ORDER, type Geometry } from '../layout/index.ts';
import { chargeTo, createOwner, ownerUsage } from '../sync/index.ts';
import type { PageList } from './frame-runs.ts';
import { FRAME_USE } from './frame-uses.ts';
import { Frames } from './frames.ts';
import { PageLists } from './page-lists.ts';

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

/** Memory of 256 frames with owners `default`, without a limit, and `small`, with one of 100 frames. */
function setUp(order: number = FRAME_ORDER.lowest) {
  const ordered = order !== FRAME_ORDER.lowest;
  const { region, thread } = testRegion({ ...SMALL, frames: 256, bankFrames: 256, linkFrames: ordered ? 256 : 0 });
  region.tables.frameOrder.source.put(0, order);
  createOwner(region, 'default');
  createOwner(region, 'small', { frames: 100 });
  const frames = new Frames(thread);
  frames.online(0, 256);
  const used = () => ownerUsage(region).map(({ resources }) => resources.frames.used);
  return { region, thread, frames, lists: new PageLists(frames), used };
}

function expectSound(lists: PageLists): void {
  expect(lists.check().problems).toEqual([]);
}

describe('frames of page lists', () => {
  it('are charged to the owner of the thread that takes them, up to the limit and no further', async () => {
    const { region, thread, lists, used } = setUp();
    const first = lists.alloc({ size: 10 * PAGE });
    chargeTo(thread, 'small');
    const run = lists.alloc({ size: 60 * PAGE });
    const scattered = lists.alloc({ size: 39 * PAGE, segments: 39 });
    const frame = lists.tryTakeFrame();
    expect(used()).toEqual([10, 100]);
    expect(lists.tryTakeFrame()).toBe(-1);
    expect(lists.tryAlloc({ size: PAGE })).toBeNull();
    const error = /EDQUOT: pageList.alloc\(frames=2, owner="small", used=100\): the owner's limit of frames is 100/;
    expect(() => lists.alloc({ size: 2 * PAGE })).toThrow(error);
    // Who waits is refused only what the limit could never allow.
    const late = /ETIMEDOUT: pageList.*in time; the owner "small" has 100 of its limit of 100 frames$/;
    expect(() => lists.allocWait({ size: 2 * PAGE }, { timeoutMs: 1 })).toThrow(late);
    await expect(lists.allocAsync({ size: 2 * PAGE }, { timeoutMs: 1 })).rejects.toThrow(late);
    const never = /EDQUOT: pageList.*frames=101, owner="small", used=100\): the owner's limit of frames is 100/;
    expect(() => lists.allocWait({ size: 101 * PAGE })).toThrow(never);
    await expect(lists.allocAsync({ size: 101 * PAGE })).rejects.toThrow(never);
    // Given back in parts, by a thread that is charged to another owner.
    chargeTo(thread, 'default');
    lists.free({ runs: [{ first: 5, count: 15 }], frameCount: 15 });
    expect(used()).toEqual([5, 90]);
    expectSound(lists);
    lists.giveFrame(frame);
    lists.free({ runs: [{ first: 0, count: 5 }, { first: 20, count: 50 }, ...scattered.runs], frameCount: 94 });
    expect([first.frameCount, run.frameCount]).toEqual([10, 60]);
    expect(used()).toEqual([0, 0]);
    expect(ownerUsage(region)[1]?.resources.frames).toEqual({ used: 0, peak: 100, limit: 100 });
    expectSound(lists);
    expect(lists.alloc({ size: 256 * PAGE }).runs).toEqual([{ first: 0, count: 256 }]);
  });

  it('are given back by a request that finds the limit exceeded after pages were given up for it', () => {
    const { region, thread, frames, lists, used } = setUp();
    const other = testThread(region);
    chargeTo(other, 'small');
    chargeTo(thread, 'small');
    const others = new PageLists(new Frames(other));
    for (let page = 0; page < 200; page++) frames.tryTake(FRAME_USE.page);
    let greedy = 0;
    frames.setReclaimer({
      reclaim(frame, use) {
        // Somebody else of the same owner comes in between.
        if (greedy-- > 0) others.tryTakeFrame();
        frames.convert(frame, FRAME_USE.page, use);
        return true;
      },
    });
    const taken = lists.allocWait({ size: 60 * PAGE }, { timeoutMs: 60_000 });
    expect(used()).toEqual([0, 60]);
    lists.free(taken);
    greedy = 50;
    expect(() => lists.allocWait({ size: 90 * PAGE, low: 0, high: 120 * PAGE - 1 }, { timeoutMs: 1 })).toThrow(
      /ETIMEDOUT.*small/,
    );
    const [, small] = used();
    expect(small).toBe(lists.outstanding);
    expect(small).toBeGreaterThan(10);
    expect(small).toBeLessThanOrEqual(100);
    expectSound(lists);
    lists.free(others.listOf(other.attachment));
    expect(used()).toEqual([0, 0]);
    expectSound(lists);
  });

  const operations: [string, (lists: PageLists) => void][] = [
    ['a run', (lists) => void lists.tryAlloc({ size: 40 * PAGE })],
    ['scattered frames', (lists) => void lists.tryAlloc({ size: 30 * PAGE, segments: 30 })],
    ['a run that is refused', (lists) => void lists.tryAlloc({ size: 101 * PAGE })],
    ['a single frame', (lists) => void lists.tryTakeFrame()],
    ['a list of two owners given back', (lists) => lists.free({ runs: [{ first: 35, count: 40 }], frameCount: 40 })],
    ['a part of a list given back', (lists) => lists.free({ runs: [{ first: 61, count: 20 }], frameCount: 20 })],
    [
      'pages that are given up',
      (lists) => void lists.allocWait({ size: 6 * PAGE, low: 120 * PAGE, high: 130 * PAGE - 1 }, { timeoutMs: 0 }),
    ],
  ];
  for (const order of [FRAME_ORDER.lowest, FRAME_ORDER.lastIn]) {
    it.each(operations)(
      `leave no charge behind when their thread dies at any step: %s, source ${order}`,
      (_name, run) => {
        const { region, thread, frames, lists, used } = setUp(order);
        lists.alloc({ size: 60 * PAGE, high: 60 * PAGE - 1 });
        chargeTo(thread, 'small');
        lists.alloc({ size: 40 * PAGE, low: 60 * PAGE, high: 100 * PAGE - 1 });
        const spare = lists.alloc({ size: 30 * PAGE, low: 120 * PAGE, high: 150 * PAGE - 1 });
        lists.free(spare);
        const victim = testThread(region);
        chargeTo(victim, 'small');
        const theirs = new Frames(victim);
        theirs.setReclaimer({
          reclaim(frame, use) {
            theirs.convert(frame, FRAME_USE.page, use);
            return true;
          },
        });
        // Pages in part of where they are asked for: they are given up for it.
        frames.core.lowestFirst = true;
        for (let frame = 0; frame < 126; ) frame = frames.tryTake(FRAME_USE.page);
        const before = used();
        const steps = dieAtEveryStep({
          region,
          self: thread,
          victim,
          recoverers: [(_self, dead) => lists.recover(dead)],
          operation: () => run(new PageLists(theirs)),
          verify: () => {
            expectSound(lists);
            const [whole, small] = used() as [number, number];
            expect(whole + small).toBe(lists.outstanding);
            expect(small).toBeLessThanOrEqual(100);
          },
        });
        expect(before).toEqual([60, 40]);
        expect(steps).toBeGreaterThan(2);
      },
    );
  }

  it('are charged exactly beside a model, with owners that change', () => {
    const seed = 4711;
    const random = new Prng(seed);
    const { thread, lists, used } = setUp();
    const live: { list: PageList; owner: number }[] = [];
    const model = [0, 0];
    for (let step = 0; step < 1500; step++) {
      const owner = random.below(2);
      chargeTo(thread, owner);
      if (random.chance(0.5) && live.length > 0) {
        const { list, owner: charged } = live.splice(random.below(live.length), 1)[0] as (typeof live)[0];
        lists.free(list);
        model[charged] = (model[charged] as number) - list.frameCount;
      } else {
        const count = random.between(1, 20);
        const list = lists.tryAlloc({ size: count * PAGE, segments: random.pick([1, count]) });
        if (owner === 1 && (model[1] as number) + count > 100) expect(list, `seed ${seed}, step ${step}`).toBeNull();
        if (list === null) continue;
        live.push({ list, owner });
        model[owner] = (model[owner] as number) + count;
      }
      expect(used()).toEqual(model);
      if (step % 100 === 0) expectSound(lists);
    }
    for (const { list } of live) lists.free(list);
    expect(used()).toEqual([0, 0]);
    expectSound(lists);
  });
});
