import { describe, expect, it } from 'vitest';
import { PAGE, testPagelock } from '../../test/support/pagelock.ts';
import { testRegion } from '../../test/support/region.ts';
import { Mutex, RANK } from '../sync/index.ts';
import { createPagelock, INSERT_COVERED, INSERT_REFUSED, PIN } from './index.ts';

const KIB64 = 16 * PAGE;

describe('ranges', () => {
  it('hits what was inserted, and what lies inside it', () => {
    const { cache, owner } = testPagelock();
    const segment = owner();
    const pin = cache.insert(segment, KIB64, 8 * PAGE, 7, PIN.read);
    for (const [from, pages] of [
      [0, 8],
      [0, 1],
      [3, 5],
      [7, 1],
    ] as const) {
      const inside = cache.lookup(segment, KIB64 + from * PAGE, pages * PAGE, PIN.read);
      expect(cache.shadowOf(inside)).toBe(7);
      expect([cache.addressOf(inside), cache.lengthOf(inside)]).toEqual([KIB64, 8 * PAGE]);
      cache.release(inside);
    }
    expect(cache.lookup(segment, KIB64 + PAGE, 8 * PAGE, PIN.read)).toBe(-1);
    expect(cache.lookup(segment, KIB64 - PAGE, PAGE, PIN.read)).toBe(-1);
    expect(cache.lookup(owner(), KIB64, PAGE, PIN.read)).toBe(-1);
    cache.release(pin);
    expect(cache.check().problems).toEqual([]);
    expect(cache.statistics().counters).toMatchObject({ hits: 4, misses: 3, inserts: 1 });
  });

  it('finds a covering range wherever it starts, at any size and address', () => {
    const { cache, owner } = testPagelock();
    const segment = owner();
    const start = 2 ** 40 + 12345 * PAGE;
    cache.insert(segment, start, 1000 * PAGE, 1, PIN.read);
    for (let from = 0; from < 1000; from += 37) {
      for (const pages of [1, 2, 5, 64, 500]) {
        const pin = cache.lookup(segment, start + from * PAGE, pages * PAGE, PIN.read);
        expect(pin >= 0).toBe(from + pages <= 1000);
      }
    }
  });

  it('gives write access only as far as the range is writable, and does not let one range hide another', () => {
    const { cache, owner } = testPagelock();
    const segment = owner();
    cache.insert(segment, 0, 6 * PAGE, 1, PIN.read, 2 * PAGE);
    expect(cache.lookup(segment, 0, 3 * PAGE, PIN.write)).toBe(-1);
    expect(cache.lookup(segment, PAGE, 2 * PAGE, PIN.write)).toBe(-1);
    expect(cache.shadowOf(cache.lookup(segment, PAGE, PAGE, PIN.write))).toBe(1);
    const writable = cache.insert(segment, 0, 4 * PAGE, 2, PIN.write);
    expect(cache.shadowOf(cache.lookup(segment, 0, 3 * PAGE, PIN.write))).toBe(2);
    expect(cache.shadowOf(cache.lookup(segment, 0, 6 * PAGE, PIN.read))).toBe(1);
    cache.release(writable);
  });

  it('does not cache what is covered; drops idle ranges inside a new one and dooms pinned ones', () => {
    const { cache, owner, taken } = testPagelock();
    const segment = owner();
    const idle = cache.insert(segment, 0, PAGE, 1, PIN.read);
    cache.release(idle);
    const pinned = cache.insert(segment, 4 * PAGE, 2 * PAGE, 2, PIN.read);
    expect(cache.insert(segment, 5 * PAGE, PAGE, 3, PIN.read)).toBe(INSERT_COVERED);
    const large = cache.insert(segment, 0, 8 * PAGE, 4, PIN.read);
    expect(taken()).toEqual([1]);
    // Those that the pinned range has too are charged once.
    expect(cache.lockedPages).toBe(8);
    // The doomed range is passed over, and goes with its last pin.
    expect(cache.shadowOf(cache.lookup(segment, 4 * PAGE, 2 * PAGE, PIN.read))).toBe(4);
    cache.release(pinned);
    expect(taken()).toEqual([2]);
    expect(cache.lockedPages).toBe(8);
    cache.release(large);
    expect(cache.check().problems).toEqual([]);
  });

  it('keeps wired ranges out of the window, and purges them with their owner or by shadow list', () => {
    const { cache, owner, taken } = testPagelock({ maxWindow: 10 });
    const [first, second] = [owner(), owner()];
    const pins = [first, second].map((segment) => cache.insert(segment, 0, 100 * PAGE, 9, PIN.write | PIN.wired));
    expect([cache.lockedPages, cache.windowPages]).toEqual([200, 0]);
    expect(cache.lookup(first, 0, PAGE, PIN.read)).toBe(-1);
    expect(cache.shadowOf(cache.lookup(first, 50 * PAGE, PAGE, PIN.read | PIN.wired))).toBe(9);
    cache.release(pins[1] as number);
    expect(cache.purgeShadow(9)).toBe(1);
    expect(taken()).toEqual([9]);
    cache.release(pins[0] as number);
    expect(cache.purge(first)).toBe(1);
    expect(cache.check().problems).toEqual([]);
  });
});

describe('purging', () => {
  const fill = (compat: 'seed' | undefined) => {
    const set = testPagelock(compat === undefined ? {} : { compat });
    const segment = set.owner();
    const pins = [1, 2, 3].map((shadow) => set.cache.insert(segment, shadow * KIB64, PAGE, shadow, PIN.read));
    for (const shadow of [1, 3]) {
      set.cache.inactive(segment, shadow * KIB64, PAGE, pins[shadow - 1] as number, shadow, PIN.read);
    }
    return { ...set, segment, pins };
  };

  it('is not stopped by a pinned range, which goes with its last pin', () => {
    const { cache, segment, pins, taken } = fill(undefined);
    expect(cache.purge(segment)).toBe(1);
    expect(taken().sort()).toEqual([1, 3]);
    expect(cache.lookup(segment, 2 * KIB64, PAGE, PIN.read)).toBe(-1);
    expect(() => cache.destroyOwner(segment)).toThrow(/EBUSY: pagelock.destroyOwner\(owner=0, claims=1\)/);
    cache.release(pins[1] as number);
    expect(taken()).toEqual([2]);
    cache.destroyOwner(segment);
    expect(cache.check().problems).toEqual([]);
  });

  it('stops there under the original rules', () => {
    const { cache, segment, taken } = fill('seed');
    cache.purge(segment);
    expect(taken()).toEqual([3]);
    expect(cache.lockedPages).toBe(2);
  });
});

describe('reaping', () => {
  it('gives released ranges a second chance, and takes the last pages too', () => {
    const { cache, owner, gauges, region, taken, first } = testPagelock();
    const segment = owner();
    first.thread.clock.advance(5000);
    cache.reap();
    for (const shadow of [1, 2]) cache.release(cache.insert(segment, shadow * KIB64, 4 * PAGE, shadow, PIN.read));
    gauges.freePages = 0;
    cache.reap();
    expect(taken()).toEqual([]);
    cache.reap();
    expect(taken()).toEqual([1]);
    cache.reap();
    expect(taken()).toEqual([2]);
    expect(cache.lockedPages).toBe(0);
    expect(region.tables.pagelock.reaper.get(0)).toBe(0);
    expect(cache.check().problems).toEqual([]);
  });

  it('gives as many pages as a pagedaemon asks for, whatever the gauges say, those released lately last', () => {
    const { cache, owner, taken, first } = testPagelock();
    const segment = owner();
    for (const shadow of [1, 2, 3]) cache.release(cache.insert(segment, shadow * KIB64, 4 * PAGE, shadow, PIN.read));
    const pin = cache.insert(segment, 8 * KIB64, 4 * PAGE, 8, PIN.read);
    for (let age = 0; age < 3; age++) {
      first.thread.clock.advance(60_000);
      cache.reap();
    }
    cache.release(cache.lookup(segment, KIB64, PAGE, PIN.read));
    expect(taken()).toEqual([]);
    expect(cache.reclaim(0)).toBe(0);
    expect(cache.reclaim(5)).toBe(8);
    expect(taken().sort()).toEqual([2, 3]);
    expect(cache.reclaim(100)).toBe(4);
    expect(taken()).toEqual([1]);
    expect(() => cache.reclaim(-1)).toThrow(/pages/);
    cache.release(pin);
    expect(cache.check().problems).toEqual([]);
  });

  it('leaves less than a 32nd of the window for ever under the original rules', () => {
    const { cache, owner, gauges, taken, first } = testPagelock({ compat: 'seed' });
    const segment = owner();
    const pin = cache.insert(segment, 0, 8 * PAGE, 1, PIN.read);
    cache.inactive(segment, 0, 8 * PAGE, pin, 1, PIN.read);
    first.thread.clock.advance(60_000);
    gauges.freePages = 0;
    for (let visit = 0; visit < 5; visit++) cache.reap();
    expect(taken()).toEqual([]);
  });

  it('passes over owners that are busy, and ranges whose driver the thread cannot load', () => {
    const { cache, owner, gauges, taken, region, attach, attachBare, first } = testPagelock();
    const segment = owner();
    cache.release(cache.insert(segment, 0, 4 * PAGE, 1, PIN.read));
    gauges.freePages = 0;
    first.thread.clock.advance(60_000);
    const other = attach();
    const busy = new Mutex(other.thread, region.tables.pagelockOwner.lock.address(segment), RANK.segment);
    busy.enter();
    for (let visit = 0; visit < 3; visit++) cache.reap();
    busy.exit();
    const bare = attachBare();
    for (let visit = 0; visit < 3; visit++) bare.cache.reap();
    expect(taken()).toEqual([]);
    cache.reap();
    expect(taken()).toEqual([1]);
  });

  it('comes when kicked, rests when suspended, and ends when the cache is off', () => {
    const { cache, owner, gauges, taken } = testPagelock();
    const segment = owner();
    cache.release(cache.insert(segment, 0, 4 * PAGE, 1, PIN.read));
    gauges.freePages = 0;
    cache.suspendReaper(true);
    for (let visit = 0; visit < 4; visit++) expect(cache.reapWhenKicked(0)).toBe(true);
    expect(taken()).toEqual([]);
    cache.suspendReaper(false);
    cache.kick();
    for (let visit = 0; visit < 4; visit++) cache.reapWhenKicked(0);
    expect(taken()).toEqual([1]);
    expect(testPagelock({ enabled: false }).cache.reapWhenKicked(0)).toBe(false);
  });
});

describe('disabling', () => {
  it('empties the cache, refuses, and caches again when enabled', () => {
    const { cache, owner, taken } = testPagelock();
    const segment = owner();
    cache.release(cache.insert(segment, 0, PAGE, 1, PIN.read));
    cache.release(cache.insert(segment, 0, PAGE, 2, PIN.write | PIN.wired));
    expect(cache.disable()).toBe(true);
    expect(taken().sort()).toEqual([1, 2]);
    expect(cache.lookup(segment, 0, PAGE, PIN.read)).toBe(-1);
    expect(cache.insert(segment, 0, PAGE, 3, PIN.read)).toBe(INSERT_REFUSED);
    expect(cache.disable()).toBe(true);
    cache.enable();
    cache.enable();
    expect(() => cache.enable()).toThrow(/EINVAL: pagelock.enable\(\): the cache is not disabled/);
    expect(cache.insert(segment, 0, PAGE, 4, PIN.read)).toBeGreaterThanOrEqual(0);
  });

  it('ends at once when only its own pins are left, and those go when released', () => {
    const { cache, owner, taken, first } = testPagelock();
    const pin = cache.insert(owner(), 0, PAGE, 1, PIN.read);
    const before = first.thread.clock.now();
    expect(cache.disable(60_000)).toBe(false);
    expect(first.thread.clock.now()).toBe(before);
    cache.release(pin);
    expect(taken()).toEqual([1]);
    expect(cache.lockedPages).toBe(0);
  });

  it('waits for the pins of others as long as it may', () => {
    const { cache, owner, attach, first } = testPagelock();
    const other = attach();
    other.cache.insert(owner(), 0, PAGE, 1, PIN.read);
    const before = first.thread.clock.now();
    expect(cache.disable(500)).toBe(false);
    expect(first.thread.clock.now() - before).toBe(500);
  });

  it('tries 102 times in 25 seconds under the original rules', () => {
    const { cache, owner, first } = testPagelock({ compat: 'seed' });
    cache.insert(owner(), 0, PAGE, 1, PIN.read);
    const before = first.thread.clock.now();
    expect(cache.disable()).toBe(false);
    expect(first.thread.clock.now() - before).toBe(101 * 250);
  });
});

describe('merging neighbours', () => {
  it('makes one range of idle neighbours, on both sides', () => {
    const { cache, owner, taken, counts } = testPagelock({}, true);
    const segment = owner();
    for (const [shadow, at] of [
      [101, 0],
      [102, 8],
      [103, 4],
    ] as const) {
      cache.release(cache.insert(segment, at * PAGE, 4 * PAGE, shadow, PIN.read));
    }
    expect(taken()).toEqual([]);
    const { ranges } = cache.snapshot();
    expect(ranges.map(({ address, lengthBytes }) => [address, lengthBytes])).toEqual([[0, 12 * PAGE]]);
    const pin = cache.lookup(segment, 2 * PAGE, 9 * PAGE, PIN.read);
    expect(pin).toBeGreaterThanOrEqual(0);
    cache.release(pin);
    expect(cache.lockedPages).toBe(12);
    expect(cache.check().problems).toEqual([]);
    cache.purge(segment);
    expect([...counts]).toEqual([
      [101, 1],
      [103, 1],
      [102, 1],
    ]);
    cache.destroyOwner(segment);
    expect(cache.check().problems).toEqual([]);
  });

  it('waits for a pinned neighbour, which merges when it is released; keeps different access and the limit apart', () => {
    const { cache, owner } = testPagelock({ mergePages: 8 }, true);
    const segment = owner();
    const pinned = cache.insert(segment, 0, 4 * PAGE, 101, PIN.read);
    const second = cache.lookup(segment, 0, PAGE, PIN.read);
    cache.release(pinned);
    cache.release(cache.insert(segment, 4 * PAGE, 4 * PAGE, 102, PIN.read));
    expect(cache.statistics().entries).toBe(2);
    cache.release(second);
    expect(cache.statistics().entries).toBe(1);
    cache.release(cache.insert(segment, 8 * PAGE, 4 * PAGE, 103, PIN.read));
    expect(cache.statistics().entries).toBe(2);
    cache.release(cache.insert(segment, 12 * PAGE, PAGE, 104, PIN.read, 0));
    expect(cache.statistics().entries).toBe(3);
    expect(cache.check().problems).toEqual([]);
  });

  it('does without when the driver cannot join, and under the original rules', () => {
    for (const [options, join] of [
      [{}, false],
      [{ compat: 'seed' }, true],
    ] as const) {
      const { cache, owner } = testPagelock(options, join);
      const segment = owner();
      for (const at of [0, 1]) {
        const pin = cache.insert(segment, at * PAGE, PAGE, at + 1, PIN.read);
        cache.inactive(segment, at * PAGE, PAGE, pin, at + 1, PIN.read);
      }
      expect(cache.statistics().entries).toBe(2);
    }
  });
});

describe('misuse and exhaustion', () => {
  it('refuses pins that are not in use, and a cached shadow list as an uncached one', () => {
    const { cache, owner, taken } = testPagelock();
    const segment = owner();
    const pin = cache.insert(segment, 0, PAGE, 1, PIN.read);
    expect(() => cache.inactive(segment, 0, PAGE, INSERT_REFUSED, 1, PIN.read)).toThrow(
      /EINVAL: pagelock.inactive\(owner=0, address=0, shadow=1\): the shadow list is cached: release its pin/,
    );
    cache.release(pin);
    expect(() => cache.release(pin)).toThrow(/EINVAL: pagelock.release\(pin=\d+\): no such pin/);
    const again = cache.lookup(segment, 0, PAGE, PIN.read);
    expect(again).not.toBe(pin);
    expect(() => cache.shadowOf(pin)).toThrow(/no such pin/);
    expect(() => cache.release(-1)).toThrow(/no such pin/);
    expect(() => cache.release(1.5)).toThrow(/no such pin/);
    cache.release(again);
    expect(taken()).toEqual([]);
    cache.inactive(segment, 0, PAGE, INSERT_COVERED, 2, PIN.write);
    expect(taken()).toEqual([2]);
    expect(cache.check().problems).toEqual([]);
  });

  it('names the argument that breaks a rule', () => {
    const { cache, owner } = testPagelock();
    const segment = owner();
    expect(() => cache.insert(99, 0, PAGE, 1, PIN.read)).toThrow(/EINVAL: pagelock.insert\(owner=99\): no such owner/);
    expect(() => cache.insert(segment, 100, PAGE, 1, PIN.read)).toThrow(/a range starts at a page/);
    expect(() => cache.insert(segment, 0, PAGE + 1, 1, PIN.read)).toThrow(/a range has from 1 to 2\^30 whole pages/);
    expect(() => cache.insert(segment, 0, 2 * PAGE, 1, PIN.write, PAGE)).toThrow(/must be writable/);
    expect(() => cache.purge(segment + 1)).toThrow(/no such owner/);
    const { region } = testRegion();
    expect(() => createPagelock(region, { windowBucket: 3 } as object)).toThrow(/unknown option "windowBucket"/);
    expect(() => createPagelock(region, { memoryPages: 2 ** 20 })).toThrow(/ENOMEM.*pagelockBuckets/);
    createPagelock(region, { memoryPages: 4096, windowBuckets: 64, wiredBuckets: 64 });
    expect(() => createPagelock(region)).toThrow(/EEXIST/);
  });

  it('works uncached when entries or pins run out, and goes on when there are some again', () => {
    const { cache, owner } = testPagelock({}, false, { pagelockEntries: 4, pagelockPins: 64 });
    const segment = owner();
    const pins = [0, 1, 2, 3].map((at) => cache.insert(segment, at * KIB64, PAGE, at + 1, PIN.read));
    expect(cache.insert(segment, 9 * KIB64, PAGE, 9, PIN.read)).toBe(INSERT_REFUSED);
    const more: number[] = [];
    for (let pin = cache.lookup(segment, 0, PAGE, PIN.read); pin >= 0; pin = cache.lookup(segment, 0, PAGE, PIN.read)) {
      more.push(pin);
    }
    expect(more.length).toBe(60);
    for (const pin of [...more, ...pins]) cache.release(pin);
    expect(cache.purge(segment)).toBe(0);
    expect(cache.insert(segment, 9 * KIB64, PAGE, 9, PIN.read)).toBeGreaterThanOrEqual(0);
    expect(cache.check().problems).toEqual([]);
    const owners = Array.from({ length: 255 }, owner);
    expect(owner).toThrow(/ENOMEM: pagelock.createOwner/);
    cache.destroyOwner(owners[7] as number);
    expect(owner()).toBe(owners[7]);
  });

  it('passes everything through when it is off', () => {
    const { cache, owner, taken } = testPagelock({ enabled: false });
    const segment = owner();
    expect(cache.lookup(segment, 0, PAGE, PIN.read)).toBe(-1);
    expect(cache.insertCheck(PAGE, PIN.read)).toBe(false);
    const pin = cache.insert(segment, 0, PAGE, 1, PIN.read);
    expect(pin).toBe(INSERT_REFUSED);
    cache.inactive(segment, 0, PAGE, pin, 1, PIN.read);
    expect(taken()).toEqual([1]);
    expect(cache.purge(segment)).toBe(0);
    cache.reap();
    expect(cache.disable()).toBe(true);
  });

  it('calls all drivers, then throws what the first threw', () => {
    const { cache, owner, counts, region } = testPagelock();
    const segment = owner();
    for (const at of [0, 1, 2]) cache.release(cache.insert(segment, at * KIB64, PAGE, at + 1, PIN.read));
    const set = counts.set.bind(counts);
    counts.set = (shadow, count) => {
      set(shadow, count);
      if (shadow === 2) throw new Error('the driver failed');
      return counts;
    };
    expect(() => cache.purge(segment)).toThrow('the driver failed');
    expect(counts.size).toBe(3);
    expect(cache.lockedPages).toBe(0);
    expect(region.tables.pagelockSlot.pendingHead.get(0)).toBe(0);
    expect(cache.check().problems).toEqual([]);
  });
});
