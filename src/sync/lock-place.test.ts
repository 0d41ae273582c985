import { describe, expect, it } from 'vitest';
import { end, system } from '../../test/support/named-locks.ts';

describe('a lock whose holder has died', () => {
  it('tells the next one, who repairs or does not get it', () => {
    const { locks, attach } = system();
    const victim = attach();
    victim.locks.mutex('m').enter();
    expect(locks.mutex('m').tryEnter()).toBe(false);
    victim.die();
    const { slot } = victim.thread;
    expect(locks.list()).toMatchObject([{ holder: null, abandonedBy: slot }]);
    expect(locks.dump()).toBe(`mutex "m", abandoned by ${slot}`);
    for (let round = 0; round < 2; round++) {
      expect(() => locks.mutex('m').enter()).toThrow(
        new RegExp(`EOWNERDEAD: mutex.enter\\(lock="m", slot=${slot}\\): a thread died inside`),
      );
      expect(() => locks.mutex('m').tryEnter()).toThrow(/EOWNERDEAD/);
      expect(() => locks.mutex('m').enterWithin(10)).toThrow(/EOWNERDEAD/);
      expect(locks.list()).toMatchObject([{ holder: null, abandonedBy: slot }]);
    }
    const failing = locks.mutex('m', {
      repair: () => {
        throw new Error('beyond repair');
      },
    });
    expect(() => failing.enter()).toThrow('beyond repair');
    const promising = locks.mutex('m', { repair: (async () => {}) as never });
    expect(() => promising.enter()).toThrow(/EINVAL.*must not return a promise/);
    const repaired: number[] = [];
    const mutex = locks.mutex('m', { repair: (dead) => repaired.push(dead) });
    mutex.enter();
    expect(repaired).toEqual([slot]);
    expect(locks.list()).toMatchObject([{ holder: 0, abandonedBy: null }]);
    mutex.exit();
    locks.mutex('m').enter();
    locks.mutex('m').exit();
    expect(repaired).toHaveLength(1);
    end(locks);
  });

  it('tells asynchronous entries and bodies too', async () => {
    const { locks, attach } = system();
    for (const way of ['enterAsync', 'run', 'runAsync'] as const) {
      const victim = attach();
      victim.locks.mutex('m', { repair: () => {} }).enter();
      victim.die();
      const mutex = locks.mutex('m');
      if (way === 'enterAsync') await expect(mutex.enterAsync()).rejects.toThrow(/EOWNERDEAD/);
      if (way === 'run') expect(() => mutex.run(() => 1)).toThrow(/EOWNERDEAD/);
      if (way === 'runAsync') await expect(mutex.runAsync(() => 1)).rejects.toThrow(/EOWNERDEAD/);
      expect(mutex.held).toBe(false);
    }
    let repairs = 0;
    expect(await locks.mutex('m', { repair: () => void repairs++ }).runAsync(async () => 5)).toBe(5);
    expect(repairs).toBe(1);
    end(locks);
  });

  it('says who was last when the one who repairs dies as well', () => {
    const { locks, attach } = system();
    const first = attach();
    const second = attach();
    first.locks.mutex('m').enter();
    first.die();
    let seen = -1;
    const mutex = second.locks.mutex('m', {
      repair: (slot) => {
        seen = slot;
        // The rest of this call is what the thread never came to.
        second.die();
        throw new Error('dead');
      },
    });
    expect(() => mutex.enter()).toThrow();
    expect(seen).toBe(first.thread.slot);
    expect(locks.list()).toMatchObject([{ holder: null }]);
    expect(locks.list()[0]?.abandonedBy).not.toBeNull();
  });

  it('lets readers in only after a repair, which one of them makes as a writer', async () => {
    const { locks, attach } = system();
    const die = () => {
      const victim = attach();
      victim.locks.rwlock('r', { repair: () => {} }).enterExclusive();
      victim.die();
      return victim.thread.slot;
    };
    const slot = die();
    expect(() => locks.rwlock('r').enterShared()).toThrow(new RegExp(`EOWNERDEAD.*slot=${slot}`));
    expect(() => locks.rwlock('r').tryEnterExclusive()).toThrow(/EOWNERDEAD/);
    await expect(locks.rwlock('r').enterSharedAsync()).rejects.toThrow(/EOWNERDEAD/);
    let repairs = 0;
    const lock = locks.rwlock('r', {
      repair: () => {
        expect(lock.writing).toBe(true);
        repairs++;
      },
    });
    lock.enterShared();
    expect([lock.reading, lock.writing, repairs]).toEqual([true, false, 1]);
    const reader = attach().locks.rwlock('r');
    expect(reader.tryEnterShared()).toBe(true);
    reader.exitShared();
    lock.exitShared();
    for (const enter of [
      () => lock.tryEnterShared(),
      () => lock.enterSharedAsync(),
      () => lock.read(() => true),
      () => lock.write(() => true),
      () => lock.readAsync(() => true),
      () => lock.writeAsync(() => true),
    ]) {
      die();
      repairs = 0;
      expect(await enter()).toBe(true);
      expect(repairs).toBe(1);
      if (lock.reading) lock.exitShared();
    }
    end(locks);
  });

  it('makes no fuss about readers, upgrades included until they write', () => {
    const { locks, attach } = system();
    const reader = attach();
    reader.locks.rwlock('r').enterShared();
    reader.die();
    locks.rwlock('r').write(() => {});
    const writer = attach();
    const lock = writer.locks.rwlock('r');
    lock.enterShared();
    expect(lock.tryUpgrade()).toBe(true);
    lock.downgrade();
    writer.die();
    locks.rwlock('r').write(() => {});
    const upgraded = attach();
    upgraded.locks.rwlock('r').enterShared();
    expect(upgraded.locks.rwlock('r').tryUpgrade()).toBe(true);
    upgraded.die();
    expect(() => locks.rwlock('r').write(() => {})).toThrow(/EOWNERDEAD/);
    end(locks);
  });

  it('may be removed, and the next of its name is sound', () => {
    const { locks, attach } = system();
    const victim = attach();
    victim.locks.mutex('m').enter();
    victim.die();
    locks.remove('m');
    locks.mutex('m').run(() => {});
    end(locks);
  });
});
