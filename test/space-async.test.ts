/** Changes of spaces that wait for pins: with the event loop free, or blocking, ended by time, signals and tokens. */

import { once } from 'node:events';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { AddressSpace } from 'pagewright/seg';
import { CancelToken } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nextMessage, start, until, type Victim } from './support/chaos.ts';
import { PATIENCE_MS } from './support/until.ts';
import type { SpacePinnerData, SpacePinnerOrder } from './workers/space-pinner.ts';

const program = new URL('../build/test/workers/space-pinner.js', import.meta.url);
const PAGE = 4096;
const PAGES = 8;

let vm: VirtualMemory;
let as: AddressSpace;
let at: number;
let pinner: Victim;

beforeEach(async () => {
  vm = boot({ memory: '4 MiB', slots: 8 });
  as = vm.addressSpace();
  at = as.map({ size: PAGES * PAGE });
  as.fill(at, 1, PAGES * PAGE);
  const data: SpacePinnerData = { space: as.id, address: at + 2 * PAGE, length: PAGE };
  pinner = await start(vm, program, { ...data });
});

afterEach(async () => {
  const ended = once(pinner.worker, 'exit');
  order({ end: true });
  await ended;
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  vm.pagelock.reap();
  vm.spaces.reap();
  expect(vm.poisoned).toBeNull();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, anons: 0, pins: 0, reserved: 0 });
  await shutDown(vm);
});

const order = (what: SpacePinnerOrder) => pinner.worker.postMessage(what);

async function pinThere(): Promise<void> {
  const pinned = nextMessage(pinner.worker);
  order({ pin: true });
  await pinned;
}

/** Has the pin released only after the event loop has turned a few times: what blocks it would wait in vain. */
async function whileTicking(act: (wait: { timeoutMs: number }) => Promise<void>): Promise<void> {
  let ticks = 0;
  const timer = setInterval(() => {
    if (++ticks === 4) order({ releaseAfter: 0 });
  }, 2);
  try {
    await act({ timeoutMs: PATIENCE_MS });
    expect(ticks).toBeGreaterThan(3);
  } finally {
    clearInterval(timer);
  }
}

describe('a change that is awaited', () => {
  it('comes when another thread has released its pin, and leaves the event loop free until then', async () => {
    for (const change of ['protect', 'unmap', 'destroy'] as const) {
      await pinThere();
      expect(() => as.unmap(at, PAGES * PAGE)).toThrow(/EBUSY/);
      await whileTicking(async (wait) => {
        if (change === 'protect') await as.protectAsync(at + PAGE, 3 * PAGE, 'read', wait);
        else if (change === 'unmap') await as.unmapAsync(at + PAGE, PAGE * 2, wait);
        else await as.destroyAsync(wait);
      });
      if (change === 'protect') {
        expect(() => as.store(at + 2 * PAGE, 1)).toThrow(/EFAULT/);
        expect(as.load(at + 2 * PAGE)).toBe(0x01010101);
        as.protect(at, PAGES * PAGE, 'write');
      } else if (change === 'unmap') {
        expect(as.lookup(at + 2 * PAGE)).toBeNull();
        as.map({ address: at + 2 * PAGE, size: PAGE });
      } else {
        expect(() => as.segments()).toThrow(/ESTALE/);
        await expect(as.destroyAsync()).rejects.toThrow(/^ESTALE: as\.destroyAsync/);
        await expect(as.unmapAsync(at, PAGE)).rejects.toThrow(/^ESTALE: as\.unmapAsync/);
      }
    }
    expect(vm.spaces.list()).toEqual([]);
  });

  it('comes when a task of the same thread has released its pin, also one of several', async () => {
    const pins = [1, 2, 5].map((page) => as.pin(at + page * PAGE, PAGE, 'write'));
    const order: string[] = [];
    const waits = [
      as.unmapAsync(at + PAGE, PAGE).then(() => order.push('first')),
      as.protectAsync(at + 2 * PAGE, 4 * PAGE, 'read').then(() => order.push('last')),
      as.unmapAsync(at + 7 * PAGE, PAGE).then(() => order.push('at once')),
    ];
    for (const [index, pin] of pins.entries()) {
      await until(() => order.length >= Math.min(2, index + 1), `change ${index}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
      expect(order).toHaveLength(Math.min(2, index + 1));
      pin.release();
    }
    await Promise.all(waits);
    expect(order).toEqual(['at once', 'first', 'last']);
    // What throws else rejects, at once.
    await expect(as.protectAsync(at, 2 * PAGE, 'read')).rejects.toThrow(/EFAULT: as\.protectAsync/);
    await expect(as.unmapAsync(5, PAGE)).rejects.toThrow(/EINVAL: as\.unmapAsync/);
    await expect(as.protectAsync(at, PAGE, 'all' as 'read')).rejects.toThrow(/EINVAL: as\.protectAsync/);
  });

  it('ends with its time, its signal or its token, and has changed nothing', async () => {
    await pinThere();
    const before = as.dump();
    const range = [at, PAGES * PAGE] as const;
    await expect(as.unmapAsync(...range, { timeoutMs: 20 })).rejects.toThrow(
      new RegExp(`ETIMEDOUT: as\\.unmapAsync.*pinnedBy=${pinner.slot}`),
    );
    await expect(as.destroyAsync({ timeoutMs: 0 })).rejects.toThrow(/ETIMEDOUT: as\.destroyAsync/);
    const late = new AbortController();
    setTimeout(() => late.abort(new Error('no longer')), 10);
    const aborted = as.protectAsync(...range, 'read', { signal: late.signal });
    await expect(aborted).rejects.toThrow(/ECANCELED: .*as\.protectAsync/);
    await expect(as.unmapAsync(...range, { signal: late.signal })).rejects.toThrow(/ECANCELED/);
    const token = CancelToken.create(vm.thread);
    order({ cancel: token.handle(), after: 20 });
    await expect(as.unmapAsync(...range, { cancel: token })).rejects.toThrow(/ECANCELED.*as\.unmapAsync/);
    await expect(as.unmapAsync(...range, { cancel: token })).rejects.toThrow(/ECANCELED.*as\.unmapAsync/);
    token.release();
    for (const bad of [{ cancel: 5 }, { signal: 5 }, { timeoutMs: -1 }, { timeout: 1 }]) {
      await expect(as.unmapAsync(...range, bad as object)).rejects.toThrow(/EINVAL: as\.unmapAsync/);
    }
    expect(as.dump()).toBe(before);
    expect(vm.thread.heldCount).toBe(0);
  });
});

describe('a blocking change', () => {
  it('ends with a token that another thread cancels', async () => {
    await pinThere();
    const before = as.dump();
    const token = CancelToken.create(vm.thread);
    order({ cancel: token.handle(), after: 20 });
    expect(() => as.unmap(at, PAGES * PAGE, { timeoutMs: PATIENCE_MS, cancel: token })).toThrow(/ECANCELED.*as\.unmap/);
    expect(() => as.protect(at, PAGE, 'read', { cancel: token })).toThrow(/ECANCELED.*as\.protect/);
    expect(() => as.destroy({ timeoutMs: PATIENCE_MS, cancel: token })).toThrow(/ECANCELED.*as\.destroy/);
    expect(() => as.unmap(at, PAGE, { cancel: {} as CancelToken })).toThrow(/EINVAL: as\.unmap/);
    token.release();
    expect(as.dump()).toBe(before);
    expect(vm.thread.heldCount).toBe(0);
    // And else with the pin.
    order({ releaseAfter: 20 });
    as.unmap(at, PAGES * PAGE, { timeoutMs: PATIENCE_MS });
    expect(as.segments()).toEqual([]);
  });
});
