/** Large pages that move as a whole: out of the way of runs, together, beside a model, and with deaths at every step. */

import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import {
  expectEmpties,
  expectSound,
  framesOf,
  type LargeRoom,
  largeRooms,
  SHIFTS,
} from '../../test/support/large-rooms.ts';
import { moveAway, type PageRoom, pageRoom, readPage, writePage } from '../../test/support/page-room.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import type { Geometry } from '../layout/index.ts';
import { REPLACEMENT, replacementGeometry } from '../layout/replacement-tables.ts';
import { FRAME_USE } from '../phys/index.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { pageStatistics } from './page-counters.ts';
import { recoverPages } from './recovery.ts';

/** Rooms with large pages that pages are moved out of. */
function movingRooms(frames: number, bankFrames = frames, overrides: Partial<Geometry> = {}): LargeRoom {
  const room = largeRooms(frames, bankFrames, overrides);
  room.frames.setReclaimer(room.pages);
  return room;
}

const evictions = (room: PageRoom) => pageStatistics(room.region).evictions;
const relocations = (room: PageRoom) => pageStatistics(room.region).relocations;

describe('a large page', () => {
  it.each([1, 2, 3, 4])(
    'moves as a whole, whichever of its 2^%i frames is asked for, with its bytes and modifications',
    (shift) => {
      const size = 1 << shift;
      for (let asked = 0; asked < size; asked++) {
        const room = movingRooms(64, 32);
        const { pages, frames, store } = room;
        for (let at = 0; at < size; at++) writePage(room, store, shift, size + at, 100 + at);
        const before = framesOf(room, shift, 1);
        const told: number[][] = [];
        pages.onRelocated((...move) => told.push(move));
        const frame = before[asked] as number;
        expect(pages.relocate(frame, FRAME_USE.run)).toBe(true);
        expect([frames.useOf(frame), frames.takerOf(frame)]).toEqual([FRAME_USE.run, room.thread.slot]);
        const after = framesOf(room, shift, 1);
        expect(after).toEqual(after.map((_, at) => (after[0] as number) + at));
        expect(after.some((at) => before.includes(at))).toBe(false);
        expect(told).toEqual([[shift, size, before[0], after[0]]]);
        expect(frames.counts()).toMatchObject({ page: size, run: 1, free: 63 - size });
        expect(pages.modifiedOf(shift)).toBe(1);
        expect(Array.from({ length: size }, (_, at) => readPage(room, store, shift, size + at))).toEqual(
          Array.from({ length: size }, (_, at) => 100 + at),
        );
        expect(pages.writeBack(shift, 0, 64, store)).toBe(size);
        expect(store.kept.get(`${shift}:${size + asked}`)).toBe(100 + asked);
        expect([relocations(room), evictions(room)]).toEqual([1, 0]);
        frames.settle();
        frames.giveRun(frame, 1);
        expectEmpties(room);
      }
    },
  );

  it('stays when a frame of it is held, when no run is free for it, and when the copy is stopped', () => {
    const room = movingRooms(16);
    const other = pageRoom(room);
    const { pages, frames, store } = room;
    writePage(room, store, 2, 0, 7);
    const before = framesOf(room, 2, 0);
    const held = other.pages.hold(2, 3);
    for (const frame of before) expect(pages.relocate(frame, FRAME_USE.run)).toBe(false);
    other.pages.release(held);
    armFault(room.region, 'page.relocate.copied', 'fail');
    expect(pages.relocate(before[1] as number, FRAME_USE.run)).toBe(false);
    disarmFault(room.region);
    // Every fourth frame is taken: twelve are free, and no four of them lie side by side.
    const taken: number[] = [];
    for (let frame = frames.tryTake(FRAME_USE.page); frame >= 0; frame = frames.tryTake(FRAME_USE.page))
      taken.push(frame);
    for (const frame of taken) if (frame % 4 !== 3) frames.give(frame, FRAME_USE.page);
    frames.caches.drain();
    expect(frames.counts().free).toBe(9);
    expect(pages.relocate(before[2] as number, FRAME_USE.run)).toBe(false);
    expect(framesOf(room, 2, 0)).toEqual(before);
    expect(readPage(room, store, 2, 0)).toBe(7);
    expect([relocations(room), pages.held, other.pages.held]).toEqual([0, 0, 0]);
    for (const frame of taken) if (frame % 4 === 3) frames.give(frame, FRAME_USE.page);
    expectEmpties(room);
  });

  it('moves out of the way of a run where there is room, and is evicted only where there is none', () => {
    const room = movingRooms(32);
    const { pages, frames, store } = room;
    for (const page of [0, 1, 2]) readPage(room, store, 2, page << 2);
    const spots = [0, 1, 2].map((page) => framesOf(room, 2, page)[0]);
    expect(spots).toEqual([0, 4, 8]);
    pages.invalidate(2, 0, 4);
    pages.invalidate(2, 8, 12);
    // 27 adjacent frames: the page at 4 is in the way wherever they are, and fits below or above.
    const run = frames.takeRun(24);
    expect([relocations(room), evictions(room)]).toEqual([0, 0]);
    frames.settle();
    frames.giveRun(run, 24);
    const longer = frames.takeRun(28);
    expect([relocations(room), evictions(room)]).toEqual([1, 0]);
    expect(framesOf(room, 2, 1)).not.toContain(-1);
    frames.settle();
    frames.giveRun(longer, 28);
    const longest = frames.takeRun(30);
    expect(evictions(room)).toBeGreaterThan(0);
    expect(framesOf(room, 2, 1)).toEqual([-1, -1, -1, -1]);
    frames.settle();
    frames.giveRun(longest, 30);
    expectEmpties(room);
  });

  it('moves down, and only down, when frames are moved together', () => {
    const room = movingRooms(64);
    const { pages, frames, store } = room;
    for (let page = 0; page < 8; page++) {
      for (let at = 0; at < 4; at++) writePage(room, store, 2, page * 4 + at, 1 + page * 4 + at);
    }
    for (const page of [0, 2, 3, 5]) pages.invalidate(2, page * 4, page * 4 + 4);
    const left = [1, 4, 6, 7];
    const before = left.map((page) => framesOf(room, 2, page)[0] as number);
    const { moved, longestAfter } = frames.compact();
    expect(moved).toBeGreaterThan(0);
    const after = left.map((page) => framesOf(room, 2, page)[0] as number);
    for (const [at, frame] of after.entries()) expect(frame).toBeLessThanOrEqual(before[at] as number);
    expect(longestAfter).toBe(64 - 16);
    for (const page of left) {
      for (let at = 0; at < 4; at++) expect(readPage(room, store, 2, page * 4 + at)).toBe(1 + page * 4 + at);
    }
    expect(evictions(room)).toBe(0);
    expectEmpties(room);
  });

  it('leaves memory that goes offline for another bank', () => {
    const room = movingRooms(64, 32);
    const { frames, store } = room;
    for (let at = 0; at < 16; at++) writePage(room, store, 4, at, 50 + at);
    const [head] = framesOf(room, 4, 0) as [number];
    frames.offline(head - (head % 32), 32);
    expect(frames.counts()).toMatchObject({ absent: 32, page: 16 });
    for (let at = 0; at < 16; at++) expect(readPage(room, store, 4, at)).toBe(50 + at);
    expect(store.writes).toEqual([]);
    frames.online(head - (head % 32), 32);
    expectEmpties(room);
  });
});

describe('large pages that move beside a model', () => {
  for (const policy of Object.keys(REPLACEMENT) as (keyof typeof REPLACEMENT)[]) {
    it(`keep every byte under ${policy}, in two slots`, () => {
      const random = new Prng(testSeed(`large moves, ${policy}`, 77));
      const frames = 96;
      const first = movingRooms(frames, 48, replacementGeometry(REPLACEMENT[policy], frames, 8));
      first.region.tables.policy.kind.put(0, REPLACEMENT[policy]);
      const rooms = [pageRoom(first), pageRoom(first)];
      for (const { frames: theirs, pages } of rooms) theirs.setReclaimer(pages);
      const { store } = first;
      const model = new Map<string, number>();
      for (let step = 0; step < 2000; step++) {
        const room = rooms[random.below(2)] as PageRoom;
        const vnode = random.below(SHIFTS.length);
        const index = random.below(6 << vnode);
        const key = `${vnode}:${index}`;
        const act = random.below(12);
        if (act < 4) {
          writePage(room, store, vnode, index, (step & 127) + 1);
          model.set(key, (step & 127) + 1);
        } else if (act < 8) {
          expect(readPage(room, store, vnode, index)).toBe(model.get(key) ?? 0);
        } else if (act < 10) {
          const frame = random.below(frames);
          if (room.pages.relocate(frame, FRAME_USE.list)) room.frames.convert(frame, FRAME_USE.list, FRAME_USE.page);
          else continue;
          room.frames.give(frame, FRAME_USE.page);
        } else if (act === 10) {
          const count = random.between(2, 30);
          const run = room.frames.tryTakeRun(count);
          room.frames.settle();
          if (run >= 0) room.frames.giveRun(run, count);
        } else if (random.chance(0.3)) {
          room.frames.compact({ moves: 10 });
        } else {
          room.pages.writeBack(vnode, index, random.below(64), store);
        }
        if (step % 250 === 0) expectSound(room);
      }
      expect(relocations(first)).toBeGreaterThan(50);
      const one = rooms[0] as PageRoom;
      for (const vnode of SHIFTS) one.pages.writeBack(vnode, 0, Number.POSITIVE_INFINITY, store);
      for (const [key, value] of model) expect(store.kept.get(key)).toBe(value);
      expectEmpties(one);
    });
  }
});

describe('a large page whose mover dies at any step', () => {
  it.each([
    ['modified', true],
    ['clean', false],
  ])('is here or there, whole: %s', (_name, modified) => {
    const room = movingRooms(16, 16, { journalLanes: 1024, vnodes: 8, vnodeBuckets: 8, tags: 64, tagBuckets: 64 });
    const victim = pageRoom(room);
    const { store } = room;
    for (let at = 0; at < 4; at++) writePage(room, store, 2, at, 60 + at);
    if (!modified) room.pages.writeBack(2, 0, 4, store);
    const places = new Set<number>();
    const steps = dieAtEveryStep({
      region: room.region,
      self: room.thread,
      victim: victim.thread,
      recoverers: [recoverPages, (_self, dead) => room.frames.recover(dead)],
      operation: () => moveAway(victim, 1),
      verify: () => {
        expectSound(room);
        const where = framesOf(room, 2, 0);
        expect(where).toEqual([0, 1, 2, 3].map((at) => (where[0] as number) + at));
        places.add(where[0] as number);
        for (const [at, frame] of where.entries()) expect(room.banks.view(frame * 4096, 1)[0]).toBe(60 + at);
        // A clean one may count as modified: the dead thread may have stored bytes.
        if (modified) expect(room.pages.isClean(where[0] as number)).toBe(false);
        expect(room.frames.counts().free).toBe(12);
        expectEmpties(room);
      },
    });
    console.log(`died at ${steps} steps`);
    expect(steps).toBeGreaterThan(50);
    expect(places.size).toBe(2);
  });
});
