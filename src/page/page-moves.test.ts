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
import { armFault, disarmFault } from '../sync/index.ts';
import { checkPages } from './check.ts';
import { pageStatistics } from './page-counters.ts';
import { recoverPages } from './recovery.ts';

function expectSound({ thread, frames }: PageRoom): void {
  expect(checkPages(thread).problems).toEqual([]);
  expect(frames.check().problems).toEqual([]);
}

/** Takes what a relocation or a reclaim has left, and frees it. */
function giveBack(room: PageRoom, frame: number): void {
  room.frames.settle();
  room.frames.giveRun(frame, 1);
}

describe('a relocation', () => {
  it('moves bytes, identity and modifications, across banks too, and tells who asked', () => {
    const room = pageRooms(32, 16);
    const store = new MemoryStore(room.banks);
    for (const index of [0, 1, 2]) writePage(room, store, 3, index, 70 + index);
    room.pages.writeBack(3, 2, 1, store);
    const told: number[][] = [];
    room.pages.onRelocated((vnode, index, from, to) => told.push([vnode, index, from, to]));
    for (let frame = 3; frame < 16; frame++) room.frames.tryTake(FRAME_USE.page);
    for (const index of [0, 1, 2]) {
      expect(room.pages.relocate(index, FRAME_USE.run)).toBe(true);
      expect(room.frames.useOf(index)).toBe(FRAME_USE.run);
      expect(room.frames.takerOf(index)).toBe(room.thread.slot);
    }
    expect(told).toEqual([
      [3, 0, 0, 16],
      [3, 1, 1, 17],
      [3, 2, 2, 18],
    ]);
    expect(room.pages.modifiedOf(3)).toBe(2);
    expect([0, 1, 2].map((index) => readPage(room, store, 3, index))).toEqual([70, 71, 72]);
    expect(room.pages.writeBack(3, 0, 9, store)).toBe(2);
    expect(store.writes.at(-1)).toEqual([3, 0, 2]);
    for (const frame of [0, 1, 2]) giveBack(room, frame);
    for (let frame = 3; frame < 16; frame++) room.frames.give(frame, FRAME_USE.page);
    expect(pageStatistics(room.region).relocations).toBe(3);
    expectSound(room);
    room.pages.drop(3, 3);
    expect(room.frames.counts().free).toBe(32);
  });

  it('refuses what is held, free, in hand, or has nowhere to go', () => {
    const room = pageRooms(4, 4);
    const store = new MemoryStore(room.banks);
    for (let index = 0; index < 4; index++) writePage(room, store, 0, index, index);
    expect(room.pages.relocate(0, FRAME_USE.run)).toBe(false);
    expect(room.pages.invalidate(0, 3, 4)).toBe(0);
    const other = pageRoom(room);
    const frame = other.pages.hold(0, 1);
    expect(room.pages.relocate(frame, FRAME_USE.run)).toBe(false);
    other.pages.release(frame);
    expect(other.pages.holdExclusive(0, 1)).toBe(frame);
    expect(room.pages.relocate(frame, FRAME_USE.run)).toBe(false);
    other.pages.holds.releaseExclusive(frame);
    expect(room.pages.relocate(3, FRAME_USE.run)).toBe(false);
    armFault(room.region, 'page.relocate.copied', 'fail');
    expect(room.pages.relocate(0, FRAME_USE.run)).toBe(false);
    disarmFault(room.region);
    expectSound(room);
    expect(room.pages.relocate(0, FRAME_USE.run)).toBe(true);
    giveBack(room, 0);
    expectSound(room);
    room.pages.invalidate(0, 0, 4);
    expect(room.frames.counts().free).toBe(4);
  });

  it('leaves the page in one frame whenever the thread dies', () => {
    const room = pageRooms(8, 8);
    const store = new MemoryStore(room.banks);
    const victim = pageRoom(room);
    writePage(room, store, 0, 0, 33);
    let moved = 0;
    const steps = dieAtEveryStep({
      region: room.region,
      self: room.thread,
      victim: victim.thread,
      recoverers: [recoverPages, (_self, dead) => room.frames.recover(dead)],
      operation: () => moveAway(victim, 0),
      verify: () => {
        expectSound(room);
        const frame = room.pages.hold(0, 0);
        if (frame !== 0) moved++;
        expect(room.banks.view(frame * 4096, 1)[0]).toBe(33);
        expect(room.pages.isClean(frame)).toBe(false);
        room.pages.release(frame);
        expect(room.frames.counts().free).toBe(7);
      },
    });
    expect(steps).toBeGreaterThan(30);
    expect(moved).toBeGreaterThan(0);
    expect(moved).toBeLessThan(steps);
  });
});

describe('a rename', () => {
  it('keeps bytes and modifications, and refuses an identity that is taken', () => {
    const room = pageRooms(8, 8);
    const store = new MemoryStore(room.banks);
    writePage(room, store, 1, 0, 11);
    writePage(room, store, 2, 5, 25);
    const frame = room.pages.holdExclusive(1, 0);
    expect(room.pages.holdExclusive(1, 9)).toBe(-1);
    expect(room.pages.rename(frame, 2, 5)).toBe(false);
    expect(room.pages.rename(frame, 2, 6)).toBe(true);
    room.pages.holds.releaseExclusive(frame);
    expect(() => room.pages.rename(frame, 2, 7)).toThrow(/EINVAL: pages.rename.*exclusively/);
    expect([room.pages.modifiedOf(1), room.pages.modifiedOf(2)]).toEqual([0, 2]);
    expect(readPage(room, store, 2, 6)).toBe(11);
    expect(room.pages.hold(1, 0)).toBe(-1);
    expectSound(room);
    expect(room.pages.writeBack(2, 0, 9, store)).toBe(2);
    room.pages.drop(2, 9);
    expect(room.frames.counts().free).toBe(8);
  });

  it.each([
    ['a modified page', 4, 2, true],
    ['a clean page', 4, 2, false],
    ['a modified page of the same vnode', 1, 7, true],
    ['a page whose new name is taken', 1, 1, true],
  ])('has the one or the other name whenever the thread dies: %s', (_what, vnode, index, isModified) => {
    const room = pageRooms(8, 8);
    const store = new MemoryStore(room.banks);
    const victim = pageRoom(room);
    writePage(room, store, 1, 0, 11);
    if (!isModified) room.pages.writeBack(1, 0, 1, store);
    writePage(room, store, 1, 1, 12);
    const isTaken = vnode === 1 && index === 1;
    let renamed = 0;
    const steps = dieAtEveryStep({
      region: room.region,
      self: room.thread,
      victim: victim.thread,
      recoverers: [recoverPages],
      operation: () => {
        const frame = victim.pages.holdExclusive(1, 0);
        expect(victim.pages.rename(frame, vnode, index)).toBe(!isTaken);
        victim.pages.holds.releaseExclusive(frame);
      },
      verify: () => {
        expectSound(room);
        const before = room.pages.hold(1, 0);
        const after = isTaken ? -1 : room.pages.hold(vnode, index);
        expect(before < 0).toBe(after >= 0);
        if (after >= 0) renamed++;
        const frame = Math.max(before, after);
        expect(room.banks.view(frame * 4096, 1)[0]).toBe(11);
        // Whoever dies with a page in its hands may have stored into it: it counts as modified then.
        if (isModified) expect(room.pages.isClean(frame)).toBe(false);
        room.pages.release(frame);
        expect(readPage(room, store, 1, 1)).toBe(12);
        expect(room.pages.modified).toBeGreaterThanOrEqual(isModified ? 2 : 1);
        if (vnode !== 1) expect(room.pages.modifiedOf(1) + room.pages.modifiedOf(vnode)).toBe(room.pages.modified);
        expect(room.frames.counts().free).toBe(6);
        // It can be renamed, written and dropped again.
        const again = room.pages.holdExclusive(...(after >= 0 ? ([vnode, index] as const) : ([1, 0] as const)));
        expect(room.pages.rename(again, 5, 5)).toBe(true);
        room.pages.holds.releaseExclusive(again);
        for (const of of [1, 4, 5]) expect(room.pages.invalidate(of, 0)).toBe(0);
        expectSound(room);
        expect(room.frames.counts().free).toBe(8);
      },
    });
    expect(steps).toBeGreaterThan(isTaken ? 15 : 20);
    expect(renamed > 0).toBe(!isTaken);
    expect(renamed).toBeLessThan(steps);
  });
});

describe('page locks', () => {
  it('go from shared to exclusive and back, and say what is wrong', () => {
    const room = pageRooms(8, 8);
    const store = new MemoryStore(room.banks);
    const other = pageRoom(room);
    writePage(room, store, 0, 0, 1);
    const { holds } = room.pages;
    const frame = room.pages.hold(0, 0);
    expect(holds.tryUpgrade(frame)).toBe(true);
    expect([holds.isMine(frame), holds.holds(frame), room.pages.held]).toEqual([true, false, 0]);
    expect(other.pages.holds.shared(frame, 2)).toBe(false);
    expect(other.pages.hold(0, 0)).toBe(-1);
    expect(other.pages.holdExclusive(0, 0, 2)).toBe(-1);
    expect(() => holds.shared(frame)).toThrow(/EDEADLK/);
    holds.downgrade(frame);
    expect(other.pages.hold(0, 0)).toBe(frame);
    expect(holds.tryUpgrade(frame)).toBe(false);
    expect(holds.holds(frame)).toBe(true);
    expect(() => holds.exclusive(frame)).toThrow(/EDEADLK/);
    other.pages.release(frame);
    holds.tryShared(frame);
    expect(() => holds.tryUpgrade(frame)).toThrow(/EINVAL.*holds=2|EINVAL.*2/);
    holds.release(frame);
    expect(() => holds.downgrade(frame)).toThrow(/EINVAL: holds.downgrade/);
    expect(() => holds.releaseExclusive(frame)).toThrow(/EINVAL: holds.releaseExclusive/);
    holds.release(frame);
    expect(() => holds.tryUpgrade(frame)).toThrow(/EINVAL/);
    expect(holds.exclusive(frame, 5)).toBe(true);
    holds.releaseExclusive(frame);
    expect(holds.isHeld(frame)).toBe(false);
    expectSound(room);
  });

  it('of a thread that dies in any of their steps are free again', () => {
    const room = pageRooms(8, 8);
    const store = new MemoryStore(room.banks);
    const victim = pageRoom(room);
    writePage(room, store, 0, 0, 1);
    const steps = dieAtEveryStep({
      region: room.region,
      self: room.thread,
      victim: victim.thread,
      recoverers: [recoverPages],
      operation: () => {
        const { holds } = victim.pages;
        const frame = victim.pages.hold(0, 0);
        holds.tryUpgrade(frame);
        holds.downgrade(frame);
        holds.release(frame);
        holds.exclusive(frame);
        holds.releaseExclusive(frame);
      },
      verify: () => {
        expectSound(room);
        const frame = room.pages.holdExclusive(0, 0, 0);
        expect(frame).toBeGreaterThanOrEqual(0);
        room.pages.holds.releaseExclusive(frame);
      },
    });
    expect(steps).toBeGreaterThan(12);
  });
});

it('pages that move, get other names, are written and dropped keep in step with a model', () => {
  const seed = Number(process.env.PAGEWRIGHT_SEED ?? 99);
  console.log(`pages that move against a model: seed ${seed}`);
  const random = new Prng(seed);
  const room = pageRooms(24, 8);
  const store = new MemoryStore(room.banks);
  const rooms = [room, pageRoom(room), pageRoom(room)];
  const model = new Map<string, number>();
  const taken: number[] = [];
  for (let step = 0; step < 8000; step++) {
    const self = random.pick(rooms);
    const vnode = random.below(4);
    const index = random.below(9);
    const key = `${vnode}:${index}`;
    const choice = random.below(10);
    if (choice < 3) {
      model.set(key, step & 255);
      writePage(self, store, vnode, index, step & 255);
    } else if (choice < 5) {
      expect(readPage(self, store, vnode, index)).toBe(model.get(key) ?? 0);
    } else if (choice === 5) {
      self.pages.writeBack(vnode, 0, 9, store);
    } else if (choice === 6) {
      const name = [random.below(4), random.below(9)] as const;
      const frame = self.pages.holdExclusive(vnode, index);
      if (frame < 0) continue;
      const wasClean = self.pages.isClean(frame);
      if (self.pages.rename(frame, ...name)) {
        // A clean page has its bytes in the store under its old name: it must not be lost under the new one.
        if (wasClean) {
          self.pages.holds.downgrade(frame);
          self.pages.setModified(frame);
          self.pages.release(frame);
        }
        model.set(`${name[0]}:${name[1]}`, model.get(key) ?? 0);
        model.set(key, store.kept.get(key) ?? 0);
        if (!wasClean) self.pages.holds.releaseExclusive(frame);
      } else {
        self.pages.holds.releaseExclusive(frame);
      }
    } else if (choice === 7 && taken.length < 6) {
      const frame = random.below(24);
      const moves = pageStatistics(room.region).relocations;
      if (room.pages.relocate(frame, FRAME_USE.run)) {
        taken.push(frame);
        expect(pageStatistics(room.region).relocations).toBe(moves + 1);
      }
    } else if (choice === 8 && taken.length > 0) {
      giveBack(room, taken.pop() as number);
    } else if (choice === 9) {
      self.pages.writeBack(vnode, 0, 9, store);
      expect(self.pages.drop(vnode, random.chance(0.5) ? 9 : 100)).toBe(0);
      expect(self.pages.hold(vnode, index)).toBe(-1);
    }
    if (step % 250 === 0) expectSound(room);
  }
  for (const frame of taken) giveBack(room, frame);
  for (let vnode = 0; vnode < 4; vnode++) expect(room.pages.invalidate(vnode, 0)).toBe(0);
  expectSound(room);
  expect(pageStatistics(room.region).relocations).toBeGreaterThan(100);
  expect(room.frames.counts().free).toBe(24);
});
