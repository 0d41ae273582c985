/** Workers that are terminated in the middle of an asynchronous import: those that run it, and those that wait for it. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import type { AsyncSpanSource } from 'pagewright/vmem';
import { afterEach, describe, expect, it } from 'vitest';
import { kill, killAt, nextMessage, start, until } from './support/chaos.ts';

const importer = new URL('../build/test/workers/async-importer.js', import.meta.url);
const waiter = new URL('../build/test/workers/remote-waiter.js', import.meta.url);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

const shared = (length: number) => new Int32Array(new SharedArrayBuffer(4 * length));

function sound(system: VirtualMemory): void {
  expect(system.check().flatMap(({ problems }) => problems)).toEqual([]);
}

describe('a worker that ends in the middle of an asynchronous import', () => {
  it('and runs it leaves the import to others, at every labelled place', async () => {
    vm = boot({ memory: '1 MiB', slots: 8 });
    const system = vm;
    const cells = shared(1000);
    const stop = shared(1);
    const from = { export: 'leases here' };
    const arena = system.createArena('leases', { import: { from, async: true, roundTo: 64 } });
    const workers = [await start(system, importer, { cells, stop }), await start(system, importer, { cells, stop })];
    const imports = () => arena.stats().counts.imports;
    const places = ['wanted', 'claimed', 'answered', 'finished'] as const;
    for (const place of [...places, ...places]) {
      const victim = await killAt(system, `vmem.asyncImport.${place}`, workers);
      const before = imports();
      await until(() => imports() > before + 2, `nobody imported after a death at ${place}`);
      workers[workers.indexOf(victim)] = await start(system, importer, { cells, stop });
    }
    const outcomes = workers.map(({ worker }) => nextMessage(worker));
    stop[0] = 1;
    const results = await Promise.all(outcomes);
    const served = results.reduce((sum, [result]) => sum + result.served, 0);
    console.log(`async importers: ${served} requests of the last two workers, ${imports()} imports`);
    expect(served).toBeGreaterThan(0);
    for (const { attachment } of arena.allocations()) arena.freeOf(attachment);
    sound(system);
    expect(arena.size('allocated')).toBe(0);
  });

  it('and waits for it leaves what comes to others', async () => {
    vm = boot({ memory: '1 MiB', slots: 8 });
    const system = vm;
    const answers: ((start: number) => void)[] = [];
    const released: number[] = [];
    const source: AsyncSpanSource = {
      importAsync: () => new Promise<number>((resolve) => answers.push(resolve)),
      release: (first) => released.push(first),
    };
    system.callbacks.register('leases here', source);
    const from = { export: 'leases here' };
    const arena = system.createArena('leases', { import: { from, async: true, roundTo: 64 } });
    const stop = new AbortController();
    const served = system.arenas.serveImports({ signal: stop.signal });
    for (let round = 0; round < 5; round++) {
      const [first, second] = [
        await start(system, waiter, { rounds: 1 }),
        await start(system, waiter, { rounds: 1 }),
      ] as const;
      first.worker.postMessage('go');
      await until(() => answers.length === 1, 'nobody asked');
      second.worker.postMessage('go');
      await until(() => arena.stats().waiting === 2, 'the second does not wait');
      const outcome = nextMessage(second.worker);
      await kill(system, first);
      expect(arena.stats().waiting).toBe(1);
      answers.shift()?.(64 * round);
      const [{ got }] = await outcome;
      expect(got).toEqual([64 * round]);
      arena.free(64 * round, 10);
      arena.trim();
    }
    expect(released).toEqual([0, 64, 128, 192, 256]);
    expect(answers).toEqual([]);
    stop.abort();
    await served;
    sound(system);
  });
});
