/**
 * Races for one address space: forks beside writers whose stores follow from each other, cookies that are freed below device
 * mappings, files that are cut below pins, and workers that end in the middle of all that.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BootOptions, boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng, VmError } from 'pagewright/base';
import type { AddressSpace } from 'pagewright/seg';
import { disarmFault, load, store } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { kill, killAt, start, until, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { PATIENCE_MS } from './support/until.ts';
import { RACE, type SpaceRacerData, type SpaceRacerResult } from './workers/space-racer.ts';

const program = new URL('../build/test/workers/space-racer.js', import.meta.url);
const PAGE = 4096;
const STEPS = Number(process.env.PAGEWRIGHT_RACE_STEPS ?? 90);

let scratch: Scratch;
let vm: VirtualMemory;
let as: AddressSpace;
let control: Int32Array;
let seed: number;
/** What workers have found wrong. */
let failures: string[];

beforeEach(() => {
  scratch = new Scratch();
  control = new Int32Array(new SharedArrayBuffer(64));
  failures = [];
});

afterEach(async () => {
  disarmFault(vm.region);
  await shutDown(vm);
  scratch.remove();
});

function boots(title: string, options: Partial<BootOptions> = {}): void {
  seed = testSeed(title, 77);
  vm = boot({ memory: '8 MiB', slots: 10, addressSpaces: 16, vnodes: 8, ...options });
  as = vm.addressSpace();
}

interface Racer extends Victim {
  readonly number: number;
  readonly result: Promise<SpaceRacerResult>;
}

async function racer(role: SpaceRacerData['role'], number: number, addresses: number[], round = 0): Promise<Racer> {
  const data: SpaceRacerData = { role, number, space: as.id, seed: seed + round, control, addresses };
  const victim = await start(vm, program, { ...data });
  const result = new Promise<SpaceRacerResult>((resolve, reject) => {
    victim.worker.on('message', (message) => 'wrong' in message && resolve(message));
    victim.worker.on('error', reject);
  });
  // A worker that ends by itself has found something wrong.
  result.then(
    ({ wrong }) => failures.push(...wrong),
    (error) => failures.push(String(error)),
  );
  return { ...victim, number, result };
}

/** Steps of all that did what they are for, those of racers that have ended included. */
const doneByAll = () => load(control, RACE.done);

const stepsOf = (number: number) => load(control, RACE.steps + number);

/** Stops the workers; returns what they did, by name. */
async function finish(racers: readonly Racer[]): Promise<Record<string, number>> {
  store(control, RACE.stop, 1);
  const results = await Promise.all(racers.map(({ result }) => result));
  for (const { wrong } of results) expect(wrong).toEqual([]);
  await until(() => vm.statistics().slots.length === 3, 'slots are left');
  const sum: Record<string, number> = { contended: results.reduce((total, { contended }) => total + contended, 0) };
  for (const { done } of results)
    for (const name of Object.keys(done)) sum[name] = (sum[name] ?? 0) + (done[name] as number);
  return sum;
}

/** Everything goes back. */
function endOracle(): void {
  expect(vm.poisoned).toBeNull();
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  for (const id of vm.spaces.shared.list()) vm.sharedMemory(id).release();
  for (const cookie of vm.pmem.cookies()) vm.pmem.free(cookie);
  vm.pmem.trim();
  vm.spaces.reap();
  vm.pagelock.reap();
  blockUntilAllFree(vm);
  expect(vm.vnodes.dropUnused()).toBe(0);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  expect(vm.spaces.statistics()).toMatchObject({
    ...{ spaces: 0, segments: 0, maps: 0, nodes: 0, anons: 0, pins: 0, shadowLists: 0, reserved: 0 },
  });
  const { deviceMap } = vm.region.tables;
  for (let row = 0; row < deviceMap.rowCount; row++) expect([row, deviceMap.claim.get(row)]).toEqual([row, 0]);
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
  expect(vm.frames.takeRun(total)).toBe(0);
  vm.frames.giveRun(0, total);
}

describe('forks beside writers', () => {
  /** Forks while numbers travel along the pages, and looks at each copy at once and once more at its end. */
  async function race(title: string, options: Partial<BootOptions>, swap: boolean, forks: number): Promise<void> {
    boots(title, options);
    if (swap) vm.spaces.swap.add(join(scratch.directory, 'swap'), '4 MiB');
    // Chunks of their own, except the last two, which are neighbours; then pages that are only there to be shared.
    const anon = as.map({ size: 600 * PAGE, reserve: false });
    const addresses = [0, 130, 131].map((page) => anon + page * PAGE);
    for (let page = 200; page < (swap ? 500 : 220); page++) as.store(anon + page * PAGE, page);
    const pinnedAt = anon + 65 * PAGE;
    const cookie = vm.pmem.alloc({ size: 2 * PAGE });
    const device = as.map({ size: 2 * PAGE, cookie });
    const shared = as.map({ size: PAGE, memory: vm.sharedMemory({ size: PAGE }) });
    const racers = await Promise.all([0, 1, 2].map((number) => racer('chain', number, addresses)));
    await until(() => addresses.every((address) => as.load(address) > 0), 'the chain does not begin');
    const pin = as.pin(pinnedAt, PAGE, 'write');
    const word = new Int32Array((pin.views[0] as Uint8Array).buffer, (pin.views[0] as Uint8Array).byteOffset, 1);
    const random = new Prng(seed, 9);
    let unequal = 0;
    for (let fork = 1; fork <= forks || (unequal === 0 && fork < 100 * forks); fork++) {
      word[0] = fork;
      const before = addresses.map((address) => as.load(address));
      const copy = as.fork();
      const after = addresses.map((address) => as.load(address));
      // Stored through the pin after the fork: not the copy's.
      word[0] = -fork;
      as.store(device + 4, fork);
      as.store(shared, fork);
      const look = () => addresses.map((address) => copy.load(address));
      const shown = look();
      for (const [page, value] of shown.entries()) {
        expect([page, value >= (before[page] as number) && value <= (after[page] as number)]).toEqual([page, true]);
        if (page > 0 && value > (shown[page - 1] as number)) throw new Error(`fork ${fork} is torn: ${shown}`);
      }
      if (new Set(shown).size > 1) unequal++;
      expect([copy.load(pinnedAt), copy.load(device + 4), copy.load(shared)]).toEqual([fork, fork, fork]);
      if (random.chance(0.3)) copy.store(addresses[1] as number, -1);
      const second = copy.fork();
      expect(second.load(addresses[2] as number)).toBe(shown[2]);
      const far = anon + (200 + random.below(20)) * PAGE;
      expect(second.load(far)).toBe((far - anon) / PAGE);
      await new Promise((resolve) => setImmediate(resolve));
      copy.destroy();
      expect([second.load(addresses[0] as number), second.load(pinnedAt)]).toEqual([shown[0], fork]);
      second.destroy();
    }
    pin.release();
    await untilContended(vm, racers);
    const sum = await finish(racers);
    console.log(JSON.stringify({ ...sum, forks, unequal }));
    // The numbers differ where a fork comes between two stores: where they always agree, nothing was raced for.
    expect(unequal).toBeGreaterThan(0);
    expect(sum.contended).toBeGreaterThan(0);
    endOracle();
  }

  it('show one instant, with what is pinned copied and what is shared shared', () =>
    race('forks of one instant', {}, false, STEPS));

  it('show one instant while memory is short', () =>
    race('forks of one instant, swap', { memory: '1 MiB', anonymousPages: 2048, segments: 512 }, true, STEPS / 3));
});

describe('cookies below device mappings', () => {
  const FRAMES = 8;

  function publish(): ReturnType<VirtualMemory['pmem']['alloc']> {
    const cookie = vm.pmem.alloc({ size: FRAMES * PAGE });
    const views = vm.pmem.getPfns(cookie, 0, FRAMES).map((frame) => vm.banks.view(frame * PAGE, PAGE));
    for (const view of views) view.fill(0);
    // Whoever had them mapped before stores nothing more.
    for (let look = 0; look < 20; look++) {
      for (const view of views) if (view.some((byte) => byte !== 0)) throw new Error('a store came after the free');
    }
    store(control, RACE.cookie, cookie.cookie);
    store(control, RACE.generation, cookie.generation);
    store(control, RACE.frames, cookie.frames);
    store(control, RACE.turn, load(control, RACE.turn) + 1);
    return cookie;
  }

  it('are freed only where nobody has pinned them, and nobody reaches them afterwards', async () => {
    boots('cookies below mappings');
    const random = new Prng(seed, 5);
    let racers = await Promise.all([0, 1].map((number) => racer('device', number, [])));
    let busy = 0;
    let freed = 0;
    let deaths = 0;
    for (let round = 0; freed < STEPS / 4 || busy === 0 || doneByAll() <= freed; round++) {
      const cookie = publish();
      const seen = racers.map(({ number }) => stepsOf(number));
      await until(() => {
        if (vm.poisoned !== null || failures.length > 0) throw new Error(`${vm.poisoned} ${failures.join('; ')}`);
        return racers.every(({ number }, at) => stepsOf(number) > (seen[at] as number));
      }, 'workers stand still');
      for (;;) {
        try {
          vm.pmem.free(cookie);
          freed++;
          break;
        } catch (error) {
          if ((error as VmError).code !== 'EBUSY') throw error;
          expect((error as VmError).message).toMatch(/pinnedBy=\d/);
          busy++;
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      store(control, RACE.turn, load(control, RACE.turn) + 1);
      if (round % 6 !== 5) continue;
      // One of them ends: at some time, or right behind the making of a device map, or with a pin.
      const points = ['seg.device.made', 'seg.pin.locked', 'seg.space.linked', 'seg.space.freed'] as const;
      let victim: Racer;
      if (random.chance(0.3)) {
        victim = random.pick(racers);
        await kill(vm, victim);
      } else {
        publish();
        const killed = await killAt(vm, random.pick(points), racers);
        victim = racers.find(({ slot }) => slot === killed.slot) as Racer;
        for (const left of vm.pmem.cookies()) await until(() => tryFree(left), 'a cookie stays pinned');
        store(control, RACE.turn, load(control, RACE.turn) + 1);
      }
      deaths++;
      const others = racers.filter(({ slot }) => slot !== victim.slot);
      racers = [...others, await racer('device', victim.number, [], round)];
    }
    await untilContended(vm, racers);
    const sum = await finish(racers);
    console.log(JSON.stringify({ ...sum, freed, busy, deaths, devices: doneByAll() }));
    expect(busy).toBeGreaterThan(0);
    expect(doneByAll()).toBeGreaterThan(freed);
    expect(sum.contended).toBeGreaterThan(0);
    endOracle();
  });

  function tryFree(cookie: Parameters<VirtualMemory['pmem']['free']>[0]): boolean {
    try {
      vm.pmem.free(cookie);
      return true;
    } catch (error) {
      if (error instanceof VmError && error.code === 'EBUSY') return false;
      throw error;
    }
  }
});

describe('files below pins', () => {
  it('are cut and lengthened while workers pin their pages, and workers end', async () => {
    boots('files below pins');
    const path = join(scratch.directory, 'cut');
    writeFileSync(
      path,
      Uint8Array.from({ length: 8 * PAGE }, (_, at) => 1 + Math.floor(at / PAGE)),
    );
    const file = vm.open(path, { mode: 'rw' });
    const at = as.map({ size: 8 * PAGE, file, shared: true });
    const random = new Prng(seed, 3);
    let racers = await Promise.all([0, 1].map((number) => racer('file', number, [at])));
    const results: Record<string, number> = {};
    const cuts = () => results.cut ?? 0;
    for (let round = 0; round < STEPS || (cuts() <= 10 && round < 100 * STEPS); round++) {
      const pages = random.between(0, 8);
      try {
        file.truncate(pages * PAGE + random.below(2) * 100);
        file.truncate(8 * PAGE);
        results.cut = (results.cut ?? 0) + 1;
      } catch (error) {
        if (!(error instanceof VmError)) throw error;
        results[error.code] = (results[error.code] ?? 0) + 1;
      }
      if (round % 10 === 3) as.protect(at, 4 * PAGE, random.chance(0.5) ? 'read' : 'write', { timeoutMs: PATIENCE_MS });
      if (round % 10 === 6) as.fork().destroy({ timeoutMs: PATIENCE_MS });
      if (round % 40 === 20) {
        const victim = random.pick(racers);
        await kill(vm, victim);
        racers = [...racers.filter((one) => one !== victim), await racer('file', victim.number, [at], round)];
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => doneByAll() > 50 || failures.length > 0, 'nobody pins');
    await untilContended(vm, racers);
    const sum = await finish(racers);
    console.log(JSON.stringify({ ...sum, ...results, pins: doneByAll() }));
    expect(cuts()).toBeGreaterThan(10);
    expect(sum.contended).toBeGreaterThan(0);
    // A pin of zeros or of the page's own number, and the file agrees with what is mapped.
    file.truncate(8 * PAGE);
    expect(Buffer.compare(as.read(at, 8 * PAGE), file.read(0, 8 * PAGE))).toBe(0);
    file.close();
    endOracle();
  });
});
