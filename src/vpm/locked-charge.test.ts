import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { testRegion, testThread } from '../../test/support/region.ts';
import { createOwner, ownerUsage } from '../sync/index.ts';
import { LockedCharge, recoverMappings } from './locked-charge.ts';

function setUp() {
  const { region, thread } = testRegion({ tags: 64, tagBuckets: 128, pagelockEntries: 8, pagelockPins: 8 });
  createOwner(region, 'default', { lockedFrames: 200 });
  const other = createOwner(region, 'other', { lockedFrames: 100 });
  const used = () => ownerUsage(region).map(({ resources }) => resources.lockedFrames.used);
  return { region, thread, other, used };
}

describe('charges of mappings', () => {
  it('are paid in batches, move with the owner, and go back', () => {
    const { region, thread, other, used } = setUp();
    const charge = new LockedCharge(thread);
    charge.take(3);
    expect(used()).toEqual([64, 0]);
    charge.take(180);
    expect(used()).toEqual([183, 0]);
    expect(() => charge.take(18)).toThrow(/EDQUOT.*limit of locked frames is 200/);
    charge.give(180);
    expect(used()).toEqual([67, 0]);
    region.tables.slot.owner.put(thread.slot, other);
    charge.take(70);
    expect(used()).toEqual([0, 73]);
    expect(() => charge.take(28)).toThrow(/EDQUOT/);
    charge.give(73);
    charge.settle();
    expect(used()).toEqual([0, 0]);
  });

  it('leave nothing behind when their thread dies at any step', () => {
    const { region, thread, other, used } = setUp();
    const victim = testThread(region);
    const before = new LockedCharge(thread);
    before.take(1);
    let steps = 0;
    steps += dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [recoverMappings],
      operation: () => {
        const charge = new LockedCharge(victim);
        charge.take(10);
        charge.take(70);
        region.tables.slot.owner.put(victim.slot, other);
        charge.take(5);
        charge.give(85);
        charge.settle();
      },
      verify: () => expect(used()).toEqual([64, 0]),
    });
    expect(steps).toBeGreaterThan(20);
  });
});
