import { expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { isShutDown, poisonReason, poisonRegion, refusePoisoned, shutDownRegion } from './poison.ts';
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

it('tells an end in order from a broken region: what came first', () => {
  for (const inOrder of [true, false]) {
    const { region, thread } = testRegion();
    expect(isShutDown(region)).toBe(false);
    if (inOrder) shutDownRegion(region);
    else poisonRegion(region, 'broken');
    shutDownRegion(region);
    poisonRegion(region, 'later');
    expect(isShutDown(region)).toBe(inOrder);
    expect(poisonReason(region)).toBe(inOrder ? 'the system was shut down' : 'broken');
    expect(() => thread.checkPoison()).toThrow(/EPOISONED/);
  }
});
