import { describe, expect, it } from 'vitest';
import { leaveUnbalanced, testRegion } from '../../test/support/region.ts';
import { charge, createOwner, findOwner, OWNER_RESOURCE, ownerOf, ownerUsage, tryCharge, uncharge } from './owners.ts';

describe('owners', () => {
  it('are found by name and created once', () => {
    const { region } = testRegion();
    expect(findOwner(region, 'web')).toBe(-1);
    const web = createOwner(region, 'web', { lockedFrames: 4 });
    expect(findOwner(region, 'web')).toBe(web);
    expect(() => createOwner(region, 'web')).toThrow(/EEXIST: createOwner\(name="web"\)/);
  });

  it('refuse bad names, resources and limits with nothing changed', () => {
    const { region } = testRegion();
    expect(() => createOwner(region, '')).toThrow(/EINVAL: createOwner.*1 to 63 bytes/);
    expect(() => createOwner(region, 'x'.repeat(64))).toThrow(/1 to 63 bytes/);
    expect(() => createOwner(region, 'a', { frame: 1 } as never)).toThrow(/known resources: lockedFrames/);
    expect(() => createOwner(region, 'a', { toString: 1 } as never)).toThrow(/known resources/);
    expect(() => createOwner(region, 'a', { lockedFrames: -1 })).toThrow(
      /EINVAL: createOwner\(limits.lockedFrames=-1\)/,
    );
    expect(ownerUsage(region)).toEqual([]);
  });

  it('run out', () => {
    const { region } = testRegion({ owners: 2 });
    createOwner(region, 'a');
    createOwner(region, 'b');
    expect(() => createOwner(region, 'c')).toThrow(/ENOMEM: createOwner.*all 2 rows/);
  });

  it('skip a row whose creator died, and still see names behind it', () => {
    const { region } = testRegion();
    region.tables.owner.state.put(0, 2);
    const a = createOwner(region, 'a');
    expect(a).toBe(1);
    expect(() => createOwner(region, 'a')).toThrow(/EEXIST/);
  });

  it('are charged up to the limit and no further', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default', { lockedFrames: 10 });
    expect(ownerOf(thread)).toBe(0);
    charge(thread, 'lockedFrames', 6);
    expect(tryCharge(thread, OWNER_RESOURCE.lockedFrames, 5)).toBe(false);
    expect(() => charge(thread, 'lockedFrames', 5)).toThrow(
      /EDQUOT: charge lockedFrames\(owner="default", amount=5, used=6\): the owner's limit is 10/,
    );
    expect(tryCharge(thread, OWNER_RESOURCE.lockedFrames, 4)).toBe(true);
    uncharge(thread, 0, OWNER_RESOURCE.lockedFrames, 10);
    const free = createOwner(region, 'free');
    region.tables.slot.owner.put(thread.slot, free);
    // Nothing is locked for it.
    leaveUnbalanced();
    charge(thread, 'lockedFrames', 1e6);
    expect(ownerUsage(region)).toMatchObject([
      { name: 'default', resources: { lockedFrames: { used: 0, peak: 10, limit: 10 } } },
      { name: 'free', resources: { lockedFrames: { used: 1e6, peak: 1e6, limit: null } } },
    ]);
    expect(() => uncharge(thread, 0, OWNER_RESOURCE.lockedFrames, 1)).toThrow(/sync\/owners I2/);
  });
});
