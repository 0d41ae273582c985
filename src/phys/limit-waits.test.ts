import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import type { Geometry } from '../layout/index.ts';
import { CancelToken, chargeTo, createOwner, ownerUsage, removeOwner, setOwnerLimits } from '../sync/index.ts';
import type { PageList } from './frame-runs.ts';
import { FRAME_USE } from './frame-uses.ts';
import { Frames } from './frames.ts';
import { LIST_STAGE } from './list-hand.ts';
import { PageLists } from './page-lists.ts';

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

/** 64 frames; `small` may have 16 of them, and has 12. Two threads charge it, a third one `default`. */
function setUp() {
  const { region, thread } = testRegion({ ...SMALL, frames: 64, bankFrames: 64 });
  createOwner(region, 'default');
  createOwner(region, 'small', { frames: 16 });
  const frames = new Frames(thread);
  frames.online(0, 64);
  const lists = new PageLists(frames);
  const mate = testThread(region);
  const stranger = testThread(region);
  for (const one of [thread, mate]) chargeTo(one, 'small');
  const mates = new PageLists(new Frames(mate));
  const held = mates.alloc({ size: 12 * PAGE });
  const used = () => ownerUsage(region)[1]?.resources.frames.used;
  /** Nobody waits, and all can be had again. */
  const expectAllFree = () => {
    setOwnerLimits(thread, 'small', { frames: null });
    expect(frames.core.queue.count).toBe(0);
    expect(used()).toBe(0);
    expect(frames.check().problems).toEqual([]);
    lists.free(lists.alloc({ size: 64 * PAGE }));
    for (const { heldCount } of [thread, mate, stranger]) expect(heldCount).toBe(0);
  };
  return {
    region,
    thread,
    frames,
    lists,
    mate,
    mates,
    strangers: new PageLists(new Frames(stranger)),
    held,
    expectAllFree,
  };
}

const settled = async (promise: Promise<unknown>, turns = 3): Promise<boolean> => {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
  return done;
};

describe('requests above the limit of their owner', () => {
  it('wait until the owner gives frames back, and evict nothing meanwhile', async () => {
    const { frames, lists, mates, held, expectAllFree } = setUp();
    let asked = 0;
    frames.onShortage(() => asked++);
    const wait = lists.allocAsync({ size: 8 * PAGE });
    expect(await settled(wait)).toBe(false);
    expect(frames.core.queue.count).toBe(1);
    mates.free({ runs: [{ first: 0, count: 3 }], frameCount: 3 });
    expect(await settled(wait)).toBe(false);
    mates.free({ runs: [{ first: 3, count: 9 }], frameCount: 9 });
    expect((await wait).frameCount).toBe(8);
    expect([asked, held.frameCount]).toEqual([0, 12]);
    lists.free(await wait);
    expectAllFree();
  });

  it('wait until the limit is raised, and are refused when it is lowered below what they ask for', async () => {
    const { thread, frames, lists, mates, held, expectAllFree } = setUp();
    const waits = [lists.allocAsync({ size: 8 * PAGE }), lists.allocAsync({ size: 16 * PAGE })];
    const refused = expect(waits[1]).rejects.toThrow(/EDQUOT.*frames=16, owner="small", used=12\): .* is 15/);
    expect(await settled(waits[0] as Promise<unknown>)).toBe(false);
    setOwnerLimits(thread, 'small', { frames: 15 });
    frames.core.limitsChanged();
    await refused;
    expect(await settled(waits[0] as Promise<unknown>)).toBe(false);
    setOwnerLimits(thread, 'small', { frames: 20 });
    frames.core.limitsChanged();
    const list = await waits[0];
    expect(list?.frameCount).toBe(8);
    lists.free(list as PageList);
    mates.free(held);
    expectAllFree();
  });

  it('end after their time, by a token, by a signal, and say what was in the way', async () => {
    const { thread, lists, mates, held, expectAllFree } = setUp();
    const late = /ETIMEDOUT.*in time; the owner "small" has 12 of its limit of 16 frames/;
    expect(() => lists.allocWait({ size: 5 * PAGE }, { timeoutMs: 2 })).toThrow(late);
    await expect(lists.allocAsync({ size: 5 * PAGE }, { timeoutMs: 2 })).rejects.toThrow(late);
    const token = CancelToken.create(thread);
    const cancelled = expect(lists.allocAsync({ size: 5 * PAGE }, { cancel: token })).rejects.toThrow(/ECANCELED/);
    token.cancel();
    await cancelled;
    const controller = new AbortController();
    const aborted = lists.allocAsync({ size: 5 * PAGE }, { signal: controller.signal });
    expect(await settled(aborted)).toBe(false);
    controller.abort();
    await expect(aborted).rejects.toThrow(/ECANCELED/);
    token.release();
    mates.free(held);
    expectAllFree();
  });

  it('end when their owner is removed, and say so in the name of the call', async () => {
    const { region, thread, lists, mates, strangers, held, expectAllFree } = setUp();
    const rest = strangers.alloc({ size: 52 * PAGE });
    const gone = createOwner(region, 'gone');
    chargeTo(thread, 'gone');
    const wait = lists.allocAsync({ size: 2 * PAGE });
    const refused = expect(wait).rejects.toThrow(
      new RegExp(`^EINVAL: pageList.allocAsync\\(owner=${gone}\\): the owner .* was removed`),
    );
    expect(await settled(wait)).toBe(false);
    chargeTo(thread, 'small');
    removeOwner(thread, 'gone');
    await refused;
    expect(() => chargeTo(thread, gone)).toThrow(/^EINVAL: chargeTo\(owner=/);
    // Nor does another owner pay that has come to the row, whether this thread charges it by then or not.
    for (const turns of [false, true]) {
      expect(createOwner(region, 'heir')).toBe(gone);
      chargeTo(thread, 'heir');
      const orphan = lists.allocAsync({ size: 2 * PAGE });
      const orphaned = expect(orphan).rejects.toThrow(/^EINVAL: pageList.allocAsync.*was removed/);
      expect(await settled(orphan)).toBe(false);
      chargeTo(thread, 'small');
      removeOwner(thread, 'heir');
      expect(createOwner(region, 'next')).toBe(gone);
      if (turns) chargeTo(thread, 'next');
      await orphaned;
      expect(ownerUsage(region)[gone]).toMatchObject({ name: 'next', resources: { frames: { peak: 0 } } });
      chargeTo(thread, 'small');
      removeOwner(thread, 'next');
    }
    strangers.free(rest);
    mates.free(held);
    expectAllFree();
  });

  it('do not stand in the way of other owners, who come later, but keep their place among their own', async () => {
    const { thread, frames, lists, mates, strangers, held, expectAllFree } = setUp();
    const rest = strangers.alloc({ size: 52 * PAGE });
    const order: string[] = [];
    const note = (name: string) => (list: PageList) => {
      order.push(name);
      return list;
    };
    const first = lists.allocAsync({ size: 7 * PAGE }).then(note('first'));
    const other = strangers.allocAsync({ size: 5 * PAGE }).then(note('other'));
    const second = lists.allocAsync({ size: 4 * PAGE }).then(note('second'));
    expect(await settled(other)).toBe(false);
    expect(frames.core.queue.count).toBe(3);
    // Seven frames are free: enough for each of them, but the owner of two has only four left.
    strangers.free({ runs: [{ first: rest.runs[0]?.first as number, count: 7 }], frameCount: 7 });
    await other;
    expect(await settled(second)).toBe(false);
    expect(order).toEqual(['other']);
    // Requests that do not wait go by those of other owners, too.
    for (let round = 0; round < 20; round++) {
      const list = strangers.tryAlloc({ size: 2 * PAGE });
      expect(list?.frameCount).toBe(2);
      strangers.free(list as PageList);
    }
    mates.free(held);
    await Promise.all([first, second]);
    expect(order).toEqual(['other', 'first', 'second']);
    for (const list of await Promise.all([first, second])) lists.free(list);
    strangers.free(await other);
    strangers.free({ runs: [{ first: (rest.runs[0]?.first as number) + 7, count: 45 }], frameCount: 45 });
    expect(thread.heldCount).toBe(0);
    expectAllFree();
  });

  it('never take more than the limit, whatever others of the owner take while room is made', async () => {
    const { region, frames, lists, mates, strangers, held, expectAllFree } = setUp();
    const { core } = frames;
    const rest = strangers.alloc({ size: 52 * PAGE });
    const start = rest.runs[0]?.first as number;
    // Three runs of three, each with a frame behind it that is given up when asked for.
    for (const at of [0, 4, 8]) strangers.free({ runs: [{ first: start + at, count: 3 }], frameCount: 3 });
    const gone = new Set([3, 7, 11].map((at) => start + at));
    let between: PageList | null = null;
    const reclaim = (frame: number, use: number): boolean => {
      if (!gone.has(frame)) return false;
      between ??= mates.tryAlloc({ size: 3 * PAGE, segments: 3 });
      core.mutex.enter();
      core.convert(frame, use);
      core.mutex.exit();
      return gone.delete(frame);
    };
    frames.setReclaimer({ reclaim }, FRAME_USE.list);
    const small = () => ownerUsage(region)[1]?.resources.frames;
    const wait = lists.allocAsync({ size: 4 * PAGE });
    expect(await settled(wait)).toBe(false);
    expect(between).toMatchObject({ frameCount: 3 });
    expect(small()).toMatchObject({ used: 15, peak: 15 });
    expect(frames.check().problems).toEqual([]);
    mates.free(between as unknown as PageList);
    expect((await wait).frameCount).toBe(4);
    expect(small()).toMatchObject({ used: 16, peak: 16 });
    expect(frames.check().problems).toEqual([]);
    lists.free(await wait);
    mates.free(held);
    const left = [3, 7, 11].map((at) => start + at).filter((frame) => gone.has(frame));
    for (const first of left) strangers.free({ runs: [{ first, count: 1 }], frameCount: 1 });
    strangers.free({ runs: [{ first: start + 12, count: 40 }], frameCount: 40 });
    expectAllFree();
  });

  it('are served whoever dies while giving frames back', async () => {
    const { region, thread, frames, lists, mate, mates, held, expectAllFree } = setUp();
    for (const free of [
      () => mates.free(held),
      () => {
        for (const { first, count } of held.runs) for (let at = 0; at < count; at++) mates.giveFrame(first + at);
      },
    ]) {
      let served = 0;
      const steps = dieAtEveryStep({
        region,
        self: thread,
        victim: mate,
        recoverers: [(_self, dead) => lists.recover(dead), (_self, dead) => frames.recover(dead)],
        operation: free,
        verify: () => {
          // All, some or none of the twelve are free: what fits now is served, what does not is not.
          const most = 16 - (ownerUsage(region)[1]?.resources.frames.used as number);
          expect(() => lists.allocWait({ size: (most + 1) * PAGE, segments: 16 }, { timeoutMs: 0 })).toThrow(
            /ETIMEDOUT|EDQUOT/,
          );
          const list = lists.allocWait({ size: most * PAGE, segments: 16 }, { timeoutMs: 0 });
          served += list.frameCount;
          lists.free(list);
          expect(frames.check().problems).toEqual([]);
        },
      });
      expect(served).toBeGreaterThan(4 * steps);
      expect(steps).toBeGreaterThan(5);
    }
    const mine = lists.listOf(mate.attachment);
    if (mine.frameCount > 0) lists.free(mine);
    expectAllFree();
  });

  it('wake when a recovery gives back what a dead thread was giving', async () => {
    const { thread, frames, lists, mate, expectAllFree } = setUp();
    const wait = lists.allocAsync({ size: 16 * PAGE, segments: 16 });
    expect(await settled(wait)).toBe(false);
    const { pageListSlot } = thread.region.tables;
    // As a thread leaves it that died after it was certain, and before anything was free.
    const { core } = frames;
    core.mutex.enter();
    for (let frame = 0; frame < 12; frame++) {
      core.restamp(frame, core.wordOf(frame) + FRAME_USE.listGiving - FRAME_USE.list);
    }
    core.mutex.exit();
    pageListSlot.first.put(mate.slot, 0);
    pageListSlot.count.put(mate.slot, 12);
    pageListSlot.stage.put(mate.slot, LIST_STAGE.giving);
    lists.recover(mate.slot);
    const list = await wait;
    expect(list.frameCount).toBe(16);
    lists.free(list);
    expectAllFree();
  });
});
