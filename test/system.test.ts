import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { attach, boot, shutDown, type VirtualMemory } from 'pagewright';
import { Mutex, poisonRegion } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { nextMessage } from './support/chaos.ts';
import { PATIENCE_MS, until } from './support/until.ts';

const counter = new URL('../build/test/workers/counter.js', import.meta.url);
/** A row of the arena table that no arena uses: its lock and two of its words are played with. */
const ROW = 3;
const open: VirtualMemory[] = [];

function bootSmall(): VirtualMemory {
  const vm = boot({ memory: '1 MiB', slots: 8, arenas: 4, tags: 256 });
  open.push(vm);
  return vm;
}

afterEach(async () => {
  for (const vm of open.splice(0)) await shutDown(vm);
});

describe('boot and attach', () => {
  it('lets two workers count under one mutex without losing a step, and they contend', async () => {
    const vm = bootSmall();
    const rounds = 200_000;
    const { arena, arenaState } = vm.region.tables;
    let contended = 0;
    let runs = 0;
    // On a busy machine the two may run one after the other: again, until they have met.
    while (contended === 0 && runs < 500) {
      arena.generation.put(ROW, 0);
      const workers = [0, 1].map(() => vm.spawn(counter, { workerData: { rounds, dieHolding: false, parties: 2 } }));
      const results = await Promise.all(workers.map((worker) => nextMessage(worker)));
      await Promise.all(workers.map((worker) => worker.terminate()));
      contended += results.reduce((sum, [result]) => sum + result.contended, 0);
      runs++;
      expect(arenaState.busyTags.get(ROW)).toBe(2 * rounds * runs);
      expect(arenaState.busyTagsPeak.get(ROW)).toBe(2 * rounds * runs);
    }
    expect(contended).toBeGreaterThan(0);
    console.log(`contended entries: ${contended} of ${2 * rounds * runs}`);
  });

  it('undoes what a terminated holder had half done, and frees its lock and slot', async () => {
    const vm = bootSmall();
    const worker = vm.spawn(counter, { workerData: { rounds: 1000, dieHolding: true, parties: 1 } });
    await nextMessage(worker);
    const mutex = new Mutex(vm.thread, vm.region.tables.arena.lock.address(ROW), 900);
    expect(mutex.tryEnter()).toBe(false);
    worker.terminate();
    mutex.enter(); // blocks this thread until the monitor has taken over
    const { arenaState: arena } = vm.region.tables;
    expect(arena.busyTags.get(ROW)).toBe(999);
    expect(arena.busyTagsPeak.get(ROW)).toBe(999);
    mutex.exit();
    await until(() => vm.statistics().slots.length === 3, 'the slot is free again');
  });

  it('attaches with a plain handle and notices the end of that thread too', async () => {
    const vm = bootSmall();
    const worker = new Worker(counter, { workerData: { rounds: 10, dieHolding: true, parties: 1, vm: vm.handle() } });
    await nextMessage(worker);
    expect(vm.statistics().slots.some((slot) => slot.watchedBy === 'thread id')).toBe(process.platform === 'linux');
    await worker.terminate();
    await until(() => vm.statistics().slots.every((slot) => slot.watchedBy === 'port'), 'the slot is free again');
    expect(vm.region.tables.arenaState.busyTags.get(ROW)).toBe(9);
  });

  it('refuses what is no handle', () => {
    expect(() => attach(null)).toThrow(/EINVAL: attach: expected a handle .* got null/);
    expect(() => attach({ pagewright: 'handle', region: new ArrayBuffer(8), memories: [] })).toThrow(
      /no SharedArrayBuffer/,
    );
    const foreign = new SharedArrayBuffer(1 << 16);
    expect(() => attach({ pagewright: 'handle', region: foreign, memories: [] })).toThrow(/magic/);
    expect(() => attach({ pagewright: 'handle', region: new SharedArrayBuffer(64), memories: [] })).toThrow(
      /too small/,
    );
  });

  it('refuses a handle with parts missing, and claims no slot for it', () => {
    const vm = boot({ memory: '1 MiB', slots: 3, services: 'manual', arenas: 68, tags: 256 });
    for (const memories of [[], undefined, [null], [{}]]) {
      for (let tries = 0; tries < 3; tries++) {
        expect(() => attach({ ...vm.handle(), memories })).toThrow(/EINVAL: attach: the handle holds/);
      }
    }
    expect(() => attach({ pagewright: 'adopt' })).toThrow(/EINVAL: attach: expected a handle/);
    expect(() => attach({ ...vm.handle(), watch: { id: 1 } })).toThrow(/EINVAL: attach: the watch/);
    expect(vm.statistics().slots.length).toBe(1);
    vm.detach();
  });

  it('lets nothing be used after a detach, also when another thread has the slot', () => {
    const vm = boot({ memory: '1 MiB', slots: 4, services: 'manual' });
    vm.createArena('ids', { size: 1024, quantumCacheMax: 4 });
    const gone = attach(vm.handle());
    const [cached, heap] = [gone.arena('ids'), gone.heap];
    const held = heap.alloc(64);
    expect(cached.alloc(2)).toBeGreaterThanOrEqual(0);
    gone.detach();
    const next = attach(vm.handle());
    expect(next.slot).toBe(gone.slot);
    expect(next.arena('ids').alloc(2)).toBeGreaterThanOrEqual(0);
    for (const use of [
      () => cached.alloc(2),
      () => cached.free(0, 2),
      () => heap.alloc(64),
      () => heap.free(held, 64),
      () => gone.heap,
      () => gone.arenas.create('new'),
      () => gone.frames.tryTake(2),
      () => gone.open('package.json'),
    ]) {
      expect(use).toThrow(/ESTALE/);
    }
    next.detach();
    vm.detach();
  });

  it('stops the system when a thread finds an invariant broken, and tells the others why', () => {
    const vm = boot({ memory: '1 MiB', slots: 4, services: 'manual' });
    const arena = vm.createArena('broken', { size: 64 });
    const other = attach(vm.handle());
    const address = arena.alloc(8);
    vm.region.tables.arenaState.busyTags.put(arena.index, 0);
    vm.region.tables.arenaState.segmentHead.put(arena.index, 0);
    const { kind } = vm.region.tables.tag;
    for (let row = 0; row < 256; row++) if (kind.get(row) === 3) kind.put(row, 4);
    for (let row = 0; row < 256; row++) if (kind.get(row) === 4) kind.put(row, 3);
    expect(() => arena.free(address, 8)).toThrow(/invariant broken/);
    expect(vm.poisoned).toMatch(/invariant broken/);
    expect(() => other.arena('broken').alloc(8)).toThrow(/EPOISONED.*invariant broken/);
    expect(() => arena.alloc(8)).toThrow(/EPOISONED.*invariant broken/);
  });

  it('gives back what the heap keeps for later when frames are short', () => {
    const vm = boot({ memory: '1 MiB', services: 'manual' });
    vm.heap.free(vm.heap.alloc(900_000), 900_000);
    const large = vm.heap.alloc(1_000_000);
    vm.heap.free(large, 1_000_000);
    expect(vm.frames.counts().free).toBeLessThan(20);
    const file = vm.open('package-lock.json');
    const mapping = file.map(0, 65536);
    expect(vm.frames.counts().page).toBe(16);
    mapping.release();
    expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
    file.close();
    vm.detach();
  });

  it('refuses a region of another version, another flavour, another layout, and a poisoned one', () => {
    const vm = bootSmall();
    const { header } = vm.region.tables;
    const version = header.version.get(0);
    header.version.put(0, version + 1);
    expect(() => attach(vm.handle())).toThrow(/layout version/);
    header.version.put(0, version);
    const flavour = header.flavour.get(0);
    header.flavour.put(0, 3 - flavour);
    expect(() => attach(vm.handle())).toThrow(/booted by the release build .* --conditions=verify/);
    header.flavour.put(0, flavour);
    const hash = header.layoutHash.get(0);
    header.layoutHash.put(0, hash ^ 1);
    expect(() => attach(vm.handle())).toThrow(/different build of the same version/);
    header.layoutHash.put(0, hash);
    poisonRegion(vm.region, 'a test says so');
    expect(() => attach(vm.handle())).toThrow(/EPOISONED: attach: .*a test says so/);
    expect(vm.poisoned).toBe('a test says so');
  });

  it('attaches exactly as many threads as it was told, also where words of bits end', () => {
    for (const slots of [31, 32, 33, 63]) {
      const vm = boot({ memory: '1 MiB', slots, services: 'manual', arenas: 4, tags: 256 });
      const others = Array.from({ length: slots - 1 }, () => attach(vm.handle()));
      expect(() => attach(vm.handle())).toThrow(/ENOMEM/);
      // The last one's bit, and the one for pins, are bits of their own.
      const last = others.at(-1) as VirtualMemory;
      const as = last.addressSpace();
      const at = as.map({ size: 4096 });
      const pin = as.pin(at, 4096, 'write');
      expect(() => as.destroy()).toThrow(/EBUSY/);
      pin.release();
      as.destroy();
      expect(vm.check().flatMap((report) => report.problems)).toEqual([]);
      for (const other of others) other.detach();
      vm.detach();
    }
  });

  it('attaches as often as there are slots, and says so when they are used up', () => {
    const vm = boot({ memory: '1 MiB', slots: 3, services: 'manual', arenas: 68, tags: 256 });
    const second = attach(vm.handle());
    const third = attach(vm.handle());
    expect(() => attach(vm.handle())).toThrow(/ENOMEM: attach: all 3 slots are taken/);
    third.detach();
    third.detach();
    expect(() => third.handle()).toThrow(/ESTALE/);
    using again = attach(vm.handle());
    expect(again.slot).toBe(2);
    const mutex = new Mutex(second.thread, vm.region.tables.arena.lock.address(ROW), 900);
    mutex.enter();
    expect(() => second.detach()).toThrow(/EBUSY: detach.*locksHeld=1/);
    mutex.exit();
    second.pages.holds.shared(3);
    expect(() => second.detach()).toThrow(/EBUSY: detach.*pages=1.*frames="?3/);
    expect(second.pages.holds.tryUpgrade(3)).toBe(true);
    expect(() => second.detach()).toThrow(/EBUSY: detach.*exclusivePages=1/);
    second.pages.holds.releaseExclusive(3);
    const as = second.addressSpace();
    const at = as.map({ size: 8192 });
    const pin = as.pin(at, 4096, 'write');
    expect(() => second.detach()).toThrow(/EBUSY: detach.*pins=1/);
    pin.release();
    as.unmap(at, 8192);
    second.detach();
    expect(() => vm.spawn(counter)).toThrow(/ENOTSUP: spawn/);
    expect(() => vm.clock.advance(5)).toThrow(/ENOTSUP/);
    vm.detach();
  });

  it('makes several banks and frames of several sizes', () => {
    const vm = boot({ memory: '576 KiB', bankSize: '128 KiB', pageSize: '16 KiB', services: 'manual' });
    expect(vm.banks.memories.length).toBe(5);
    expect(vm.banks.frameCount).toBe(36);
    expect(vm.banks.bankOf(8)).toBe(1);
    expect(vm.banks.offsetOf(9)).toBe(16384);
    vm.banks.view(131072, 4).set([1, 2, 3, 4]);
    expect([...new Uint8Array(vm.banks.memories[1]?.buffer as unknown as SharedArrayBuffer, 0, 4)]).toEqual([
      1, 2, 3, 4,
    ]);
    expect(vm.banks.view(35 * 16384, 16384).length).toBe(16384);
    expect(() => vm.banks.view(131072 - 2, 4)).toThrow(/EFAULT: banks.view\(address=131070, length=4\)/);
    expect(() => vm.banks.view(36 * 16384 - 2, 4)).toThrow(/EFAULT/);
    expect(() => vm.banks.view(-1, 1)).toThrow(/EFAULT/);
    vm.detach();
  });

  it.each([
    [{}, /boot\(memory=undefined\): say how much memory/],
    [null, /pass an object/],
    [{ memory: '1 MiB', memroy: 1 }, /unknown option "memroy"; known options: memory,/],
    [{ memory: 'much' }, /a size must look like/],
    [{ memory: -1 }, /not negative/],
    [{ memory: 4097 }, /memory must be a multiple of pageSize/],
    [{ memory: '1 MiB', pageSize: 5000 }, /pageSize must be a power of two/],
    [{ memory: '1 MiB', pageSize: 2048 }, /pageSize must be a power of two/],
    [{ memory: '2 MiB', memoryMax: '1 MiB' }, /memoryMax must not be less/],
    [{ memory: '1 MiB', bankSize: 4096 }, /bankSize must be a multiple of 64 KiB/],
    [{ memory: '1 MiB', slots: 64 }, /slots must be an integer from 4 to 63/],
    [{ memory: '1 MiB', slots: 1 }, /slots must be an integer/],
    [{ memory: '1 MiB', clock: 'sundial' }, /clock must be one of real, virtual/],
    [{ memory: '1 MiB', services: 'none' }, /services must be one of/],
    [{ memory: '1 MiB', limits: { gold: 1 } }, /known resources: lockedFrames/],
    [{ memory: '1 MiB', limits: { lockedFrames: -1 } }, /limits.lockedFrames must be an integer/],
    [{ memory: '1 MiB', limits: 5 }, /boot\(limits=5\): limits must be an object/],
    [{ memory: '1 MiB', pagelock: null }, /pagelock must be an object/],
    [{ memory: '1 MiB', physical: 7 }, /physical must be an object/],
  ])('refuses boot(%j)', (options, message) => {
    expect(() => boot(options as never)).toThrow(message);
  });

  it('adopts a worker of a pool, leaves its other messages alone, and lets it start workers itself', async () => {
    const vm = bootSmall();
    const worker = new Worker(new URL('../build/test/workers/adoptee.js', import.meta.url), {
      workerData: { child: counter.href },
    });
    worker.postMessage('ping');
    expect((await nextMessage(worker))[0]).toBe('pong');
    const messages: unknown[] = [];
    worker.on('message', (message) => messages.push(message));
    vm.adopt(worker);
    await until(() => messages.length === 2, 'adopted, and a child of its own has run');
    expect(messages[0]).toEqual({ slot: expect.any(Number) });
    expect(messages[1]).toEqual({ child: { contended: 0 } });
    expect(vm.statistics().slots.every((slot) => slot.watchedBy === 'port')).toBe(true);
    const before = vm.statistics().slots.length;
    await worker.terminate();
    await until(() => vm.statistics().slots.length === before - 1, 'the slot of the adopted worker is free again');
  });

  it('stops everybody when the thread that booted ends: exit is seen at once', async () => {
    const booter = new Worker(new URL('../build/test/workers/booter.js', import.meta.url));
    const [handle] = await nextMessage(booter);
    const vm = attach(handle);
    booter.postMessage('end');
    await once(booter, 'exit');
    const mutex = new Mutex(vm.thread, vm.region.tables.arena.lock.address(ROW), 900);
    expect(() => mutex.enter()).toThrow(/EPOISONED.*the thread that booted the system has ended/);
  });

  it('stops sleepers when the thread that booted is terminated: the heartbeat has gone silent', async () => {
    const booter = new Worker(new URL('../build/test/workers/booter.js', import.meta.url), {
      workerData: { hang: true },
    });
    const [handle] = await nextMessage(booter);
    const vm = attach(handle);
    await until(() => vm.region.tables.header.heartbeat.get(0) > 0, 'the monitor beats');
    await booter.terminate();
    // Ten slices of sleep without a beat are silence: short ones, because all of them are waited for.
    Object.assign(vm.thread, { sliceMs: 50 });
    const mutex = new Mutex(vm.thread, vm.region.tables.arena.lock.address(ROW), 900);
    expect(() => mutex.enter()).toThrow(/EPOISONED.*the monitor has stopped/);
  });

  it('leaves no thread behind and does not keep the process alive', () => {
    const program = `
      import { boot } from 'pagewright';
      const vm = boot({ memory: '1 MiB' });
      console.log(vm.slot);
    `;
    const root = new URL('..', import.meta.url);
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      cwd: root,
      timeout: PATIENCE_MS,
    });
    expect(run.status).toBe(0);
    expect(run.stdout.toString()).toBe('0\n');
    expect(run.stderr.toString()).toBe('');
  });
});
