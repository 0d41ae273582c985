/** What every test of files ends with: nothing is asked for, nothing is kept. */

import type { VirtualMemory } from 'pagewright';
import { wait } from 'pagewright/sync';
import { expect } from 'vitest';
import { until } from './chaos.ts';
import { PATIENCE_MS } from './until.ts';

/** Waits until no request to I/O workers is left. */
export async function awaitRequests(vm: VirtualMemory): Promise<void> {
  const { state, rowCount } = vm.region.tables.ioRequest;
  const rows = Array.from({ length: rowCount }, (_, row) => row);
  await until(() => rows.every((row) => state.get(row) === 0), 'all requests are free');
}

/** Blocks until something holds; throws when that takes longer than anything may take. */
export function blockUntil(condition: () => boolean, what: () => string): void {
  const word = new Int32Array(new SharedArrayBuffer(4));
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`blocked for ${PATIENCE_MS} ms in vain: ${what()}`);
    wait(word, 0, 0, 1);
  }
}

/**
 * Blocks until all frames are free, no vnode is in use and nothing is asked for. The pagedaemon and the I/O workers may hold a page for a moment
 * longer than those for whom they do it.
 */
export function blockUntilAllFree(vm: VirtualMemory): void {
  const { state, rowCount } = vm.region.tables.ioRequest;
  const rows = Array.from({ length: rowCount }, (_, row) => row);
  const asked = () => rows.filter((row) => state.get(row) !== 0);
  const isFree = () => {
    if (vm.poisoned !== null) return true;
    if (asked().length > 0) return false;
    const used = vm.vnodes.dropUnused();
    vm.heap.trim();
    return used === 0 && vm.statistics().frames.free === vm.region.geometry.frames;
  };
  blockUntil(isFree, () => {
    const { frames } = vm.statistics();
    return `${vm.vnodes.dropUnused()} vnodes in use, ${asked().length} requests, frames ${JSON.stringify(frames)}`;
  });
}

/** Nobody uses a vnode, every check passes, and every frame is free. */
export function expectAllFree(vm: VirtualMemory): void {
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
}
