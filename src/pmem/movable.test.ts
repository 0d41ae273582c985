import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import type { Region } from '../layout/index.ts';
import { Banks, FRAME_USE, Frames, PageLists } from '../phys/index.ts';
import { Callbacks, createOwner, ownerUsage, type Thread } from '../sync/index.ts';
import type { Cookie, CookieMove } from './kinds.ts';
import { Pmem } from './pmem.ts';

const PAGE = 4096;
const MOVER = { export: 'test.mover' };
const TINY = { tags: 64, tagBuckets: 128, pagelockEntries: 8, pagelockPins: 8, pagelockBuckets: 8 } as const;

interface Side {
  readonly thread: Thread;
  readonly frames: Frames;
  readonly lists: PageLists;
  readonly pmem: Pmem;
  readonly moves: (CookieMove & { readonly ended?: boolean })[];
  willing: boolean;
}

function attach(region: Region, thread: Thread, banks: Banks): Side {
  const callbacks = new Callbacks(region);
  const frames = new Frames(thread);
  const lists = new PageLists(frames);
  const moves: Side['moves'] = [];
  const side: Side = { thread, frames, lists, moves, willing: true, pmem: new Pmem(thread, banks, lists, callbacks) };
  callbacks.register(MOVER.export, {
    before(move: CookieMove) {
      moves.push(move);
      return side.willing;
    },
    after: (move: CookieMove, ended: boolean) => void moves.push({ ...move, ended }),
  });
  return side;
}

function setUp(count = 64) {
  const { region, thread } = testRegion({ frames: count, bankFrames: count, ...TINY }, false, 1);
  createOwner(region, 'default', { lockedFrames: 8 });
  const banks = Banks.create(count, count, PAGE);
  const side = attach(region, thread, banks);
  side.frames.online(0, count);
  return { region, banks, ...side, side };
}

/** Writes the cookie's number and each frame's place into its frames. */
function sign(banks: Banks, pmem: Pmem, cookie: Cookie): void {
  for (const [index, frame] of pmem.getPfns(cookie, 0, cookie.frames).entries()) {
    banks.view(frame * PAGE, PAGE).fill((cookie.cookie * 31 + index) & 255);
  }
}

function expectSigned(banks: Banks, pmem: Pmem, cookie: Cookie): void {
  for (const [index, frame] of pmem.getPfns(cookie, 0, cookie.frames).entries()) {
    const bytes = banks.view(frame * PAGE, PAGE);
    expect([bytes[0], bytes[PAGE - 1]]).toEqual(Array(2).fill((cookie.cookie * 31 + index) & 255));
  }
}

function expectSound({ frames, pmem }: { frames: Frames; pmem: Pmem }): void {
  expect([...frames.check().problems, ...pmem.check().problems]).toEqual([]);
}

describe('movable cookies', () => {
  it('make room for runs with their bytes, and are not charged as locked', () => {
    const s = setUp();
    const singles = Array.from({ length: 64 }, () => s.lists.tryTakeFrame());
    for (const frame of singles) if (frame % 4 === 0) s.lists.giveFrame(frame);
    const cookie = s.pmem.alloc({ size: 12 * PAGE, movable: MOVER });
    expect(ownerUsage(s.region)[0]?.resources.lockedFrames.used).toBe(0);
    sign(s.banks, s.pmem, cookie);
    for (const frame of singles) if (frame % 4 !== 0) s.lists.giveFrame(frame);
    expect(s.lists.tryAlloc({ size: 20 * PAGE })).toBeNull();
    const list = s.lists.allocWait({ size: 24 * PAGE, high: 24 * PAGE - 1 }, { timeoutMs: 60_000 });
    expect(list.runs).toEqual([{ first: 0, count: 24 }]);
    expectSigned(s.banks, s.pmem, cookie);
    expect(s.moves.filter(({ ended }) => ended === true)).toHaveLength(6);
    expect(s.frames.statistics()).toMatchObject({ moved: 6, reclaimed: 0 });
    expect(s.pmem.runs(cookie).length).toBeGreaterThan(1);
    expectSound(s);
    s.lists.free(list);
    expect(s.frames.compact().failed).toBe(0);
    expectSigned(s.banks, s.pmem, cookie);
    s.pmem.free(cookie);
    expect(s.frames.takeRun(64)).toBe(0);
    expectSound(s);
  });

  it('stay where their mover refuses, or is not known', () => {
    const s = setUp();
    const cookie = s.pmem.alloc({ size: 30 * PAGE - 300, movable: MOVER });
    const frames = s.pmem.getPfns(cookie, 0, cookie.frames);
    s.side.willing = false;
    expect(() => s.frames.offline(0, 32, { timeoutMs: 0 })).toThrow(/EBUSY.*use="?movable/);
    expect(s.pmem.getPfns(cookie, 0, cookie.frames)).toEqual(frames);
    expect(s.moves.some(({ ended }) => ended !== undefined)).toBe(false);
    const stranger = new Frames(testThread(s.region));
    const unknowing = new Pmem(stranger.core.thread, s.banks, new PageLists(stranger));
    expect(stranger.tryTakeRun(50)).toBe(-1);
    expect(unknowing.lastReport.failure).toBeNull();
    expectSound(s);
    s.pmem.free(cookie);
    expect(s.frames.counts().free).toBe(64);
  });

  it('are moved by nobody before all of their frames are marked as movable', () => {
    const s = setUp();
    const other = attach(s.region, testThread(s.region), s.banks);
    const { setMovable } = s.lists;
    let run = -1;
    s.lists.setMovable = (first, count, movable) => {
      setMovable.call(s.lists, first, 1, movable);
      // Somebody needs the first frame while this thread has marked the first one only.
      if (movable) run = other.frames.tryTakeRun(1, { alignment: 1, boundary: 0, low: 0, high: 1 });
      setMovable.call(s.lists, first + 1, count - 1, movable);
    };
    const cookie = s.pmem.alloc({ size: 8 * PAGE, contiguous: true, movable: MOVER });
    expect(run).toBe(-1);
    expect([other.moves, s.pmem.getPfns(cookie, 0, 1)]).toEqual([[], [0]]);
    expectSound(s);
    run = other.frames.tryTakeRun(8, { alignment: 1, boundary: 0, low: 0, high: 8 });
    expect([run, other.moves.length, s.pmem.getPfns(cookie, 0, 1)]).toEqual([0, 2, [8]]);
    other.frames.giveRun(run, 8);
    s.pmem.free(cookie);
    expect(s.frames.takeRun(64)).toBe(0);
    expectSound(s);
  });

  it('move as a whole when they are contiguous, to where a run is free', () => {
    const s = setUp();
    const spacer = s.lists.alloc({ size: 8 * PAGE });
    const cookie = s.pmem.alloc({ size: 12 * PAGE, contiguous: true, movable: MOVER });
    sign(s.banks, s.pmem, cookie);
    expect(s.pmem.runs(cookie)).toEqual([{ first: 8, count: 12 }]);
    s.lists.free(spacer);
    const list = s.lists.allocWait({ size: 16 * PAGE, high: 16 * PAGE - 1 }, { timeoutMs: 60_000 });
    expect(list.runs).toEqual([{ first: 0, count: 16 }]);
    expect(s.pmem.runs(cookie)).toEqual([{ first: 20, count: 12 }]);
    expectSigned(s.banks, s.pmem, cookie);
    expect(s.pmem.view(cookie)).toMatchObject({ bank: 0, offset: 20 * PAGE });
    expect(s.moves).toMatchObject([
      { index: 0, from: 8, to: 20, frames: 12 },
      { index: 0, from: 8, to: 20, frames: 12, ended: true },
    ]);
    // What it left and nobody asked for is free.
    expect(s.frames.counts().free).toBe(64 - 28);
    expectSound(s);
    s.lists.free(list);
    expect(s.frames.compact()).toMatchObject({ longestAfter: 52 });
    expect(s.pmem.runs(cookie)).toEqual([{ first: 0, count: 12 }]);
    expectSigned(s.banks, s.pmem, cookie);
    // Refused, or without a run to go to, it stays.
    s.side.willing = false;
    expect(() => s.frames.offline(0, 4, { timeoutMs: 0 })).toThrow(/EBUSY/);
    s.side.willing = true;
    const rest = s.lists.alloc({ size: 44 * PAGE });
    expect(() => s.frames.offline(0, 4, { timeoutMs: 0 })).toThrow(/EBUSY/);
    expectSigned(s.banks, s.pmem, cookie);
    s.lists.free(rest);
    s.frames.offline(0, 4);
    expect(s.pmem.runs(cookie)[0]?.first).toBeGreaterThanOrEqual(4);
    expectSigned(s.banks, s.pmem, cookie);
    s.frames.online(0, 4);
    s.pmem.free(cookie);
    expect(s.frames.takeRun(64)).toBe(0);
    expectSound(s);
  });

  it('are freed by the maker, or for a thread that has ended', () => {
    const s = setUp();
    const other = attach(s.region, testThread(s.region), s.banks);
    other.pmem.alloc({ size: 3 * PAGE, movable: MOVER });
    other.pmem.alloc({ size: 5 * PAGE });
    const mine = s.pmem.alloc({ size: PAGE });
    expect(() => s.pmem.freeOf(other.thread.attachment)).toThrow(/EBUSY.*still attached/);
    s.region.tables.slot.claim.put(other.thread.slot, 0);
    expect(s.pmem.freeOf(other.thread.attachment)).toBe(2);
    expect(s.pmem.cookies()).toEqual([mine]);
    expect(s.pmem.freeOf(s.thread.attachment)).toBe(1);
    expect(s.frames.counts().free).toBe(64);
    expect(ownerUsage(s.region)[0]?.resources.lockedFrames.used).toBe(0);
    expectSound(s);
  });

  it('keep their bytes beside a model, whatever is asked', () => {
    const random = new Prng(testSeed('movable cookies', 20261121));
    const s = setUp(128);
    const cookies: Cookie[] = [];
    const runs: [number, number][] = [];
    for (let step = 0; step < 1500; step++) {
      s.side.willing = random.chance(0.8);
      const choice = random.below(5);
      if (choice <= 1) {
        const cookie = s.pmem.tryAlloc({
          size: random.between(1, 12) * PAGE,
          contiguous: random.chance(0.4),
          movable: MOVER,
        });
        if (cookie !== null) {
          sign(s.banks, s.pmem, cookie);
          cookies.push(cookie);
        }
      } else if (choice === 2 && cookies.length > 0) {
        const [cookie] = cookies.splice(random.below(cookies.length), 1) as [Cookie];
        expectSigned(s.banks, s.pmem, cookie);
        s.pmem.free(cookie);
      } else if (choice === 3) {
        const count = random.between(2, 40);
        const first = s.frames.tryTakeRun(count);
        s.frames.settle();
        if (first >= 0) runs.push([first, count]);
      } else if (runs.length > 0) {
        const [[first, count]] = runs.splice(random.below(runs.length), 1) as [[number, number]];
        s.frames.giveRun(first, count);
      }
      if (random.chance(0.02)) s.frames.compact();
      if (step % 25 === 0) expectSound(s);
    }
    expect(s.frames.statistics().moved).toBeGreaterThan(100);
    for (const cookie of cookies) {
      expectSigned(s.banks, s.pmem, cookie);
      s.pmem.free(cookie);
    }
    for (const [first, count] of runs) s.frames.giveRun(first, count);
    expect(s.frames.takeRun(128)).toBe(0);
    expectSound(s);
  });

  it.each([false, true])(
    'are whole when the thread that moves them, makes them or frees them dies at any step, contiguous %s',
    (contiguous) => {
      const s = setUp(32);
      const spacer = contiguous ? s.lists.alloc({ size: 2 * PAGE }) : null;
      const cookie = s.pmem.alloc({ size: 5 * PAGE, contiguous, movable: MOVER });
      if (spacer !== null) s.lists.free(spacer);
      sign(s.banks, s.pmem, cookie);
      const victim = attach(s.region, testThread(s.region), s.banks);
      const recoverers = [
        (_self: unknown, dead: number) => s.pmem.recover(dead),
        (_self: unknown, dead: number) => s.frames.recover(dead),
      ];
      const plan = { region: s.region, self: s.thread, victim: victim.thread, recoverers };
      let steps = dieAtEveryStep({
        ...plan,
        operation: () => void victim.lists.allocWait({ size: 24 * PAGE, high: 24 * PAGE - 1 }, { timeoutMs: 0 }),
        verify: () => {
          expectSound(s);
          expect(s.region.tables.pmemCookie.moving.get(cookie.cookie)).toBe(0);
          expect(s.pmem.getPfns(cookie, 0, 5)).toHaveLength(5);
          const uses = Array.from({ length: 32 }, (_, frame) => s.frames.useOf(frame));
          expect(uses.filter((use) => use === FRAME_USE.movable)).toHaveLength(5);
          for (const frame of s.pmem.getPfns(cookie, 0, 5)) expect(uses[frame]).toBe(FRAME_USE.movable);
          if (contiguous) expect(s.pmem.runs(cookie)).toHaveLength(1);
        },
      });
      steps += dieAtEveryStep({
        ...plan,
        operation: () => victim.pmem.free(victim.pmem.alloc({ size: 4 * PAGE, contiguous, movable: MOVER })),
        verify: () => {
          expectSound(s);
          for (const { cookie: row } of s.pmem.cookies())
            if (row !== cookie.cookie) s.pmem.freeOf(victim.thread.attachment);
          expect(s.frames.counts().free).toBe(27);
        },
      });
      console.log(`${steps} steps`);
      expect(steps).toBeGreaterThan(150);
    },
  );
});
