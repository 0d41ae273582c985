import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { expectEmpties, expectSound, framesOf, largeRooms, SHIFTS } from '../../test/support/large-rooms.ts';
import { MemoryStore, type PageRoom, pageRoom, pageRooms, readPage, writePage } from '../../test/support/page-room.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { REPLACEMENT, replacementGeometry } from '../layout/replacement-tables.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { checkPages } from './check.ts';
import { recoverPages } from './recovery.ts';

describe('large pages', () => {
  it('come as a whole, into adjacent frames, by one call of the store', () => {
    const room = largeRooms(64);
    const { pages, out, store } = room;
    pages.fetch(0, 0, 1, out, 0, store, true);
    pages.release(out[0] as number);
    for (const vnode of [1, 2, 3, 4]) {
      const size = 1 << vnode;
      expect(pages.fetch(vnode, size + size - 1, 2, out, 0, store, true)).toBe(2);
      expect(pages.held).toBe(2);
      pages.release(out[0] as number);
      pages.release(out[1] as number);
      for (const index of [1, 2]) {
        const frames = framesOf(room, vnode, index);
        expect(frames).toEqual(frames.map((_, at) => (frames[0] as number) + at));
        expect(frames[0]).toBeGreaterThanOrEqual(0);
      }
      expect(framesOf(room, vnode, 0)).toEqual(new Array(size).fill(-1));
    }
    expectSound(room);
    expectEmpties(room);
  });

  it('leave as a whole, and not while any of their frames is held', () => {
    const room = largeRooms(32);
    const { pages, out, store } = room;
    pages.fetch(4, 3, 1, out, 0, store, true);
    const held = out[0] as number;
    for (let index = 0; index < 40; index++) readPage(room, store, 3, index);
    expect(framesOf(room, 4, 0)[3]).toBe(held);
    expect(pages.drop(4, 16)).toBe(1);
    expect(pages.freeSome(1000)).toBeGreaterThan(0);
    expect(framesOf(room, 4, 0).every((frame) => frame >= 0)).toBe(true);
    pages.release(held);
    pages.freeSome(1000);
    pages.freeSome(1000);
    expect(framesOf(room, 4, 0)).toEqual(new Array(16).fill(-1));
    expectEmpties(room);
  });

  it('are modified and written back as a whole, whichever of their frames was written to', () => {
    const room = largeRooms(64);
    const { pages, store } = room;
    writePage(room, store, 2, 6, 7);
    writePage(room, store, 2, 9, 8);
    expect(pages.modified).toBe(2);
    expect(pages.modifiedOf(2)).toBe(2);
    expect(pages.drop(2, 100)).toBe(2);
    expect(pages.writeBack(2, 7, 1, store)).toBe(4);
    expect(store.writes).toEqual([[2, 4, 4]]);
    expect(pages.writeBack(2, 0, 1000, store)).toBe(4);
    expect(store.writes).toEqual([
      [2, 4, 4],
      [2, 8, 4],
    ]);
    for (const index of [6, 9]) writePage(room, store, 2, index, 9);
    // Together, and each alone.
    store.refusals = 3;
    expect(() => pages.writeBack(2, 0, Number.POSITIVE_INFINITY, store)).toThrow(/the store is full/);
    expect(pages.modified).toBe(2);
    expect(pages.writeBack(2, 0, Number.POSITIVE_INFINITY, store)).toBe(8);
    expect(store.writes.at(-1)).toEqual([2, 4, 8]);
    expect([store.kept.get('2:6'), store.kept.get('2:9')]).toEqual([9, 9]);
    expect(pages.invalidate(2, 5, 9)).toBe(0);
    expect(framesOf(room, 2, 1)[0]).toBeGreaterThanOrEqual(0);
    expect(framesOf(room, 2, 2)[0]).toBe(-1);
    expectEmpties(room);
  });

  it('are found room for among pinned and scattered pages, by moving and evicting them', () => {
    const room = largeRooms(64);
    const { pages, out, store } = room;
    // Every fourth frame is modified, every sixteenth in use: no run of 16 is free, nor can one be without moving pages.
    for (let index = 0; index < 64; index++) {
      if (index % 4 === 1) writePage(room, store, 0, index, index + 1);
      else readPage(room, store, 0, index);
    }
    const pins = [0, 1, 2].map((pin) => {
      pages.fetch(0, pin * 20, 1, out, pin, store, true);
      return out[pin] as number;
    });
    expect(readPage(room, store, 4, 5)).toBe(0);
    const frames = framesOf(room, 4, 0);
    expect(frames).toEqual(frames.map((_, at) => (frames[0] as number) + at));
    for (const frame of pins) pages.release(frame);
    for (let index = 1; index < 64; index += 4) expect(readPage(room, store, 0, index)).toBe(index + 1);
    expectEmpties(room);
  });

  it('that no run of frames can come about for fail at once, with nothing changed', () => {
    const room = largeRooms(32);
    const other = pageRoom(room);
    const { pages, out, store } = room;
    for (const at of [7, 15, 23, 31]) {
      for (let index = 0; index < 32; index++) readPage(room, store, 0, index);
      pages.fetch(0, at, 1, out, at, store, true);
    }
    expect(() => pages.fetch(4, 0, 1, out, 0, store, true)).toThrow(/ENOMEM.*pinned/);
    expect(pages.held).toBe(4);
    expect(other.pages.fetch(2, 0, 4, other.out, 0, store, true)).toBe(4);
    for (let lane = 0; lane < 4; lane++) other.pages.release(other.out[lane] as number);
    for (const at of [7, 15, 23, 31]) pages.release(out[at] as number);
    readPage(room, store, 4, 0);
    expectEmpties(room);
    expect(() => largeRooms(32, 8).pages.fetch(4, 0, 1, out, 0, store, true)).toThrow(/ENOMEM/);
  });

  it('are empty again when their store fails', () => {
    const room = largeRooms(32);
    const { pages, out, store } = room;
    armFault(room.region, 'page.fill.reading', 'fail');
    expect(() => pages.fetch(3, 9, 1, out, 0, store, true)).toThrow(/EIO/);
    disarmFault(room.region);
    expect(framesOf(room, 3, 1)).toEqual(new Array(8).fill(-1));
    expect(readPage(room, store, 3, 9)).toBe(0);
    expectEmpties(room);
  });

  it('refuse to be renamed', () => {
    const room = largeRooms(32);
    const { pages, store } = room;
    readPage(room, store, 2, 0);
    const held = pages.holdExclusive(2, 1);
    expect(() => pages.rename(held, 0, 1)).toThrow(/ENOTSUP.*large pages/);
    pages.holds.releaseExclusive(held);
    expectEmpties(room);
  });
});

describe('large pages against a model', () => {
  for (const policy of Object.keys(REPLACEMENT) as (keyof typeof REPLACEMENT)[]) {
    it(`keep every byte under ${policy} while memory is short, in two slots`, () => {
      const random = new Prng(testSeed(`large pages, ${policy}`, 31));
      const frames = 96;
      const first = pageRooms(frames, 48, replacementGeometry(REPLACEMENT[policy], frames, 8));
      first.region.tables.policy.kind.put(0, REPLACEMENT[policy]);
      for (const shift of SHIFTS) first.region.tables.vnode.pageShift.put(shift, shift);
      const one = pageRoom(first);
      const rooms = [one, pageRoom(first)];
      const store = new MemoryStore(first.banks);
      const model = new Map<string, number>();
      for (let step = 0; step < 2500; step++) {
        const room = rooms[random.below(2)] as PageRoom;
        const vnode = random.below(SHIFTS.length);
        const index = random.below(40 << vnode);
        const key = `${vnode}:${index}`;
        const act = random.below(10);
        if (act < 4) {
          writePage(room, store, vnode, index, (step & 127) + 1);
          model.set(key, (step & 127) + 1);
        } else if (act < 9) {
          expect(readPage(room, store, vnode, index)).toBe(model.get(key) ?? 0);
        } else if (random.chance(0.3)) {
          room.pages.writeBack(vnode, index, random.below(64), store);
        } else {
          room.pages.drop(vnode, 40 << vnode);
        }
        if (step % 500 === 0) expectSound(room);
      }
      for (const vnode of SHIFTS) one.pages.writeBack(vnode, 0, Number.POSITIVE_INFINITY, store);
      for (const [key, value] of model) expect(store.kept.get(key)).toBe(value);
      expectEmpties(one);
    });
  }
});

describe('deaths', () => {
  const operations: Record<string, (room: PageRoom, store: MemoryStore) => void> = {
    'that bring a large page leave it whole or not at all': (room, store) => void readPage(room, store, 2, 9),
    'that bring one in place of another do': (room, store) => {
      for (let index = 2; index < 5; index++) readPage(room, store, 2, index * 4);
    },
    'that write to one and write it back do': (room, store) => {
      writePage(room, store, 2, 6, 50);
      room.pages.writeBack(2, 0, 100, store);
    },
    'that drop one do': (room) => void room.pages.invalidate(2, 0),
  };
  for (const [name, operation] of Object.entries(operations)) {
    it(name, () => {
      const self = pageRooms(16, 16, { journalLanes: 1024, vnodes: 8, vnodeBuckets: 8, tags: 64, tagBuckets: 64 });
      for (const shift of SHIFTS) self.region.tables.vnode.pageShift.put(shift, shift);
      const victim = pageRoom(self);
      const store = new MemoryStore(self.banks);
      writePage(self, store, 2, 3, 40);
      readPage(self, store, 2, 4);
      const steps = dieAtEveryStep({
        region: self.region,
        self: self.thread,
        victim: victim.thread,
        recoverers: [recoverPages, (_self, dead) => self.frames.recover(dead)],
        // The frame that a page has moved from gets other bytes at once.
        beside: [self.banks.view(0, 16 * 4096)],
        operation: () => operation(victim, store),
        verify: (step) => {
          const { problems } = checkPages(self.thread);
          if (problems.length > 0) throw new Error(`step ${step}: ${problems.join('\n')}`);
          expect(self.frames.check().problems).toEqual([]);
          const value = readPage(self, store, 2, 3);
          if (value !== 40 && !name.includes('drop')) throw new Error(`step ${step}: page 3 has ${value}`);
          readPage(self, store, 3, 3);
          expectEmpties(self);
        },
      });
      console.log(`died at ${steps} steps`);
      expect(steps).toBeGreaterThan(20);
    });
  }
});
