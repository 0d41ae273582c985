/** Memory full of pages, some of them modified, gives way to the heap and to physical memory. */

import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Scratch } from '../../test/support/scratch.ts';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { pagesKept } from '../phys/making-room.ts';
import { boot } from './boot.ts';
import type { VirtualMemory } from './virtual-memory.ts';

const PAGE = 4096;
const MIB = 2 ** 20;
const FILE_PAGES = 4096;
const SEED = testSeed('page room', 20261121);

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

/** A memory full of pages of a file, of which one access in `every` writes (0: none), and what the file should hold. */
function full(every: number, pageSize = PAGE) {
  const path = scratch.file('pages', 0);
  const expected = new Uint8Array(FILE_PAGES * PAGE).fill(5);
  writeFileSync(path, expected);
  const vm = boot({ memory: '4 MiB', services: 'manual', clock: 'virtual', dirtyLimit: 0 });
  const file = vm.open(path, { mode: 'rw', pageSize });
  const random = new Prng(SEED);
  for (let access = 0; access < 3 * vm.region.geometry.frames; access++) {
    const offset = random.below(FILE_PAGES) * PAGE;
    if (every > 0 && access % every === 0) {
      const value = random.between(1, 250);
      file.write(offset, new Uint8Array(PAGE).fill(value));
      expected.fill(value, offset, offset + PAGE);
    } else {
      file.read(offset, 10);
    }
  }
  const end = () => {
    file.sync();
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
    file.close();
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    vm.detach();
  };
  return { vm, file, end };
}

/** Allocates pieces of the heap, and frees them. */
function fill(vm: VirtualMemory, size: number, count: number): void {
  const pieces = Array.from({ length: count }, () => vm.heap.alloc(size));
  for (const piece of pieces) vm.heap.free(piece, size);
}

describe('memory full of pages', () => {
  it.each([
    [0, 4096],
    [4, 4096],
    [2, 65_536],
    [1, 4096],
    [1, MIB / 2],
  ])('gives way to the heap when one access in %i writes, for pieces of %i bytes', (every, size) => {
    const { vm, file, end } = full(every);
    expect(vm.pages.modifiedOf(file.vnode) > 0).toBe(every > 0);
    expect(vm.frames.counts().page).toBeGreaterThan(900);
    fill(vm, size, Math.floor((2 * MIB) / size));
    end();
  });

  it.each([0, 1, 2, 8])('gives way when its pages are of several frames, and one access in %i writes', (every) => {
    for (const pageSize of [2 * PAGE, 8 * PAGE]) {
      const { vm, end } = full(every, pageSize);
      fill(vm, 2 * PAGE, 40);
      fill(vm, MIB / 4, 3);
      vm.pmem.free(vm.pmem.alloc({ size: MIB / 2, contiguous: true }));
      end();
    }
  });

  it('moves modified pages while there are clean ones that can leave, and writes none', () => {
    const { vm, file, end } = full(8);
    const written = vm.pages.writtenHere;
    const modified = vm.pages.modifiedOf(file.vnode);
    vm.heap.free(vm.heap.alloc(100), 100);
    expect(vm.pages.writtenHere).toBe(written);
    expect(vm.pages.modifiedOf(file.vnode)).toBe(modified);
    end();
  });

  it.each([0, 1, 3])('gives way to physical memory that may not wait, when one access in %i writes', (every) => {
    const { vm, end } = full(every);
    for (const contiguous of [false, true]) {
      const cookie = vm.pmem.alloc({ size: MIB, contiguous });
      vm.pmem.free(cookie);
    }
    end();
  });

  it('keeps its last pages from those who do not wait, not from those who do', () => {
    const { vm, file, end } = full(2);
    const kept = pagesKept(vm.region.geometry.frames);
    expect(kept).toBe(32);
    const cookie = vm.pmem.alloc({ size: MIB });
    const pieces: number[] = [];
    for (let piece = vm.heap.tryAlloc(PAGE); piece >= 0; piece = vm.heap.tryAlloc(PAGE)) pieces.push(piece);
    expect(vm.pmem.tryAlloc({ size: PAGE })).toBeNull();
    expect(vm.frames.tryTakeRun(1)).toBe(-1);
    expect(vm.frames.counts()).toMatchObject({ free: 0, page: kept });
    // Files go on within these.
    expect(file.read(0, 4 * kept * PAGE)).toHaveLength(4 * kept * PAGE);
    const first = vm.frames.takeRunWait(2, { timeoutMs: 60_000 });
    expect(vm.frames.counts().page).toBeLessThan(kept);
    vm.frames.giveRun(first, 2);
    vm.pmem.free(cookie);
    for (const piece of pieces) vm.heap.free(piece, PAGE);
    end();
  });
});
