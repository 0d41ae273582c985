import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { FRAME_USE, type FrameReclaimer, Frames } from './frames.ts';
import { PageLists } from './page-lists.ts';

const PAGE = 4096;

/** Few rows of other rooms: each step of a death test copies the region. */
const TINY = { tags: 64, tagBuckets: 128, pagelockEntries: 8, pagelockPins: 8, pagelockBuckets: 8 } as const;

/** Pages that are only numbers: which page is in which frame; some are pinned, some cannot be moved. */
class FakePages implements FrameReclaimer {
  readonly frameOf = new Map<number, number>();
  readonly pinned = new Set<number>();
  readonly frames: Frames;
  mayReclaim = true;
  moves = 0;

  constructor(frames: Frames) {
    this.frames = frames;
    frames.setReclaimer(this);
  }

  bring(page: number): void {
    const frame = this.frames.tryTake(FRAME_USE.page);
    if (frame < 0) throw new Error('no frame');
    this.frameOf.set(page, frame);
  }

  pageIn(frame: number): number {
    for (const [page, at] of this.frameOf) if (at === frame) return page;
    return -1;
  }

  drop(page: number): void {
    this.frames.give(this.frameOf.get(page) as number, FRAME_USE.page);
    this.frameOf.delete(page);
  }

  relocate(frame: number, use: number): boolean {
    const page = this.pageIn(frame);
    if (page < 0 || this.pinned.has(page)) return false;
    const to = this.frames.tryTake(FRAME_USE.page);
    if (to < 0) return false;
    this.frameOf.set(page, to);
    this.frames.convert(frame, FRAME_USE.page, use);
    this.moves++;
    return true;
  }

  reclaim(frame: number, use: number): boolean {
    const page = this.pageIn(frame);
    if (!this.mayReclaim || page < 0 || this.pinned.has(page)) return false;
    this.frameOf.delete(page);
    this.frames.convert(frame, FRAME_USE.page, use);
    return true;
  }

  /** Every page is in a frame of its own that is used for pages. */
  expectSound(): void {
    expect(new Set(this.frameOf.values()).size).toBe(this.frameOf.size);
    for (const frame of this.frameOf.values()) expect(this.frames.useOf(frame)).toBe(FRAME_USE.page);
    expect(this.frames.counts().page).toBe(this.frameOf.size);
    expect(this.frames.check().problems).toEqual([]);
  }
}

function setUp(count = 64) {
  const { region, thread } = testRegion({ frames: count, bankFrames: count, ...TINY });
  const frames = new Frames(thread);
  frames.online(0, count);
  return { region, thread, frames, lists: new PageLists(frames), pages: new FakePages(frames) };
}

/** Pages in all frames, but for those that `free` names. */
function scatter(pages: FakePages, count: number, free: (frame: number) => boolean): void {
  for (let page = 0; page < count; page++) pages.bring(page);
  for (let page = 0; page < count; page++) if (free(page)) pages.drop(page);
}

describe('relocation', () => {
  it('moves pages out of the way before any is given up', () => {
    const { frames, lists, pages } = setUp();
    scatter(pages, 64, (frame) => frame % 2 === 0);
    const list = lists.allocWait({ size: 16 * PAGE }, { timeoutMs: 60_000 });
    expect(list.runs).toHaveLength(1);
    expect(pages.frameOf.size).toBe(32);
    expect(frames.statistics()).toMatchObject({ moved: 8, reclaimed: 0, assembled: 1 });
    expect(frames.takeRun(8)).toBeGreaterThanOrEqual(0);
    expect(pages.frameOf.size).toBe(32);
    expect(frames.statistics()).toMatchObject({ moved: 12, reclaimed: 0, assembled: 2 });
    pages.expectSound();
    // No free frame is left to move to but four: after these pages must go.
    expect(frames.takeRun(16)).toBeGreaterThanOrEqual(0);
    expect(frames.statistics().reclaimed).toBeGreaterThan(0);
    pages.expectSound();
  });

  it('chooses windows without pinned pages, and fails when there are none', () => {
    const { frames, lists, pages } = setUp();
    scatter(pages, 64, (frame) => frame % 2 === 0);
    for (const page of pages.frameOf.keys()) if (page % 16 === 1) pages.pinned.add(page);
    const list = lists.allocWait({ size: 15 * PAGE }, { timeoutMs: 60_000 });
    expect((list.runs[0]?.first as number) % 16).toBe(2);
    pages.mayReclaim = false;
    expect(() => lists.allocWait({ size: 20 * PAGE }, { timeoutMs: 1 })).toThrow(/ETIMEDOUT/);
    expect(frames.tryTakeRun(20)).toBe(-1);
    expect(frames.statistics().pinned).toBeGreaterThan(0);
    expect(pages.frameOf.size).toBe(32);
    pages.expectSound();
  });

  it('compacts, until a run is long enough or nothing is left to move', () => {
    const { frames, lists, pages } = setUp();
    scatter(pages, 64, (frame) => frame % 2 === 0);
    const held = lists.alloc({ size: PAGE, low: 60 * PAGE });
    expect(frames.compact({ run: 6 })).toMatchObject({ failed: 0, longestBefore: 1, longestAfter: 6 });
    pages.expectSound();
    pages.pinned.add(pages.pageIn(33));
    expect(frames.compact()).toMatchObject({ failed: 1, longestAfter: 26 });
    pages.expectSound();
    expect(frames.compact({ moves: 0 }).moved).toBe(0);
    expect(() => frames.compact({ rum: 1 } as never)).toThrow(/rum/);
    lists.free(held);
    expect(frames.takeRun(30)).toBe(34);
    pages.expectSound();
    expect(frames.statistics().compactions).toBe(3);
  });

  it('compacts whatever the order of single frames', () => {
    const { region, thread } = testRegion({
      linkFrames: 64,
      frames: 64,
      bankFrames: 64,
      frameColours: 4,
      frameLists: 4,
    });
    region.tables.frameOrder.source.put(0, 1);
    const frames = new Frames(thread);
    frames.online(0, 64);
    const pages = new FakePages(frames);
    scatter(pages, 64, (page) => page % 2 === 0);
    expect(frames.compact()).toMatchObject({ failed: 0, longestAfter: 32 });
    pages.expectSound();
  });

  it('keeps pages whole beside a model, whatever is asked', () => {
    const random = new Prng(testSeed('relocation', 20261121));
    const { frames, lists, pages } = setUp(256);
    const runs: number[][] = [];
    const held: { first: number; count: number }[] = [];
    let next = 0;
    for (let step = 0; step < 4000; step++) {
      const choice = random.below(10);
      if (choice < 4 && frames.counts().free > 0) pages.bring(next++);
      else if (choice < 6 && pages.frameOf.size > 0) {
        const page = random.pick([...pages.frameOf.keys()]);
        if (!pages.pinned.delete(page)) pages.drop(page);
      } else if (choice === 6 && pages.frameOf.size > 0) {
        pages.pinned.add(random.pick([...pages.frameOf.keys()]));
      } else if (choice === 7) {
        const count = random.between(1, 24);
        const before = new Map([...pages.pinned].map((page) => [page, pages.frameOf.get(page)]));
        const list = random.chance(0.5) ? lists.tryAlloc({ size: count * PAGE }) : null;
        const first = list === null ? frames.tryTakeRun(count) : -1;
        frames.settle();
        if (list !== null) held.push(...list.runs);
        if (first >= 0) runs.push([first, count]);
        for (const [page, frame] of before) expect(pages.frameOf.get(page)).toBe(frame);
      } else if (choice === 8) {
        if (runs.length > 0) {
          const [[first, count]] = runs.splice(random.below(runs.length), 1) as [[number, number]];
          frames.giveRun(first, count);
        }
        const run = held.pop();
        if (run !== undefined) lists.free({ runs: [run], frameCount: run.count });
      } else if (random.chance(0.1)) frames.compact(random.chance(0.5) ? { run: 30 } : {});
      pages.mayReclaim = random.chance(0.8);
      for (const page of pages.pinned) if (!pages.frameOf.has(page)) pages.pinned.delete(page);
      if (step % 50 === 0) pages.expectSound();
    }
    expect(pages.moves).toBeGreaterThan(100);
    for (const [first, count] of runs as [number, number][]) frames.giveRun(first, count);
    for (const run of held) lists.free({ runs: [run], frameCount: run.count });
    for (const page of [...pages.frameOf.keys()]) pages.drop(page);
    expect(frames.counts().free).toBe(256);
    expect(frames.takeRun(256)).toBe(0);
  });

  it('loses no frame when the thread that makes a run or compacts dies at any step', () => {
    const { region, thread, frames, lists, pages } = setUp(32);
    scatter(pages, 32, (frame) => frame % 2 === 0);
    const victim = testThread(region);
    const theirs = new Frames(victim);
    const theirLists = new PageLists(theirs);
    const moved = new FakePages(theirs);
    const places = new Map(pages.frameOf);
    const recoverers = [
      (_self: unknown, dead: number) => lists.recover(dead),
      (_self: unknown, dead: number) => frames.recover(dead),
    ];
    const operations = [
      () => void theirs.tryTakeRun(8),
      () => void theirLists.allocWait({ size: 8 * PAGE }),
      () => void theirs.compact(),
    ];
    let steps = 0;
    for (const operation of operations) {
      steps += dieAtEveryStep({
        region,
        self: thread,
        victim,
        recoverers,
        operation: () => {
          moved.frameOf.clear();
          for (const [page, frame] of places) moved.frameOf.set(page, frame);
          operation();
        },
        verify: () => {
          // A page that was on its way is in one frame or in two: the room that moves it recovers that.
          const { free, page, list, run } = frames.counts();
          expect(free + page + list + run).toBe(32);
          expect(list === 8 || list === 0).toBe(true);
          expect(run).toBe(0);
          expect(page).toBeGreaterThanOrEqual(16);
          expect(page).toBeLessThanOrEqual(17);
          expect(frames.check().problems).toEqual([]);
        },
      });
    }
    console.log(`${steps} steps`);
    expect(steps).toBeGreaterThan(300);
  });
});
