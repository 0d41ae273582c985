/** Threads that block for spans of a source that answers later: the daemon runs the function, or a thread that serves. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { AsyncSpanSource } from 'pagewright/vmem';
import { afterEach, describe, expect, it } from 'vitest';
import { nextMessage, start } from './support/chaos.ts';

const program = new URL('../build/test/workers/remote-waiter.js', import.meta.url);
const leases = new URL('../build/test/workers/leases.js', import.meta.url);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

async function runWaiters(system: VirtualMemory): Promise<void> {
  const workers = await Promise.all([0, 1].map(() => start(system, program, { rounds: 20 })));
  const outcomes = workers.map(({ worker }) => nextMessage(worker));
  for (const { worker } of workers) worker.postMessage('go');
  const results = await Promise.all(outcomes);
  const got = results.flatMap(([result]) => result.got as number[]);
  expect(new Set(got).size).toBe(40);
  expect(system.arena('leases').stats().counts.imports).toBeGreaterThanOrEqual(10);
  expect(system.check().flatMap(({ problems }) => problems)).toEqual([]);
  for (const address of got) system.arena('leases').free(address, 10);
  system.arena('leases').trim();
}

describe('blocked threads and remote sources', () => {
  it('are served by the daemon when the function is in a module', async () => {
    vm = boot({ memory: '1 MiB', slots: 8 });
    vm.createArena('leases', { import: { from: { module: leases, export: 'leases' }, async: true, roundTo: 40 } });
    await runWaiters(vm);
  });

  it('are served by a thread that registered it', async () => {
    vm = boot({ memory: '1 MiB', slots: 8 });
    let next = 5000;
    const released: number[] = [];
    const source: AsyncSpanSource = {
      async importAsync(size) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        next += size;
        return { start: next - size, size };
      },
      release: (first) => released.push(first),
    };
    vm.callbacks.register('leases here', source);
    vm.createArena('leases', { import: { from: { export: 'leases here' }, async: true, roundTo: 40 } });
    const stop = new AbortController();
    const served = vm.arenas.serveImports({ signal: stop.signal });
    await runWaiters(vm);
    expect(released.length).toBeGreaterThanOrEqual(10);
    stop.abort();
    await served;
  });

  it('end with the system that is shut down, without an error', async () => {
    vm = boot({ memory: '1 MiB', slots: 8 });
    const source: AsyncSpanSource = { importAsync: async (size) => ({ start: 1000, size }), release: () => {} };
    vm.callbacks.register('leases here', source);
    const arena = vm.createArena('leases', { import: { from: { export: 'leases here' }, async: true } });
    const served = vm.arenas.serveImports();
    arena.free(await arena.allocAsync(5), 5);
    await shutDown(vm);
    vm = undefined;
    await served;
  });
});
