/** Workers that refill their arenas with boundary tags at the same time, and workers that are terminated in the middle of it. */

import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { FAULT_POINTS } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { killAt, nextMessage, start, until, type Victim } from './support/chaos.ts';
import { testSeed } from './support/seed.ts';

const churn = new URL('../build/test/workers/tag-churn.js', import.meta.url);

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

interface Crew {
  readonly vm: VirtualMemory;
  readonly stop: Int32Array;
}

/** 32 chunks of 64 tags: three workers with up to 500 allocations each come near the ceiling. */
function setUp(): Crew {
  vm = boot({ memory: '1 MiB', slots: 8, tags: 2048 });
  return { vm, stop: new Int32Array(new SharedArrayBuffer(4)) };
}

let started = 0;

function join({ vm: system, stop }: Crew, seed: number): Promise<Victim> {
  return start(system, churn, { seed: seed + started++, stop });
}

/** Chunks that were given out and taken back so far. */
function moves({ vm: system }: Crew) {
  const counts = system.arenas.stats().arenas.at(-1)?.counts;
  return { given: counts?.allocations ?? 0, back: counts?.frees ?? 0 };
}

async function finish(crew: Crew, workers: readonly Victim[]): Promise<number> {
  crew.stop[0] = 1;
  const results = await Promise.all(workers.map(({ worker }) => nextMessage(worker)));
  await Promise.all(workers.map(({ worker }) => worker.terminate()));
  return results.reduce((total, [{ contended }]) => total + contended, 0);
}

/** Every tag is back, and all that programs may have can be had at once. */
function endOracle({ vm: system }: Crew): void {
  for (const { structure, problems } of system.check()) expect([structure, ...problems]).toEqual([structure]);
  expect(system.arenas.list().map(({ name }) => name)).toEqual(['vm.heap']);
  const { tags, unusedTags, ownTags, arenas } = system.arenas.stats();
  const heap = arenas.find(({ name }) => name === 'vm.heap');
  expect(unusedTags + ownTags + (heap?.spareTags ?? 0)).toBe(tags);
  const arena = system.createArena('all', { size: 2 ** 20 });
  let got = 0;
  while (arena.tryAlloc(1) >= 0) got++;
  expect(got).toBeGreaterThan(1800);
  expect(() => arena.alloc(1)).toThrow(/boot with more `tags`/);
  arena.xfreeAll();
  arena.destroy();
}

describe('a small system that says nothing of tags', () => {
  it('has as many allocations as programs want', () => {
    vm = boot({ memory: '1 MiB', services: 'manual' });
    const arena = vm.createArena('many', { size: 2 ** 40 });
    const count = process.env.PAGEWRIGHT_EXPLORE === 'large' ? 1_000_000 : 100_000;
    const { reserved, bytes } = vm.statistics().metadata;
    expect(reserved).toBeGreaterThan(2 ** 27);
    expect(bytes).toBeLessThan(2 ** 24);
    let wrong = 0;
    for (let unit = 0; unit < count; unit++) if (arena.alloc(1) !== unit) wrong++;
    expect(wrong).toBe(0);
    expect(arena.stats().allocations).toBe(count);
    expect(vm.statistics().metadata.bytes).toBeGreaterThan(bytes + 64 * count);
    arena.xfreeAll();
    expect(arena.alloc(2 ** 40)).toBe(0);
    arena.free(0, 2 ** 40);
    arena.destroy();
    expect(vm.check().flatMap(({ problems }) => problems)).toEqual([]);
    expect(vm.arenas.stats().arenas.at(-1)?.inUse).toBeLessThan(8192);
  });
});

describe('boundary tags under several workers', () => {
  const seed = testSeed('tag workers', 20261121);

  it('are given to one arena each, whoever makes the pool grow', async () => {
    const crew = setUp();
    const workers = await Promise.all([0, 1, 2].map(() => join(crew, seed)));
    const { contended } = crew.vm.region.tables.slot;
    const met = () => workers.reduce((sum, { slot }) => sum + contended.get(slot), 0);
    const before = met();
    await until(() => met() > before && moves(crew).back > 20, 'workers that meet, and chunks that come and go');
    const total = await finish(crew, workers);
    const { given, back } = moves(crew);
    console.log(`${given} chunks given out, ${back} taken back, ${total} contended entries`);
    expect(total).toBeGreaterThan(0);
    endOracle(crew);
  });

  it('are lost to nobody when a worker is terminated where they move', async () => {
    const crew = setUp();
    let workers = await Promise.all([0, 1].map(() => join(crew, seed)));
    const points = FAULT_POINTS.filter((point) => /^vmem\.(tagArena|tags)\./.test(point));
    for (const point of points) {
      const victim = await killAt(crew.vm, point, workers);
      const arena = crew.vm.arena(`tags of slot ${victim.slot}`);
      expect(arena.check().problems).toEqual([]);
      arena.xfreeAll();
      arena.destroy();
      workers = [...workers.filter((worker) => worker !== victim), await join(crew, seed)];
    }
    await finish(crew, workers);
    console.log(`${points.length} places, ${moves(crew).given} chunks given out`);
    endOracle(crew);
  });
});
