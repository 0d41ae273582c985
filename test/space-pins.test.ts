/** Unmapping and protecting what another thread has pinned: refused, waited for, and given back when that thread ends. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { AddressSpace } from 'pagewright/seg';
import { notify, store } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { start, until } from './support/chaos.ts';
import { PATIENCE_MS } from './support/until.ts';

const program = new URL('../build/test/workers/pin-holder.js', import.meta.url);
const PAGE = 4096;

let vm: VirtualMemory;
let as: AddressSpace;
let at: number;

beforeEach(() => {
  vm = boot({ memory: '4 MiB', slots: 8 });
  as = vm.addressSpace();
  at = as.map({ size: 8 * PAGE });
  as.fill(at, 1, 8 * PAGE);
});

afterEach(() => shutDown(vm));

/** A worker that pins a page until it is told, or for so long. */
async function hold(afterMs = 10 * PATIENCE_MS) {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const victim = await start(vm, program, { space: as.id, address: at + 3 * PAGE, stop, afterMs });
  const release = () => {
    store(stop, 0, 1);
    notify(stop, 0, 1);
  };
  return { ...victim, release };
}

/** Waits for the workers to go, and then for everything to go back. */
async function endOracle(): Promise<void> {
  await until(() => vm.statistics().slots.length === 3, 'slots are left');
  vm.pagelock.reap();
  as.destroy();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.pagelock.statistics()).toMatchObject({ entries: 0, owners: 0, lockedPages: 0 });
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
  expect(vm.frames.takeRun(total)).toBe(0);
  vm.frames.giveRun(0, total);
}

describe('pins under the original rules of the pagelock cache', () => {
  const pagesOf = (pin: { readonly views: readonly Uint8Array[] }) =>
    pin.views.reduce((sum, { length }) => sum + length, 0) / PAGE;

  it('are released: hits, longer ranges, ranges that are not cached, several segments, wired memory', async () => {
    shutDown(vm);
    vm = boot({ memory: '4 MiB', slots: 8, pagelock: { compat: 'seed', maxWindow: 12 } });
    as = vm.addressSpace();
    at = as.map({ size: 8 * PAGE });
    as.map({ address: at + 8 * PAGE, size: 4 * PAGE });
    as.pin(at, 4 * PAGE, 'write').release();
    expect(vm.pagelock.statistics()).toMatchObject({ entries: 1, lockedPages: 4 });
    const hits = [as.pin(at, 4 * PAGE, 'write'), as.pin(at, 2 * PAGE, 'read')];
    expect(vm.pagelock.statistics().counters).toMatchObject({ hits: 2, inserts: 0 });
    // A longer range of the same start while the shorter is pinned, one that overlaps, one across both segments.
    const others = [
      as.pin(at, 6 * PAGE, 'write'),
      as.pin(at + 2 * PAGE, 2 * PAGE, 'read'),
      as.pin(at + 7 * PAGE, 3 * PAGE, 'write'),
    ];
    expect(vm.pagelock.windowPages).toBeLessThanOrEqual(12);
    expect([...hits, ...others].map(pagesOf)).toEqual([4, 2, 6, 2, 3]);
    expect(() => as.unmap(at, PAGE)).toThrow(/EBUSY/);
    for (const pin of [...others, ...hits].reverse()) {
      pin.release();
      expect(() => pin.release()).toThrow(/EINVAL/);
    }
    const wired = vm.sharedMemory({ size: 4 * PAGE, wired: true });
    const there = as.map({ size: 4 * PAGE, memory: wired });
    const pins = [as.pin(there, 2 * PAGE, 'write'), as.pin(there + PAGE, PAGE, 'read')];
    for (const pin of pins) pin.release();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    as.unmap(there, 4 * PAGE);
    wired.release();
    as.unmap(at + PAGE, 2 * PAGE);
    await endOracle();
  });

  it('go with a thread that dies', async () => {
    shutDown(vm);
    vm = boot({ memory: '4 MiB', slots: 8, pagelock: { compat: 'seed' } });
    as = vm.addressSpace();
    at = as.map({ size: 8 * PAGE });
    as.fill(at, 1, 8 * PAGE);
    const { worker } = await hold();
    expect(() => as.unmap(at, 8 * PAGE)).toThrow(/EBUSY/);
    await worker.terminate();
    as.unmap(at, 8 * PAGE, { timeoutMs: PATIENCE_MS });
    await endOracle();
  });
});

describe('a range that another thread has pinned', () => {
  it('is neither unmapped nor protected, and the error names the thread', async () => {
    const { slot, release } = await hold();
    const named = new RegExp(`EBUSY.*pinnedBy=${slot}`);
    expect(() => as.unmap(at, 8 * PAGE)).toThrow(named);
    expect(() => as.protect(at + 2 * PAGE, 2 * PAGE, 'read')).toThrow(named);
    expect(() => as.map({ address: at, size: 4 * PAGE, replace: true })).toThrow(named);
    expect(() => as.destroy()).toThrow(named);
    expect(() => as.unmap(at, 8 * PAGE, { timeoutMs: 20 })).toThrow(/ETIMEDOUT/);
    expect(() => as.protect(at, 8 * PAGE, 'none', { timeoutMs: 20 })).toThrow(/ETIMEDOUT/);
    // Nothing has changed, and what lies beside it can go.
    expect(as.read(at + 3 * PAGE, 2)).toEqual(Uint8Array.of(77, 1));
    as.write(at + 3 * PAGE + 1, Uint8Array.of(5));
    as.unmap(at + 4 * PAGE, PAGE);
    as.protect(at + 2 * PAGE, PAGE, 'read');
    release();
    as.unmap(at + 3 * PAGE, PAGE, { timeoutMs: PATIENCE_MS });
    expect(() => as.read(at + 3 * PAGE, 1)).toThrow(/EFAULT/);
    await endOracle();
  });

  it('is waited for: unmapped and protected as soon as the pin is released', async () => {
    await hold(150);
    as.protect(at + 3 * PAGE, PAGE, 'read', { timeoutMs: PATIENCE_MS });
    expect(as.read(at + 3 * PAGE, 1)[0]).toBe(77);
    expect(() => as.store(at + 3 * PAGE, 1)).toThrow(/EFAULT/);
    as.protect(at + 3 * PAGE, PAGE, 'write');
    await hold(150);
    as.unmap(at, 8 * PAGE, { timeoutMs: PATIENCE_MS });
    expect(as.size).toBe(0);
    await endOracle();
  });

  it('is free when the thread ends, also while this thread waits for it', async () => {
    const { worker } = await hold();
    const copy = as.fork();
    expect(copy.read(at + 3 * PAGE, 1)[0]).toBe(77);
    const ended = worker.terminate();
    as.unmap(at + 3 * PAGE, PAGE, { timeoutMs: PATIENCE_MS });
    await ended;
    expect(copy.read(at + 3 * PAGE, 1)[0]).toBe(77);
    copy.destroy();
    await endOracle();
  });
});
