/** Cookies that wait at their owner's limit of frames: for what the owner gives back, and until it is known to be in vain. */

import { describe, expect, it, vi } from 'vitest';
import { pmemSide } from '../../test/support/pmem-side.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Banks } from '../phys/index.ts';
import { CancelToken, chargeTo, createOwner, ownerUsage, setOwnerLimits, type Thread } from '../sync/index.ts';
import type { Cookie } from './kinds.ts';

const PAGE = 4096;
const FRAMES = 128;

/** `small` may have 40 of 128 frames, and another thread has 30 for it, half of them as a cookie. A stranger pays for itself. */
function setUp() {
  const { region, thread } = testRegion({ frames: FRAMES, bankFrames: FRAMES }, false, 16);
  createOwner(region, 'default');
  createOwner(region, 'small', { frames: 40 });
  const banks = Banks.create(FRAMES, FRAMES, PAGE);
  const side = pmemSide(thread, banks);
  side.frames.online(0, FRAMES);
  const [mate, stranger] = [testThread(region), testThread(region)].map((one) => pmemSide(one, banks));
  for (const one of [thread, mate?.thread as Thread]) chargeTo(one, 'small');
  let asked = 0;
  side.frames.onShortage(() => asked++);
  const mates = mate as typeof side;
  const list = mates.lists.alloc({ size: 15 * PAGE });
  const cookie = mates.pmem.alloc({ size: 15 * PAGE });
  const used = () => ownerUsage(region)[1]?.resources.frames.used;
  const expectEmpty = () => {
    expect(used()).toBe(0);
    for (const one of [side, mates, stranger as typeof side]) one.pmem.trim();
    expect([...side.pmem.check().problems, ...side.frames.check().problems]).toEqual([]);
    expect(side.pmem.statistics()).toMatchObject({ cookies: 0, poolFrames: 0, reserved: 0 });
    expect([side.frames.core.queue.count, side.lists.outstanding, asked]).toEqual([0, 0, 0]);
    expect(side.frames.takeRun(FRAMES)).toBe(0);
  };
  return { ...side, region, mates, strangers: stranger as typeof side, list, cookie, used, expectEmpty };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('a cookie above what its owner may have at present', () => {
  it.each([false, true])(
    'comes when the owner gives frames back, and asks nobody for others; contiguous: %s',
    async (contiguous) => {
      const s = setUp();
      let made: Cookie | undefined;
      const wait = s.pmem.allocAsync({ size: 20 * PAGE, contiguous }).then((cookie) => {
        made = cookie;
      });
      await turn();
      expect([made, s.frames.core.queue.count, s.used(), s.pmem.statistics().cookies]).toEqual([undefined, 1, 30, 1]);
      // Others are not kept from theirs.
      const theirs = s.strangers.pmem.alloc({ size: 20 * PAGE });
      if (contiguous) s.mates.lists.free(s.list);
      else s.mates.pmem.free(s.cookie);
      await wait;
      expect([made?.frames, s.used()]).toEqual([20, 35]);
      s.pmem.free(made as Cookie);
      s.strangers.pmem.free(theirs);
      if (contiguous) s.mates.pmem.free(s.cookie);
      else s.mates.lists.free(s.list);
      s.expectEmpty();
    },
  );

  it('comes to a thread that is blocked for it', () => {
    const s = setUp();
    // What another thread does while this one sleeps.
    const sleep = vi.spyOn(s.frames.core.queue, 'sleep').mockImplementationOnce(() => {
      s.mates.pmem.free(s.cookie);
      return false;
    });
    const made = s.pmem.alloc({ size: 20 * PAGE, wait: true });
    expect([made.frames, sleep.mock.calls.length, s.used()]).toEqual([20, 1, 35]);
    sleep.mockRestore();
    s.pmem.free(made);
    s.mates.lists.free(s.list);
    s.expectEmpty();
  });

  it('comes when the limit is raised, and ends when it is lowered below what it needs', async () => {
    const s = setUp();
    const wait = s.pmem.allocAsync({ size: 20 * PAGE });
    await turn();
    setOwnerLimits(s.thread, 'small', { frames: 50 });
    s.frames.core.mutex.enter();
    s.frames.core.queue.tellAll();
    s.frames.core.mutex.exit();
    const cookie = await wait;
    const late = s.pmem.allocAsync({ size: 20 * PAGE }).then(String, String);
    await turn();
    setOwnerLimits(s.thread, 'small', { frames: 19 });
    expect(await late).toMatch(/^VmError: EDQUOT: pmem\.allocAsync\(size=81920, owner="small".*limit of frames is 19/);
    s.pmem.free(cookie);
    s.mates.pmem.free(s.cookie);
    s.mates.lists.free(s.list);
    s.expectEmpty();
  });

  it('is refused at once when it is itself above the limit, or does not wait, or locks too much', async () => {
    const s = setUp();
    const tooMuch = { size: 41 * PAGE };
    await expect(s.pmem.allocAsync(tooMuch)).rejects.toThrow(/^EDQUOT: pmem\.allocAsync\(.*limit of frames is 40/);
    expect(() => s.pmem.alloc({ ...tooMuch, wait: true })).toThrow(/^EDQUOT: pmem\.alloc\(.*limit of frames is 40/);
    expect(s.pmem.tryAlloc({ ...tooMuch, wait: true })).toBeNull();
    expect(() => s.pmem.alloc({ size: 20 * PAGE })).toThrow(/^EDQUOT: pmem\.alloc\(/);
    expect(s.pmem.tryAlloc({ size: 20 * PAGE })).toBeNull();
    setOwnerLimits(s.thread, 'small', { lockedFrames: 20 });
    await expect(s.pmem.allocAsync({ size: 10 * PAGE })).rejects.toThrow(/^EDQUOT: .*limit of locked frames is 20/);
    // Above both limits: frames that come back would not help.
    await expect(s.pmem.allocAsync({ size: 25 * PAGE })).rejects.toThrow(/^EDQUOT: .*limit of locked frames is 20/);
    expect(() => s.pmem.alloc({ size: 25 * PAGE, wait: true })).toThrow(/^EDQUOT: .*limit of locked frames is 20/);
    s.mates.pmem.free(s.cookie);
    s.mates.lists.free(s.list);
    s.expectEmpty();
  });

  it('says what was in the way when its time is up or it is cancelled, blocking or not', async () => {
    const s = setUp();
    const rule = /^VmError: ETIMEDOUT: pmem\.alloc(Async)?\(size=81920.*owner "small" has 30 of its limit of 40 frames/;
    const request = { size: 20 * PAGE };
    expect(await s.pmem.allocAsync(request, { timeoutMs: 1 }).then(String, String)).toMatch(rule);
    const blocking = (wait: object) => {
      try {
        return String(s.pmem.alloc({ ...request, wait }));
      } catch (error) {
        return String(error);
      }
    };
    expect(blocking({ timeoutMs: 1 })).toMatch(rule);
    const cancel = CancelToken.create(s.thread);
    const wait = s.pmem.allocAsync(request, { cancel }).then(String, String);
    await turn();
    cancel.cancel();
    expect(await wait).toMatch(/ECANCELED: pmem\.allocAsync/);
    expect(blocking({ cancel })).toMatch(/ECANCELED: pmem\.alloc/);
    expect(s.used()).toBe(30);
    s.mates.pmem.free(s.cookie);
    // Now it fits at once.
    s.pmem.free(s.pmem.alloc({ ...request, wait: true }));
    s.mates.lists.free(s.list);
    s.expectEmpty();
  });
});
