import { expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';

it('a real clock goes on by itself and cannot be moved', () => {
  const { thread } = testRegion();
  const before = thread.clock.now();
  expect(thread.clock.isVirtual).toBe(false);
  expect(thread.clock.now()).toBeGreaterThanOrEqual(before);
  expect(() => thread.clock.advance(5)).toThrow(/ENOTSUP: clock.advance/);
});

it('a virtual clock moves when it is told to, for all threads, and never back', () => {
  const { thread } = testRegion({}, true);
  expect(thread.clock.now()).toBe(0);
  thread.clock.advance(1500);
  expect(thread.clock.now()).toBe(1500);
  for (const step of [-1, Number.NaN]) expect(() => thread.clock.advance(step)).toThrow(/EINVAL: clock.advance/);
  expect(thread.clock.now()).toBe(1500);
});
