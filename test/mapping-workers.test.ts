/** Cached mappings under several threads, some of which are terminated at labelled places and at random. */

import { readFileSync, writeFileSync } from 'node:fs';
import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { type FaultPoint, load, store } from 'pagewright/sync';
import { mappingStatistics } from 'pagewright/vpm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { shutDownBalanced } from './support/balance.ts';
import { kill, nextMessage, parkAt, start, until, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import type { MapperResult } from './workers/cached-mapper.ts';

const PROGRAM = new URL('../build/test/workers/cached-mapper.js', import.meta.url);
const PAGE = 4096;
const PAGES = 48;
const FILES = 3;

let scratch: Scratch;
let vm: VirtualMemory;
let control: Int32Array;
let paths: string[];

beforeEach(() => {
  scratch = new Scratch();
  control = new Int32Array(new SharedArrayBuffer(4 * 64));
  paths = Array.from({ length: FILES }, (_, file) => {
    const path = scratch.file(`file-${file}`, 0);
    writeFileSync(path, contents(file));
    return path;
  });
  vm = boot({
    memory: '384 KiB',
    slots: 10,
    mappings: { compat: 'seed', entries: 40, freeLists: 4 },
  });
});

afterEach(async () => {
  await shutDownBalanced(vm);
  scratch.remove();
});

/** What belongs in a file: every word names file and page. */
function contents(file: number): Uint8Array {
  const words = new Int32Array((PAGES * PAGE) / 4);
  for (let page = 0; page < PAGES; page++)
    words.fill(file * 65536 + page + 1, (page * PAGE) / 4, ((page + 1) * PAGE) / 4);
  return new Uint8Array(words.buffer);
}

function mapper(number: number, seed: number): Promise<Victim> {
  return start(vm, PROGRAM, { paths, seed, mapper: number, control, pages: PAGES });
}

async function progress(number: number, steps: number): Promise<void> {
  const target = load(control, 1 + number) + steps;
  await until(() => load(control, 1 + number) >= target, `mapper ${number} hangs: ${vm.poisoned ?? 'sound'}`);
}

async function finish(mappers: readonly Victim[]): Promise<MapperResult[]> {
  const results = mappers.map(({ worker }) => nextMessage(worker) as Promise<[MapperResult]>);
  store(control, 0, 1);
  const said = (await Promise.all(results)).map(([result]) => result);
  for (const { mismatches } of said) expect(mismatches).toEqual([]);
  await Promise.all(mappers.map(({ worker }) => worker.terminate()));
  await until(() => vm.statistics().slots.length === 3, 'slots are left');
  return said;
}

/** Everything goes back: the files hold what belongs there, and the memory is one free piece. */
function endOracle(): void {
  for (const path of paths) {
    const file = vm.open(path, { mode: 'rw' });
    expect(vm.cachedMappings.sync(file.vnode, 0, 0, { write: true, invalidate: true })?.busy).toEqual([]);
    file.close();
  }
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  vm.heap.trim();
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(paths.map((path, file) => readFileSync(path).equals(contents(file)))).toEqual(paths.map(() => true));
  const { frames } = vm.region.geometry;
  expect(vm.statistics().frames).toMatchObject({ free: frames, page: 0 });
  expect(vm.frames.takeRun(frames)).toBe(0);
  vm.frames.giveRun(0, frames);
  expect(vm.statistics().owners[0]?.resources.lockedFrames.used).toBe(0);
}

describe('cached mappings under several threads', () => {
  it('give three workers every byte right, with fewer entries than pages and fewer frames than both', async () => {
    const seed = testSeed('cached mappings', 11);
    const mappers = await Promise.all([0, 1, 2].map((number) => mapper(number, seed)));
    for (const number of [0, 1, 2]) await progress(number, 400);
    await untilContended(vm, mappers);
    const used = () => {
      const { hits, stolen, cleaned } = mappingStatistics(vm.region);
      return hits > 0 && stolen + cleaned > 0;
    };
    await until(used, 'nothing is found again, or nothing is stolen');
    const results = await finish(mappers);
    const statistics = mappingStatistics(vm.region);
    const contended = vm.region.tables.slot.contended.view.reduce((sum, count) => sum + count, 0);
    console.log(`${results.map(({ steps }) => steps)} steps, contended ${contended}, ${JSON.stringify(statistics)}`);
    expect(contended).toBeGreaterThan(0);
    expect(statistics.stolen + statistics.cleaned).toBeGreaterThan(0);
    expect(statistics.hits).toBeGreaterThan(0);
    endOracle();
  });

  const points: readonly FaultPoint[] = [
    'vpm.cache.named',
    'vpm.cache.taken',
    'vpm.cache.created',
    'vpm.cache.unlisted',
    'vpm.cache.mapped',
    'vpm.cache.writing',
  ];
  it.each(points)('go on after a worker is terminated at %s', async (point) => {
    const survivor = await mapper(0, 5);
    const victim = await mapper(1, 100);
    expect(await parkAt(vm, point, { skip: 2, slot: victim.slot })).toBe(victim.slot);
    await kill(vm, victim);
    await progress(0, 50);
    await finish([survivor]);
    endOracle();
  });

  it('go on after workers are terminated at random', async () => {
    const seed = testSeed('cached mappings, kills', 23);
    const random = new Prng(seed);
    const survivor = await mapper(0, seed);
    for (let round = 0; round < 5; round++) {
      const victim = await mapper(1, seed + round);
      await new Promise((resolve) => setTimeout(resolve, random.below(40)));
      await kill(vm, victim);
      await progress(0, 10);
    }
    await finish([survivor]);
    endOracle();
  });
});
