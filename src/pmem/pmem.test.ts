import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Prng } from '../base/index.ts';
import type { Geometry, Region } from '../layout/index.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { chargeTo, createOwner, ownerUsage, releaseSlot, type Thread } from '../sync/index.ts';
import type { Cookie } from './kinds.ts';
import { Pmem } from './pmem.ts';

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

interface Rooms {
  readonly region: Region;
  readonly thread: Thread;
  readonly frames: Frames;
  readonly lists: PageLists;
  readonly pmem: Pmem;
}

function attachTo(region: Region, thread: Thread): Rooms {
  const { frames: total, bankFrames, pageSize } = region.geometry;
  const banks = new Banks([], total, bankFrames, pageSize);
  const frames = new Frames(thread);
  const lists = new PageLists(frames);
  return { region, thread, frames, lists, pmem: new Pmem(thread, banks, lists) };
}

interface SetUp {
  readonly frames?: number;
  readonly large?: number;
  readonly seed?: boolean;
  readonly limit?: number;
  readonly keep?: number;
  readonly locked?: number;
  readonly geometry?: Partial<Geometry>;
}

function setUp({ frames = 512, large = 32, seed = false, limit, keep = 0, locked, geometry = {} }: SetUp = {}): Rooms {
  const { region, thread } = testRegion({ ...SMALL, frames, bankFrames: frames, ...geometry }, false, large);
  const { pmemPool } = region.tables;
  pmemPool.seed.put(0, seed ? 1 : 0);
  pmemPool.keepLarge.put(0, keep);
  if (limit !== undefined) pmemPool.reserveLimit.put(0, limit);
  createOwner(region, 'default', locked === undefined ? {} : { lockedFrames: locked });
  createOwner(region, 'other', {});
  const rooms = attachTo(region, thread);
  rooms.frames.online(0, frames);
  return rooms;
}

function expectSound({ pmem, lists }: Rooms): void {
  expect([...pmem.check().problems, ...lists.check().problems]).toEqual([]);
}

/** Everything was given back, to the last large page. */
function expectEmpty(rooms: Rooms): void {
  rooms.pmem.trim();
  expectSound(rooms);
  expect(rooms.pmem.statistics()).toEqual({ cookies: 0, poolFrames: 0, largePages: 0, reserved: 0 });
  const { total, free } = rooms.frames.counts();
  expect(free).toBe(total);
  expect(locked(rooms)).toBe(0);
}

function locked({ region }: Rooms, owner = 0): number {
  return ownerUsage(region)[owner]?.resources.lockedFrames.used ?? -1;
}

describe('pmem', () => {
  it('takes the pool first, then large pages, then single frames', () => {
    const rooms = setUp();
    const { pmem, lists } = rooms;
    const first = pmem.alloc({ size: 10 * PAGE });
    expect(pmem.runs(first)).toEqual([{ first: 0, count: 10 }]);
    expect(pmem.statistics()).toEqual({ cookies: 1, poolFrames: 22, largePages: 1, reserved: 32 });
    const second = pmem.alloc({ size: 30 * PAGE });
    expect(pmem.lastReport).toMatchObject({ fromPool: 22, newLarge: 1, newSmall: 0 });
    expect(pmem.getPfns(second, 20, 4)).toEqual([30, 31, 32, 33]);
    // No large page can be had: single frames it is.
    const rest = lists.alloc({ size: 448 * PAGE, segments: 448 });
    for (let frame = 64; frame < 512; frame += 2) lists.giveFrame(frame);
    const third = pmem.alloc({ size: 40 * PAGE });
    expect(pmem.lastReport).toMatchObject({ fromPool: 24, newLarge: 0, newSmall: 16 });
    expectSound(rooms);
    for (const cookie of [first, second, third]) pmem.free(cookie);
    for (const { first: start, count } of rest.runs) {
      for (let frame = start + 1; frame < start + count; frame += 2) lists.giveFrame(frame);
    }
    expectEmpty(rooms);
  });

  it('gives a large page back whole, when all of its frames are back', () => {
    const rooms = setUp();
    const { pmem } = rooms;
    const [a, b] = [pmem.alloc({ size: 20 * PAGE }), pmem.alloc({ size: 12 * PAGE })];
    expect(pmem.statistics()).toMatchObject({ largePages: 1, poolFrames: 0 });
    pmem.free(a as Cookie);
    expect(pmem.lastReport.freedLarge).toEqual([]);
    pmem.free(b as Cookie);
    expect(pmem.lastReport.freedLarge).toEqual([0]);
    expectEmpty(rooms);
  });

  it('serves from the fullest large page, where the seed takes turns', () => {
    const order = (seed: boolean) => {
      const rooms = setUp({ seed });
      const { pmem } = rooms;
      const cookies = Array.from({ length: 3 }, () => pmem.alloc({ size: 32 * PAGE }));
      const holders = cookies.map(() => null as Cookie | null);
      // Large pages 0, 1, 2 get 20, 4 and 12 free frames.
      [20, 4, 12].forEach((free, at) => {
        pmem.free(cookies[at] as Cookie);
        holders[at] = pmem.alloc({ size: (32 - free) * PAGE });
      });
      return { rooms, pmem };
    };
    const { pmem } = order(false);
    const fullest = pmem
      .snapshot()
      .large.filter(([, free]) => free > 0)
      .sort((x, y) => x[1] - y[1])[0] as [number, number];
    const taken = pmem.alloc({ size: PAGE });
    expect(Math.floor((pmem.getPfns(taken, 0, 1)[0] as number) / 32) * 32).toBe(fullest[0]);
    const seed = order(true).pmem;
    const first = seed.snapshot().pool[0]?.first;
    expect(seed.getPfns(seed.alloc({ size: PAGE }), 0, 1)).toEqual([first]);
  });

  it('keeps some wholly free large pages, and gives them back when asked', () => {
    const rooms = setUp({ keep: 1 });
    const { pmem } = rooms;
    const cookies = [pmem.alloc({ size: 32 * PAGE }), pmem.alloc({ size: 32 * PAGE })];
    for (const cookie of cookies) pmem.free(cookie);
    expect(pmem.statistics()).toMatchObject({ largePages: 1, poolFrames: 32, reserved: 32 });
    pmem.free(pmem.alloc({ size: PAGE }));
    expect(pmem.lastReport.freedLarge).toEqual([]);
    expect(pmem.trim()).toBe(32);
    expectEmpty(rooms);
  });

  it('counts what it has; the seed credits more than it reserved', () => {
    const exact = setUp().pmem;
    const seed = setUp({ seed: true }).pmem;
    for (const pmem of [exact, seed]) for (let i = 0; i < 10; i++) pmem.free(pmem.alloc({ size: PAGE }));
    expect(exact.statistics().reserved).toBe(0);
    expect(seed.statistics().reserved).toBe(10 - 320);
  });

  it('gives the charge back to the owner whoever frees; the seed forgets it', () => {
    for (const seed of [false, true]) {
      const rooms = setUp({ seed });
      const cookie = rooms.pmem.alloc({ size: 5 * PAGE });
      expect(locked(rooms)).toBe(5);
      rooms.region.tables.slot.owner.put(rooms.thread.slot, 1);
      rooms.pmem.free(cookie);
      expect(locked(rooms)).toBe(seed ? 5 : 0);
    }
  });

  it('charges its frames to the owner, beside those of page lists and whether they are locked or not', () => {
    const rooms = setUp();
    const { region, thread, pmem, lists } = rooms;
    const small = createOwner(region, 'small', { frames: 100, lockedFrames: 50 });
    const used = () => ownerUsage(region)[small]?.resources;
    chargeTo(thread, 'small');
    const list = lists.alloc({ size: 30 * PAGE });
    const locks = pmem.alloc({ size: 40 * PAGE });
    const error = /EDQUOT: pmem.alloc\(size=45056, owner="small", used=40\): the owner's limit of locked frames is 50/;
    expect(() => pmem.alloc({ size: 11 * PAGE })).toThrow(error);
    expect(used()).toMatchObject({ frames: { used: 70 }, lockedFrames: { used: 40 } });
    const moves = pmem.alloc({ size: 25 * PAGE, movable: { module: 'file:///nowhere.mjs', export: 'nobody' } });
    expect(() => pmem.alloc({ size: 6 * PAGE })).toThrow(/EDQUOT.*used=95\): the owner's limit of frames is 100/);
    expect(() => lists.alloc({ size: 6 * PAGE })).toThrow(/EDQUOT.*used=95.*limit of frames is 100/);
    expect(pmem.tryAlloc({ size: 6 * PAGE })).toBeNull();
    expect(pmem.lastReport.failure).toBe('quota');
    expectSound(rooms);
    chargeTo(thread, 'default');
    lists.free(list);
    pmem.free(moves);
    expect(used()).toMatchObject({ frames: { used: 40 }, lockedFrames: { used: 40 } });
    pmem.free(locks);
    expect(used()).toMatchObject({ frames: { used: 0, peak: 95 }, lockedFrames: { used: 0 } });
    expectEmpty(rooms);
  });

  it('undoes every failure', () => {
    const rooms = setUp({ frames: 256, locked: 100, limit: 120 });
    const { pmem, lists } = rooms;
    const warm = pmem.alloc({ size: 10 * PAGE });
    const before = pmem.snapshot();
    const refuse = (size: number, failure: string) => {
      expect(pmem.tryAlloc({ size: size * PAGE })).toBeNull();
      expect(pmem.lastReport.failure).toBe(failure);
      expect(pmem.snapshot()).toEqual(before);
      expect(locked(rooms)).toBe(10);
      expectSound(rooms);
    };
    refuse(0, 'args');
    refuse(128, 'args');
    refuse(91, 'locked');
    for (const number of [0, 1, 2, 3, 4, 5, 6]) {
      pmem.setFaults({ largePage: () => true, tableRow: (row) => row !== number });
      pmem.trim();
      refuse(80, 'tables');
    }
    pmem.setFaults(null);
    rooms.region.tables.pmemPool.reserveLimit.put(0, 60);
    refuse(80, 'reservation');
    rooms.region.tables.pmemPool.reserveLimit.put(0, 120);
    const rest = lists.alloc({ size: 200 * PAGE });
    refuse(80, 'frames');
    expect(() => pmem.alloc({ size: 91 * PAGE })).toThrow(/EDQUOT/);
    expect(() => pmem.alloc({ size: 80 * PAGE })).toThrow(/ENOMEM/);
    lists.free(rest);
    pmem.free(warm);
    expectEmpty(rooms);
  });

  it('runs out of rows for runs without losing a frame', () => {
    const rooms = setUp({ geometry: { pmemRuns: 20 } });
    const { pmem, lists } = rooms;
    const all = lists.alloc({ size: 512 * PAGE });
    for (let frame = 0; frame < 512; frame += 2) lists.giveFrame(frame);
    expect(pmem.tryAlloc({ size: 30 * PAGE })).toBeNull();
    expect(pmem.lastReport.failure).toBe('tables');
    const cookie = pmem.alloc({ size: 20 * PAGE });
    pmem.free(cookie);
    for (let frame = 1; frame < 512; frame += 2) lists.giveFrame(frame);
    expect(all.frameCount).toBe(512);
    expectEmpty(rooms);
  });

  it('unmaps before frames leave the cookie, without a lock; refuses ranges whose end would wrap around', () => {
    const rooms = setUp();
    const cookie = rooms.pmem.alloc({ size: 40 * PAGE });
    expect(() => rooms.pmem.getPfns(cookie, 2, 2 ** 64 - 1)).toThrow(/EINVAL/);
    expect(() => rooms.pmem.getPfns(cookie, 40, 1)).toThrow(/EINVAL/);
    const seen: unknown[] = [];
    const { list } = rooms.frames.counts();
    rooms.pmem.setUnload(() => seen.push([rooms.frames.counts().list, rooms.thread.heldCount]));
    rooms.pmem.free(cookie);
    expect(seen.length).toBeGreaterThan(0);
    for (const one of seen) expect(one).toEqual([list, 0]);
    rooms.pmem.setUnload(null);
    expectEmpty(rooms);
  });

  it.each([false, true])('has no frames beyond the end of a cookie, seed way %s', (seed) => {
    const { pmem } = setUp({ seed });
    const cookie = pmem.alloc({ size: 40 * PAGE });
    expect(pmem.getPfns(cookie, 40, 0)).toEqual([]);
    for (const [start, count] of [
      [2, 2 ** 64 - 1],
      [2, 2 ** 53 - 1],
      [41, 0],
      [40, 1],
      [1, 40],
    ] as const) {
      expect(() => pmem.getPfns(cookie, start, count)).toThrow(/EINVAL/);
    }
    pmem.free(cookie);
  });

  it('makes contiguous cookies, and a view of no others', () => {
    const rooms = setUp();
    const { pmem } = rooms;
    const cookie = pmem.alloc({ size: 100 * PAGE, contiguous: true });
    expect(pmem.runs(cookie).length).toBe(1);
    const other = pmem.alloc({ size: 10 * PAGE });
    const more = pmem.alloc({ size: 40 * PAGE });
    pmem.free(other);
    const split = pmem.alloc({ size: 60 * PAGE });
    expect(() => pmem.view(split)).toThrow(/EFAULT/);
    for (const held of [cookie, more, split]) pmem.free(held);
    expectEmpty(rooms);
  });

  it('refuses misuse', () => {
    const { pmem } = setUp();
    const cookie = pmem.alloc({ size: 3 * PAGE });
    expect(() => pmem.getPfns(cookie, 2, 2)).toThrow(/EINVAL/);
    expect(() => pmem.getPfns(cookie, -1, 2)).toThrow(/EINVAL/);
    expect(() => pmem.free({ ...cookie, cookie: 99 })).toThrow(/EINVAL/);
    expect(() => pmem.alloc({ size: 1, wobble: 2 } as unknown as { size: number })).toThrow(/EINVAL.*wobble/);
    pmem.free(cookie);
    expect(() => pmem.free(cookie)).toThrow(/ESTALE/);
    expect(() => pmem.getPfns(cookie, 0, 1)).toThrow(/ESTALE/);
  });

  it.each([false, true])('keeps frames apart in a random run, seed way %s', (seed) => {
    const random = new Prng(77);
    const rooms = setUp({ frames: 1024, seed, geometry: { pmemRuns: 1024 } });
    const { pmem, lists } = rooms;
    const live: Cookie[] = [];
    const others: number[] = [];
    for (let step = 0; step < 1500; step++) {
      const choice = random.below(10);
      if (choice < 4) {
        const cookie = pmem.tryAlloc({ size: random.between(1, random.chance(0.2) ? 200 : 30) * PAGE });
        if (cookie !== null) live.push(cookie);
      } else if (choice < 8 && live.length > 0) {
        pmem.free(live.splice(random.below(live.length), 1)[0] as Cookie);
      } else if (choice === 8) {
        const frame = lists.tryTakeFrame();
        if (frame >= 0) others.push(frame);
      } else if (others.length > 0) {
        lists.giveFrame(others.splice(random.below(others.length), 1)[0] as number);
      }
      if (step % 50 === 0) expectSound(rooms);
    }
    for (const cookie of live) pmem.free(cookie);
    for (const frame of others) lists.giveFrame(frame);
    if (seed) expect(rooms.frames.counts().free).toBe(1024);
    else expectEmpty(rooms);
  });
});

describe('pmem and deaths', () => {
  const cases: [string, (pmem: Pmem, cookie: Cookie) => void][] = [
    ['while it is built from the pool and large pages', (pmem) => void pmem.alloc({ size: 70 * PAGE })],
    ['while it is built from single frames', (pmem) => void pmem.alloc({ size: 7 * PAGE, contiguous: true })],
    ['while it is freed', (pmem, cookie) => pmem.free(cookie)],
    ['while the pool is trimmed', (pmem) => void pmem.trim()],
  ];
  for (const fragmented of [false, true]) {
    it.each(cases)(`leave no frame and no charge behind: %s, memory fragmented ${fragmented}`, (_name, operation) => {
      const rooms = setUp({ frames: 256, keep: 1 });
      const { region, thread, pmem, lists } = rooms;
      const mine = pmem.alloc({ size: 40 * PAGE });
      pmem.free(pmem.alloc({ size: 50 * PAGE }));
      const singles: number[] = [];
      if (fragmented) {
        for (let frame = lists.tryTakeFrame(); frame >= 0; frame = lists.tryTakeFrame()) singles.push(frame);
        for (let at = 0; at < singles.length; at += 10)
          for (const frame of singles.slice(at, at + 7)) lists.giveFrame(frame);
      }
      const victim = testThread(region);
      const theirs = attachTo(region, victim);
      const chargedBefore = locked(rooms);
      const steps = dieAtEveryStep({
        region,
        self: thread,
        victim,
        recoverers: [(_self, dead) => pmem.recover(dead)],
        operation: () => operation(theirs.pmem, mine),
        verify: () => {
          expectSound(rooms);
          const { cookies } = pmem.statistics();
          // A death at the very end leaves what was asked for; else it is as if nothing had been asked.
          if (cookies === 1) expect(locked(rooms)).toBe(chargedBefore);
          if (cookies === 0) expect(locked(rooms)).toBe(0);
          expect(cookies).toBeLessThanOrEqual(2);
        },
      });
      expect(steps).toBeGreaterThan(5);
    });
  }
});

describe('cookies among page lists', () => {
  it('are not taken for lists that their maker left behind', () => {
    const { region, lists, pmem, frames } = setUp();
    const gone = testThread(region);
    const theirs = attachTo(region, gone);
    const large = theirs.pmem.alloc({ size: 40 * PAGE });
    const small = theirs.pmem.alloc({ size: 9 * PAGE, contiguous: true });
    theirs.lists.alloc({ size: 11 * PAGE });
    expect(lists.listOf(gone.attachment).frameCount).toBe(11);
    releaseSlot(gone);
    expect(lists.freeOf(gone.attachment)).toBe(11);
    expect(pmem.cookies()).toEqual([large, small]);
    expect([...frames.check().problems, ...pmem.check().problems]).toEqual([]);
    expect(pmem.freeOf(gone.attachment)).toBe(2);
    expect(frames.counts().free).toBe(512);
    expect(frames.takeRun(512)).toBe(0);
  });
});
