/** The pagelock cache against a naive model, in lock-step, through several views; and with merging, by account. */

import { describe, expect, it } from 'vitest';
import { type CacheParty, PAGE, testPagelock } from '../../test/support/pagelock.ts';
import { Prng } from '../base/prng.ts';
import { type CacheOwner, INSERT_COVERED, INSERT_REFUSED, PIN } from './index.ts';

const SEED = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);
const SPACE_PAGES = 96;
const RANGE_PAGES_MAX = 12;

/** One cached range of the model. */
interface ModelRange {
  readonly owner: CacheOwner;
  readonly first: number;
  readonly pages: number;
  readonly writable: number;
  readonly shadow: number;
  readonly wired: boolean;
  pins: number;
  doomed: boolean;
}

/** What the cache should do, range by range. */
class Model {
  readonly ranges = new Set<ModelRange>();
  readonly reclaimed: number[] = [];
  disabled = 0;
  readonly #maxWindow: number;

  constructor(maxWindow: number) {
    this.#maxWindow = maxWindow;
  }

  windowPages(): number {
    return this.count((range) => !range.wired);
  }

  /** Different pages: those that several ranges of an owner have are charged once. */
  count(wanted: (range: ModelRange) => boolean): number {
    const pages = new Set<string>();
    for (const range of this.ranges) {
      if (!wanted(range)) continue;
      for (let page = range.first; page < range.first + range.pages; page++)
        pages.add(`${range.owner} ${range.wired} ${page}`);
    }
    return pages.size;
  }

  covering(owner: CacheOwner, first: number, pages: number, write: boolean, wired: boolean): ModelRange[] {
    return [...this.ranges].filter(
      (range) =>
        range.owner === owner &&
        range.wired === wired &&
        !range.doomed &&
        range.first <= first &&
        first + pages <= range.first + (write ? range.writable : range.pages),
    );
  }

  /** `covered`, `refused`, or the new range. */
  insert(range: ModelRange, write: boolean): ModelRange | 'covered' | 'refused' {
    if (this.disabled > 0) return 'refused';
    const { owner, first, pages, wired } = range;
    if (this.covering(owner, first, pages, write, wired).length > 0) return 'covered';
    for (const other of this.ranges) {
      const inside = other.first >= first && other.first + other.pages <= first + pages;
      if (other.owner !== owner || other.wired !== wired || !inside) continue;
      if (other.pins === 0) this.drop(other);
      else other.doomed = true;
    }
    this.ranges.add(range);
    if (wired || this.windowPages() <= this.#maxWindow) return range;
    this.ranges.delete(range);
    return 'refused';
  }

  release(range: ModelRange): void {
    range.pins--;
    if (range.pins === 0 && (range.doomed || this.disabled > 0)) this.drop(range);
  }

  purge(wanted: (range: ModelRange) => boolean): number {
    let pinned = 0;
    for (const range of this.ranges) {
      if (!wanted(range)) continue;
      if (range.pins === 0) this.drop(range);
      else {
        range.doomed = true;
        pinned++;
      }
    }
    return pinned;
  }

  drop(range: ModelRange): void {
    this.ranges.delete(range);
    this.reclaimed.push(range.shadow);
  }
}

/** Runs a random workload against the model. */
function runModel(seed: number, steps: number): void {
  const random = new Prng(seed);
  const maxWindow = random.pick([40, 100, 400]);
  const set = testPagelock({ maxWindow, windowBuckets: random.pick([2, 16, 1024]), wiredBuckets: 4 });
  const { cache, gauges } = set;
  const parties: CacheParty[] = [set.first, set.attach(), set.attach()];
  const owners = Array.from({ length: 4 }, set.owner);
  const model = new Model(maxWindow);
  const pins: { pin: number; range: ModelRange }[] = [];
  const byShadow = (shadow: number) => [...model.ranges].find((range) => range.shadow === shadow) as ModelRange;
  for (let step = 0; step < steps; step++) {
    const where = `seed ${seed} step ${step}`;
    const { cache: view } = random.pick(parties);
    const owner = random.pick(owners);
    const first = random.below(SPACE_PAGES);
    const pages = random.between(1, RANGE_PAGES_MAX);
    const wired = random.chance(0.15);
    const write = random.chance(0.3);
    const flags = (write ? PIN.write : PIN.read) | (wired ? PIN.wired : 0);
    const action = random.below(100);
    if (action < 40) {
      const pin = view.lookup(owner, first * PAGE, pages * PAGE, flags);
      const expected = model.disabled > 0 ? [] : model.covering(owner, first, pages, write, wired);
      expect(pin >= 0, where).toBe(expected.length > 0);
      if (pin >= 0) {
        const range = byShadow(view.shadowOf(pin));
        expect(expected, where).toContain(range);
        range.pins++;
        pins.push({ pin, range });
      }
    } else if (action < 62) {
      const shadow = set.newShadow();
      const writable = write || random.chance(0.7) ? pages : random.below(pages);
      const range = { owner, first, pages, writable, shadow, wired, pins: 1, doomed: false };
      const pin = view.insert(owner, first * PAGE, pages * PAGE, shadow, flags, writable * PAGE);
      const expected = model.insert(range, write);
      if (typeof expected !== 'string') {
        expect(pin, where).toBeGreaterThanOrEqual(0);
        pins.push({ pin, range });
      } else {
        expect(pin, where).toBe(expected === 'covered' ? INSERT_COVERED : INSERT_REFUSED);
        view.inactive(owner, first * PAGE, pages * PAGE, pin, shadow, flags);
        model.reclaimed.push(shadow);
      }
    } else if (action < 90) {
      const at = random.below(Math.max(1, pins.length));
      const held = pins[at];
      if (held !== undefined) {
        pins[at] = pins[pins.length - 1] as (typeof pins)[number];
        pins.pop();
        view.release(held.pin);
        model.release(held.range);
      }
    } else if (action < 93) {
      expect(view.purge(owner), where).toBe(model.purge((range) => range.owner === owner));
    } else if (action < 94) {
      const shadow = random.pick([...model.ranges, undefined])?.shadow ?? -5;
      const pinned = model.purge((range) => range.wired && range.shadow === shadow);
      // Only wired ranges are looked for: a shadow list of the window is not touched.
      expect(view.purgeShadow(shadow), where).toBe(pinned);
    } else if (action < 97) {
      gauges.freePages = random.pick([0, 600, 1e6]);
      set.first.thread.clock.advance(random.pick([0, 400, 3000]));
      view.reap();
      // Which ranges a reap takes is its own affair: they are idle, and only those of the window.
      for (const shadow of set.reclaims.slice(model.reclaimed.length).map((reclaim) => reclaim.shadow)) {
        const range = byShadow(shadow);
        expect([range.pins, range.wired], where).toEqual([0, false]);
        model.drop(range);
      }
    } else if (action < 98) {
      const others = pins.length > 0;
      model.disabled++;
      for (const range of model.ranges) if (range.pins === 0) model.drop(range);
      expect(view.disable(0), where).toBe(!others);
    } else if (model.disabled > 0) {
      view.enable();
      model.disabled--;
    }
    const taken = set.reclaims.map(({ shadow }) => shadow);
    expect(taken.toSorted(), where).toEqual(model.reclaimed.toSorted());
    expect([cache.lockedPages, cache.windowPages], where).toEqual([model.count(() => true), model.windowPages()]);
    if (step % 200 === 0) expect(cache.check().problems, where).toEqual([]);
    if (step % 500 === 499) {
      set.reclaims.length = 0;
      model.reclaimed.length = 0;
    }
  }
  for (const { pin } of pins) cache.release(pin);
  while (cache.disabled > 0) cache.enable();
  expect(cache.disable()).toBe(true);
  for (const owner of owners) cache.destroyOwner(owner);
  expect(cache.check().problems).toEqual([]);
  expect(cache.statistics().entries).toBe(0);
}

describe('the pagelock cache and its model', () => {
  for (let run = 0; run < 6; run++) {
    it(`agree, run ${run}`, () => {
      console.log(`pagelock model: seed ${SEED + run}`);
      runModel(SEED + run, 6000);
    });
  }

  it('gives every shadow list back exactly once while neighbours merge', () => {
    const random = new Prng(SEED);
    const set = testPagelock({ maxWindow: 300, mergePages: 20, windowBuckets: 16 }, true);
    const { cache, counts } = set;
    const parties = [set.first, set.attach()];
    const owners = Array.from({ length: 3 }, set.owner);
    const pins: number[] = [];
    const given = new Set<number>();
    for (let step = 0; step < 20_000; step++) {
      const { cache: view } = random.pick(parties);
      const owner = random.pick(owners);
      const address = random.below(SPACE_PAGES) * PAGE;
      const length = random.between(1, 4) * PAGE;
      const action = random.below(100);
      if (action < 50) {
        let pin = view.lookup(owner, address, length, PIN.read);
        if (pin < 0) {
          const shadow = set.newShadow();
          given.add(shadow);
          pin = view.insert(owner, address, length, shadow, PIN.read);
          if (pin < 0) view.inactive(owner, address, length, pin, shadow, PIN.read);
        }
        if (pin >= 0) pins.push(pin);
      } else if (action < 97) {
        const at = random.below(Math.max(1, pins.length));
        const pin = pins[at];
        if (pin !== undefined) {
          pins[at] = pins[pins.length - 1] as number;
          pins.pop();
          view.release(pin);
        }
      } else if (action < 99) view.purge(owner);
      else view.reap();
      if (step % 1000 === 0) expect(cache.check().problems, `seed ${SEED} step ${step}`).toEqual([]);
    }
    expect(cache.statistics().counters.merges).toBeGreaterThan(100);
    for (const pin of pins) cache.release(pin);
    expect(cache.disable()).toBe(true);
    expect([...given].filter((shadow) => counts.get(shadow) !== 1)).toEqual([]);
    expect(counts.size).toBe(given.size);
    expect(cache.check().problems).toEqual([]);
  });
});
