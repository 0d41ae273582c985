import { describe, expect, it } from 'vitest';
import { dieAtEveryStep } from '../../test/support/deaths.ts';
import { beforeEveryStep } from '../../test/support/meanwhile.ts';
import { leaveUnbalanced, testRegion, testThread } from '../../test/support/region.ts';
import { registerOwner, removeOwner, setOwnerLimits } from './owner-changes.ts';
import { redeemPledge, tryPledge } from './owner-ledger.ts';
import {
  charge,
  chargeTo,
  chargingTo,
  createOwner,
  findOwner,
  isOwner,
  OWNER_RESOURCE,
  ownerOf,
  ownerStay,
  ownerUsage,
  tryCharge,
  uncharge,
} from './owners.ts';
import { setSeam } from './seam.ts';
import { takeOver } from './takeover.ts';

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
    for (const name of ['a\0b', 'a\0', '\ud800']) {
      expect(() => createOwner(region, name)).toThrow(/EINVAL: createOwner.*well-formed text without zero characters/);
    }
    expect(() => createOwner(region, 'a', { frame: 1 } as never)).toThrow(/known resources: lockedFrames/);
    expect(() => createOwner(region, 'a', { toString: 1 } as never)).toThrow(/known resources/);
    expect(() => createOwner(region, 'a', { lockedFrames: -1 })).toThrow(
      /EINVAL: createOwner\(limits.lockedFrames=-1\)/,
    );
    expect(ownerUsage(region)).toEqual([]);
  });

  it('refuse what are no limits', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'b', {});
    for (const limits of [[], 5, null, 'x']) {
      expect(() => setOwnerLimits(thread, 'b', limits as never)).toThrow(
        /^EINVAL: setOwnerLimits\(limits=.*must be an object/,
      );
      expect(() => createOwner(region, 'c', limits as never)).toThrow(
        /^EINVAL: createOwner\(limits=.*must be an object/,
      );
    }
  });

  it('run out', () => {
    const { region } = testRegion({ owners: 2 });
    createOwner(region, 'a');
    createOwner(region, 'b');
    expect(() => createOwner(region, 'c')).toThrow(/ENOMEM: createOwner.*all 2 rows/);
  });

  it('are not given a name twice when a row in front of it has become free', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default');
    createOwner(region, 'a');
    createOwner(region, 'b');
    removeOwner(thread, 'a');
    expect(() => createOwner(region, 'b')).toThrow(/EEXIST: createOwner\(name="b"\)/);
    expect(createOwner(region, 'c')).toBe(1);
  });

  it('are registered by one thread at a time, which may die at any step', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default');
    const victim = testThread(region);
    let there = 0;
    const steps = dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [],
      operation: () => registerOwner(victim, 'web', { frames: 7 }),
      verify: () => {
        if (findOwner(region, 'web') < 0) {
          expect(registerOwner(thread, 'web', { frames: 7 })).toBe(1);
        } else {
          there++;
          expect(() => registerOwner(thread, 'web')).toThrow(/EEXIST/);
        }
        expect(ownerUsage(region)[1]).toMatchObject({ name: 'web', resources: { frames: { limit: 7 } } });
        removeOwner(thread, 'web');
      },
    });
    console.log(`registering an owner: ${steps} steps, there after ${there}`);
    expect(there).toBeGreaterThan(0);
    expect(there).toBeLessThan(steps);
  });

  it('are those of the name that was asked for, whatever becomes of the row before any step', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default');
    const other = testThread(region);
    const ends = { charged: 0, gone: 0 };
    const rename = (step: number) => {
      try {
        removeOwner(other, 'web');
      } catch (error) {
        expect(error).toMatchObject({ code: 'EBUSY' });
        return;
      }
      // The row has another name now, and may have got the first one in another place.
      expect(createOwner(region, 'mail')).toBe(1);
      if (step % 2 === 0) createOwner(region, 'web');
    };
    createOwner(region, 'web');
    beforeEveryStep(rename, () => {
      try {
        chargeTo(thread, 'web');
        ends.charged++;
        expect(ownerUsage(region).at(ownerOf(thread))?.name).toBe('web');
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOENT' });
        expect(ownerOf(thread)).toBe(0);
        ends.gone++;
      }
      setSeam(undefined);
      chargeTo(thread, 0);
      for (const name of ['web', 'mail']) if (findOwner(region, name) >= 0) removeOwner(thread, name);
      createOwner(region, 'web');
    });
    console.log('turning to an owner whose row changes hands', JSON.stringify(ends));
    expect(ends.charged).toBeGreaterThan(2);
    expect(ends.gone).toBeGreaterThan(0);
  });

  it('stay while a thread that charges them serves a request of another one, at every step', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default');
    createOwner(region, 'own');
    createOwner(region, 'asked');
    const other = testThread(region);
    chargeTo(thread, 'asked');
    const stay = ownerStay(thread);
    chargeTo(thread, 'own');
    let attempts = 0;
    let isTrying = false;
    const remove = () => {
      if (isTrying) return;
      isTrying = true;
      expect(() => removeOwner(other, 'own')).toThrow(/^EBUSY/);
      isTrying = false;
      attempts++;
    };
    beforeEveryStep(remove, () => {
      chargingTo(thread, stay, 'test', () => {
        expect(ownerOf(thread)).toBe(2);
        // What is served may itself serve something.
        chargingTo(thread, { owner: 0, generation: 0 }, 'test', remove);
        remove();
      });
      expect(ownerOf(thread)).toBe(1);
    });
    expect(attempts).toBeGreaterThan(10);
    chargeTo(thread, 0);
    removeOwner(other, 'own');
    expect(() => chargingTo(thread, { owner: 1, generation: 0 }, 'test', remove)).toThrow(/^EINVAL: test\(owner=1\)/);
    expect(createOwner(region, 'new')).toBe(1);
    expect(() => chargingTo(thread, { owner: 1, generation: 0 }, 'test', remove)).toThrow(/^EINVAL: test\(owner=1\)/);
    expect(ownerOf(thread)).toBe(0);
    removeOwner(other, 'new');
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

describe('owners that change', () => {
  it('get other limits, which count from then on and take nothing away', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default', { lockedFrames: 10 });
    charge(thread, 'lockedFrames', 8);
    setOwnerLimits(thread, 'default', { lockedFrames: 5, arenaBytes: 2 ** 40 });
    expect(tryCharge(thread, OWNER_RESOURCE.lockedFrames, 1)).toBe(false);
    expect(ownerUsage(region)[0]?.resources).toMatchObject({
      lockedFrames: { used: 8, limit: 5 },
      arenaBytes: { used: 0, limit: 2 ** 40 },
      frames: { limit: null },
    });
    setOwnerLimits(thread, 0, { lockedFrames: null });
    expect(tryCharge(thread, OWNER_RESOURCE.lockedFrames, 1000)).toBe(true);
    uncharge(thread, 0, OWNER_RESOURCE.lockedFrames, 1008);
    expect(ownerUsage(region)[0]?.resources).toMatchObject({
      lockedFrames: { used: 0, limit: null },
      arenaBytes: { limit: 2 ** 40 },
    });
    for (const limits of [{ lockedFrames: -1 }, { lockedFrames: 0.5 }, { pages: 1 }, { toString: null }, null, 5]) {
      expect(() => setOwnerLimits(thread, 0, limits as never)).toThrow(/^EINVAL: setOwnerLimits/);
    }
    for (const owner of [1, -1, 0.5, 99, 'nobody']) {
      expect(() => setOwnerLimits(thread, owner, {})).toThrow(/^ENOENT: setOwnerLimits\(owner=/);
    }
  });

  it('go when nothing is charged to them, and leave a clean row and a free name', () => {
    const { region, thread } = testRegion({ owners: 2 });
    createOwner(region, 'default');
    const web = createOwner(region, 'web', { lockedFrames: 4, arenaBytes: 100 });
    chargeTo(thread, 'web');
    charge(thread, 'lockedFrames', 3);
    expect(tryPledge(thread, web, 60)).toBe(true);
    chargeTo(thread, 'default');
    const busy =
      /^EBUSY: removeOwner\(owner="web", lockedFrames=3, arenaBytes=60\): an owner is removed when nothing is/;
    expect(() => removeOwner(thread, 'web')).toThrow(busy);
    uncharge(thread, web, OWNER_RESOURCE.lockedFrames, 3);
    expect(() => removeOwner(thread, web)).toThrow(/^EBUSY: removeOwner\(owner="web", arenaBytes=60\)/);
    redeemPledge(thread);
    expect(() => removeOwner(thread, web, [() => 'a room'])).toThrow(/^EBUSY: .*usedBy="a room"/);
    expect(() => removeOwner(thread, 0)).toThrow(/^EINVAL: removeOwner\(owner=0\): the default owner/);
    removeOwner(thread, 'web', [() => '']);
    expect([findOwner(region, 'web'), ownerUsage(region).length]).toEqual([-1, 1]);
    expect(() => chargeTo(thread, web)).toThrow(/^EINVAL: chargeTo/);
    expect(() => chargeTo(thread, 'web')).toThrow(/^ENOENT: chargeTo/);
    expect(() => removeOwner(thread, web)).toThrow(/^ENOENT: removeOwner/);
    expect(ownerOf(thread)).toBe(0);
    expect(createOwner(region, 'other')).toBe(web);
    expect(ownerUsage(region)[1]).toMatchObject({
      name: 'other',
      resources: { lockedFrames: { used: 0, peak: 0, limit: null }, arenaBytes: { used: 0, peak: 0, limit: null } },
    });
  });

  it('stay while a thread charges them, and go when it turns away or has died', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default');
    const web = createOwner(region, 'web');
    const other = testThread(region);
    chargeTo(other, web);
    expect(() => removeOwner(thread, web)).toThrow(
      new RegExp(`^EBUSY: removeOwner\\(owner="web", slots="${other.slot}"\\)`),
    );
    chargeTo(other, 0);
    removeOwner(thread, web);
    const next = createOwner(region, 'next');
    chargeTo(other, next);
    expect(() => removeOwner(thread, next)).toThrow(/^EBUSY/);
    takeOver(thread, other.slot, []);
    removeOwner(thread, next);
    expect(ownerUsage(region).map(({ name }) => name)).toEqual(['default']);
  });

  it('are whole or gone when the thread that removes them dies at any step', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default');
    const web = createOwner(region, 'web', { lockedFrames: 7 });
    const victim = testThread(region);
    let gone = 0;
    const steps = dieAtEveryStep({
      region,
      self: thread,
      victim,
      recoverers: [],
      operation: () => removeOwner(victim, 'web'),
      verify: () => {
        if (findOwner(region, 'web') < 0) {
          gone++;
          expect(ownerUsage(region).map(({ name }) => name)).toEqual(['default']);
        } else {
          expect(() => createOwner(region, 'web')).toThrow(/EEXIST/);
          chargeTo(thread, 'web');
          expect(ownerUsage(region)[1]).toMatchObject({ name: 'web', resources: { lockedFrames: { limit: 7 } } });
          chargeTo(thread, 0);
          removeOwner(thread, 'web');
        }
        expect(createOwner(region, 'next')).toBe(web);
      },
    });
    console.log(`removing an owner: ${steps} steps, gone in ${gone}`);
    expect(steps).toBeGreaterThan(8);
    expect(gone).toBeGreaterThan(0);
    expect(gone).toBeLessThan(steps);
  });

  it('are not removed under a thread that turned to them before any step of the removal', () => {
    const { region, thread } = testRegion();
    createOwner(region, 'default');
    const web = createOwner(region, 'web');
    const other = testThread(region);
    const counts = { refused: 0, removed: 0, turned: 0 };
    for (let stop = 0, more = true; more; stop++) {
      if (findOwner(region, 'web') < 0) expect(createOwner(region, 'web')).toBe(web);
      let step = 0;
      more = false;
      let isTurned = false;
      setSeam(() => {
        if (step++ !== stop) return;
        setSeam(undefined);
        more = true;
        // What `chargeTo` does, up to where it would wait for the removal.
        region.tables.slot.owner.put(other.slot, web);
        isTurned = isOwner(region, web);
      });
      let isRemoved = true;
      try {
        removeOwner(thread, web);
      } catch (error) {
        expect(error).toMatchObject({ code: 'EBUSY' });
        isRemoved = false;
      }
      setSeam(undefined);
      if (isTurned) expect([stop, isRemoved]).toEqual([stop, false]);
      counts[isRemoved ? 'removed' : 'refused']++;
      if (isTurned) counts.turned++;
      region.tables.slot.owner.put(other.slot, 0);
    }
    console.log(`removing an owner that a thread turns to: ${JSON.stringify(counts)}`);
    expect(Math.min(counts.refused, counts.turned)).toBeGreaterThan(1);
    expect(counts.removed).toBeGreaterThan(0);
  });
});
