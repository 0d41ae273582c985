import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { afterEach, describe, expect, it } from 'vitest';
import { kill, nextMessage, start as startWorker, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';

const churn = new URL('../build/test/workers/quantum-churn.js', import.meta.url);
const SIZE = 1 << 16;
const seed = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);

interface Crew {
  readonly vm: VirtualMemory;
  readonly cookies: Int32Array;
  readonly cells: Int32Array;
  readonly stop: Int32Array;
}

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

function shared(length: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(length * 4));
}

function setUp(): Crew {
  vm = boot({ memory: '1 MiB', slots: 8, tags: 16384 });
  vm.createArena('ids', { size: SIZE, quantumCacheMax: 16 });
  return { vm, cookies: shared(SIZE), cells: shared(64), stop: shared(1) };
}

interface Member extends Victim {
  readonly attachment: number;
}

function start({ vm: system, cookies, cells, stop }: Crew, number: number): Promise<Member> {
  return startWorker(system, churn, { seed: seed + number, cookies, cells, stop });
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Frees what is left in mailbox cells, checks, and allocates everything in one piece. */
function endOracle({ vm: system, cells, cookies }: Crew): void {
  const arena = system.arena('ids');
  for (const cell of cells) {
    if (cell === 0) continue;
    arena.free(cell - 1, cookies[cell - 1] as number);
  }
  expect(arena.allocations()).toEqual([]);
  arena.drain();
  expect(system.check().flatMap((report) => report.problems)).toEqual([]);
  expect(arena.size('allocated')).toBe(0);
  expect(arena.xalloc(SIZE)).toBe(0);
  arena.xfree(0, SIZE);
}

describe('quantum caches under several workers', () => {
  it('give no unit twice, and lose none, while workers free each other`s objects', async () => {
    console.log(`quantum workers: seed ${seed}`);
    const crew = setUp();
    const workers = await Promise.all([0, 1, 2].map((number) => start(crew, number)));
    await pause(2000);
    await untilContended(crew.vm, workers);
    crew.stop[0] = 1;
    const results = await Promise.all(workers.map(({ worker }) => nextMessage(worker)));
    const operations = results.reduce((sum, [result]) => sum + result.operations, 0);
    const contended = results.reduce((sum, [result]) => sum + result.contended, 0);
    console.log(`${operations} operations, ${contended} contended entries`);
    expect(operations).toBeGreaterThan(0);
    expect(contended).toBeGreaterThan(0);
    await Promise.all(workers.map(({ worker }) => worker.terminate()));
    endOracle(crew);
  });

  it('lose nothing when workers are terminated at random', async () => {
    const crew = setUp();
    const random = new Prng(seed);
    const arena = crew.vm.arena('ids');
    const crews = await Promise.all([0, 1].map((number) => start(crew, number)));
    let lost = 0;
    for (let death = 0; death < 12; death++) {
      await pause(random.between(5, 60));
      const at = random.below(crews.length);
      const victim = crews[at] as Member;
      await kill(crew.vm, victim);
      // What it passed on may be in use elsewhere, so nothing is freed yet.
      lost += arena.allocations(victim.attachment).length;
      crews[at] = await start(crew, 100 + death);
    }
    crew.stop[0] = 1;
    await Promise.all(crews.map(({ worker }) => nextMessage(worker)));
    await Promise.all(crews.map(({ worker }) => worker.terminate()));
    const left = arena.allocations();
    console.log(`${lost} allocations seen with the dead, ${left.length} left at the end`);
    crew.cells.fill(0);
    for (const attachment of new Set(left.map((each) => each.attachment))) arena.freeOf(attachment);
    endOracle(crew);
  });
});
