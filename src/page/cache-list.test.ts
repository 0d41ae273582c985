import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import {
  MemoryStore,
  moveAway,
  type PageRoom,
  pageRoom,
  pageRooms,
  readPage,
  writePage,
} from '../../test/support/page-room.ts';
import { Prng } from '../base/index.ts';
import { FRAME_USE } from '../phys/frames.ts';
import { PageLists } from '../phys/page-lists.ts';
import { checkPages } from './check.ts';
import { pageStatistics } from './page-counters.ts';
import { recoverPages } from './recovery.ts';

function expectSound({ thread, frames }: PageRoom): void {
  expect(checkPages(thread).problems).toEqual([]);
  expect(frames.check().problems).toEqual([]);
}

function setUp(frames = 8) {
  const room = pageRooms(frames);
  const store = new MemoryStore(room.banks);
  for (let index = 0; index < frames; index++) readPage(room, store, 0, index);
  return { room, store };
}

/** Page indices of vnode 0 that are in memory; a page on the cache list stays there. */
function present({ region }: PageRoom, vnode = 0): number[] {
  const { page } = region.tables;
  const found: number[] = [];
  for (let frame = 0; frame < page.rowCount; frame++) {
    if (page.vnode.get(frame) === vnode + 1) found.push(page.index.get(frame));
  }
  return found.sort((a, b) => a - b);
}

describe('pages that are not needed any more', () => {
  it('lose their frames first, oldest first, used or not', () => {
    const { room, store } = setUp();
    expect(room.pages.retire(0, 3, 2)).toBe(2);
    expect(room.pages.retire(0, 6, 10)).toBe(2);
    expect(room.pages.retire(0, 3, 2)).toBe(0);
    expect(room.pages.cached).toBe(4);
    expectSound(room);
    readPage(room, store, 1, 0);
    expect(present(room)).toEqual([0, 1, 2, 4, 5, 6, 7]);
    readPage(room, store, 1, 1);
    readPage(room, store, 1, 2);
    expect(present(room)).toEqual([0, 1, 2, 5, 7]);
    expect(room.pages.cached).toBe(1);
    expect(room.pages.freeSome(1)).toBe(1);
    expect(present(room)).toEqual([0, 1, 2, 5]);
    expectSound(room);
  });

  it('are found until then, and are like any other once they were', () => {
    const { room, store } = setUp();
    const other = pageRoom(room);
    room.pages.retire(0, 0, 3);
    const frame = other.pages.hold(0, 0);
    expect(frame).toBeGreaterThanOrEqual(0);
    const locked = other.pages.holdExclusive(0, 1);
    expect(room.pages.cached).toBe(1);
    expect(pageStatistics(room.region)).toMatchObject({ retired: 3, reclaimed: 2 });
    expect(room.pages.retire(0, 0, 2)).toBe(0);
    other.pages.release(frame);
    other.pages.holds.releaseExclusive(locked);
    writePage(room, store, 0, 2, 5);
    expect([room.pages.cached, room.pages.modified, room.pages.retire(0, 2, 1)]).toEqual([0, 1, 0]);
    expectSound(room);
  });

  it('give way to who needs their very frame, and to drops', () => {
    const { room } = setUp();
    room.pages.retire(0, 0, 4);
    const other = pageRoom(room);
    const frame = other.pages.hold(0, 7);
    expect(room.pages.reclaim(frame, FRAME_USE.run)).toBe(false);
    expect(room.pages.holders(frame)).toEqual([other.thread.slot]);
    other.pages.release(frame);
    expect(room.pages.relocate(0, FRAME_USE.run)).toBe(false);
    expect(room.pages.reclaim(0, FRAME_USE.run)).toBe(true);
    expect(room.pages.cached).toBe(3);
    expectSound(room);
    room.frames.giveRun(0, 1);
    expect(room.pages.drop(0, 8)).toBe(0);
    expect(room.pages.cached).toBe(0);
    expect(room.frames.counts().free).toBe(8);
    expectSound(room);
  });

  it('are on the list or not, whenever a thread dies that puts them there, finds or takes them', () => {
    const { room, store } = setUp();
    const victim = pageRoom(room);
    let onList = 0;
    const steps = dieAtEveryStep({
      region: room.region,
      self: room.thread,
      victim: victim.thread,
      recoverers: [recoverPages],
      operation: () => {
        victim.pages.retire(0, 0, 3);
        victim.pages.release(victim.pages.hold(0, 1));
        victim.pages.freeSome(1);
      },
      verify: () => {
        expectSound(room);
        onList = Math.max(onList, room.pages.cached);
        for (let index = 0; index < 8; index++) readPage(room, store, 0, index);
        expect(room.pages.drop(0, 8)).toBe(0);
        expect(room.frames.counts().free).toBe(8);
      },
    });
    expect(steps).toBeGreaterThan(60);
    expect(onList).toBe(3);
  });

  it('keep in step with a model', () => {
    const seed = Number(process.env.PAGEWRIGHT_SEED ?? 7);
    console.log(`the cache list against a model: seed ${seed}`);
    const random = new Prng(seed);
    const first = pageRooms(12);
    const store = new MemoryStore(first.banks);
    const rooms = [first, pageRoom(first)];
    /** Keys on the list, oldest first. */
    let list: string[] = [];
    const held: [PageRoom, number][] = [];
    for (let step = 0; step < 4000; step++) {
      const room = random.pick(rooms);
      const vnode = random.below(3);
      const index = random.below(8);
      const choice = random.below(10);
      if (choice < 4 && held.length < 6) {
        const key = `${vnode}:${index}`;
        const missing = !present(first, vnode).includes(index);
        const taken = missing && first.frames.counts().free === 0 ? list[0] : undefined;
        const before = list.length;
        room.pages.fetch(vnode, index, 1, room.out, 0, store, true);
        held.push([room, room.out[0] as number]);
        list = list.filter((other) => other !== key && other !== taken);
        if (taken !== undefined) expect(present(first, Number(taken[0])).includes(Number(taken.slice(2)))).toBe(false);
        expect(list.length).toBeGreaterThanOrEqual(before - 1);
      } else if (choice < 7 && held.length > 0) {
        const [[holder, frame]] = held.splice(random.below(held.length), 1) as [[PageRoom, number]];
        if (random.chance(0.2)) holder.pages.setModified(frame);
        holder.pages.release(frame);
      } else if (choice === 7) {
        const { page } = first.region.tables;
        const eligible = [index, index + 1].filter((i) => {
          if (!present(first, vnode).includes(i) || list.includes(`${vnode}:${i}`)) return false;
          for (let frame = 0; frame < 12; frame++) {
            if (page.vnode.get(frame) !== vnode + 1 || page.index.get(frame) !== i) continue;
            return page.modified.get(frame) === 0 && !held.some(([, other]) => other === frame);
          }
          return false;
        });
        expect(room.pages.retire(vnode, index, 2)).toBe(eligible.length);
        list.push(...eligible.map((i) => `${vnode}:${i}`));
      } else if (choice === 8) {
        room.pages.writeBack(vnode, 0, 8, store);
      }
      expect(first.pages.cached).toBe(list.length);
      if (step % 200 === 0) expectSound(first);
    }
    for (const [room, frame] of held) room.pages.release(frame);
    for (let vnode = 0; vnode < 3; vnode++) expect(first.pages.invalidate(vnode, 0, 20)).toBe(0);
    expectSound(first);
    expect(pageStatistics(first.region).reclaimed).toBeGreaterThan(15);
    expect(first.frames.counts().free).toBe(12);
  });
});

describe('pages that are not needed any more, in the way of a run', () => {
  /** 32 frames: pages 0 to 15 on the even ones, half of them retired in an order of its own, the rest free. */
  function scattered() {
    const room = pageRooms(32);
    const store = new MemoryStore(room.banks);
    const spacers: number[] = [];
    for (let index = 0; index < 16; index++) {
      writePage(room, store, 0, index, 100 + index);
      spacers.push(room.frames.tryTake(FRAME_USE.page));
    }
    room.pages.writeBack(0, 0, 16, store);
    for (const frame of spacers) room.frames.give(frame, FRAME_USE.page);
    for (const index of [3, 1, 0, 5, 2, 8, 15, 9]) expect(room.pages.retire(0, index, 1)).toBe(1);
    room.frames.setReclaimer({
      reclaim: (frame, use) => room.pages.reclaim(frame, use),
      relocate: (frame, use) => room.pages.relocate(frame, use),
    });
    return { room };
  }

  it.each(['a run', 'a page list', 'memory that goes offline'])('are moved before any is given up: %s', (what) => {
    const { room } = scattered();
    const { frames, pages } = room;
    if (what === 'a run') expect(frames.takeRun(12)).toBe(0);
    if (what === 'a page list') {
      const list = new PageLists(frames).allocWait({ size: 12 * 4096 }, { timeoutMs: 60_000 });
      expect(list.runs).toEqual([{ first: 0, count: 12 }]);
    }
    if (what === 'memory that goes offline') frames.offline(0, 12);
    expect(frames.statistics()).toMatchObject({ moved: 6, reclaimed: 0 });
    expect(pages.cached).toBe(8);
    expect(present(room)).toEqual(Array.from({ length: 16 }, (_, index) => index));
    expectSound(room);
    // They are found with their bytes, without being read; and leave in the order in which they came onto the list.
    for (const index of [2, 15, 4, 6, 7]) {
      const frame = pages.hold(0, index);
      expect(new Set(room.banks.view(frame * 4096, 4096))).toEqual(new Set([100 + index]));
      pages.release(frame);
    }
    const left: number[] = [];
    for (let rest = 6; rest > 0; rest--) {
      const was = present(room);
      expect(pages.freeSome(1)).toBe(1);
      const is = present(room);
      left.push(...was.filter((index) => !is.includes(index)));
    }
    expect(left).toEqual([3, 1, 0, 5, 8, 9]);
    expectSound(room);
  });

  it('are given up only when there is no other frame', () => {
    const { room, store } = setUp();
    room.pages.retire(0, 0, 8);
    room.frames.setReclaimer({
      reclaim: (frame, use) => room.pages.reclaim(frame, use),
      relocate: (frame, use) => room.pages.relocate(frame, use),
    });
    expect(room.frames.takeRun(2)).toBe(0);
    expect(room.frames.statistics()).toMatchObject({ moved: 0, reclaimed: 2 });
    expectSound(room);
    expect(readPage(room, store, 0, 7)).toBe(0);
  });

  it('are in one frame and on the list once whenever the thread that moves them dies', () => {
    const { room } = scattered();
    const victim = pageRoom(room);
    let moved = 0;
    const steps = dieAtEveryStep({
      region: room.region,
      self: room.thread,
      victim: victim.thread,
      recoverers: [recoverPages, (_self, dead) => room.frames.recover(dead)],
      operation: () => moveAway(victim, 2),
      verify: () => {
        expectSound(room);
        expect(room.pages.cached).toBe(8);
        expect(room.frames.counts().free).toBe(16);
        const frame = room.pages.hold(0, 1);
        if (frame !== 2) moved++;
        expect(room.banks.view(frame * 4096, 4096)[4095]).toBe(101);
        room.pages.release(frame);
      },
    });
    expect(steps).toBeGreaterThan(30);
    expect(moved).toBeGreaterThan(0);
    expect(moved).toBeLessThan(steps);
  });
});
