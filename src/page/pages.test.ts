import { describe, expect, it, vi } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Prng, VmError } from '../base/index.ts';
import type { Geometry } from '../layout/index.ts';
import { Banks } from '../phys/banks.ts';
import type { PageList } from '../phys/frame-runs.ts';
import { FRAME_USE, Frames } from '../phys/frames.ts';
import { PageLists } from '../phys/page-lists.ts';
import { armFault, disarmFault } from '../sync/index.ts';
import { checkPages } from './check.ts';
import { PAGE_STATE, PageHash } from './page-hash.ts';
import { PageHolds } from './page-holds.ts';
import type { PageStore } from './page-store.ts';
import { Pages } from './pages.ts';
import { recoverPages } from './recovery.ts';

/** A store whose page (vnode, index) begins with vnode and index; it can be made to fail. */
class StubStore implements PageStore {
  fills: [number, number, number][] = [];
  writes: [number, number, number][] = [];
  /** The third byte of each page as it was written back. */
  readonly kept = new Map<string, number>();
  failing = false;
  readonly #banks: Banks;

  constructor(banks: Banks) {
    this.#banks = banks;
  }

  fill(vnode: number, index: number, frames: Int32Array, at: number, count: number): number {
    if (this.failing) throw new VmError('EIO', 'stub');
    this.fills.push([vnode, index, count]);
    for (let page = 0; page < count; page++) {
      const view = this.#banks.view((frames[at + page] as number) * this.#banks.pageSize, 8);
      view[0] = vnode;
      view[1] = (index + page) & 255;
      view[2] = this.kept.get(`${vnode}:${index + page}`) ?? 0;
    }
    return count * this.#banks.pageSize;
  }

  write(vnode: number, index: number, frames: Int32Array, at: number, count: number): void {
    if (this.failing) throw new VmError('EIO', 'stub');
    this.writes.push([vnode, index, count]);
    for (let page = 0; page < count; page++) {
      const view = this.#banks.view((frames[at + page] as number) * this.#banks.pageSize, 3);
      this.kept.set(`${vnode}:${index + page}`, view[2] as number);
    }
  }
}

function setUp(frameCount = 16, overrides: Partial<Geometry> = {}) {
  const { region, thread } = testRegion({ frames: frameCount, bankFrames: frameCount, ...overrides });
  const banks = Banks.create(frameCount, frameCount, 4096);
  const frames = new Frames(thread);
  frames.online(0, frameCount);
  const pages = new Pages(thread, frames, banks);
  return { region, thread, banks, frames, pages, store: new StubStore(banks), out: new Int32Array(32) };
}

type Setup = ReturnType<typeof setUp>;

function expectSound({ thread, frames }: Setup): void {
  expect(checkPages(thread).problems).toEqual([]);
  expect(frames.check().problems).toEqual([]);
}

describe('pages', () => {
  it('miss once, then hit, in adjacent frames filled by one call', () => {
    const s = setUp();
    expect(s.pages.hold(3, 0)).toBe(-1);
    expect(s.pages.fetch(3, 0, 5, s.out, 0, s.store, true)).toBe(5);
    expect([...s.out.subarray(0, 5)]).toEqual([0, 1, 2, 3, 4]);
    expect(s.store.fills).toEqual([[3, 0, 5]]);
    expect(s.pages.hold(3, 2)).toBe(2);
    expect(s.pages.held).toBe(5);
    for (const frame of [0, 1, 2, 3, 4, 2]) s.pages.release(frame);
    expect(s.pages.held).toBe(0);
    expect(() => s.pages.release(2)).toThrow(/EINVAL: pages.release.*a thread that holds it/);
    expectSound(s);
  });

  it('fetches only what is missing, in one call per gap', () => {
    const s = setUp();
    s.pages.fetch(0, 2, 1, s.out, 0, s.store, true);
    s.pages.release(s.out[0] as number);
    expect(s.pages.fetch(0, 0, 6, s.out, 0, s.store, true)).toBe(6);
    expect(s.store.fills.slice(1)).toEqual([
      [0, 0, 2],
      [0, 3, 3],
    ]);
  });

  it('evicts by second chance, never what is held', () => {
    const s = setUp(8);
    s.pages.fetch(0, 0, 8, s.out, 0, s.store, true);
    for (let i = 2; i < 8; i++) s.pages.release(s.out[i] as number);
    s.pages.fetch(1, 0, 6, s.out, 8, s.store, true);
    expect(s.pages.hold(0, 0)).toBe(s.out[0]);
    expect(s.pages.hold(0, 1)).toBe(s.out[1]);
    expect(s.pages.hold(0, 5)).toBe(-1);
    expectSound(s);
  });

  it('returns what it can get when pinned pages leave no more, or refuses', () => {
    const s = setUp(8);
    s.pages.fetch(0, 0, 6, s.out, 0, s.store, true);
    expect(s.pages.fetch(1, 0, 5, s.out, 8, s.store, false)).toBe(2);
    expect(() => s.pages.fetch(2, 0, 5, s.out, 16, s.store, true)).toThrow(/ENOMEM: pages.fetch.*pinned/);
    expect(s.pages.held).toBe(8);
    for (let i = 0; i < 6; i++) s.pages.release(s.out[i] as number);
    expect(s.pages.fetch(2, 0, 5, s.out, 16, s.store, true)).toBe(5);
    expectSound(s);
  });

  it('waits for frames that another thread is about to have or to give back, not for those that are taken for good', () => {
    const s = setUp(4);
    const other = new PageLists(new Frames(testThread(s.region)));
    let list = other.tryTakeHeld({ size: 4 * 4096 }) as PageList;
    let sleeps = 0;
    const counting = vi.spyOn(s.thread, 'countSlept').mockImplementation(() => {
      if (++sleeps === 3) other.giveUp(list);
    });
    expect(s.pages.fetch(0, 0, 2, s.out, 0, s.store, true)).toBe(2);
    expect(sleeps).toBe(3);
    for (let i = 0; i < 2; i++) s.pages.release(s.out[i] as number);
    expect(s.pages.drop(0, 2)).toBe(0);
    list = other.alloc({ size: 4 * 4096 });
    expect(() => s.pages.fetch(0, 0, 2, s.out, 0, s.store, true)).toThrow(/ENOMEM.*list=4.*is taken/);
    expect(sleeps).toBe(3);
    counting.mockRestore();
    other.free(list);
    expectSound(s);
  });

  it('are empty again when the store fails, and what was held is released', () => {
    const s = setUp();
    s.pages.fetch(0, 0, 2, s.out, 0, s.store, true);
    s.pages.release(s.out[0] as number);
    s.pages.release(s.out[1] as number);
    s.store.failing = true;
    expect(() => s.pages.fetch(0, 0, 4, s.out, 0, s.store, true)).toThrow(/EIO/);
    expect(s.pages.held).toBe(0);
    expect(s.frames.counts().page).toBe(2);
    s.store.failing = false;
    expect(s.pages.fetch(0, 0, 4, s.out, 0, s.store, true)).toBe(4);
    armFault(s.region, 'page.fill.reading', 'fail');
    expect(() => s.pages.fetch(1, 0, 4, s.out, 8, s.store, true)).toThrow(/injected/);
    disarmFault(s.region);
    expectSound(s);
  });

  it('are dropped with their vnode, but for those in use', () => {
    const s = setUp();
    for (const vnode of [0, 1]) {
      s.pages.fetch(vnode, 0, 4, s.out, vnode * 4, s.store, true);
      for (let i = 1; i < 4; i++) s.pages.release(s.out[vnode * 4 + i] as number);
    }
    expect(s.pages.drop(0, 4)).toBe(1);
    s.pages.release(s.out[0] as number);
    expect(s.pages.drop(0, 1000)).toBe(0);
    expect(s.frames.counts().page).toBe(4);
    expect(s.pages.hold(1, 3)).toBe(s.out[7]);
    expectSound(s);
  });

  it('give way to a run of frames', () => {
    const s = setUp(32);
    for (let index = 0; index < 32; index++) {
      s.pages.fetch(0, index, 1, s.out, index, s.store, true);
      if (index !== 9) s.pages.release(s.out[index] as number);
    }
    expect(s.frames.counts().free).toBe(0);
    expect(s.frames.tryTakeRun(23)).toBe(-1);
    expect(s.frames.takeRun(22)).toBe(10);
    s.frames.settle();
    expectSound(s);
    expect(s.pages.fetch(0, 10, 1, s.out, 0, s.store, true)).toBe(1);
  });

  it('go back when their filler or holder dies', () => {
    const s = setUp();
    const victim = testThread(s.region);
    const frames = new Frames(victim);
    const holds = new PageHolds(victim);
    const hash = new PageHash(victim);
    const [stray, locked, filling, valid] = [0, 1, 2, 3].map(() => frames.tryTake(FRAME_USE.page)) as number[];
    for (const frame of [locked, filling, valid] as number[]) holds.exclusive(frame);
    hash.insert(filling as number, 5, 1);
    hash.insert(valid as number, 5, 2);
    s.region.tables.page.state.put(valid as number, PAGE_STATE.valid);
    s.pages.fetch(6, 0, 1, s.out, 0, s.store, true);
    holds.shared(s.out[0] as number);
    s.pages.release(s.out[0] as number);
    expect(s.pages.drop(6, 1)).toBe(1);
    recoverPages(s.thread, victim.slot);
    expect(frames.useOf(stray as number)).toBe(FRAME_USE.free);
    expect(s.frames.counts().page).toBe(2);
    expect(s.pages.hold(5, 2)).toBe(valid);
    expect(s.pages.drop(6, 1)).toBe(0);
    expectSound(s);
  });

  it.each([8, 64, 1024])('are found in ranges as they are one by one, with %i buckets', (pageBuckets) => {
    const s = setUp(64, { pageBuckets });
    const random = new Prng(78);
    for (let step = 0; step < 40; step++) {
      s.pages.release(
        s.out[s.pages.fetch(random.below(2), random.below(90), 1, s.out, 0, s.store, true) - 1] as number,
      );
    }
    for (let first = 0; first < 90; first++) {
      for (const end of [first, first + 1, first + random.below(40), 96]) {
        const pages = Array.from({ length: end - first }, (_, page) => first + page);
        expect(s.pages.firstSeeming(1, first, end)).toBe(pages.find((page) => s.pages.seems(1, page)) ?? end);
      }
    }
  });

  it('keep in step with a naive model', () => {
    const random = new Prng(77);
    const s = setUp(24);
    const present = new Map<string, number>();
    const held: [string, number][] = [];
    for (let step = 0; step < 20_000; step++) {
      const choice = random.below(10);
      const vnode = random.below(5);
      const index = random.below(14);
      if (choice < 6 && held.length < 16) {
        const count = random.between(1, 4);
        const got = s.pages.fetch(vnode, index, count, s.out, 0, s.store, true);
        expect(got).toBe(count);
        for (let i = 0; i < count; i++) {
          const frame = s.out[i] as number;
          const bytes = s.banks.view(frame * 4096, 2);
          expect([...bytes]).toEqual([vnode, index + i]);
          held.push([`${vnode}:${index + i}`, frame]);
          present.set(`${vnode}:${index + i}`, frame);
        }
      } else if (choice < 9 && held.length > 0) {
        const [[, frame]] = held.splice(random.below(held.length), 1) as [[string, number]];
        s.pages.release(frame);
      } else if (choice === 9) {
        const pinned = new Set(held.filter(([key]) => key.startsWith(`${vnode}:`)).map(([key]) => key));
        expect(s.pages.drop(vnode, random.chance(0.5) ? 18 : 1000)).toBe(pinned.size);
      }
      // What is held stays where it is, and is found there.
      for (const [key, frame] of held.slice(0, 3)) {
        const [v, i] = key.split(':').map(Number) as [number, number];
        expect(s.pages.hold(v, i)).toBe(frame);
        s.pages.release(frame);
      }
      if (step % 500 === 0) expectSound(s);
    }
    for (const [, frame] of held) s.pages.release(frame);
    for (let vnode = 0; vnode < 5; vnode++) expect(s.pages.drop(vnode, 1000)).toBe(0);
    expect(s.frames.counts().free).toBe(24);
    expect(s.frames.takeRun(24)).toBe(0);
    expectSound(s);
  });
});
