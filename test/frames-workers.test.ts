/** Page lists, single frames and pmem under several workers: real contention, and workers that are terminated anywhere. */

import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { FRAME_USE } from 'pagewright/phys';
import { type FaultPoint, ownerUsage } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { shutDownBalanced } from './support/balance.ts';
import { kill, killAt, nextMessage, start, until, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { testSeed } from './support/seed.ts';

const churn = new URL('../build/test/workers/frame-churn.js', import.meta.url);
const PAGE = 4096;
const FRAMES = 16_384;

let vm: VirtualMemory | undefined;
const failures: Error[] = [];

afterEach(async () => {
  if (vm) await shutDownBalanced(vm);
  vm = undefined;
  failures.length = 0;
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

interface Crew {
  readonly vm: VirtualMemory;
  readonly stop: Int32Array;
  readonly seed: number;
}

function setUp(title: string, order: 'lowest' | 'lastIn' = 'lowest'): Crew {
  const seed = testSeed(title, 20261121);
  const physical = { order, colours: order === 'lowest' ? 1 : 4 } as const;
  vm = boot({ memory: FRAMES * PAGE, slots: 12, physical, pmem: { largeFrames: 64, keepLarge: 2 } });
  return { vm, stop: new Int32Array(new SharedArrayBuffer(4)), seed };
}

async function begin(crew: Crew, number: number): Promise<Victim> {
  const victim = await start(crew.vm, churn, { stop: crew.stop, seed: crew.seed + number, page: PAGE });
  victim.worker.on('error', (error) => failures.push(error as Error));
  return victim;
}

async function finish(crew: Crew, workers: readonly Victim[]): Promise<{ operations: number; contended: number }> {
  const messages = workers.map(({ worker }) => nextMessage(worker));
  crew.stop[0] = 1;
  const results = (await Promise.all(messages)).map(([message]) => message);
  await Promise.all(workers.map(({ worker }) => worker.terminate()));
  await until(() => crew.vm.statistics().slots.length === 3, 'the workers leave');
  return {
    operations: results.reduce((sum, { operations }) => sum + operations, 0),
    contended: results.reduce((sum, { contended }) => sum + contended, 0),
  };
}

/** Lists and cookies of dead workers stand; they go back here, and then all of memory is one run again. */
function endOracle(crew: Crew): number {
  const { pmem, pageLists: lists, frames, region } = crew.vm;
  expect(failures).toEqual([]);
  expect(crew.vm.poisoned).toBeNull();
  expect(crew.vm.check().flatMap((report) => report.problems)).toEqual([]);
  const cookies = pmem.cookies();
  for (const cookie of cookies) pmem.free(cookie);
  pmem.trim();
  let left = 0;
  for (let frame = 0; frame < FRAMES; frame++) {
    if (frames.useOf(frame) !== FRAME_USE.list) continue;
    lists.giveFrame(frame);
    left++;
  }
  expect(pmem.statistics()).toEqual({ cookies: 0, poolFrames: 0, largePages: 0, reserved: 0 });
  expect(ownerUsage(region)[0]?.resources.lockedFrames.used).toBe(0);
  expect(lists.outstanding).toBe(0);
  const whole = lists.alloc({ size: FRAMES * PAGE });
  expect(whole.runs).toEqual([{ first: 0, count: FRAMES }]);
  lists.free(whole);
  expect(crew.vm.check().flatMap((report) => report.problems)).toEqual([]);
  return cookies.length + left;
}

describe('frames under several workers', () => {
  it.each(['lowest', 'lastIn'] as const)('never give a frame to two, order %s', async (order) => {
    const crew = setUp(`frame workers, ${order}`, order);
    const workers = await Promise.all([0, 1, 2].map((number) => begin(crew, number)));
    await pause(2000);
    await untilContended(crew.vm, workers);
    const { operations, contended } = await finish(crew, workers);
    console.log(`${operations} operations, ${contended} contended entries`);
    expect(contended).toBeGreaterThan(0);
    expect(endOracle(crew)).toBe(0);
  });

  it('lose nothing when workers are terminated at random', async () => {
    const crew = setUp('frame deaths at random');
    const random = new Prng(crew.seed);
    const workers = await Promise.all([1, 2, 3].map((number) => begin(crew, number)));
    const deaths = 6;
    for (let death = 0; death < deaths; death++) {
      await pause(random.between(5, 50));
      const at = random.below(workers.length);
      await kill(crew.vm, workers[at] as Victim);
      workers[at] = await begin(crew, 10 + death);
    }
    const { operations } = await finish(crew, workers);
    console.log(`${operations} operations by survivors, ${deaths} deaths, ${endOracle(crew)} things left by the dead`);
  });

  it.each(['lowest', 'lastIn'] as const)(
    'go on when a worker is terminated at any fault point, order %s',
    async (order) => {
      const crew = setUp(`frame deaths at fault points, ${order}`, order);
      const random = new Prng(crew.seed);
      const points: FaultPoint[] = [
        'phys.list.taken',
        'phys.list.partial',
        'phys.list.marked',
        'phys.list.given',
        'pmem.alloc.pooled',
        'pmem.alloc.large',
        'pmem.alloc.small',
        'pmem.alloc.gathered',
        'pmem.free.partial',
        'pmem.free.returning',
      ];
      let workers = await Promise.all([1, 2, 3].map((number) => begin(crew, number)));
      for (const [death, point] of points.entries()) {
        const dead = await killAt(crew.vm, point, workers, { skip: random.below(5) });
        workers = workers.filter((worker) => worker !== dead);
        workers.push(await begin(crew, 10 + death));
      }
      const { operations } = await finish(crew, workers);
      console.log(`${operations} operations by survivors, ${points.length} points, ${endOracle(crew)} things left`);
    },
  );
});
