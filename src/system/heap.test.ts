/** The heap under constraints: what it imports is a run that can hold the request, wherever that has to be. */

import { describe, expect, it } from 'vitest';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { boot } from './boot.ts';

const PAGE = 4096;
const MIB = 2 ** 20;

function start(memory = '4 MiB') {
  return boot({ memory, services: 'manual', clock: 'virtual' });
}

describe('the heap and constraints', () => {
  it('finds what only one place of memory can hold', () => {
    const vm = start();
    const { heap } = vm;
    expect(heap.xalloc(64, { min: 3 * MIB })).toBe(3 * MIB);
    expect(heap.xalloc(64, { min: 3 * MIB + 5 * PAGE + 128, max: 3 * MIB + 6 * PAGE - 1 })).toBe(
      3 * MIB + 5 * PAGE + 128,
    );
    expect(heap.xalloc(MIB, { align: MIB, min: 1 })).toBe(MIB);
    expect(heap.xalloc(8 * PAGE, { align: 64 * PAGE, phase: 32 * PAGE, min: 2 * MIB })).toBe(2 * MIB + 32 * PAGE);
    const crossing = heap.xalloc(6 * PAGE, { nocross: 8 * PAGE, min: 2 * MIB + 5 * PAGE });
    expect(crossing).toBe(2 * MIB + 8 * PAGE);
    expect(heap.tryXalloc(64, { min: 4 * MIB })).toBe(-1);
    expect(heap.tryXalloc(2 * PAGE, { max: PAGE })).toBe(-1);
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    for (const { address, size } of heap.allocations()) heap.xfree(address, size);
    heap.trim();
    expect(vm.frames.counts().run).toBe(0);
    vm.detach();
  });

  it("is nobody's to end, and its spans are nobody's to change", () => {
    const vm = start();
    const { heap } = vm;
    const address = heap.alloc(64);
    const calls = [
      () => heap.xfreeAll(),
      () => heap.destroy(),
      () => vm.arenas.destroy('vm.heap'),
      () => heap.add(2 ** 40, PAGE),
      () => heap.remove(0),
    ];
    for (const call of calls) expect(call).toThrow(/ENOTSUP: arena\.\w+\(arena="vm.heap"\): the heap is shared by all/);
    expect(() => vm.createArena('vm.heap', { size: 64 })).toThrow(/EINVAL: arenas.create.*names that begin with/);
    expect(heap.size('allocated')).toBe(64);
    heap.free(address, 64);
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    vm.detach();
  });

  it('finds a place whenever there is one, in fragmented memory', () => {
    const seed = testSeed('heap constraints', 20261124);
    const random = new Prng(seed);
    const vm = start('1 MiB');
    const total = vm.region.geometry.frames;
    // Single frames in the way, so that few runs are left.
    const taken = new Set<number>();
    for (let count = 0; count < 60; count++) {
      const low = random.below(total);
      const place = { alignment: 1, boundary: 0, low, high: low + 1 };
      if (vm.frames.tryTakeRun(1, place) >= 0) taken.add(low);
    }
    vm.frames.settle();
    let found = 0;
    let refused = 0;
    for (let round = 0; round < 400; round++) {
      const size = 64 * random.between(1, 200);
      const align = 64 * 2 ** random.below(11);
      const phase = align > 64 && random.chance(0.5) ? 64 * random.below(align / 64) : 0;
      const chosen = random.chance(0.5) ? 2 ** random.between(12, 16) : 0;
      const crosses = chosen !== 0 && Math.floor(phase / chosen) !== Math.floor((phase + size - 1) / chosen);
      const nocross = chosen < size || crosses ? 0 : chosen;
      const min = random.below(total * PAGE);
      const max = min + random.below(40 * PAGE);
      const expected = lowest(taken, total, size, { align, phase, nocross, min, max });
      const address = vm.heap.tryXalloc(size, { align, phase, nocross, min, max });
      const said = JSON.stringify({ round, size, align, phase, nocross, min, max, expected, address });
      expect(address >= 0, said).toBe(expected >= 0);
      if (address >= 0) {
        found++;
        expect((address - phase) % align).toBe(0);
        vm.heap.xfree(address, size);
        vm.heap.trim();
      } else {
        refused++;
      }
    }
    expect(Math.min(found, refused)).toBeGreaterThan(30);
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    vm.detach();
  });
});

interface Place {
  readonly align: number;
  readonly phase: number;
  readonly nocross: number;
  readonly min: number;
  readonly max: number;
}

/** The lowest address by trying all, or -1. */
function lowest(taken: ReadonlySet<number>, total: number, size: number, place: Place): number {
  const { align, phase, nocross, min, max } = place;
  for (let address = phase; address + size - 1 <= Math.min(max, total * PAGE - 1); address += align) {
    const last = address + size - 1;
    if (address < min) continue;
    if (nocross !== 0 && Math.floor(address / nocross) !== Math.floor(last / nocross)) continue;
    let free = true;
    for (let frame = Math.floor(address / PAGE); frame <= Math.floor(last / PAGE); frame++) free &&= !taken.has(frame);
    if (free) return address;
  }
  return -1;
}
