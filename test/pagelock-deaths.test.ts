/**
 * A thread ends at every single step of every operation of the pagelock cache. The takeover must leave a sound cache, the
 * pins of others as they were, none of the dead thread, and every shadow list must go back.
 */

import { describe, expect, it } from 'vitest';
import { type CacheOwner, type PagelockCache, type PagelockOptions, PIN } from '../src/seg/index.ts';
import { dieAtEveryStep } from './support/deaths.ts';
import { PAGE, testPagelock } from './support/pagelock.ts';

const SMALL = {
  tags: 256,
  tagBuckets: 256,
  pagelockBuckets: 64 + 16,
  pagelockEntries: 64,
  pagelockOwners: 8,
  pagelockPins: 128,
  slabs: 256,
  magazines: 16,
  pathBytes: 4096,
};

/** What an operation works on. */
interface World {
  /** The cache as the victim sees it. */
  readonly cache: PagelockCache;
  readonly first: CacheOwner;
  readonly second: CacheOwner;
  /** Pins that the victim has. */
  readonly pins: readonly number[];
  readonly gauges: { freePages: number };
}

/** Ends a use under either set of rules. */
type End = (world: World, owner: CacheOwner, page: number, pages: number, pin: number, shadow: number) => void;

const end: End = ({ cache }, owner, page, pages, pin, shadow) =>
  cache.inactive(owner, page * PAGE, pages * PAGE, pin, shadow, PIN.read);

/** Shadow lists 1 to 9 are cached before; 20 and more come from the victim. */
const OPERATIONS: readonly (readonly [string, (world: World) => void])[] = [
  ['a hit and its release', (w) => end(w, w.first, 0, 4, w.cache.lookup(w.first, 0, 4 * PAGE, PIN.write), 1)],
  ['a miss', (w) => w.cache.lookup(w.first, 900 * PAGE, PAGE, PIN.read)],
  ['an insertion', (w) => w.cache.insert(w.second, 50 * PAGE, 3 * PAGE, 20, PIN.read)],
  ['an insertion that drops idle ranges', (w) => w.cache.insert(w.first, 0, 8 * PAGE, 20, PIN.read)],
  ['an insertion that is covered', (w) => w.cache.insert(w.first, 0, 2 * PAGE, 20, PIN.read)],
  ['a wired insertion', (w) => w.cache.insert(w.second, 0, 3 * PAGE, 20, PIN.write | PIN.wired)],
  [
    'an insertion and its end',
    (w) => end(w, w.second, 50, 3, w.cache.insert(w.second, 50 * PAGE, 3 * PAGE, 20, PIN.read), 20),
  ],
  ['the last release', (w) => end(w, w.second, 10, 2, w.pins[0] as number, 4)],
  [
    'ranges that share pages',
    (w) => {
      const pin = w.cache.insert(w.second, 13 * PAGE, 3 * PAGE, 20, PIN.read);
      w.cache.reclaim(1);
      end(w, w.second, 13, 3, pin, 20);
      w.cache.purge(w.second);
    },
  ],
  ['a purge with pinned ranges', (w) => w.cache.purge(w.first)],
  ['a purge by shadow list', (w) => w.cache.purgeShadow(6)],
  [
    'a purge and the release that follows',
    (w) => {
      w.cache.purge(w.second);
      end(w, w.second, 10, 2, w.pins[0] as number, 4);
    },
  ],
  [
    'reaping',
    (w) => {
      w.gauges.freePages = 0;
      for (let visit = 0; visit < 3; visit++) w.cache.reap();
      w.gauges.freePages = 1e6;
    },
  ],
  [
    'disabling, the last release, enabling',
    (w) => {
      w.cache.disable(0);
      end(w, w.second, 10, 2, w.pins[0] as number, 4);
      w.cache.enable();
    },
  ],
  [
    'an owner that comes and goes',
    (w) => w.cache.destroyOwner(w.cache.createOwner({ driver: { export: 'test driver' } })),
  ],
  [
    'more pins than are at hand',
    (w) => {
      const pins = Array.from({ length: 40 }, () => w.cache.lookup(w.first, 0, PAGE, PIN.read));
      for (const pin of pins) end(w, w.first, 0, 1, pin, 1);
    },
  ],
];

const RULES: readonly (readonly [string, PagelockOptions, boolean])[] = [
  ['our rules', {}, false],
  ['our rules, merging', {}, true],
  ['the original rules', { compat: 'seed', stallThreshold: 2, shrinkShift: 0 }, false],
];

describe.each(RULES)('a death at every step, %s', (_rules, options, join) => {
  it.each(OPERATIONS)('%s', (title, operate) => {
    const set = testPagelock({ memoryPages: 4096, windowBuckets: 64, wiredBuckets: 16, ...options }, join, SMALL);
    const { cache, region } = set;
    const [first, second] = [set.owner(), set.owner()];
    const victim = set.attach();
    const put = (
      view: PagelockCache,
      owner: CacheOwner,
      page: number,
      pages: number,
      shadow: number,
      flags = PIN.read,
    ) => view.insert(owner, page * PAGE, pages * PAGE, shadow, flags as number);
    const idle = (owner: CacheOwner, page: number, pages: number, shadow: number, flags = PIN.read) =>
      cache.inactive(owner, page * PAGE, pages * PAGE, put(cache, owner, page, pages, shadow, flags), shadow, flags);
    idle(first, 0, 4, 1);
    const kept = put(cache, first, 20, 4, 2);
    idle(first, 4, 2, 3);
    const pins = [put(victim.cache, second, 10, 2, 4)];
    idle(second, 12, 2, 5);
    idle(first, 0, 30, 6, (PIN.write | PIN.wired) as 0);
    set.first.thread.clock.advance(10_000);
    const world: World = { cache: victim.cache, first, second, pins, gauges: set.gauges };
    let looked = 0;
    const steps = dieAtEveryStep({
      region,
      self: set.first.thread,
      victim: victim.thread,
      recoverers: [(_self, dead) => cache.recover(dead)],
      operation: () => operate(world),
      verify(step) {
        looked++;
        const where = `${title}, step ${step}`;
        expect(cache.check().problems, where).toEqual([]);
        // What this thread pinned is still there; the dead thread pins nothing.
        expect(cache.shadowOf(kept), where).toBe(2);
        expect(
          cache.snapshot().ranges.reduce((sum, { active }) => sum + active, 0),
          where,
        ).toBe(1);
        cache.inactive(first, 20 * PAGE, 4 * PAGE, kept, 2, PIN.read);
        // A disable that died half-way stays in force; everything goes in either case.
        expect(cache.disable(), where).toBe(true);
        while (cache.disabled > 0) cache.enable();
        const problems = cache.check().problems;
        expect(problems, where).toEqual([]);
        for (const shadow of [1, 2, 3, 4, 5, 6]) {
          // Whoever died in a driver's function may have done its work: it runs once more.
          expect([1, 2], `${where}, shadow list ${shadow}`).toContain(set.tallyOf(shadow));
        }
        expect(set.tallyOf(20), where).toBeLessThanOrEqual(2);
        expect(cache.statistics().entries, where).toBe(0);
        cache.destroyOwner(first);
        cache.destroyOwner(second);
        const pin = cache.insert(set.owner(), 0, PAGE, 21, PIN.read);
        expect(pin, where).toBeGreaterThanOrEqual(0);
      },
    });
    expect(looked).toBe(steps);
    console.log(`${title}: ${steps} places to die`);
  });
});
