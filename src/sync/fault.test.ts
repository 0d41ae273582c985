import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { armFault, disarmFault, FAULT_POINTS, faultPoint, waitForParked } from './fault.ts';

const POINT = 'sync.mutex.taken';

describe('fault points', () => {
  it('do nothing until they are armed', () => {
    const { region, thread } = testRegion();
    for (const point of FAULT_POINTS) expect(faultPoint(thread, point)).toBe(false);
    expect(disarmFault(region)).toBe(0);
  });

  it('fail once, after the passes that are let through', () => {
    const { region, thread } = testRegion();
    armFault(region, POINT, 'fail', { skip: 2 });
    const passes = [0, 1, 2, 3, 4].map(() => faultPoint(thread, POINT));
    expect(passes).toEqual([false, false, true, false, false]);
    expect(disarmFault(region)).toBe(1);
  });

  it('fail until disarmed', () => {
    const { region, thread } = testRegion();
    armFault(region, POINT, 'failAlways');
    expect([faultPoint(thread, POINT), faultPoint(thread, POINT)]).toEqual([true, true]);
    expect(faultPoint(thread, 'sync.mutex.released')).toBe(false);
    expect(disarmFault(region)).toBe(2);
    expect(faultPoint(thread, POINT)).toBe(false);
  });

  it('mean one slot if told so', () => {
    const { region, thread } = testRegion();
    const other = testThread(region);
    armFault(region, POINT, 'fail', { slot: other.slot });
    expect(faultPoint(thread, POINT)).toBe(false);
    expect(faultPoint(other, POINT)).toBe(true);
  });

  it('refuse unknown names', () => {
    const { region } = testRegion();
    expect(() => armFault(region, 'sync.mutex.nowhere' as never, 'fail')).toThrow(/EINVAL: armFault.*known points/);
    expect(waitForParked(region, 1)).toBe(-1);
  });

  it('have names of one form, each once', () => {
    expect(new Set(FAULT_POINTS).size).toBe(FAULT_POINTS.length);
    for (const point of FAULT_POINTS) expect(point).toMatch(/^[a-z]+\.[a-z][A-Za-z]*\.[a-z][A-Za-z]*$/);
  });
});
