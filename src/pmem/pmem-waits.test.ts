/** Cookies that are waited for: with the event loop free, and blocking; what ends the wait, and what errors say. */

import { describe, expect, it } from 'vitest';
import { pmemSide } from '../../test/support/pmem-side.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Banks } from '../phys/index.ts';
import { CancelToken, createOwner, ownerUsage } from '../sync/index.ts';
import type { Pmem } from './pmem.ts';

const PAGE = 4096;
const FRAMES = 128;

function setUp() {
  const { region, thread } = testRegion({ frames: FRAMES, bankFrames: FRAMES }, false, 16);
  createOwner(region, 'default', { lockedFrames: 60 });
  const banks = Banks.create(FRAMES, FRAMES, PAGE);
  const side = pmemSide(thread, banks);
  side.frames.online(0, FRAMES);
  return { region, banks, ...side };
}

type Side = ReturnType<typeof setUp>;

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Everything that was made is gone, and nobody waits. */
function expectEmpty({ region, frames, lists, pmem }: Side): void {
  pmem.trim();
  expect([...pmem.check().problems, ...frames.check().problems]).toEqual([]);
  expect(pmem.statistics()).toEqual({ cookies: 0, poolFrames: 0, largePages: 0, reserved: 0 });
  expect(ownerUsage(region)[0]?.resources.lockedFrames.used).toBe(0);
  expect([frames.core.queue.count, lists.outstanding]).toEqual([0, 0]);
  expect(frames.takeRun(FRAMES)).toBe(0);
}

describe('a cookie that is awaited', () => {
  it.each([false, true])('comes when frames are given back by another thread; contiguous: %s', async (contiguous) => {
    const s = setUp();
    const other = pmemSide(testThread(s.region), s.banks);
    const most = other.lists.alloc({ size: (FRAMES - 4) * PAGE, segments: FRAMES });
    let cookie: Awaited<ReturnType<Pmem['allocAsync']>> | undefined;
    const waits = s.pmem.allocAsync({ size: 20 * PAGE, contiguous }, { timeoutMs: 60_000 }).then((made) => {
      cookie = made;
    });
    await turn();
    expect([cookie, s.frames.core.queue.count]).toEqual([undefined, 1]);
    // It keeps nothing while it waits.
    expect(s.pmem.statistics()).toMatchObject({ cookies: 0, poolFrames: 0, reserved: 0 });
    expect(s.frames.counts().free).toBe(4);
    other.lists.free(most);
    await waits;
    expect(cookie?.frames).toBe(20);
    if (contiguous) expect(s.pmem.runs(cookie as never)).toHaveLength(1);
    s.pmem.free(cookie as never);
    expectEmpty(s);
  });

  it('is one of several that one thread waits for, beside others that it makes meanwhile', async () => {
    const s = setUp();
    const most = s.lists.alloc({ size: (FRAMES - 4) * PAGE });
    const waits = [8, 16, 9, 20].map((frames) => s.pmem.allocAsync({ size: frames * PAGE }));
    await turn();
    const small = s.pmem.alloc({ size: PAGE });
    const pieces = most.runs.flatMap(({ first, count }) =>
      Array.from({ length: count / 4 }, (_, at) => ({ runs: [{ first: first + 4 * at, count: 4 }], frameCount: 4 })),
    );
    for (const piece of pieces) {
      s.lists.free(piece);
      await turn();
    }
    const cookies = await Promise.all(waits);
    const frames = [...cookies, small].flatMap((cookie) => s.pmem.getPfns(cookie, 0, cookie.frames));
    expect(new Set(frames).size).toBe(54);
    for (const cookie of [...cookies, small]) s.pmem.free(cookie);
    expectEmpty(s);
  });

  it('is given up after its time, by a token, by a signal; the error names the call and what was asked for', async () => {
    const s = setUp();
    const most = s.lists.alloc({ size: (FRAMES - 4) * PAGE });
    const request = { size: 20 * PAGE };
    await expect(s.pmem.allocAsync(request, { timeoutMs: 1 })).rejects.toThrow(
      /^ETIMEDOUT: pmem.allocAsync\(size=81920, timeoutMs=1\)/,
    );
    const token = CancelToken.create(s.thread);
    const controller = new AbortController();
    const waits = [
      s.pmem.allocAsync(request, { cancel: token }),
      s.pmem.allocAsync(request, { signal: controller.signal }),
      s.lists.allocAsync(request, { cancel: token }),
    ].map((wait) => wait.then(String, String));
    await turn();
    expect(s.frames.core.queue.count).toBe(3);
    token.cancel();
    controller.abort();
    expect(await Promise.all(waits)).toEqual([
      expect.stringMatching(/ECANCELED: pmem.allocAsync:/),
      expect.stringMatching(/ECANCELED: pmem.allocAsync:/),
      expect.stringMatching(/ECANCELED: pageList.allocAsync:/),
    ]);
    await expect(s.pmem.allocAsync(request, { cancel: token })).rejects.toThrow(/ECANCELED: pmem.allocAsync/);
    s.lists.free(most);
    expectEmpty(s);
  });

  it('is refused at once where waiting cannot help', async () => {
    const s = setUp();
    const most = s.lists.alloc({ size: (FRAMES - 4) * PAGE });
    await expect(s.pmem.allocAsync({ size: 61 * PAGE })).rejects.toThrow(/^EDQUOT: pmem.allocAsync\(/);
    await expect(s.pmem.allocAsync({ size: 64 * PAGE })).rejects.toThrow(/^ENOMEM: pmem.allocAsync\(.*less than half/);
    await expect(s.pmem.allocAsync({ size: PAGE, wait: true } as never)).rejects.toThrow(
      /^EINVAL: pmem.allocAsync\(.*options/,
    );
    s.lists.free(most);
    for (let first = 16; first < FRAMES; first += 32) s.frames.offline(first, 16);
    await expect(s.pmem.allocAsync({ size: 20 * PAGE, contiguous: true })).rejects.toThrow(
      /^EINVAL: pmem.allocAsync\(size=81920, contiguous=true\): waiting cannot help/,
    );
    for (let first = 16; first < FRAMES; first += 32) s.frames.online(first, 16);
    expectEmpty(s);
  });
});

describe('a cookie that the thread is blocked for', () => {
  it('names the call and what was asked for when time is up, or it is cancelled', () => {
    const s = setUp();
    const most = s.lists.alloc({ size: (FRAMES - 4) * PAGE });
    const token = CancelToken.create(s.thread);
    expect(() => s.pmem.alloc({ size: 9 * PAGE, wait: { timeoutMs: 1 } })).toThrow(
      /^ETIMEDOUT: pmem.alloc\(size=36864, .*timeoutMs=1\)/,
    );
    token.cancel();
    expect(() => s.pmem.alloc({ size: 9 * PAGE, wait: { cancel: token } })).toThrow(/^ECANCELED: pmem.alloc/);
    s.lists.free(most);
    expectEmpty(s);
  });
});
