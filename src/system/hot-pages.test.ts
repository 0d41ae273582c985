/** Pages that are used stay in memory, moved or not, while others that nobody uses leave for a run, a list, or memory that goes. */

import { readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Scratch } from '../../test/support/scratch.ts';
import { boot } from './boot.ts';
import type { BootOptions } from './options.ts';
import type { VirtualMemory } from './virtual-memory.ts';

const PAGE = 4096;
const FRAMES = 256;
const WINDOW = 64;

/** Pages that leave beyond those that are missing: see phys/making-room.ts. */
const SPARE = 16;

let scratch: Scratch;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(() => scratch.remove());

/** Memory full of pages: those in the first frames are used, the others are not, since the hand passed. */
function setUp(writes: 'none' | 'hot' | 'all', options: Pick<BootOptions, 'replacement'> = {}, pageSize = PAGE) {
  const path = scratch.file('pages', 0);
  const expected = new Uint8Array(FRAMES * PAGE).fill(5);
  writeFileSync(path, expected);
  const vm = boot({ memory: FRAMES * PAGE, services: 'manual', clock: 'virtual', dirtyLimit: 0, ...options });
  const file = vm.open(path, { mode: 'rw', pageSize });
  const { page } = vm.region.tables;
  const write = (first: number, limit: number) => {
    for (let index = first; index < limit; index++) {
      const value = 1 + (index % 250);
      file.write(index * PAGE, new Uint8Array(PAGE).fill(value));
      expected.fill(value, index * PAGE, (index + 1) * PAGE);
    }
  };
  for (let index = 0; index < FRAMES; index++) file.read(index * PAGE, 10);
  // Of modified pages those are written first that were modified first.
  if (writes === 'all') write(WINDOW, FRAMES);
  if (writes !== 'none') write(0, WINDOW);
  expect(vm.frames.counts()).toMatchObject({ free: 0, page: FRAMES });
  for (let frame = 0; frame < FRAMES; frame++) page.referenced.put(frame, 0);
  const inMemory = (first: number, end: number) => {
    let count = 0;
    for (let index = first; index < end; index++) if (vm.pages.isThere(file.vnode, index)) count++;
    return count;
  };
  for (let index = 0; index < WINDOW; index++) {
    // More often than a policy needs to take a page as used.
    for (let times = 0; times < 4; times++) file.read(index * PAGE, 10);
    expect(page.index.get(index)).toBe(index);
  }
  const end = () => {
    file.sync();
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
    for (let index = 0; index < FRAMES; index++) {
      expect(file.read(index * PAGE, 1)[0]).toBe(expected[index * PAGE]);
    }
    file.close();
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    vm.detach();
  };
  return { vm, hot: () => inMemory(0, WINDOW), cold: () => inMemory(WINDOW, FRAMES), end };
}

const high = WINDOW * PAGE - 1;
const PLACE = { alignment: 1, boundary: 0, low: 0, high: WINDOW };

const REQUESTS: Record<string, (vm: VirtualMemory) => () => void> = {
  'a run': (vm) => {
    const first = vm.frames.tryTakeRun(WINDOW, PLACE);
    expect(first).toBe(0);
    return () => vm.frames.giveRun(first, WINDOW);
  },
  'a page list in a window': (vm) => {
    const list = vm.pageLists.allocWait({ size: WINDOW * PAGE, high }, { timeoutMs: 60_000 });
    return () => vm.pageLists.free(list);
  },
  'any frames in a window': (vm) => {
    const list = vm.pageLists.allocWait({ size: WINDOW * PAGE, high, segments: WINDOW }, { timeoutMs: 60_000 });
    return () => vm.pageLists.free(list);
  },
  'any frames': (vm) => {
    const list = vm.pageLists.allocWait({ size: WINDOW * PAGE, segments: WINDOW }, { timeoutMs: 60_000 });
    return () => vm.pageLists.free(list);
  },
  'a cookie in one piece': (vm) => {
    const cookie = vm.pmem.alloc({ size: WINDOW * PAGE, contiguous: true });
    expect(vm.pmem.getPfns(cookie, 0, 1)).toEqual([0]);
    return () => vm.pmem.free(cookie);
  },
  'memory that goes offline': (vm) => {
    vm.frames.offline(0, WINDOW, { timeoutMs: 0 });
    return () => vm.frames.online(0, WINDOW);
  },
  'frames promised to an owner': (vm) => {
    vm.frames.reserveFor('default', WINDOW);
    return () => vm.frames.reserveFor('default', 0);
  },
};

describe.each(Object.keys(REQUESTS))('for %s', (name) => {
  const request = REQUESTS[name] as (vm: VirtualMemory) => () => void;

  it.each(['clock', 's3fifo', 'clockPro', 'queues'] as const)('unused pages leave, with %s', (replacement) => {
    const { vm, hot, cold, end } = setUp('none', { replacement });
    const giveBack = request(vm);
    expect(hot()).toBe(WINDOW);
    expect(cold()).toBeGreaterThanOrEqual(FRAMES - 2 * WINDOW - SPARE - 1);
    expect(cold()).toBeLessThanOrEqual(FRAMES - 2 * WINDOW);
    giveBack();
    end();
  });

  it('unused pages leave while used ones are modified, and none is written', () => {
    const { vm, hot, cold, end } = setUp('hot');
    const written = vm.pages.writtenHere;
    const giveBack = request(vm);
    expect([hot(), vm.pages.writtenHere]).toEqual([WINDOW, written]);
    expect(cold()).toBeGreaterThanOrEqual(FRAMES - 2 * WINDOW - SPARE - 1);
    giveBack();
    end();
  });

  it('unused pages are written and leave when all are modified', () => {
    const { vm, hot, cold, end } = setUp('all');
    const giveBack = request(vm);
    expect(hot()).toBe(WINDOW);
    expect(cold()).toBeGreaterThanOrEqual(FRAMES - 2 * WINDOW - SPARE - 1);
    giveBack();
    end();
  });

  it('large pages, which do not move, are written before they leave', () => {
    const { vm, end } = setUp('all', {}, 4 * PAGE);
    const before = vm.pages.writtenHere;
    const giveBack = request(vm);
    expect(vm.pages.writtenHere - before).toBeGreaterThanOrEqual(WINDOW);
    giveBack();
    end();
  });
});
