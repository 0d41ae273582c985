/** Pins that are awaited: what is missing comes, and who changes the space is waited for, with the event loop free. */

import { once } from 'node:events';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import type { AddressSpace } from 'pagewright/seg';
import { CancelToken } from 'pagewright/sync';
import { IO_OPERATION, IO_STATE } from 'pagewright/vnode';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { awaitRequests } from './support/all-free.ts';
import { kill, nextMessage, parkAt, start, until, type Victim } from './support/chaos.ts';
import { matches, Scratch } from './support/scratch.ts';
import { testSeed } from './support/seed.ts';
import type { PinWaiterData, PinWaiterOrder, PinWaiterResult } from './workers/space-pin-waiter.ts';

const program = new URL('../build/test/workers/space-pin-waiter.js', import.meta.url);
const module = new URL('../build/test/workers/page-provider.js', import.meta.url);
const PAGE = 4096;

let scratch: Scratch;
let vm: VirtualMemory;
let as: AddressSpace;

beforeEach(() => {
  scratch = new Scratch();
  vm = boot({ memory: '1 MiB', slots: 16, anonymousPages: 640 });
  vm.spaces.swap.add(`${scratch.directory}/swap`, '1 MiB');
  as = vm.addressSpace();
});

/** Nothing is pinned, asked for, or left. */
afterEach(async () => {
  await awaitRequests(vm);
  for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
  vm.pagelock.reap();
  vm.spaces.reap();
  expect(vm.poisoned).toBeNull();
  expect(vm.spaces.statistics()).toMatchObject({ spaces: 0, segments: 0, maps: 0, anons: 0, pins: 0, shadowLists: 0 });
  vm.vnodes.closeAll();
  expect(vm.vnodes.dropUnused()).toBe(0);
  expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
  const { free, total } = vm.frames.counts();
  expect(free).toBe(total);
  await shutDown(vm);
  scratch.remove();
});

/** A mapping of a provider's pages, each of which takes its time. */
function mapSlow(exported = 'tardy', name = 'x', timeoutMs = 0): number {
  const file = vm.openProvided({ provider: { module, export: exported }, name, timeoutMs });
  return as.map({ size: 4 * PAGE, file, shared: true, protection: 'read', maxProtection: 'read' });
}

/** Pins most of the memory; returns where, and where more could be pinned. */
function pinMost() {
  const at = as.map({ size: 200 * PAGE, reserve: false });
  const file = vm.open(scratch.file('other', 100 * PAGE, 3), { mode: 'r' });
  const other = as.map({ size: 100 * PAGE, file, shared: true, protection: 'read', maxProtection: 'read' });
  return { at, other, pin: as.pin(at, 200 * PAGE, 'write') };
}

/** Waits until a worker is bringing pages of a space, or `isOver`: on a machine that rests, nobody may see it. */
function isBringing(isOver = () => false): Promise<void> {
  const { state, operation, rowCount } = vm.region.tables.ioRequest;
  const rows = Array.from({ length: rowCount }, (_, row) => row);
  const isOne = (row: number) => state.get(row) === IO_STATE.running && operation.get(row) === IO_OPERATION.space;
  return until(() => isOver() || rows.some(isOne), 'nobody brings pages');
}

const waiter = (at: number, pages: number, loose: number, seed = 1): Promise<Victim> =>
  start(vm, program, { space: as.id, at, pages, loose, seed } satisfies PinWaiterData as never);
const order = ({ worker }: Victim, what: PinWaiterOrder) => worker.postMessage(what);

async function end(victim: Victim): Promise<void> {
  const ended = once(victim.worker, 'exit');
  order(victim, { end: true });
  await ended;
}

describe('a pin that is awaited', () => {
  it('comes with the bytes, whatever must be brought or made for it, while the event loop goes on', async () => {
    const path = scratch.file('data', 80 * PAGE, 3);
    const at = as.map({ size: 300 * PAGE, file: vm.open(path, { mode: 'r' }), address: 2 ** 20, reserve: false });
    const fresh = as.map({ size: 70 * PAGE });
    const slow = mapSlow();
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const far = as.pinAsync(slow + 10, PAGE, 'read');
    // Of a file, private: the first half as the space's own pages.
    const near = await as.pinAsync(at + 5, 79 * PAGE, 'write');
    const made = await as.pinAsync(fresh, 70 * PAGE, 'write');
    expect(near.views.reduce((sum, { length }) => sum + length, 0)).toBe(79 * PAGE);
    let offset = 5;
    for (const view of near.views) {
      expect(matches(view, 3, offset)).toBe(true);
      offset += view.length;
    }
    (made.views[0] as Uint8Array)[3] = 9;
    expect(as.read(fresh + 3, 1)).toEqual(Uint8Array.of(9));
    expect(() => as.unmap(fresh, PAGE)).toThrow(/EBUSY/);
    (await far).release();
    expect(ticks).toBeGreaterThan(0);
    clearInterval(timer);
    near.release();
    made.release();
    expect(() => made.release()).toThrow(/EINVAL/);
    // What was swapped out comes back.
    as.fill(fresh, 8, 70 * PAGE);
    const large = as.map({ size: 220 * PAGE });
    vm.pagelock.reap();
    as.fill(large, 1, 220 * PAGE);
    expect(vm.spaces.swap.use.used).toBeGreaterThan(0);
    const again = await as.pinAsync(fresh, 70 * PAGE, 'read');
    expect(again.views.every((view) => view.every((byte) => byte === 8))).toBe(true);
    again.release();
  });

  it('says what is wrong, as a pin does', async () => {
    const at = as.map({ size: 2 * PAGE, protection: 'read', maxProtection: 'read' });
    await expect(as.pinAsync(at, PAGE, 'write')).rejects.toThrow(/^EFAULT: as\.pinAsync/);
    await expect(as.pinAsync(at + PAGE, 2 * PAGE, 'read')).rejects.toThrow(/^EFAULT: as\.pinAsync/);
    await expect(as.pinAsync(at, 0, 'read')).rejects.toThrow(/^EINVAL: as\.pinAsync/);
    await expect(as.pinAsync(at, 1, 'all' as 'read')).rejects.toThrow(/^EINVAL: as\.pinAsync/);
    for (const bad of [{ cancel: 5 }, { signal: 5 }, { timeoutMs: -1 }, { timeout: 1 }]) {
      await expect(as.pinAsync(at, 1, 'read', bad as object)).rejects.toThrow(/^EINVAL: as\.pinAsync/);
    }
    const silent = mapSlow('silent', 'w', 100);
    await expect(as.pinAsync(silent, 1, 'read')).rejects.toThrow(/^ETIMEDOUT: as\.pinAsync\(.*io\.fill\(name="w"/);
    expect(vm.spaces.statistics().pins).toBe(0);
    as.destroy();
    await expect(as.pinAsync(at, 1, 'read')).rejects.toThrow(/^ESTALE: as\.pinAsync/);
  });

  it('ends with its time, its signal or its token, and has pinned nothing', async () => {
    const slow = mapSlow();
    await expect(as.pinAsync(slow, 1, 'read', { timeoutMs: 1 })).rejects.toThrow(/^ETIMEDOUT: as\.pinAsync/);
    await awaitRequests(vm);
    const stop = new AbortController();
    const aborted = as.pinAsync(slow + PAGE, 1, 'read', { signal: stop.signal });
    stop.abort();
    await expect(aborted).rejects.toThrow(/^ECANCELED: as\.pinAsync/);
    await expect(as.pinAsync(slow, 1, 'read', { signal: stop.signal })).rejects.toThrow(/^ECANCELED: as\.pinAsync/);
    await awaitRequests(vm);
    const token = CancelToken.create(vm.thread);
    const cancelled = as.pinAsync(slow + 2 * PAGE, 1, 'read', { cancel: token });
    token.cancel();
    await expect(cancelled).rejects.toThrow(/ECANCELED.*as\.pinAsync/);
    token.release();
    expect(vm.spaces.statistics().pins).toBe(0);
    expect(vm.thread.heldCount).toBe(0);
  });

  it('ends with its time, or its signal, while pins of its own thread leave too few frames', async () => {
    const { at, other, pin } = pinMost();
    await expect(as.pinAsync(other, 100 * PAGE, 'read', { timeoutMs: 300 })).rejects.toThrow(
      /^ETIMEDOUT: as\.pinAsync/,
    );
    const stop = new AbortController();
    const aborted = as.pinAsync(other, 100 * PAGE, 'read', { signal: stop.signal });
    // Needs the event loop.
    setTimeout(() => stop.abort(), 300);
    await expect(aborted).rejects.toThrow(/^ECANCELED: as\.pinAsync/);
    expect(vm.spaces.statistics().pins).toBe(1);
    pin.release();
    as.unmap(at, 200 * PAGE);
  });

  it('comes once another task of its thread has released its pin', async () => {
    const { other, pin } = pinMost();
    const wanted = as.pinAsync(other, 100 * PAGE, 'read');
    setTimeout(() => pin.release(), 500);
    const got = await wanted;
    expect(matches(new Uint8Array(got.views.flatMap((view) => [...view])), 3, 0)).toBe(true);
    got.release();
    expect(vm.spaces.statistics().pins).toBe(0);
  });

  it('is ENOMEM when nobody releases anything, and for more pages than there are frames', async () => {
    const { other, pin } = pinMost();
    const large = as.map({ size: 300 * PAGE, reserve: false });
    const before = vm.spaces.statistics().anons;
    const rule = /^ENOMEM: as\.pin(Async)?\(address=.*needed=1052672, pinnable=1048576\).*fewer frames/;
    expect(() => as.pin(large, 257 * PAGE, 'write')).toThrow(rule);
    await expect(as.pinAsync(large, 257 * PAGE, 'write')).rejects.toThrow(rule);
    expect(vm.spaces.statistics()).toMatchObject({ anons: before, pins: 1 });
    // After ten seconds.
    const short = as.pinAsync(other, 100 * PAGE, 'read');
    await expect(short).rejects.toThrow(/^ENOMEM: as\.pinAsync\(address=.*length=409600.*total=256.*leaves no frame/);
    expect(vm.spaces.statistics().pins).toBe(1);
    pin.release();
  });

  it('fails when the range goes meanwhile', async () => {
    for (const change of ['unmap', 'destroy'] as const) {
      for (let said = ''; said === ''; ) {
        as = vm.addressSpace();
        const slow = mapSlow();
        let isOver = false;
        const asked = as.pinAsync(slow + 3 * PAGE, PAGE, 'read').catch((error: Error) => error);
        const pin = asked.finally(() => {
          isOver = true;
        });
        await isBringing(() => isOver);
        // Waits until the worker has left the space. Too late on a machine that rests here: once more.
        const isPinned = vm.spaces.statistics().pins > 0;
        if (!isPinned && change === 'unmap') as.unmap(slow, 4 * PAGE);
        else if (!isPinned) as.destroy();
        const got = await pin;
        if (got instanceof Error) said = got.message;
        else got.release();
        expect(isPinned).toBe(said === '');
        expect(said).toMatch(said === '' ? '' : change === 'unmap' ? /^EFAULT: as\.pinAsync/ : /^ESTALE: as\.pinAsync/);
        for (const id of vm.spaces.list()) vm.addressSpace(id).destroy();
        vm.pagelock.reap();
        vm.vnodes.closeAll();
        vm.vnodes.dropUnused();
      }
    }
  });

  it('waits for who has the space alone, and for nobody who has died there', async () => {
    const at = as.map({ size: 4 * PAGE });
    as.fill(at, 1, 4 * PAGE);
    const other = await waiter(at, 4, at);
    const parked = parkAt(vm, 'seg.space.changed', { slot: other.slot });
    order(other, { unmap: [at + 3 * PAGE, PAGE] });
    await parked;
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    let isThere = false;
    const pin = as.pinAsync(at, 2 * PAGE, 'write').finally(() => {
      isThere = true;
    });
    await isBringing();
    await until(() => ticks > 3, 'the event loop goes on');
    expect(isThere).toBe(false);
    await kill(vm, other);
    (await pin).release();
    clearInterval(timer);
  });
});

describe('threads that await pins', () => {
  it('leave nothing when they end', async () => {
    for (let round = 0; round < 2; round++) {
      const slow = mapSlow('tardy', 'x');
      const victim = await waiter(slow, 4, slow);
      let isOver = false;
      victim.worker.once('message', () => {
        isOver = true;
      });
      order(victim, { pin: [slow, PAGE] });
      await isBringing(() => isOver);
      await kill(vm, victim);
      expect(vm.spaces.statistics()).toMatchObject({ pins: 0, shadowLists: 0 });
      await awaitRequests(vm);
      as.unmap(slow, 4 * PAGE);
      vm.vnodes.closeAll();
      vm.vnodes.dropUnused();
    }
  });

  it('find their bytes while others unmap, fork and end, and memory is short', async () => {
    const seed = testSeed('awaited pins', 31);
    const random = new Prng(seed);
    const pages = 240;
    const at = as.map({ size: pages * PAGE, reserve: false });
    const loose = as.map({ size: 16 * PAGE, reserve: false });
    for (let page = 0; page < pages; page++) as.store(at + page * PAGE, page + 1);
    const waiters = [await waiter(at, pages, loose, seed), await waiter(at, pages, loose, seed + 1)];
    const results = waiters.map(({ worker }) => nextMessage(worker) as Promise<[PinWaiterResult]>);
    for (const victim of waiters) order(victim, { rounds: 150 });
    const doomed = await waiter(at, pages, loose, seed + 2);
    order(doomed, { rounds: 100_000 });
    let isOver = false;
    const all = Promise.all(results).finally(() => {
      isOver = true;
    });
    for (let round = 0; !isOver; round++) {
      if (random.chance(0.3)) as.fork().destroy();
      await as.unmapAsync(loose, 16 * PAGE);
      await new Promise((resolve) => setImmediate(resolve));
      as.map({ address: loose, size: 16 * PAGE, reserve: false });
      if (round === 20) await kill(vm, doomed);
      await new Promise((resolve) => setTimeout(resolve, random.below(4)));
    }
    const said = (await all).map(([result]) => result);
    if (vm.statistics().slots.some(({ slot }) => slot === doomed.slot)) await kill(vm, doomed);
    console.log(JSON.stringify(said.map(({ pinned, failed, contended }) => ({ pinned, failed, contended }))));
    for (const { wrong, pinned, failed } of said) {
      expect(wrong).toEqual([]);
      expect(pinned).toBeGreaterThan(0);
      expect(Object.keys(failed).filter((code) => code !== 'EFAULT' && code !== 'ENOMEM')).toEqual([]);
    }
    await Promise.all(waiters.map(end));
  });
});
