import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { afterEach, describe, expect, it } from 'vitest';

const program = new URL('../build/test/workers/space-waiter.js', import.meta.url);
const SIZE = 64;
const seed = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function start(system: VirtualMemory, cookies: Int32Array, stop: Int32Array, number: number) {
  const worker = system.spawn(program, { workerData: { seed: seed + number, cookies, stop } });
  const [{ attachment }] = (await once(worker, 'message')) as [{ attachment: number }];
  return { worker, attachment };
}

describe('waiting for scarce space in workers', () => {
  it('serves everybody, and goes on when workers are terminated while they wait or hold', async () => {
    console.log(`waiting workers: seed ${seed}`);
    vm = boot({ memory: '1 MiB', slots: 8 });
    const system = vm;
    const arena = system.createArena('scarce', { size: SIZE });
    const cookies = new Int32Array(new SharedArrayBuffer(4 * SIZE));
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const random = new Prng(seed);
    const crew: { worker: Worker; attachment: number }[] = [];
    for (let number = 0; number < 3; number++) crew.push(await start(system, cookies, stop, number));
    for (let kill = 0; kill < 10; kill++) {
      await pause(random.between(10, 80));
      const victim = random.below(crew.length);
      const { worker, attachment } = crew[victim] as { worker: Worker; attachment: number };
      await worker.terminate();
      while (system.statistics().slots.some(({ slot }) => slot === (attachment & 127) - 1)) await pause(2);
      // What the victim held is given back, with its cookies.
      for (const { address, size } of arena.allocations(attachment)) cookies.fill(0, address, address + size);
      arena.freeOf(attachment);
      crew[victim] = await start(system, cookies, stop, 100 + kill);
    }
    await pause(500);
    stop[0] = 1;
    const results = await Promise.all(crew.map(({ worker }) => once(worker, 'message')));
    const served = results.reduce((sum, [result]) => sum + result.served, 0);
    const slept = results.reduce((sum, [result]) => sum + result.slept, 0);
    const longestMs = Math.max(...results.map(([result]) => result.longestMs));
    console.log(`${served} requests served, ${slept} sleeps, the longest wait ${longestMs.toFixed(0)} ms`);
    expect(slept).toBeGreaterThan(0);
    expect(system.check().flatMap((report) => report.problems)).toEqual([]);
    expect(arena.allocations()).toEqual([]);
    expect(arena.xalloc(SIZE)).toBe(0);
  });
});
