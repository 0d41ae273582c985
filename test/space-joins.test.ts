/** Segments that were cut by `protect` and `advise` become one again when their parts are alike: contents and offsets stay. */

import { describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import type { AddressSpace } from '../src/seg/index.ts';
import { boot, type VirtualMemory } from '../src/system/index.ts';
import { testSeed } from './support/seed.ts';

const PAGE = 4096;
const PAGES = 24;

type Kind = 'anonymous' | 'shared' | 'read at first' | 'memory' | 'cookie' | 'physical' | 'driver';

const KINDS: readonly Kind[] = ['anonymous', 'shared', 'read at first', 'memory', 'cookie', 'physical', 'driver'];

/** What is mapped, with a page before it in the source where it has an offset. */
function mapKind(vm: VirtualMemory, as: AddressSpace, kind: Kind): number {
  const size = PAGES * PAGE;
  const larger = size + PAGE;
  if (kind === 'shared') return as.map({ size, shared: true, guard: PAGE });
  if (kind === 'read at first') return as.map({ size, protection: 'read' });
  if (kind === 'memory') return as.map({ size, memory: vm.sharedMemory({ size: larger }), offset: PAGE });
  if (kind === 'cookie') return as.map({ size, cookie: vm.pmem.alloc({ size: larger }), offset: PAGE });
  if (kind === 'physical') return as.map({ size, physical: vm.heap.alloc(size) });
  if (kind !== 'driver') return as.map({ size, guard: 2 * PAGE });
  const data = vm.heap.alloc(size);
  vm.callbacks.register('joined', { fault: (segment: { data: number }, offset: number) => segment.data + offset });
  return as.map({ size, driver: { export: 'joined' }, data });
}

describe('segments', () => {
  it.each(KINDS)('that were cut become one again: %s', (kind) => {
    const vm = boot({ memory: '4 MiB', services: 'manual', segments: 80, slots: 4 });
    const as = vm.addressSpace();
    const at = mapKind(vm, as, kind);
    if (kind === 'read at first') as.protect(at, PAGES * PAGE, 'write');
    for (let page = 0; page < PAGES; page++) as.store(at + page * PAGE, 100 + page);
    const before = as.segments();
    expect(before).toHaveLength(1);
    const random = new Prng(testSeed(`segments that join: ${kind}`, 6));
    const model = Array.from({ length: PAGES }, () => ({ protection: 'write', advice: 'normal' }));
    let most = 1;
    for (let step = 0; step < 300; step++) {
      const first = random.below(PAGES);
      const count = 1 + random.below(Math.min(6, PAGES - first));
      const range = [at + first * PAGE, count * PAGE] as const;
      const part = model.slice(first, first + count);
      if (random.below(3) === 0) {
        const advice = (['normal', 'random', 'sequential'] as const)[random.below(3)] as 'normal';
        as.advise(...range, advice);
        for (const page of part) page.advice = advice;
      } else {
        const protection = (['none', 'read', 'write'] as const)[random.below(3)] as 'write';
        as.protect(...range, protection);
        for (const page of part) page.protection = protection;
      }
      // As many segments as there are stretches of pages that are alike.
      const same = (page: number) => JSON.stringify(model[page]) === JSON.stringify(model[page - 1]);
      const stretches = model.filter((_, page) => page === 0 || !same(page)).length;
      expect(as.segments()).toHaveLength(stretches);
      most = Math.max(most, stretches);
      const page = random.below(PAGES);
      if (model[page]?.protection !== 'none') expect(as.load(at + page * PAGE)).toBe(100 + page);
    }
    expect(most).toBeGreaterThan(8);
    for (let page = 0; page < PAGES; page++) {
      as.protect(at + page * PAGE, PAGE, 'write');
      as.advise(at + page * PAGE, PAGE, 'normal');
    }
    expect(as.segments()).toEqual(before);
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    for (let page = 0; page < PAGES; page++) expect(as.load(at + page * PAGE)).toBe(100 + page);
    // Neither the room nor the middle is lost: it can be unmapped and mapped again.
    as.unmap(at + PAGE, PAGE);
    expect(as.segments()).toHaveLength(2);
    expect(as.map({ address: at + PAGE, size: PAGE })).toBe(at + PAGE);
    expect(as.segments()).toHaveLength(3);
    as.destroy();
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    vm.detach();
  });

  it('of a fork join on their own, and keep their bytes apart', () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', segments: 80, slots: 4 });
    const as = vm.addressSpace();
    const at = as.map({ size: 8 * PAGE });
    as.fill(at, 1, 8 * PAGE);
    as.protect(at + 2 * PAGE, 2 * PAGE, 'read');
    const copy = as.fork();
    as.protect(at + 2 * PAGE, 2 * PAGE, 'write');
    as.fill(at, 2, 8 * PAGE);
    expect(as.segments()).toHaveLength(1);
    copy.protect(at + 2 * PAGE, 2 * PAGE, 'write');
    expect([...copy.read(at, 8 * PAGE)].every((byte) => byte === 1)).toBe(true);
    copy.fill(at + 3 * PAGE, 3, PAGE);
    expect([...as.read(at, 8 * PAGE)].every((byte) => byte === 2)).toBe(true);
    const next = as.fork();
    as.destroy();
    copy.destroy();
    expect(next.segments()).toHaveLength(1);
    expect(next.load(at + 3 * PAGE)).toBe(0x02020202);
    next.destroy();
    expect(vm.spaces.statistics()).toMatchObject({ segments: 0, maps: 0, anons: 0 });
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    vm.detach();
  });
});

describe('memory and cookies', () => {
  it('cannot be mapped as if stores were private', () => {
    const vm = boot({ memory: '4 MiB', services: 'manual', slots: 4 });
    const as = vm.addressSpace();
    const sources = [{ cookie: vm.pmem.alloc({ size: PAGE }) }, { memory: vm.sharedMemory({ size: PAGE }) }];
    for (const source of sources) {
      expect(() => as.map({ size: PAGE, ...source, shared: false })).toThrow(/EINVAL: as.map\(shared=false\)/);
      expect(as.lookup(as.map({ size: PAGE, ...source, shared: true }))?.shared).toBe(true);
    }
    expect(as.segments()).toHaveLength(2);
    as.destroy();
    vm.detach();
  });
});
