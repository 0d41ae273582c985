import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { CancelToken } from '../sync/index.ts';
import { FRAME_USE, type FrameReclaimer, Frames } from './frames.ts';
import { PageLists } from './page-lists.ts';

const PAGE = 4096;

/** Few rows of other rooms: each step of a death test copies the region. */
const TINY = { tags: 64, tagBuckets: 128, pagelockEntries: 8, pagelockPins: 8, pagelockBuckets: 8 } as const;

function setUp(count = 128, bankFrames = 32) {
  const { region, thread } = testRegion({ frames: count, bankFrames, physSegments: 16, ...TINY });
  const frames = new Frames(thread);
  frames.online(0, count);
  return { region, thread, frames, lists: new PageLists(frames) };
}

/** Moves every frame of use page but those named. */
function movable(frames: Frames, pinned: ReadonlySet<number> = new Set()): FrameReclaimer {
  const move: FrameReclaimer = {
    relocate(frame, use) {
      if (pinned.has(frame) || frames.tryTake(FRAME_USE.page) < 0) return false;
      frames.convert(frame, FRAME_USE.page, use);
      return true;
    },
    reclaim: () => false,
    holders: () => [5],
  };
  frames.setReclaimer(move);
  return move;
}

const expectSound = (frames: Frames) => expect(frames.check().problems).toEqual([]);

describe('memory that goes offline', () => {
  it('leaves all searches, with what was in it moved, and comes back', () => {
    const { frames, lists } = setUp();
    movable(frames);
    for (let taken = 0; taken < 40; taken++) frames.tryTake(FRAME_USE.page);
    const told: string[] = [];
    frames.onMemoryChange({
      added: (first, count) => told.push(`added ${first} ${count}`),
      removing: (first, count) => {
        told.push(`removing ${first} ${count}`);
        throw new Error('busy');
      },
      removed: (first, count, cancelled, error) => told.push(`removed ${first} ${count} ${cancelled} ${error}`),
    });
    frames.offline(0, 32);
    expect(frames.counts()).toMatchObject({ absent: 32, page: 40, free: 56 });
    expectSound(frames);
    expect(lists.tryAlloc({ size: PAGE, high: 32 * PAGE - 1 })).toBeNull();
    expect(() => lists.allocWait({ size: PAGE, high: 32 * PAGE - 1 })).toThrow(/EINVAL/);
    expect(lists.alloc({ size: 56 * PAGE, segments: 56 }).runs.every(({ first }) => first >= 32)).toBe(true);
    expect(frames.tryTake(FRAME_USE.page)).toBe(-1);
    expect(() => frames.offline(0, 32)).toThrow(/EINVAL.*none of these frames is online/);
    frames.online(0, 32);
    expect(frames.takeRun(32)).toBe(0);
    expect(told).toEqual(['removing 0 32', 'removed 0 32 false Error: busy', 'added 0 32']);
    expect(frames.statistics()).toMatchObject({ removals: 1, removalsFailed: 0, moved: 32 });
    expectSound(frames);
  });

  it('may be any part of a segment; the rest of it stays in use', () => {
    const { frames } = setUp(128, 128);
    frames.offline(40, 8);
    frames.offline(0, 16);
    frames.offline(120, 8);
    expect(frames.core.segments.joined()).toEqual([
      { low: 16, high: 40 },
      { low: 48, high: 120 },
    ]);
    expect(frames.takeRun(60)).toBe(48);
    expect(frames.tryTakeRun(25)).toBe(-1);
    frames.giveRun(48, 60);
    frames.online(40, 8);
    frames.offline(30, 30);
    frames.online(0, 16);
    frames.online(30, 30);
    expect(frames.core.segments.joined()).toEqual([{ low: 0, high: 120 }]);
    expect(frames.takeRun(120)).toBe(0);
    expect(() => frames.online(10, 2)).toThrow(
      /^EINVAL: frames.online\(first=10, count=2\): frames are online already, in segment [0-9]/,
    );
    expectSound(frames);
  });

  it('stays when somebody holds on to a frame, and says who', () => {
    const { thread, frames, lists } = setUp();
    const pinned = new Set([7]);
    movable(frames, pinned);
    for (let taken = 0; taken < 10; taken++) frames.tryTake(FRAME_USE.page);
    const ended: boolean[] = [];
    frames.onMemoryChange({ removed: (_first, _count, cancelled) => ended.push(cancelled) });
    expect(() => frames.offline(0, 32, { timeoutMs: 5 })).toThrow(/EBUSY.*frame=7.*use="?page.*heldBySlots="?5/);
    expect(frames.counts()).toMatchObject({ absent: 0, page: 10, free: 118 });
    pinned.clear();
    const list = lists.alloc({ size: PAGE });
    expect(() => frames.offline(list.runs[0]?.first as number, 32, { timeoutMs: 0 })).toThrow(/use="?list.*takenBy=0/);
    const token = CancelToken.create(thread);
    token.cancel();
    expect(() => frames.offline(0, 32, { cancel: token })).toThrow(/ECANCELED/);
    for (const [first, count] of [
      [-1, 1],
      [0, 0],
      [0, 129],
      [0.5, 1],
    ] as const) {
      expect(() => frames.offline(first, count)).toThrow(/EINVAL/);
    }
    expect(() => frames.offline(0, 1, { timeout: 1 } as never)).toThrow(/timeout/);
    expect(ended).toEqual([true, true]);
    expectSound(frames);
    lists.free(list);
    frames.offline(0, 32);
    expect(ended).toEqual([true, true, false]);
    expectSound(frames);
  });

  it('says who has the rest of memory when nothing is free to move to', () => {
    const { region, frames, lists } = setUp();
    const pinned = new Set([40, 41, 42]);
    const move = movable(frames, pinned);
    frames.setReclaimer({ ...move, holders: (frame) => (pinned.has(frame) ? [2, 5] : []) });
    for (let taken = 0; taken < 50; taken++) frames.tryTake(FRAME_USE.page);
    const others = new PageLists(new Frames(testThread(region)));
    const list = others.alloc({ size: 30 * PAGE, segments: 30 });
    const run = frames.takeRun(20);
    frames.settle();
    const mine = lists.alloc({ size: 20 * PAGE, segments: 20 });
    const last = lists.alloc({ size: 8 * PAGE, segments: 8 });
    expect(frames.counts().free).toBe(0);
    const elsewhere = [
      '30 in lists of slot 1',
      '28 in lists of slot 0',
      '20 in runs of slot 0',
      '15 in pages',
      '3 in pages held by slot 2 and 5',
    ].join(', ');
    const message = new RegExp(
      `EBUSY.*use="page".*free=0, reserve=0, elsewhere="${elsewhere}".*: no frame is free elsewhere`,
    );
    expect(() => frames.offline(0, 32, { timeoutMs: 0 })).toThrow(message);
    lists.free(last);
    lists.free(mine);
    others.free(list);
    frames.giveRun(run, 20);
    frames.offline(0, 32);
    expect(frames.counts()).toMatchObject({ absent: 32, page: 50 });
    expectSound(frames);
  });

  it('fails when the rest of a segment finds no row, and changes nothing', () => {
    const { frames } = setUp(128, 128);
    for (let at = 2; at < 32; at += 2) frames.offline(at, 1);
    expect(() => frames.offline(100, 1)).toThrow(/ENOMEM.*no row/);
    expect(frames.counts()).toMatchObject({ absent: 15, free: 113 });
    frames.offline(127, 1);
    expectSound(frames);
  });

  it('keeps in step with a model while ranges come and go', () => {
    const random = new Prng(testSeed('memory removal', 20261121));
    const { frames } = setUp(128, 32);
    movable(frames);
    const online = new Set(Array.from({ length: 128 }, (_, frame) => frame));
    let pages = 0;
    for (let step = 0; step < 1500; step++) {
      const first = random.below(128);
      const count = random.between(1, Math.min(24, 128 - first));
      const range = Array.from({ length: count }, (_, at) => first + at);
      const choice = random.below(4);
      if (choice === 0 && frames.tryTake(FRAME_USE.page) >= 0) pages++;
      else if (choice === 1 && pages > 0) {
        const used = [...online].find((frame) => frames.useOf(frame) === FRAME_USE.page) as number;
        frames.give(used, FRAME_USE.page);
        pages--;
      } else if (choice === 2 && range.some((frame) => online.has(frame))) {
        const left = online.size - range.filter((frame) => online.has(frame)).length;
        const fits = left >= pages;
        let error: unknown;
        try {
          frames.offline(first, count, { timeoutMs: 0 });
          for (const frame of range) online.delete(frame);
        } catch (caught) {
          error = caught;
        }
        if (fits) expect(String(error ?? 'none')).toMatch(/none|no row/);
        else expect(String(error)).toMatch(/EBUSY/);
      } else if (choice === 3 && range.every((frame) => !online.has(frame))) {
        try {
          frames.online(first, count);
          for (const frame of range) online.add(frame);
        } catch (error) {
          expect(String(error)).toMatch(/there are 16 segments already/);
        }
      }
      expect(frames.counts()).toMatchObject({ absent: 128 - online.size, page: pages, free: online.size - pages });
      if (step % 20 === 0) expectSound(frames);
    }
    expect(frames.statistics().removals).toBeGreaterThan(100);
  });

  it('is all gone or all there when the thread that removes or brings it dies at any step', () => {
    const { region, thread, frames, lists } = setUp(96, 96);
    for (let taken = 0; taken < 12; taken++) frames.tryTake(FRAME_USE.page);
    frames.offline(80, 16);
    const victim = testThread(region);
    const theirs = new Frames(victim);
    movable(theirs);
    let steps = 0;
    const outcomes = new Set<number>();
    for (const operation of [() => theirs.offline(4, 40), () => theirs.online(80, 16)]) {
      steps += dieAtEveryStep({
        region,
        self: thread,
        victim,
        recoverers: [(_self, dead) => lists.recover(dead), (_self, dead) => frames.recover(dead)],
        operation,
        verify: () => {
          const { absent, free, page, list } = frames.counts();
          outcomes.add(absent);
          expect([0, 16, 56]).toContain(absent);
          expect(free + page + list + absent).toBe(96);
          expect(list).toBe(0);
          expectSound(frames);
        },
      });
    }
    console.log(`${steps} steps`);
    expect([...outcomes].sort((a, b) => a - b)).toEqual([0, 16, 56]);
  });
});
