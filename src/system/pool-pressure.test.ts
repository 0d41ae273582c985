import { afterEach, describe, expect, it } from 'vitest';
import { boot } from './boot.ts';
import type { VirtualMemory } from './virtual-memory.ts';

const PAGE = 4096;
const FRAMES = 1024;

let vm: VirtualMemory | undefined;

afterEach(() => {
  vm?.detach();
  vm = undefined;
});

/** A memory whose frames are all in large pages that pmem keeps for later. */
function filled(): VirtualMemory {
  vm = boot({ memory: FRAMES * PAGE, services: 'manual' });
  const { pmem } = vm;
  const cookies = [500, 300].map((frames) => pmem.alloc({ size: frames * PAGE }));
  for (const cookie of cookies) pmem.free(cookie);
  expect(vm.frames.counts().free).toBe(0);
  return vm;
}

/** Everything goes back, and is free in one piece. */
function endOracle({ pmem, frames, check }: VirtualMemory): void {
  pmem.trim();
  expect(frames.counts().free).toBe(FRAMES);
  const first = frames.takeRun(FRAMES);
  frames.settle();
  frames.giveRun(first, FRAMES);
  expect(check.call(vm).flatMap((report) => report.problems)).toEqual([]);
}

describe('large pages that nobody uses', () => {
  it('are given up for page lists', () => {
    const { pageLists } = filled();
    const list = pageLists.alloc({ size: 3 * PAGE });
    pageLists.free(list);
    endOracle(vm as VirtualMemory);
  });

  it('are given up for cookies that lie together or that move', () => {
    for (const request of [{ contiguous: true }, { movable: { export: 'mover' } }]) {
      const { pmem, callbacks } = filled();
      callbacks.register('mover', { before: () => true, after: () => {} });
      pmem.free(pmem.alloc({ size: 100 * PAGE, ...request }));
      endOracle(vm as VirtualMemory);
      vm?.detach();
      vm = undefined;
    }
  });

  it('leave with memory that goes offline, and stay where a cookie has a page of them', () => {
    const { frames, pmem } = filled();
    frames.offline(0, FRAMES / 2, { timeoutMs: 0 });
    expect(frames.counts().absent).toBe(FRAMES / 2);
    frames.online(0, FRAMES / 2);
    const cookie = pmem.alloc({ size: PAGE });
    const frame = pmem.getPfns(cookie, 0, 1)[0] as number;
    expect(() => frames.offline(frame, 1, { timeoutMs: 0 })).toThrow(/EBUSY.*cookie=/);
    pmem.free(cookie);
    endOracle(vm as VirtualMemory);
  });
});

describe('a reclaimer', () => {
  it('needs a function to be asked', () => {
    const { pagedaemon } = filled();
    expect(() => pagedaemon.register({ name: 'lazy', priority: 1 } as never)).toThrow(/EINVAL.*reclaim/);
    expect(pagedaemon.order).not.toContain('lazy');
    endOracle(vm as VirtualMemory);
  });
});
