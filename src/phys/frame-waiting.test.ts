import { setMaxListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { CancelToken } from '../sync/index.ts';
import { FRAME_USE, Frames } from './frames.ts';
import { PageLists } from './page-lists.ts';

const PAGE = 4096;

function setUp(count = 64) {
  const { region, thread } = testRegion({ frames: count, bankFrames: count });
  const frames = new Frames(thread);
  frames.online(0, count);
  return { region, thread, frames, lists: new PageLists(frames) };
}

function expectSound(frames: Frames): void {
  expect(frames.check().problems).toEqual([]);
  expect(frames.core.queue.count).toBe(0);
  expect(frames.core.thread.heldCount).toBe(0);
}

const turns = (count: number) =>
  Array.from({ length: count }).reduce<Promise<void>>(
    (before) => before.then(() => new Promise((resolve) => setImmediate(resolve))),
    Promise.resolve(),
  );

describe('waiting for frames', () => {
  it('refuses at once what can never be served', async () => {
    const { frames, lists } = setUp();
    expect(() => frames.takeRunWait(65)).toThrow(/EINVAL.*waiting cannot help/);
    expect(() => lists.allocWait({ size: 65 * PAGE })).toThrow(/EINVAL.*waiting cannot help/);
    await expect(lists.allocAsync({ size: PAGE, low: 64 * PAGE })).rejects.toThrow(/EINVAL/);
    frames.watermarks.set({ kernelReserve: 60 });
    expect(() => frames.takeRunWait(5)).toThrow(/EINVAL/);
    expect(frames.takeRunWait(4)).toBe(0);
    frames.giveRun(0, 4);
    expectSound(frames);
  });

  it('ends after its time, by a token, by a signal', async () => {
    const { thread, frames, lists } = setUp();
    frames.takeRun(64);
    frames.settle();
    expect(() => frames.takeWait(FRAME_USE.page, { timeoutMs: 1 })).toThrow(/ETIMEDOUT.*timeoutMs=1/);
    expect(() => lists.allocWait({ size: PAGE }, { timeoutMs: 0 })).toThrow(/ETIMEDOUT/);
    await expect(frames.takeRunAsync(3, { timeoutMs: 1 })).rejects.toThrow(/ETIMEDOUT/);
    const token = CancelToken.create(thread);
    token.cancel();
    expect(() => frames.takeRunWait(3, { cancel: token })).toThrow(/ECANCELED/);
    const controller = new AbortController();
    const waits = lists.allocAsync({ size: PAGE }, { signal: controller.signal });
    await turns(2);
    expect(frames.core.queue.count).toBe(1);
    controller.abort();
    await expect(waits).rejects.toThrow(/ECANCELED/);
    expectSound(frames);
  });

  it('serves requests of a class in the order in which they came', async () => {
    const { region, frames, lists } = setUp();
    const second = new PageLists(new Frames(testThread(region)));
    const all = lists.alloc({ size: 64 * PAGE });
    const order: string[] = [];
    const taken: number[] = [];
    const note = (name: string) => (list: { runs: readonly { first: number; count: number }[] }) => {
      order.push(name);
      taken.push(list.runs[0]?.first as number);
    };
    const waits = [
      lists.allocAsync({ size: 4 * PAGE }).then(note('first')),
      second.allocAsync({ size: 5 * PAGE }).then(note('second')),
      second.allocAsync({ size: 16 * PAGE }).then(note('large')),
      lists.allocAsync({ size: PAGE }).then(note('small')),
    ];
    await turns(2);
    expect(frames.core.queue.count).toBe(4);
    // Five frames would serve the second one, but it is the first one's turn.
    lists.free({ runs: [{ first: 10, count: 5 }], frameCount: 5 });
    await Promise.all([waits[0], waits[3]]);
    expect(order.sort()).toEqual(['first', 'small']);
    expect(taken.every((frame) => frame >= 10 && frame < 15)).toBe(true);
    lists.free({ runs: [{ first: 30, count: 21 }], frameCount: 21 });
    await Promise.all(waits);
    expect(order.slice(2).sort()).toEqual(['large', 'second']);
    expect(taken.slice(2).every((frame) => frame >= 30)).toBe(true);
    expect(frames.core.queue.served).toBe(4);
    expectSound(frames);
    expect(all.frameCount).toBe(64);
  });

  it('lets a waiter be overtaken only so often', async () => {
    const { region, frames, lists } = setUp();
    const second = new PageLists(new Frames(testThread(region)));
    lists.alloc({ size: 64 * PAGE });
    const waits = lists.allocAsync({ size: 4 * PAGE });
    await turns(2);
    // The waiter is told, but its thread is busy here: others come first, as many as there are slots.
    let served = 0;
    for (let round = 0; round < 20; round++) {
      lists.giveFrame(7);
      if (round === 0) for (const frame of [4, 5, 6]) lists.giveFrame(frame);
      const list = second.tryAlloc({ size: 4 * PAGE });
      if (list === null) break;
      served++;
      for (const frame of [4, 5, 6]) second.giveFrame(frame);
    }
    expect(served).toBe(region.geometry.slots);
    expect((await waits).runs).toEqual([{ first: 4, count: 4 }]);
    expectSound(frames);
  });

  it('refuses when too many wait, and forgets a dead waiter', async () => {
    const { region, frames, lists } = setUp();
    const victim = testThread(region);
    const dead = new Frames(victim);
    lists.alloc({ size: 64 * PAGE });
    const rows = region.geometry.frameWaiters;
    const controller = new AbortController();
    setMaxListeners(rows, controller.signal);
    const waits = Array.from({ length: rows }, () =>
      dead.takeAsync(FRAME_USE.page, { signal: controller.signal }).catch((error: Error) => error.message),
    );
    await turns(2);
    await expect(frames.takeAsync(FRAME_USE.page)).rejects.toThrow(/ENOMEM.*wait already/);
    controller.abort();
    for (const message of await Promise.all(waits)) expect(message).toMatch(/ECANCELED/);
    dead.core.mutex.enter();
    dead.core.queue.join(3);
    dead.core.mutex.exit();
    expect(frames.core.queue.count).toBe(1);
    frames.recover(victim.slot);
    expectSound(frames);
  });
});

describe('reserves', () => {
  it('are left to those with more rights, also by the takes of the page cache', () => {
    const { frames, lists } = setUp(64);
    frames.watermarks.set({ pagedaemonReserve: 4, kernelReserve: 8 });
    const out = new Int32Array(32);
    let taken = 0;
    for (let got = 1; got > 0; taken += got) got = frames.tryTakeSeveral(FRAME_USE.page, 32, out, 0);
    expect(taken).toBe(52);
    expect(frames.tryTake(FRAME_USE.page)).toBe(-1);
    expect(frames.tryTakeRun(1)).toBe(-1);
    expect(lists.tryTakeFrame()).toBe(-1);
    expect(lists.tryAlloc({ size: PAGE })).toBeNull();
    expect(frames.withPrivilege('system', () => frames.tryTakeSeveral(FRAME_USE.page, 32, out, 0))).toBe(8);
    expect(frames.withPrivilege('system', () => frames.tryTake(FRAME_USE.page))).toBe(-1);
    expect(frames.withPrivilege('pagedaemon', () => lists.alloc({ size: 4 * PAGE }).frameCount)).toBe(4);
    expect(frames.counts().free).toBe(0);
    expect(frames.reserve).toBe(12);
    expectSound(frames);
  });
});
