import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Touches } from '../../test/support/touches.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { createOwner } from '../sync/index.ts';
import type { Cookie } from './kinds.ts';
import { Pmem } from './pmem.ts';

const PAGE = 4096;
const LARGE = 32;

/** Pmem beside so many large pages, half of each a live cookie and the other half in the pool; what touches its tables is counted. */
function beside(largePages: number) {
  const frames = 2 * LARGE * largePages + 4096;
  const geometry = { frames, bankFrames: frames, pmemCookies: 4 * largePages + 64, pmemRuns: 8 * largePages + 512 };
  const { region, thread } = testRegion(geometry, false, LARGE);
  const { largePage, fullness, fullnessMap, pmemRun, pmemCookie, pmemPool } = region.tables;
  pmemPool.keepLarge.put(0, 2);
  createOwner(region, 'default');
  const touches = new Touches([largePage, fullness, fullnessMap, pmemRun, pmemCookie, pmemPool]);
  const rooms = new Frames(thread);
  const pmem = new Pmem(thread, new Banks([], frames, frames, PAGE), new PageLists(rooms));
  rooms.online(0, frames);
  const cookies: Cookie[] = [];
  for (let half = 0; half < 2 * largePages; half++) cookies.push(pmem.alloc({ size: (LARGE / 2) * PAGE }));
  for (let half = 0; half < 2 * largePages; half += 2) pmem.free(cookies[half] as Cookie);
  expect(pmem.statistics().largePages).toBe(largePages);
  return { pmem, touches };
}

/** Steps to make and free a cookie, after one that is not counted. */
function steps({ pmem, touches }: ReturnType<typeof beside>, frames: number): number {
  const pair = () => pmem.free(pmem.alloc({ size: frames * PAGE }));
  pair();
  return touches.by(pair);
}

describe('steps of pmem', () => {
  it.each([1, 16, 50])(
    'to make and free a cookie of %i frames are as many beside 400 large pages as beside 10',
    (frames) => {
      const few = steps(beside(10), frames);
      const many = steps(beside(400), frames);
      console.log(`${frames} frames: ${few} touches beside 10 large pages, ${many} beside 400`);
      expect(few).toBeGreaterThan(10);
      expect(many).toBe(few);
    },
  );

  it('to find the large page of a frame are as many beside 400 large pages as beside 10', () => {
    const lookUp = (largePages: number) => {
      const { pmem, touches } = beside(largePages);
      const cookie = pmem.cookies().at(-1) as Cookie;
      return touches.by(() => pmem.free(cookie));
    };
    expect(lookUp(400)).toBe(lookUp(10));
  });
});
