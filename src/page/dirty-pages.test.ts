import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { MemoryStore, pageRoom, pageRooms, readPage, writePage } from '../../test/support/page-room.ts';
import { Prng, VmError } from '../base/index.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { checkPages } from './check.ts';
import { CLAIM, DirtyPages } from './dirty-pages.ts';
import { pageStatistics } from './page-counters.ts';
import type { PageStore } from './page-store.ts';
import { recoverPages } from './recovery.ts';

const FRAMES = 24;

function setUp(frames = FRAMES) {
  const room = pageRooms(frames);
  return { ...room, store: new MemoryStore(room.banks) };
}

type Setup = ReturnType<typeof setUp>;

function another(s: Setup): Setup {
  return { ...pageRoom(s), store: s.store };
}

const write = (s: Setup, vnode: number, index: number, value: number) => writePage(s, s.store, vnode, index, value);
const read = (s: Setup, vnode: number, index: number) => readPage(s, s.store, vnode, index);

function expectSound({ thread, frames }: Pick<Setup, 'thread' | 'frames'>): void {
  expect(checkPages(thread).problems).toEqual([]);
  expect(frames.check().problems).toEqual([]);
}

/** Gives everything up: all frames are free and one run. */
function endOracle(s: Setup): void {
  for (let vnode = 0; vnode < 8; vnode++) expect(s.pages.invalidate(vnode, 0, 1000)).toBe(0);
  expectSound(s);
  expect(s.pages.modified).toBe(0);
  expect(s.frames.counts().free).toBe(FRAMES);
  expect(s.frames.takeRun(FRAMES)).toBe(0);
  s.frames.giveRun(0, FRAMES);
}

describe('modified pages', () => {
  it('go back in ascending order, adjacent ones in one call, and are clean then', () => {
    const s = setUp();
    for (const index of [7, 3, 4, 0, 5, 3]) write(s, 1, index, 10 + index);
    expect([s.pages.modified, s.pages.modifiedOf(1), s.pages.modifiedOf(2)]).toEqual([5, 5, 0]);
    expectSound(s);
    expect(s.pages.writeBack(1, 3, 2, s.store)).toBe(2);
    expect(s.pages.writeBack(1, 0, 1000, s.store)).toBe(3);
    expect(s.store.writes).toEqual([
      [1, 3, 2],
      [1, 0, 1],
      [1, 5, 1],
      [1, 7, 1],
    ]);
    expect(s.pages.modified).toBe(0);
    expect(s.pages.writeBack(1, 0, 1000, s.store)).toBe(0);
    expect(s.store.kept.get('1:7')).toBe(17);
    expect(pageStatistics(s.region)).toMatchObject({ writes: 4, writtenPages: 5, writeFailures: 0 });
    endOracle(s);
  });

  it('go back at most 32 at a time', () => {
    const s = setUp(64);
    for (let index = 0; index < 40; index++) write(s, 0, index, 1);
    s.pages.writeBack(0, 0, 40, s.store);
    expect(s.store.writes).toEqual([
      [0, 0, 32],
      [0, 32, 8],
    ]);
  });

  it('are never dropped to make room: they are written first', () => {
    const s = setUp();
    for (let index = 0; index < 100; index++) write(s, index % 5, index, index);
    expectSound(s);
    for (let index = 0; index < 100; index++) expect(read(s, index % 5, index)).toBe(index);
    expect(s.pages.drop(0, 1000) + s.pages.drop(1, 1000)).toBe(s.pages.modifiedOf(0) + s.pages.modifiedOf(1));
    endOracle(s);
  });

  it('stay modified when the store refuses; the rest is written, and the error is thrown', () => {
    const s = setUp();
    for (const index of [0, 1, 4, 5, 9]) write(s, 2, index, 50 + index);
    // Two pages together, and then the first of them alone: the second goes.
    s.store.refusals = 2;
    expect(() => s.pages.writeBack(2, 0, 10, s.store)).toThrow(/EIO.*full/);
    expect(s.pages.modifiedOf(2)).toBe(1);
    expect(s.store.kept.get('2:1')).toBe(51);
    expectSound(s);
    armFault(s.region, 'page.write.refuse', 'fail');
    expect(() => s.pages.writeBack(2, 0, 10, s.store)).toThrow(/injected/);
    disarmFault(s.region);
    expect(s.pages.writeBack(2, 0, 10, s.store)).toBe(1);
    expect(s.store.kept.get('2:0')).toBe(50);
    // Refused together and taken alone: nothing is left to be said.
    for (const index of [3, 4, 5]) write(s, 2, index, 60 + index);
    s.store.refusals = 1;
    expect(s.pages.writeBack(2, 0, 10, s.store)).toBe(3);
    endOracle(s);
  });

  it('keep their frames when no store takes them, and the others serve', () => {
    const s = setUp();
    for (let index = 0; index < 20; index++) write(s, 3, index, 60 + index);
    s.store.refusals = Number.POSITIVE_INFINITY;
    for (let index = 0; index < 30; index++) expect(read(s, 4, index)).toBe(0);
    expect(s.pages.modifiedOf(3)).toBe(20);
    expect(() => s.pages.fetch(4, 100, 5, s.out, 0, s.store, true)).toThrow(/ENOMEM.*modified/);
    s.store.refusals = 0;
    expect(s.pages.fetch(4, 100, 5, s.out, 0, s.store, true)).toBe(5);
    for (let lane = 0; lane < 5; lane++) s.pages.release(s.out[lane] as number);
    expect(read(s, 3, 7)).toBe(67);
    endOracle(s);
  });

  it('are gone round once, also when the vnode that was tried first is clean by then', () => {
    const s = setUp();
    for (const vnode of [2, 4, 6]) write(s, vnode, 0, vnode);
    const asked: number[] = [];
    const store: PageStore = {
      fill: () => 0,
      write(vnode) {
        asked.push(vnode);
        if (asked.length > 10) throw new Error('asked without end');
        // Meanwhile another thread gives up what was tried first.
        if (asked.length === 2) s.pages.invalidate(asked[0] as number, 0, 1);
        throw new VmError('EIO', 'refused');
      },
    };
    expect(s.pages.writeOldest(8, store)).toBe(0);
    expect(asked.toSorted()).toEqual([2, 4, 6]);
    expect(s.pages.modified).toBe(2);
    for (const vnode of [2, 4, 6]) s.pages.invalidate(vnode, 0, 1);
    endOracle(s);
  });

  it('are modified again when they are marked while they are written', () => {
    const s = setUp();
    write(s, 0, 0, 1);
    const frame = s.pages.hold(0, 0);
    const store: PageStore = {
      fill: () => 0,
      write: () => s.pages.setModified(frame),
    };
    expect(s.pages.writeBack(0, 0, 1, store)).toBe(1);
    expect(s.pages.modifiedOf(0)).toBe(1);
    expectSound(s);
    s.pages.release(frame);
    expect(() => s.pages.setModified(frame)).toThrow(/EINVAL.*pages.setModified/);
    endOracle(s);
  });

  it('are created without being read, and without a source as zeros', () => {
    const s = setUp();
    s.store.kept.set('0:2', 99);
    s.store.kept.set('0:3', 98);
    write(s, 0, 3, 7);
    const filled: number[] = [];
    const source = {
      fill: (_vnode: number, index: number, frames: Int32Array, at: number, count: number) => {
        for (let page = 0; page < count; page++) {
          filled.push(index + page);
          s.banks.view((frames[at + page] as number) * 4096, 4096).fill(200 + index + page);
        }
        return 0;
      },
    };
    expect(s.pages.create(0, 1, 4, s.out, 0, s.store, source)).toBe(4);
    expect(filled).toEqual([1, 2, 4]);
    expect(s.pages.modifiedOf(0)).toBe(4);
    for (let lane = 0; lane < 4; lane++) s.pages.release(s.out[lane] as number);
    expect([1, 2, 3, 4].map((index) => read(s, 0, index))).toEqual([201, 202, 7, 204]);
    s.banks.views[0]?.fill(77);
    expect(s.pages.create(5, 0, 2, s.out, 0, s.store, null)).toBe(2);
    expect(s.pages.modifiedOf(5)).toBe(0);
    for (let lane = 0; lane < 2; lane++) s.pages.release(s.out[lane] as number);
    expect([read(s, 5, 0), read(s, 5, 1)]).toEqual([0, 0]);
    const broken = {
      fill: () => {
        throw new VmError('EFAULT', 'no bytes');
      },
    };
    expect(() => s.pages.create(6, 0, 2, s.out, 0, s.store, broken)).toThrow(/EFAULT/);
    expect(s.pages.hold(6, 0)).toBe(-1);
    expectSound(s);
    endOracle(s);
  });

  it('are given up by invalidate, from an index on, but not while they are in use', () => {
    const s = setUp();
    for (let index = 0; index < 8; index++) write(s, 1, index, 1 + index);
    const frame = s.pages.hold(1, 6);
    expect(s.pages.invalidate(1, 5, 1000)).toBe(1);
    expect(s.pages.modifiedOf(1)).toBe(6);
    s.pages.release(frame);
    expect(s.pages.invalidate(1, 5)).toBe(0);
    expect(s.pages.modifiedOf(1)).toBe(5);
    expect(read(s, 1, 6)).toBe(0);
    expect(read(s, 1, 4)).toBe(5);
    endOracle(s);
  });

  it('keep in step with a model, through two threads of one memory', () => {
    const seed = Number(process.env.PAGEWRIGHT_SEED ?? 4711);
    const random = new Prng(seed);
    console.log(`modified pages against a model: seed ${seed}`);
    const first = setUp();
    const second = another(first);
    const model = new Map<string, number>();
    for (let step = 0; step < 6000; step++) {
      const s = random.chance(0.5) ? first : second;
      const vnode = random.below(6);
      const index = random.below(12);
      const choice = random.below(12);
      if (choice < 5) {
        model.set(`${vnode}:${index}`, step & 255);
        write(s, vnode, index, step & 255);
      } else if (choice < 9) {
        expect(read(s, vnode, index)).toBe(model.get(`${vnode}:${index}`) ?? 0);
      } else if (choice === 9) {
        if (random.chance(0.3)) first.store.refusals = random.below(3);
        try {
          s.pages.writeBack(vnode, index, random.between(1, 6), s.store);
        } catch (error) {
          expect((error as VmError).code).toBe('EIO');
        }
      } else if (choice === 10) {
        first.store.refusals = 0;
        s.pages.writeBack(vnode, 0, 12, s.store);
        expect(s.pages.modifiedOf(vnode)).toBe(0);
        for (let i = 0; i < 12; i++) {
          expect(first.store.kept.get(`${vnode}:${i}`) ?? 0).toBe(model.get(`${vnode}:${i}`) ?? 0);
        }
        expect(s.pages.drop(vnode, 12)).toBe(0);
      } else if (random.chance(0.2)) {
        for (let i = index; i < 12; i++) {
          model.set(`${vnode}:${i}`, first.store.kept.get(`${vnode}:${i}`) ?? 0);
        }
        expect(s.pages.invalidate(vnode, index, 12)).toBe(0);
      }
      if (step % 200 === 0) expectSound(first);
    }
    expect(pageStatistics(first.region).evictions).toBeGreaterThan(0);
    first.store.refusals = 0;
    endOracle(first);
  });
});

describe('a thread that dies', () => {
  it('before or while it stores bytes leaves the page sound, and modified once it has said so', () => {
    const s = setUp();
    const victim = another(s);
    s.pages.fetch(0, 0, 1, s.out, 0, s.store, true);
    s.pages.release(s.out[0] as number);
    let sawModified = 0;
    const steps = dieAtEveryStep({
      region: s.region,
      self: s.thread,
      victim: victim.thread,
      recoverers: [recoverPages],
      operation: () => {
        const frame = victim.pages.hold(0, 0);
        victim.pages.setModified(frame);
        victim.pages.setModified(frame);
        victim.pages.release(frame);
      },
      verify: () => {
        expectSound(s);
        sawModified += s.pages.modified;
        expect(s.pages.invalidate(0, 0, 1)).toBe(0);
        expect(s.frames.counts().free).toBe(FRAMES);
      },
    });
    expect(steps).toBeGreaterThan(15);
    expect(sawModified).toBeGreaterThan(3);
    expect(sawModified).toBeLessThan(steps);
    endOracle(s);
  });

  it('while it writes back leaves the pages modified until the store has their bytes', () => {
    const s = setUp();
    const victim = another(s);
    for (const index of [0, 1, 3]) write(s, 0, index, 5);
    let cleaned = 0;
    const steps = dieAtEveryStep({
      region: s.region,
      self: s.thread,
      victim: victim.thread,
      recoverers: [recoverPages],
      operation: () => {
        s.store.kept.clear();
        victim.pages.writeBack(0, 0, 8, s.store);
      },
      verify: () => {
        expectSound(s);
        cleaned += 3 - s.pages.modified;
        for (const index of [0, 1, 3]) {
          const frame = s.pages.hold(0, index);
          expect(frame).toBeGreaterThanOrEqual(0);
          s.pages.release(frame);
        }
        s.pages.writeBack(0, 0, 8, s.store);
        expect([0, 1, 3].map((index) => s.store.kept.get(`0:${index}`))).toEqual([5, 5, 5]);
        expect(s.pages.drop(0, 8)).toBe(0);
        expect(s.frames.counts().free).toBe(FRAMES);
      },
    });
    expect(steps).toBeGreaterThan(40);
    expect(cleaned).toBeGreaterThan(0);
    endOracle(s);
  });

  it('while it creates or gives up pages leaves none half made', () => {
    const s = setUp();
    const victim = another(s);
    write(s, 0, 2, 9);
    const source = { fill: () => 0 };
    const steps = dieAtEveryStep({
      region: s.region,
      self: s.thread,
      victim: victim.thread,
      recoverers: [recoverPages],
      operation: () => {
        victim.pages.create(0, 0, 2, victim.out, 0, s.store, source);
        for (const lane of [0, 1]) victim.pages.release(victim.out[lane] as number);
        victim.pages.invalidate(0, 0, 3);
      },
      verify: () => {
        expectSound(s);
        for (const index of [0, 1]) {
          const frame = s.pages.hold(0, index);
          if (frame < 0) continue;
          expect(s.pages.isClean(frame)).toBe(false);
          s.pages.release(frame);
        }
        expect(s.pages.invalidate(0, 0, 3)).toBe(0);
        expect(s.frames.counts().free).toBe(FRAMES);
      },
    });
    expect(steps).toBeGreaterThan(100);
    endOracle(s);
  });

  it('while it wrote a page back frees the claim for who waits', () => {
    const s = setUp();
    const victim = another(s);
    write(s, 0, 0, 5);
    const frame = victim.pages.hold(0, 0);
    const dirty = new DirtyPages(victim.thread);
    expect(dirty.claim(frame)).toBe(CLAIM.claimed);
    const mine = new DirtyPages(s.thread);
    expect(mine.claim(frame)).toBe(CLAIM.busy);
    expect(mine.awaitWriter(frame, 2)).toBe(false);
    recoverPages(s.thread, victim.thread.slot);
    expect(mine.awaitWriter(frame, 0)).toBe(true);
    expect(s.pages.writeBack(0, 0, 1, s.store)).toBe(1);
    expect(mine.claim(frame)).toBe(CLAIM.clean);
    endOracle(s);
  });
});
