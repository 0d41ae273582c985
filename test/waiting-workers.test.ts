import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { afterEach, describe, expect, it } from 'vitest';
import { kill, nextMessage, start as startWorker, until, type Victim } from './support/chaos.ts';

const program = new URL('../build/test/workers/space-waiter.js', import.meta.url);
const SIZE = 64;
const seed = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Member extends Victim {
  readonly attachment: number;
}

function start(system: VirtualMemory, cookies: Int32Array, stop: Int32Array, number: number): Promise<Member> {
  return startWorker(system, program, { seed: seed + number, cookies, stop });
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
    const crew: Member[] = [];
    for (let number = 0; number < 3; number++) crew.push(await start(system, cookies, stop, number));
    for (let death = 0; death < 10; death++) {
      await pause(random.between(10, 80));
      const at = random.below(crew.length);
      const { attachment, ...victim } = crew[at] as Member;
      await kill(system, victim);
      // What the victim held is given back, with its cookies.
      for (const { address, size } of arena.allocations(attachment)) cookies.fill(0, address, address + size);
      arena.freeOf(attachment);
      crew[at] = await start(system, cookies, stop, 100 + death);
    }
    const slept = () => crew.some(({ slot }) => system.region.tables.slot.slept.get(slot) > 0);
    await until(slept, 'nobody sleeps');
    stop[0] = 1;
    const results = await Promise.all(crew.map(({ worker }) => nextMessage(worker)));
    const served = results.reduce((sum, [result]) => sum + result.served, 0);
    const sleeps = results.reduce((sum, [result]) => sum + result.slept, 0);
    const longestMs = Math.max(...results.map(([result]) => result.longestMs));
    console.log(`${served} requests served, ${sleeps} sleeps, the longest wait ${longestMs.toFixed(0)} ms`);
    expect(sleeps).toBeGreaterThan(0);
    expect(system.check().flatMap((report) => report.problems)).toEqual([]);
    expect(arena.allocations()).toEqual([]);
    expect(arena.xalloc(SIZE)).toBe(0);
  });
});
