/** Whatever a cookie may lack, one after another: afterwards all is as it was before, and the next request is served. */

import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { createOwner, ownerUsage } from '../sync/index.ts';
import type { PmemFailure } from './kinds.ts';
import { Pmem } from './pmem.ts';
import type { PmemRequest } from './pmem-request.ts';
import type { PmemFaults } from './report.ts';

const PAGE = 4096;
const LARGE = 32;
const FRAMES = 512;

interface Lack {
  readonly reserveLimit?: number;
  readonly locked?: number;
  readonly quota?: number;
  readonly faults?: PmemFaults;
  /** Frames that somebody else has, every second one. */
  readonly taken?: number;
}

/** A pool with the rest of a large page, and a live cookie of 20 frames. */
function setUp(seed: boolean, { reserveLimit, locked, quota, faults, taken = 0 }: Lack) {
  const { region, thread } = testRegion({ frames: FRAMES, bankFrames: FRAMES, tags: 64, tagBuckets: 64 }, false, LARGE);
  const { pmemPool } = region.tables;
  pmemPool.seed.put(0, seed ? 1 : 0);
  if (reserveLimit !== undefined) pmemPool.reserveLimit.put(0, reserveLimit);
  createOwner(region, 'default', {
    ...(locked === undefined ? {} : { lockedFrames: locked }),
    ...(quota === undefined ? {} : { frames: quota }),
  });
  const frames = new Frames(thread);
  const lists = new PageLists(frames);
  const pmem = new Pmem(thread, new Banks([], FRAMES, FRAMES, PAGE), lists);
  frames.online(0, FRAMES);
  const live = pmem.alloc({ size: 20 * PAGE });
  const others = taken === 0 ? null : lists.alloc({ size: 2 * taken * PAGE });
  if (others !== null) {
    const first = others.runs[0]?.first as number;
    for (let frame = first; frame < first + 2 * taken; frame += 2) lists.giveFrame(frame);
  }
  if (faults !== undefined) pmem.setFaults(faults);
  const state = () => ({
    counts: frames.counts(),
    // The seed puts what it had from the pool back at its end.
    pmem: seed ? pmem.statistics() : pmem.snapshot(),
    owner: ownerUsage(region)[0]?.resources,
    free: Array.from({ length: FRAMES }, (_, frame) => frames.useOf(frame)),
  });
  return { pmem, lists, frames, live, state };
}

const refuseLarge = (from: number): PmemFaults => ({ largePage: (number) => number < from, tableRow: () => true });
const refuseRow = (row: number): PmemFaults => ({ largePage: () => true, tableRow: (number) => number !== row });

/** What is asked for is 100 frames: 12 from the pool, and then 88 as three large pages, or one by one. */
const LACKS: [string, Lack, PmemFailure, boolean?][] = [
  ['the limit of locked memory', { locked: 119 }, 'locked'],
  ['the limit of locked memory, used up', { locked: 20 }, 'locked'],
  ['the reservation', { reserveLimit: 32 }, 'reservation'],
  ['the reservation of one more large page', { reserveLimit: 107 }, 'reservation'],
  ['a row for the cookie', { faults: refuseRow(0) }, 'tables'],
  ['a second row for the cookie', { faults: refuseRow(1) }, 'tables'],
  ['a third row for the cookie', { faults: refuseRow(2) }, 'tables'],
  ['a row for the first large page', { faults: refuseRow(3) }, 'tables'],
  ['a row for the second large page', { faults: refuseRow(5) }, 'tables'],
  ['a row for the map of the third large page', { faults: refuseRow(8) }, 'tables'],
  ['any large page and enough frames', { faults: refuseLarge(0), taken: 200 }, 'frames'],
];

describe.each([false, true])('a cookie, seed way %s,', (seed) => {
  it.each(LACKS)('that lacks %s leaves all as it was', (_name, lack, failure) => {
    const full = lack.taken === undefined ? lack : { ...lack, taken: 0 };
    const { pmem, lists, live, state } = setUp(seed, full);
    // All but 80 frames belong to others, every second of them free.
    const others = lack.taken === undefined ? null : lists.alloc({ size: 400 * PAGE });
    const before = state();
    const request: PmemRequest = { size: 100 * PAGE };
    for (let times = 0; times < 3; times++) {
      expect(pmem.tryAlloc(request)).toBeNull();
      expect(pmem.lastReport.failure).toBe(failure);
      const after = state();
      expect(after).toEqual({ ...before, owner: withPeaksOf(after.owner, before.owner) });
    }
    expect(() => pmem.alloc(request)).toThrow(failure === 'locked' ? /EDQUOT.*locked/ : /ENOMEM/);
    pmem.setFaults(null);
    expect(pmem.check().problems).toEqual([]);
    if (others !== null) lists.free(others);
    pmem.free(live);
    pmem.trim();
    expect(pmem.statistics()).toEqual({
      cookies: 0,
      poolFrames: 0,
      largePages: 0,
      reserved: seed ? expect.any(Number) : 0,
    });
    lists.free(lists.alloc({ size: FRAMES * PAGE }));
  });

  it.each([0, 1, 2])('that gets %i large pages and no more has the rest one by one', (from) => {
    const { pmem, live } = setUp(seed, { faults: refuseLarge(from) });
    const cookie = pmem.alloc({ size: 100 * PAGE });
    expect(pmem.lastReport).toMatchObject({ fromPool: 12, newLarge: from, newSmall: 88 - from * LARGE });
    pmem.free(cookie);
    pmem.free(live);
    pmem.trim();
    expect(pmem.statistics()).toMatchObject({ cookies: 0, poolFrames: 0, largePages: 0 });
  });
});

it('a cookie that lacks the limit of frames leaves all as it was', () => {
  const { pmem, lists, live, state } = setUp(false, { quota: 119 });
  const before = state();
  expect(() => pmem.alloc({ size: 100 * PAGE })).toThrow(/EDQUOT.*limit of frames/);
  const after = state();
  expect(after).toEqual({ ...before, owner: withPeaksOf(after.owner, before.owner) });
  pmem.free(pmem.alloc({ size: 99 * PAGE }));
  pmem.free(live);
  pmem.trim();
  lists.free(lists.alloc({ size: 119 * PAGE }));
});

type Resources = ReturnType<ReturnType<typeof setUp>['state']>['owner'];

/** What was charged, beside the peaks that a request may have left. */
function withPeaksOf(peaks: Resources, charged: Resources): Resources {
  if (peaks === undefined || charged === undefined) return charged;
  const { frames, lockedFrames } = charged;
  return {
    ...charged,
    frames: { ...frames, peak: peaks.frames.peak },
    lockedFrames: { ...lockedFrames, peak: peaks.lockedFrames.peak },
  };
}
