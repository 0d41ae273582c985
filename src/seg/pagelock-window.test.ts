/** What the pagelock cache charges to its window, and when it refuses. */

import { describe, expect, it } from 'vitest';
import { PAGE, testPagelock } from '../../test/support/pagelock.ts';
import { INSERT_COVERED, INSERT_REFUSED, PIN } from './index.ts';

describe('the window', () => {
  it('charges a range once, when it enters', () => {
    const { cache, owner } = testPagelock({ maxWindow: 10 });
    const segment = owner();
    cache.release(cache.insert(segment, 0, 6 * PAGE, 1, PIN.read));
    // The shorter idle range leaves before the longer one is charged.
    const longer = cache.insert(segment, 0, 10 * PAGE, 2, PIN.read);
    expect(longer).toBeGreaterThanOrEqual(0);
    expect(cache.windowPages).toBe(10);
    // Covered: nothing is charged, though the window is full.
    expect(cache.insert(segment, 0, 4 * PAGE, 3, PIN.read)).toBe(INSERT_COVERED);
    expect(cache.insert(segment, 100 * PAGE, PAGE, 4, PIN.read)).toBe(INSERT_REFUSED);
    expect(cache.insertCheck(PAGE, PIN.read)).toBe(false);
    expect(cache.insertCheck(PAGE, PIN.wired)).toBe(true);
  });

  it('is asked about beforehand with what a range would add to it', () => {
    const { cache, owner } = testPagelock({ maxWindow: 10 });
    const [segment, other] = [owner(), owner()];
    cache.release(cache.insert(segment, 0, 6 * PAGE, 1, PIN.read));
    const pin = cache.insert(segment, 8 * PAGE, 2 * PAGE, 2, PIN.read);
    const asks: [owner: number, first: number, pages: number, fits: boolean][] = [
      [segment, 4, 4, true],
      [segment, 0, 10, true],
      [segment, 0, 11, false],
      [segment, 20, 2, true],
      [segment, 20, 3, false],
      [other, 0, 6, false],
      [other, 0, 2, true],
    ];
    for (const [who, first, pages, fits] of asks) {
      expect(cache.insertCheck(pages * PAGE, PIN.read, who, first * PAGE), `${who} ${first} ${pages}`).toBe(fits);
    }
    // Without a place it can only count all pages.
    expect(cache.insertCheck(6 * PAGE, PIN.read)).toBe(false);
    // It was right: the longest that fits is cached, the next one is not.
    expect(cache.insert(segment, 0, 11 * PAGE, 3, PIN.read)).toBe(INSERT_REFUSED);
    expect(cache.insert(segment, 0, 10 * PAGE, 3, PIN.read)).toBeGreaterThanOrEqual(0);
    cache.release(pin);
    expect(cache.check().problems).toEqual([]);
    expect(() => cache.insertCheck(PAGE, PIN.read, 99, 0)).toThrow(/EINVAL.*insertCheck.*no such owner/);
  });

  it('charges pages once that several ranges have, in whatever order these come and go', () => {
    const ranges = [
      [0, 8],
      [4, 8],
      [10, 6],
      [2, 4],
      [30, 2],
    ] as const;
    const pagesOf = (some: readonly (readonly [number, number])[]) =>
      new Set(some.flatMap(([first, count]) => Array.from({ length: count }, (_, page) => first + page))).size;
    for (const order of [
      [0, 1, 2, 3, 4],
      [4, 3, 2, 1, 0],
      [1, 3, 0, 4, 2],
      [2, 0, 1, 4, 3],
    ]) {
      const { cache, owner, taken } = testPagelock({ maxWindow: 18 });
      const segment = owner();
      const pins = ranges.map(([first, count], shadow) =>
        cache.insert(segment, first * PAGE, count * PAGE, shadow, PIN.read),
      );
      // [2, 6) is covered; the others overlap in part, and fit although they have 24 pages together.
      expect(pins.map((pin) => Math.min(pin, 0))).toEqual([0, 0, 0, INSERT_COVERED, 0]);
      expect([cache.windowPages, cache.lockedPages]).toEqual([18, 18]);
      expect(cache.check().problems).toEqual([]);
      cache.purge(segment);
      const left = new Set([0, 1, 2, 4]);
      for (const leaving of order) {
        if (!left.delete(leaving)) continue;
        cache.release(pins[leaving] as number);
        const pages = pagesOf([...left].map((range) => ranges[range] as (typeof ranges)[number]));
        expect([cache.windowPages, cache.lockedPages]).toEqual([pages, pages]);
        expect(cache.check().problems).toEqual([]);
      }
      expect(taken().toSorted()).toEqual([0, 1, 2, 4]);
    }
  });

  it('has the reaper take ranges that share pages, and knows of others what they have alone', () => {
    const { cache, owner, taken } = testPagelock({ maxWindow: 103 });
    const [one, two] = [owner(), owner()];
    for (let range = 0; range < 10; range++) {
      cache.release(cache.insert(one, 5 * range * PAGE, 8 * PAGE, range, PIN.read));
      cache.release(cache.insert(two, 5 * range * PAGE, 5 * PAGE, 100 + range, PIN.read));
    }
    // Owners do not share: 9 times 5 and 8 pages here, ten times 5 there.
    expect(cache.windowPages).toBe(53 + 50);
    expect(taken()).toEqual([]);
    cache.reclaim(1000);
    expect([cache.windowPages, cache.lockedPages, taken().length]).toEqual([0, 0, 20]);
    expect(cache.check().problems).toEqual([]);
  });

  it('charges it first under the original rules, and refuses what would fit', () => {
    const { cache, owner } = testPagelock({ maxWindow: 10, compat: 'seed' });
    const segment = owner();
    const pin = cache.insert(segment, 0, 6 * PAGE, 1, PIN.read);
    cache.inactive(segment, 0, 6 * PAGE, pin, 1, PIN.read);
    expect(cache.insert(segment, 0, 10 * PAGE, 2, PIN.read)).toBe(INSERT_REFUSED);
    expect(cache.insert(segment, 0, 5 * PAGE, 3, PIN.read)).toBe(INSERT_REFUSED);
    // And pages that two ranges have are charged twice.
    expect(cache.insert(segment, 4 * PAGE, 4 * PAGE, 4, PIN.read)).toBeGreaterThanOrEqual(0);
    expect(cache.windowPages).toBe(10);
    expect(cache.insert(segment, 5 * PAGE, 2 * PAGE, 5, PIN.read)).toBe(INSERT_REFUSED);
    expect(cache.check().problems).toEqual([]);
  });

  it('looks at needed memory before it promises to cache', () => {
    for (const compat of [undefined, 'seed'] as const) {
      const { cache, gauges } = testPagelock(compat === undefined ? {} : { compat });
      gauges.freePages = 500;
      gauges.neededFree = 100;
      expect(cache.insertCheck(PAGE, PIN.read)).toBe(compat === 'seed');
      gauges.freePages = 499;
      expect(cache.insertCheck(PAGE, PIN.read)).toBe(false);
    }
  });
});
