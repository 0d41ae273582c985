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
  it('are paid in batches, stay with who made them when the thread turns to another owner, and go back', () => {
    const { region, thread, other, used } = setUp();
    const charge = new LockedCharge(thread);
    const first = charge.take(3, 'map');
    expect(used()).toEqual([64, 0]);
    charge.take(180, 'map');
    expect(used()).toEqual([183, 0]);
    expect(() => charge.take(18, 'as.pin')).toThrow(/EDQUOT: as.pin\(.*limit of locked frames is 200/);
    charge.give(180, first);
    expect(used()).toEqual([67, 0]);
    region.tables.slot.owner.put(thread.slot, other);
    // The limit of the new owner counts from the first frame on; what was paid ahead for the old one is given back.
    expect(() => charge.take(101, 'map')).toThrow(/EDQUOT: map\(owner="other", frames=101, pinnedHere=3\)/);
    expect(used()).toEqual([3, 0]);
    const second = charge.take(70, 'map');
    expect(used()).toEqual([3, 70]);
    expect(() => charge.take(31, 'map')).toThrow(/EDQUOT/);
    charge.give(1, first);
    expect(used()).toEqual([2, 70]);
    charge.settle();
    charge.give(60, second);
    charge.settle();
    expect(used()).toEqual([2, 10]);
    // Whoever does not say who was charged gives back to the owner charged last first.
    charge.giveAny(11);
    charge.settle();
    expect(used()).toEqual([1, 0]);
    expect(charge.pinned).toBe(1);
    charge.give(1, first);
    expect(used()).toEqual([0, 0]);
  });

  it('leave nothing behind when their thread dies at any step', () => {
    const { region, thread, other, used } = setUp();
    const victim = testThread(region);
    const before = new LockedCharge(thread);
    before.take(1, 'map');
    let steps = 0;
    steps += dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [recoverMappings],
      operation: () => {
        const charge = new LockedCharge(victim);
        const first = charge.take(10, 'map');
        charge.take(70, 'map');
        region.tables.slot.owner.put(victim.slot, other);
        charge.take(5, 'map');
        charge.give(75, first);
        charge.giveAny(10);
        charge.settle();
      },
      verify: () => expect(used()).toEqual([64, 0]),
    });
    expect(steps).toBeGreaterThan(20);
  });
});
