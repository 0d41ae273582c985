/** Several workers on the same arenas at once; then the same with workers that are terminated at every labelled place and at random. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { FAULT_POINTS } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { kill, killAt, nextMessage, start, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { testSeed } from './support/seed.ts';

const churn = new URL('../build/test/workers/arena-churn.js', import.meta.url);
const SIZE = 1 << 16;
const NAMES = ['leaf', 'large', 'plain', 'heap'];

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

interface Crew {
  readonly vm: VirtualMemory;
  readonly cookies: Int32Array;
  readonly stop: Int32Array;
}

function shared(length: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(length * 4));
}

function setUp(): Crew {
  vm = boot({ memory: '1 MiB', slots: 8, tags: 16384, arenas: 32 });
  const heap = vm.createArena('heap', { size: SIZE });
  const plain = vm.createArena('plain', { import: { from: heap } });
  vm.createArena('large', { import: { from: heap, large: true } });
  vm.createArena('leaf', { import: { from: plain, roundTo: 256 } });
  return { vm, cookies: shared(SIZE), stop: shared(1) };
}

let started = 0;

function join({ vm: system, cookies, stop }: Crew, seed: number): Promise<Victim> {
  return start(system, churn, { seed: seed + started++, cookies, stop });
}

/** Sound, with everything that the dead had given back; what the living have stays marked. */
function bury({ vm: system, cookies }: Crew, slot: number): number {
  let freed = 0;
  for (const name of NAMES) {
    const arena = system.arena(name);
    for (const { address: first, size, attachment } of arena.allocations()) {
      if ((attachment & 127) - 1 !== slot) continue;
      for (let unit = first; unit < first + size; unit++) expect([0, slot + 1]).toContain(cookies[unit]);
      cookies.fill(0, first, first + size);
      arena.free(first, size);
      freed++;
    }
  }
  // It may have died between making an arena of its own and ending it: that arena is the program's to end.
  for (const arena of system.arenas.list()) {
    const [kind, attachment] = arena.name.split(' ');
    if (kind !== 'short' || (Number(attachment) & 127) - 1 !== slot) continue;
    arena.xfreeAll();
    arena.destroy();
  }
  return freed;
}

async function finish(crew: Crew, workers: readonly Victim[]): Promise<{ operations: number; contended: number }> {
  crew.stop[0] = 1;
  const results = await Promise.all(workers.map(({ worker }) => nextMessage(worker)));
  await Promise.all(workers.map(({ worker }) => worker.terminate()));
  const sum = (key: 'operations' | 'contended') => results.reduce((total, [result]) => total + result[key], 0);
  return { operations: sum('operations'), contended: sum('contended') };
}

/** Everything back, all of it in one piece, every tag in the pool. */
function endOracle({ vm: system, cookies }: Crew): void {
  for (const { structure, problems } of system.check()) expect([structure, ...problems]).toEqual([structure]);
  expect(cookies.every((cookie) => cookie === 0)).toBe(true);
  for (const name of NAMES) {
    expect([name, system.arena(name).size('allocated')]).toEqual([name, name === 'heap' ? expect.any(Number) : 0]);
    system.arena(name).trim();
  }
  for (const name of NAMES) system.arena(name).trim();
  const heap = system.arena('heap');
  expect(heap.size('allocated')).toBe(0);
  expect(heap.alloc(SIZE)).toBe(0);
  heap.free(0, SIZE);
  for (const arena of system.arenas.list()) expect(arena.name.startsWith('short')).toBe(false);
}

describe('arenas under several workers', () => {
  const seed = testSeed('arena workers', 20260211);

  it('give no unit twice and lose none', async () => {
    const crew = setUp();
    const workers = await Promise.all([0, 1, 2].map(() => join(crew, seed)));
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await untilContended(crew.vm, workers);
    const { operations, contended } = await finish(crew, workers);
    console.log(`${operations} operations on the same arenas, ${contended} contended entries`);
    expect(contended).toBeGreaterThan(0);
    endOracle(crew);
  });

  it('survive a worker terminated at every labelled place', async () => {
    const crew = setUp();
    let workers = await Promise.all([0, 1].map(() => join(crew, seed)));
    const points = FAULT_POINTS.filter((point) =>
      /^vmem\.(alloc|free|import|add|rehash|tags|create|destroy)\./.test(point),
    );
    for (const point of points) {
      const victim = await killAt(crew.vm, point, workers);
      bury(crew, victim.slot);
      workers = [...workers.filter((worker) => worker !== victim), await join(crew, seed)];
    }
    const { operations } = await finish(crew, workers);
    console.log(`${points.length} places, ${operations} operations by the last two workers`);
    endOracle(crew);
  });

  it('survive workers terminated at random', async () => {
    const crew = setUp();
    const random = new Prng(seed);
    let workers = await Promise.all([0, 1].map(() => join(crew, seed)));
    let freed = 0;
    for (let round = 0; round < 8; round++) {
      await new Promise((resolve) => setTimeout(resolve, random.between(5, 80)));
      const victim = random.pick(workers);
      await kill(crew.vm, victim);
      freed += bury(crew, victim.slot);
      workers = [...workers.filter((worker) => worker !== victim), await join(crew, seed)];
    }
    const { operations } = await finish(crew, workers);
    console.log(`8 workers terminated, ${freed} of their allocations freed, ${operations} operations by the last two`);
    endOracle(crew);
  });
});
