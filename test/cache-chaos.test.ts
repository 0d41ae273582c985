/**
 * Workers are terminated at every labelled place of quantum caches and of the queue of requests that wait for space. After
 * each death the others come to rest: everything passes its check, each has exactly what it says it has, and what the dead one
 * had cached can be allocated by others. In the end all space comes back in one piece.
 */

import type { Worker } from 'node:worker_threads';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { type CancelToken, FAULT_POINTS, type FaultPoint, load, notify, store } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { kill, nextMessage, parkAt, until } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';

const program = new URL('../build/test/workers/cache-victim.js', import.meta.url);
const seed = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);
const CREW = 3;
const SIZES = { cached: 1 << 13, scarce: 64 } as const;
/** Lanes of the control words; see the worker. */
const STOP = 0;
const REST = 1;
const RESTING = 2;
const OPERATIONS = 3;
const TOKEN = 4;

interface Piece {
  readonly address: number;
  readonly size: number;
}

interface Member {
  readonly worker: Worker;
  readonly slot: number;
  readonly attachment: number;
  live: readonly Piece[];
}

let vm: VirtualMemory | undefined;
let ticker: ReturnType<typeof setInterval> | undefined;

afterEach(async () => {
  clearInterval(ticker);
  if (vm) await shutDown(vm);
  vm = undefined;
});

class Crew {
  readonly system: VirtualMemory;
  readonly role: keyof typeof SIZES;
  readonly cookies: Int32Array;
  readonly control = new Int32Array(new SharedArrayBuffer(4 * 6));
  readonly members: Member[] = [];
  readonly failures: unknown[] = [];
  #started = 0;

  constructor(role: keyof typeof SIZES) {
    vm = boot({ memory: '1 MiB', slots: 8, tags: 65536 });
    this.system = vm;
    this.role = role;
    this.cookies = new Int32Array(new SharedArrayBuffer(4 * SIZES[role]));
    vm.createArena(role, { size: SIZES[role], ...(role === 'cached' ? { quantumCacheMax: 16 } : {}) });
    let token: CancelToken | undefined;
    const renew = () => {
      token?.cancel();
      token?.release();
      token = this.system.locks.cancelToken();
      store(this.control, TOKEN, token.handle().token);
      store(this.control, TOKEN + 1, token.handle().state);
    };
    renew();
    if (role === 'scarce') ticker = setInterval(renew, 5);
  }

  get arena() {
    return this.system.arena(this.role);
  }

  async add(): Promise<void> {
    const { role, cookies, control } = this;
    const workerData = { seed: seed + this.#started++, role, cookies, control };
    const worker = this.system.spawn(program, { workerData });
    worker.on('error', (error) => this.failures.push(error));
    const [{ slot, attachment }] = await nextMessage(worker);
    const member: Member = { worker, slot, attachment, live: [] };
    worker.on('message', ({ resting }) => {
      member.live = resting ?? member.live;
    });
    this.members.push(member);
  }

  /** Terminates the first to come to a place; looks at what it leaves once the others rest. */
  async killAt(point: FaultPoint): Promise<void> {
    const slot = await parkAt(this.system, point);
    const at = this.members.findIndex((member) => member.slot === slot);
    const [victim] = this.members.splice(at, 1) as [Member];
    await kill(this.system, victim);
    const before = load(this.control, OPERATIONS);
    await until(
      () => load(this.control, OPERATIONS) > before + 3 || this.failures.length > 0,
      'the others do not go on',
    );
    await this.#atRest(() => this.#look(victim));
    await this.add();
  }

  async #atRest(action: () => void): Promise<void> {
    const { control, members } = this;
    store(control, REST, 1);
    await until(() => load(control, RESTING) === members.length || this.failures.length > 0, 'somebody does not rest');
    // What they posted before they came to rest is in this thread's queue.
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(this.failures).toEqual([]);
    action();
    store(control, REST, 0);
    notify(control, REST, Number.POSITIVE_INFINITY);
    await until(() => load(control, RESTING) === 0, 'somebody goes on resting');
  }

  #look(victim: Member): void {
    const { arena, cookies, members, role } = this;
    expect(this.system.check().flatMap((report) => report.problems)).toEqual([]);
    const order = (pieces: readonly Piece[]) => pieces.map(({ address, size }) => `${address} ${size}`).sort();
    const expected = new Int32Array(cookies.length);
    for (const { slot, attachment, live } of members) {
      const has = arena.allocations(attachment);
      if (role === 'scarce') expect(order(has)).toEqual(order(live));
      // Sizes that share a cache are listed as the objects of that cache.
      else expect(has.map(({ address }) => address).sort()).toEqual(live.map(({ address }) => address).sort());
      for (const { address, size } of live) expected.fill(slot + 1, address, address + size);
    }
    // What the dead one had is found by its attachment; everything else that is not the others' is nobody's.
    const left = arena.allocations(victim.attachment);
    arena.freeOf(victim.attachment);
    expect(arena.allocations()).toHaveLength(members.reduce((sum, { live }) => sum + live.length, 0));
    for (let unit = 0; unit < cookies.length; unit++) {
      if (cookies[unit] === expected[unit]) continue;
      // A unit of its own: it died after it had marked it, or before it gave it back.
      expect(cookies[unit]).toBe(victim.slot + 1);
      cookies[unit] = 0;
    }
    expect(left.every(({ attachment }) => attachment === victim.attachment)).toBe(true);
    if (role === 'cached') this.#allocateTheRest();
  }

  /** Nothing is lost with the dead one: all that nobody has can be had. */
  #allocateTheRest(): void {
    const { arena } = this;
    arena.trim();
    arena.drain();
    const free = SIZES[this.role] - arena.size('allocated');
    const pieces: number[] = [];
    for (let address = arena.tryXalloc(1); address >= 0; address = arena.tryXalloc(1)) pieces.push(address);
    expect(pieces).toHaveLength(free);
    for (const address of pieces) arena.xfree(address, 1);
  }

  async end(): Promise<{ contended: number; slept: number; served: number }> {
    const results = this.members.map(({ worker }) => nextMessage(worker));
    store(this.control, STOP, 1);
    const sums = { contended: 0, slept: 0, served: 0 };
    for (const [result] of await Promise.all(results)) {
      sums.contended += result.contended;
      sums.slept += result.slept;
      sums.served += result.served;
    }
    await Promise.all(this.members.map(({ worker }) => worker.terminate()));
    expect(this.failures).toEqual([]);
    const { arena } = this;
    expect(arena.allocations()).toEqual([]);
    arena.drain();
    arena.trim();
    expect(this.system.check().flatMap((report) => report.problems)).toEqual([]);
    expect(arena.size('allocated')).toBe(0);
    expect(arena.xalloc(SIZES[this.role])).toBe(0);
    arena.xfree(0, SIZES[this.role]);
    return sums;
  }
}

describe.each([
  ['cached', /^vmem\.(depot|magazine|slab)\./, 15],
  ['scarce', /^vmem\.queue\./, 10],
] as const)('workers that are terminated at each labelled place: %s', (role, pattern, least) => {
  it('leave sound arenas, with everything of the others', async () => {
    console.log(`${role}: seed ${seed}`);
    const crew = new Crew(role);
    for (let i = 0; i < CREW; i++) await crew.add();
    const points = FAULT_POINTS.filter((point) => pattern.test(point)) as FaultPoint[];
    expect(points.length).toBeGreaterThanOrEqual(least);
    for (const point of points) await crew.killAt(point);
    await untilContended(crew.system, crew.members);
    const slept = () => crew.members.some(({ slot }) => crew.system.region.tables.slot.slept.get(slot) > 0);
    if (role === 'scarce') await until(slept, 'nobody sleeps');
    const { contended, slept: sleeps } = await crew.end();
    console.log(`${role}: ${points.length} places, ${contended} contended entries, ${sleeps} sleeps`);
    expect(contended).toBeGreaterThan(0);
    if (role === 'scarce') expect(sleeps).toBeGreaterThan(0);
  });
});
