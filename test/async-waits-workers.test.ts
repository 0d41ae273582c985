/** Page lists and cookies that are awaited in real threads, which die while they wait and while they are being served. */

import { once } from 'node:events';
import { boot, type VirtualMemory } from 'pagewright';
import type { FaultPoint } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { kill, nextMessage, parkAt, start, until, type Victim } from './support/chaos.ts';

const program = new URL('../build/test/workers/async-waiter.js', import.meta.url);
const PAGE = 4096;
const FRAMES = 256;
const ASKED = 20;

/** This thread, the daemon and the I/O worker. */
const SERVICES = 3;

let vm: VirtualMemory;
let failures: Error[];

beforeEach(() => {
  vm = boot({ memory: FRAMES * PAGE, slots: 10, limits: { lockedFrames: 120 }, pmem: { largeFrames: 16 } });
  failures = [];
});

afterEach(() => shutDownBalanced(vm));

interface Waiter extends Victim {
  /** Its frames. */
  readonly served: Promise<readonly number[]>;
}

/** Three threads that wait in this order, while this one has all but 4 frames; `free` gives frames back. */
async function begin(kind: 'list' | 'cookie') {
  const all = vm.pageLists.alloc({ size: (FRAMES - 4) * PAGE });
  const end = (all.runs[0]?.first as number) + FRAMES - 4;
  let next = all.runs[0]?.first as number;
  const free = (count: number) => {
    vm.pageLists.free({ runs: [{ first: next, count }], frameCount: count });
    next += count;
  };
  const waiters: Waiter[] = [];
  for (let number = 0; number < 3; number++) {
    const victim = await start(vm, program, { kind, frames: ASKED });
    victim.worker.on('error', (error) => failures.push(error as Error));
    const served = new Promise<readonly number[]>((resolve) => {
      victim.worker.on('message', (message) => Array.isArray(message) && resolve(message));
    });
    waiters.push({ ...victim, served });
    await until(() => vm.frames.core.queue.count === number + 1, 'it waits');
  }
  const [first, second, third] = waiters as [Waiter, Waiter, Waiter];
  return { free, freeRest: () => free(end - next), first, second, third };
}

async function leave({ worker }: Waiter): Promise<void> {
  const left = once(worker, 'exit');
  worker.postMessage('free');
  await left;
}

async function expectAllFree(): Promise<void> {
  await until(() => vm.statistics().slots.length === SERVICES, 'the workers leave');
  expect(failures).toEqual([]);
  expect(vm.poisoned).toBeNull();
  expect(vm.frames.core.queue.count).toBe(0);
  vm.pmem.trim();
  expect(vm.pmem.statistics()).toEqual({ cookies: 0, poolFrames: 0, largePages: 0, reserved: 0 });
  const used = vm.statistics().owners.map(({ resources }) => [resources.frames.used, resources.lockedFrames.used]);
  expect(used).toEqual([[0, 0]]);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  vm.pageLists.free(vm.pageLists.alloc({ size: FRAMES * PAGE }));
}

/** Where a request is served, for each kind. */
const POINTS: Readonly<Record<'list' | 'cookie', readonly FaultPoint[]>> = {
  list: ['phys.list.partial'],
  cookie: ['pmem.alloc.pooled', 'pmem.alloc.large', 'pmem.alloc.gathered'],
};

describe.each(['list', 'cookie'] as const)('a %s that is awaited by several threads', (kind) => {
  it('is served to each, with their event loops free meanwhile', async () => {
    const { free, freeRest, first, second, third } = await begin(kind);
    for (const { worker } of [first, second, third]) {
      const answer = nextMessage(worker);
      worker.postMessage('ping');
      expect(await answer).toEqual(['pong']);
    }
    expect(vm.frames.core.queue.count).toBe(3);
    free(50);
    freeRest();
    const served = await Promise.all([first.served, second.served, third.served]);
    expect(new Set(served.flat()).size).toBe(3 * ASKED);
    for (const waiter of [first, second, third]) await leave(waiter);
    await expectAllFree();
  });

  it('goes to the next ones when the first one dies while it waits', async () => {
    const { free, freeRest, first, second, third } = await begin(kind);
    await kill(vm, first);
    await until(() => vm.frames.core.queue.count === 2, 'its place is free');
    free(2 * ASKED);
    const served = await Promise.all([second.served, third.served]);
    expect(new Set(served.flat()).size).toBe(2 * ASKED);
    await leave(second);
    await leave(third);
    freeRest();
    await expectAllFree();
  });

  it.each(POINTS[kind])('goes to the next ones when the first one dies while it is served: %s', async (point) => {
    const { free, freeRest, first, second, third } = await begin(kind);
    const parked = parkAt(vm, point, { slot: first.slot });
    free(2 * ASKED);
    await parked;
    await kill(vm, first);
    // What it had goes back: else there would not be enough.
    await Promise.all([second.served, third.served]);
    await leave(second);
    await leave(third);
    freeRest();
    await expectAllFree();
  });
});
