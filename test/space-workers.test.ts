/** Address spaces in several workers: one space and its forks used in every way at once, and workers that end anywhere. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BootOptions, boot, type VirtualMemory } from 'pagewright';
import { Prng, type VmError } from 'pagewright/base';
import type { AddressSpace, SharedMemory } from 'pagewright/seg';
import { CancelToken, type FaultPoint, load, store } from 'pagewright/sync';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { blockUntilAllFree } from './support/all-free.ts';
import { shutDownBalanced } from './support/balance.ts';
import { kill, killAt, start, until, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import { AT, CELL_PAGES, OWN_PAGES, PAGE, WORD, WORKERS_MAX } from './support/space-plan.ts';
import { versionOf } from './support/stamps.ts';
import type { SpaceChurnResult } from './workers/space-churn.ts';

const program = new URL('../build/test/workers/space-churn.js', import.meta.url);
const STEPS = Number(process.env.PAGEWRIGHT_CHURN_STEPS ?? 800);
const ALL = process.env.PAGEWRIGHT_DEATHS === 'all';
const MANY: BootOptions = { memory: '16 MiB', slots: 10, addressSpaces: 24, vnodes: 8 };
/** Less memory than what is mapped: pages go to swap all the time. */
const FEW: BootOptions = { ...MANY, memory: '1 MiB', anonymousPages: 4096, segments: 2048 };

let scratch: Scratch;
let vm: VirtualMemory | undefined;

beforeEach(() => {
  scratch = new Scratch();
});

afterEach(async () => {
  if (vm) await shutDownBalanced(vm);
  vm = undefined;
  scratch.remove();
});

/** A worker and what it says when it has stopped. */
interface Churner extends Victim {
  readonly number: number;
  readonly result: Promise<SpaceChurnResult>;
}

/** The space that the workers use. */
class World {
  readonly vm: VirtualMemory;
  readonly as: AddressSpace;
  readonly memory: SharedMemory;
  readonly wired: SharedMemory;
  readonly path = join(scratch.directory, 'mapped');
  readonly control = new Int32Array(new SharedArrayBuffer(4 * WORD.end));
  readonly sizeMax: number;
  readonly seed: number;
  readonly failed: Promise<never>;
  private fail: (error: Error) => void = () => {};

  constructor(options: BootOptions, sizeMax: number, seed: number, wired = true) {
    this.vm = boot(options);
    vm = this.vm;
    this.sizeMax = sizeMax;
    this.seed = seed;
    this.failed = new Promise((_, reject) => {
      this.fail = reject;
    });
    this.failed.catch(() => undefined);
    writeFileSync(this.path, new Uint8Array(16 * PAGE));
    if (options.memory === FEW.memory) this.vm.spaces.swap.add(join(scratch.directory, 'swap'), '16 MiB');
    this.as = this.vm.addressSpace();
    const { as } = this;
    this.memory = this.vm.sharedMemory({ size: 8 * PAGE });
    this.wired = this.vm.sharedMemory({ size: 8 * PAGE, wired });
    for (const address of [AT.own, AT.pinned, AT.scratch]) {
      as.map({ address, size: WORKERS_MAX * OWN_PAGES * PAGE, reserve: false });
    }
    as.map({ address: AT.cells, size: WORKERS_MAX * CELL_PAGES * PAGE, reserve: false });
    as.map({ address: AT.shared, size: 8 * PAGE, memory: this.memory });
    const file = this.vm.open(this.path, { mode: 'rw' });
    as.map({ address: AT.file, size: 8 * PAGE, file, shared: true });
    file.close();
  }

  async churn(number: number, seed = this.seed): Promise<Churner> {
    const { as, memory, wired, path, control, sizeMax } = this;
    const workerData = {
      ...{ space: as.id, memory: memory.id, wired: wired.id, path, number, seed, control, sizeMax },
    };
    const victim = await start(this.vm, program, workerData);
    const result = new Promise<SpaceChurnResult>((resolve, reject) => {
      victim.worker.on('message', (message) => 'steps' in message && resolve(message));
      victim.worker.on('error', reject);
    });
    // A worker that ends by itself has found something wrong.
    result.then(
      ({ wrong }) => wrong.length > 0 && this.fail(new Error(wrong.join('\n'))),
      (error) => this.fail(error),
    );
    return { ...victim, number, result };
  }

  /** Waits for something, or throws what a worker has found wrong. */
  orFail<Value>(awaited: Promise<Value>): Promise<Value> {
    return Promise.race([awaited, this.failed]);
  }

  /** Waits until every worker has done so many more steps. */
  async progress(churners: readonly Churner[], steps: number): Promise<void> {
    const { control } = this;
    const done = ({ number }: Churner) => load(control, WORD.steps + number);
    const targets = churners.map((churner) => done(churner) + steps);
    const reached = () => {
      if (this.vm.poisoned !== null) throw new Error(this.vm.poisoned);
      return churners.every((churner, at) => done(churner) >= (targets[at] as number));
    };
    const counts = () => [...control.subarray(WORD.steps, WORD.steps + WORKERS_MAX)];
    await this.orFail(until(reached, `steps ${counts()}, not ${targets}`));
  }

  /** Stops the workers; what they say must be right. Returns what they did, by name. */
  async finish(churners: readonly Churner[]): Promise<Record<string, number>> {
    store(this.control, WORD.stop, 1);
    const results = await Promise.all(churners.map(({ result }) => result));
    for (const { wrong } of results) expect(wrong).toEqual([]);
    await until(() => this.vm.statistics().slots.length === 3, 'slots are left');
    const sum: Record<string, number> = { contended: 0 };
    for (const { done, contended } of results) {
      sum.contended = (sum.contended as number) + contended;
      for (const [name, count] of Object.entries(done)) sum[name] = (sum[name] ?? 0) + count;
    }
    return sum;
  }

  /** Everything that was acknowledged is there. */
  lookAtAll(): void {
    const { as, control } = this;
    for (let index = 0; index < WORKERS_MAX * OWN_PAGES; index++) {
      const version = versionOf(as.read(AT.own + index * PAGE, PAGE), index);
      const known = load(control, WORD.versions + index);
      expect([index, version]).toEqual([index, version === known + 1 ? known + 1 : known]);
    }
    const swapped = as.load(AT.shared);
    expect(swapped).toBeGreaterThanOrEqual(load(control, WORD.swapsDone));
    expect(swapped).toBeLessThanOrEqual(load(control, WORD.swapsTried));
  }

  /** Everything goes back: nothing is left, the checks are clean, and all memory is one run. */
  endOracle(bankFrames = this.vm.frames.counts().total): void {
    const { vm } = this;
    expect(vm.poisoned).toBeNull();
    this.lookAtAll();
    vm.spaces.reap();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
    for (const id of vm.spaces.shared.list()) vm.sharedMemory(id).release();
    vm.spaces.reap();
    // What threads left that ended while they gave ranges back.
    vm.pagelock.reap();
    expect(vm.spaces.statistics()).toMatchObject({
      ...{ spaces: 0, segments: 0, maps: 0, nodes: 0, anons: 0, pins: 0, shadowLists: 0, reserved: 0 },
    });
    expect(vm.pagelock.statistics()).toMatchObject({ entries: 0, owners: 0, lockedPages: 0, windowPages: 0 });
    expect(vm.spaces.swap.use.used).toBe(0);
    expect(vm.arenas.list().filter(({ name }) => name.startsWith('space'))).toEqual([]);
    blockUntilAllFree(vm);
    expect(vm.vnodes.dropUnused()).toBe(0);
    vm.heap.trim();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    const { free, total } = vm.frames.counts();
    expect(free).toBe(total);
    for (let at = 0; at < total; at += bankFrames) expect(vm.frames.takeRun(bankFrames)).toBe(at);
    for (let at = 0; at < total; at += bankFrames) vm.frames.giveRun(at, bankFrames);
  }
}

describe('one address space in several workers', () => {
  it('keeps what each has written, and shows forks of one instant', async () => {
    const world = new World(MANY, 24, testSeed('space workers', 20261121));
    const churners = [await world.churn(0), await world.churn(1), await world.churn(2)];
    await world.progress(churners, STEPS);
    await world.orFail(untilContended(world.vm, churners));
    const sum = await world.finish(churners);
    console.log(JSON.stringify(sum));
    expect(sum.contended).toBeGreaterThan(0);
    for (const name of ['map', 'unmap', 'protect', 'contend', 'pin', 'unpin', 'free', 'fork', 'visit', 'swap']) {
      expect([name, (sum[name] ?? 0) > 10]).toEqual([name, true]);
    }
    world.endOracle();
  });

  it('loses nothing when memory is short', async () => {
    const world = new World(FEW, 48, testSeed('space workers, swap', 20261122));
    const churners = [await world.churn(0), await world.churn(1), await world.churn(2)];
    await world.progress(churners, STEPS / 2);
    const sum = await world.finish(churners);
    console.log(
      JSON.stringify({ ...sum, swap: world.vm.spaces.swap.use, pagedaemon: world.vm.statistics().pagedaemon }),
    );
    expect(world.vm.statistics().pages.writtenPages).toBeGreaterThan(50);
    world.endOracle();
  });
});

describe('memory that comes and goes under pins', () => {
  it('goes offline while workers use it, not while a page of it is pinned, and comes back', async () => {
    const world = new World({ ...MANY, bankSize: '4 MiB' }, 24, testSeed('memory and pins', 9), false);
    const { vm, as } = world;
    const events: string[] = [];
    const token = CancelToken.create(vm.thread);
    let cancels = false;
    vm.frames.onMemoryChange({
      removing: (first) => {
        events.push(`removing ${first}`);
        // A cancellation in the middle: everybody has been told already.
        if (cancels) token.cancel();
      },
      removed: (first, _count, cancelled) => void events.push(`removed ${first} ${cancelled}`),
      added: (first) => void events.push(`added ${first}`),
    });
    const churners = [await world.churn(0), await world.churn(1)];
    await world.progress(churners, 50);
    const pin = as.pin(AT.cells + 3 * PAGE, PAGE, 'write');
    const bank = pin.pieces[0]?.bank as number;
    const [first, count] = [bank * 1024, 1024];
    const stamp = Uint8Array.prototype.slice.call(pin.views[0]);
    // Pinned by this thread, and perhaps by workers too, who are named beside it.
    const pinnedHere = new RegExp(`EBUSY.*heldBySlots="([0-9]+ )*${vm.slot}( [0-9]+)*"`);
    const frame = pin.pieces[0] === undefined ? -1 : first + pin.pieces[0].offset / PAGE;
    expect(vm.pages.holders(frame)).toContain(vm.slot);
    expect(() => vm.frames.offline(frame, 1, { timeoutMs: 30 })).toThrow(pinnedHere);
    expect(() => vm.frames.offline(first, count, { timeoutMs: 30 })).toThrow(/EBUSY.*frames.offline/);
    expect(vm.frames.counts().absent).toBe(0);
    cancels = true;
    expect(() => vm.frames.offline(first, count, { cancel: token })).toThrow(/ECANCELED/);
    cancels = false;
    token.release(vm.thread);
    expect(vm.frames.counts().absent).toBe(0);
    expect(Uint8Array.prototype.slice.call(pin.views[0])).toEqual(stamp);
    pin.release();
    let tries = 0;
    let stays = '';
    await world.orFail(
      until(() => {
        tries++;
        try {
          vm.frames.offline(first, count, { timeoutMs: 200 });
          return true;
        } catch (error) {
          // A worker may have a pin there.
          if ((error as VmError).code !== 'EBUSY') throw error;
          stays = (error as VmError).message;
          return false;
        }
      }, 'the bank does not go').catch((error) => {
        throw new Error(`${(error as Error).message}: ${stays}`);
      }),
    );
    expect(vm.frames.counts().absent).toBe(count);
    await world.progress(churners, 50);
    vm.frames.online(first, count);
    await world.progress(churners, 50);
    await world.finish(churners);
    console.log(`offline after ${tries} tries, last ${stays || 'none'}; ${events.slice(-8).join(', ')}`);
    const failed = [`removing ${first}`, `removed ${first} true`];
    const gone = [`removing ${first}`, `removed ${first} false`, `added ${first}`];
    const ofBank = events.filter((event) => event.split(' ')[1] === `${first}`);
    // The pinned bank, and the one that was cancelled. Whether workers' pins let more attempts fail is theirs.
    expect(ofBank.slice(0, 4)).toEqual([...failed, ...failed]);
    expect(ofBank.slice(-3)).toEqual(gone);
    expect(vm.pagelock.disabled).toBe(0);
    world.endOracle(1024);
  });
});

describe('workers that end', () => {
  const points: readonly FaultPoint[] = [
    'seg.space.changed',
    'seg.space.linked',
    'seg.space.cut',
    'seg.space.freed',
    'seg.fork.sharing',
    'seg.fork.copied',
    'seg.anon.made',
    'seg.anon.spared',
    'seg.anon.stored',
    'seg.anon.dropping',
    'seg.write.entered',
    'seg.pin.locking',
    'seg.pin.locked',
    'seg.pin.cached',
    'seg.unlink.pending',
    'seg.reclaim.called',
    'seg.reclaim.dropped',
    'seg.release.counted',
    'seg.lookup.counted',
    'seg.insert.linked',
    'seg.insert.committed',
  ];

  async function endAt(world: World, points: readonly FaultPoint[]): Promise<void> {
    let churners = [await world.churn(0), await world.churn(1), await world.churn(2)];
    for (const [round, point] of points.entries()) {
      const { slot } = churners[round % WORKERS_MAX] as Churner;
      const victim = await world.orFail(killAt(world.vm, point, churners, { skip: round % 3, slot }));
      const others = churners.filter(({ slot }) => slot !== victim.slot);
      const { number } = churners.find(({ slot }) => slot === victim.slot) as Churner;
      await world.progress(others, 10);
      churners = [...others, await world.churn(number, world.seed + round + 1)];
    }
    await world.progress(churners, 100);
    await world.finish(churners);
    world.endOracle();
  }

  it('at every place of a space, a fork, a pin', async () => {
    const world = new World(MANY, 24, testSeed('space deaths at places', 5));
    // All of them: `PAGEWRIGHT_DEATHS=all`; by default every third, beginning anywhere.
    const from = new Prng(world.seed, 3).below(3);
    await endAt(world, ALL ? points : points.filter((_, at) => at % 3 === from));
  });

  it('at places of swapping and freeing when memory is short', async () => {
    const world = new World(FEW, 48, testSeed('swap deaths at places', 6));
    await endAt(world, [
      'seg.swap.writing',
      'seg.anon.dropping',
      'seg.anon.made',
      'seg.swap.writing',
      'seg.fork.copied',
    ]);
  });

  it('at random times', async () => {
    const world = new World(MANY, 24, testSeed('space deaths at random', 7));
    const random = new Prng(world.seed);
    let churners = [await world.churn(0), await world.churn(1), await world.churn(2)];
    for (let death = 0; death < (ALL ? 40 : 6); death++) {
      await new Promise((resolve) => setTimeout(resolve, random.between(5, 60)));
      const victim = random.pick(churners);
      await kill(world.vm, victim);
      const others = churners.filter((churner) => churner !== victim);
      await world.progress(others, 5);
      churners = [...others, await world.churn(victim.number, world.seed + death + 1)];
    }
    await world.progress(churners, 100);
    await world.finish(churners);
    world.endOracle();
  });
});
