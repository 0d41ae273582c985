import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { PageHolds } from './page-holds.ts';

const FRAMES = 16;

function setUp() {
  const { region, thread } = testRegion({ frames: FRAMES });
  return { mine: new PageHolds(thread), theirs: new PageHolds(testThread(region)) };
}

describe('page locks in wrong hands', () => {
  it('are not given back, downgraded or upgraded by a thread that does not hold them', () => {
    const { mine, theirs } = setUp();
    const calls = [
      () => mine.releaseExclusive(3),
      () => mine.downgrade(3),
      () => mine.tryUpgrade(3),
      () => mine.release(3),
    ];
    for (const call of calls) expect(call).toThrow(/EINVAL/);
    expect(theirs.exclusive(3)).toBe(true);
    for (const call of calls) expect(call).toThrow(/EINVAL/);
    expect(theirs.isMine(3)).toBe(true);
    theirs.downgrade(3);
    for (const call of calls) expect(call).toThrow(/EINVAL/);
    expect(theirs.depthOf(3)).toBe(1);
    expect(mine.shared(3)).toBe(true);
    for (const call of calls.slice(0, 2)) expect(call).toThrow(/EINVAL/);
    mine.release(3);
    expect([mine.pages, mine.exclusivePages]).toEqual([0, 0]);
    expect(theirs.tryUpgrade(3)).toBe(true);
    theirs.releaseExclusive(3);
    expect([theirs.pages, theirs.exclusivePages, theirs.isHeld(3)]).toEqual([0, 0, false]);
  });

  it('are those of frames that exist', () => {
    const { mine } = setUp();
    for (const frame of [-1, FRAMES, 0.5, Number.NaN, undefined as never]) {
      expect(() => mine.tryShared(frame)).toThrow(/EINVAL/);
      expect(() => mine.shared(frame)).toThrow(/EINVAL/);
      expect(() => mine.release(frame)).toThrow(/EINVAL/);
      expect(() => mine.tryExclusive(frame)).toThrow(/EINVAL/);
      expect(() => mine.exclusive(frame)).toThrow(/EINVAL/);
      expect(() => mine.releaseExclusive(frame)).toThrow(/EINVAL/);
      expect(() => mine.downgrade(frame)).toThrow(/EINVAL/);
      expect(() => mine.tryUpgrade(frame)).toThrow(/EINVAL/);
    }
    expect([mine.pages, mine.exclusivePages]).toEqual([0, 0]);
    expect(mine.shared(FRAMES - 1)).toBe(true);
    mine.release(FRAMES - 1);
  });
});
