import { expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { poisonReason, poisonRegion, refusePoisoned } from './poison.ts';
import { sleepOn } from './sleep.ts';

it('keeps the first reason, shortened to what fits', () => {
  const { region } = testRegion();
  expect(poisonReason(region)).toBe(null);
  refusePoisoned(region, 'attach');
  poisonRegion(region, `first ${'ü'.repeat(600)}`);
  poisonRegion(region, 'second');
  expect(poisonReason(region)).toMatch(/^first ü+$/);
  expect(() => refusePoisoned(region, 'attach')).toThrow(/EPOISONED: attach: the region is poisoned: first/);
});

it('stops a sleep', () => {
  const { region, thread } = testRegion();
  poisonRegion(region, 'broken');
  expect(() => sleepOn(thread, region.tables.bucket.head.address(0), 0, 1)).toThrow(/EPOISONED.*broken/);
  expect(() => thread.checkPoison()).toThrow(/EPOISONED/);
});
