/** What every test of files ends with: nothing is asked for, nothing is kept. */

import type { VirtualMemory } from 'pagewright';
import { expect } from 'vitest';
import { until } from './chaos.ts';

/** Waits until no request to I/O workers is left. */
export async function awaitRequests(vm: VirtualMemory): Promise<void> {
  const { state, rowCount } = vm.region.tables.ioRequest;
  const rows = Array.from({ length: rowCount }, (_, row) => row);
  await until(() => rows.every((row) => state.get(row) === 0), 'all requests are free');
}

/** Nobody uses a vnode, every check passes, and every frame is free. */
export function expectAllFree(vm: VirtualMemory): void {
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.statistics().frames.free).toBe(vm.region.geometry.frames);
}
