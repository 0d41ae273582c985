import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { FAULT_POINTS, type FaultPoint, load, store } from 'pagewright/sync';
import { afterEach, describe, expect, it } from 'vitest';
import { kill, killAt, nextMessage, start, until, type Victim } from './support/chaos.ts';
import { untilContended } from './support/contention.ts';
import { PATIENCE_MS } from './support/until.ts';

const program = new URL('../build/test/workers/locks.js', import.meta.url);
const waiting = new URL('../build/test/workers/waiter.js', import.meta.url);
const seed = Number(process.env.PAGEWRIGHT_SEED ?? 20261121);
const CREW = 3;
/** Deaths at random times. */
const ROUNDS = 10;

/** What each member does: one of the two that give may die, and nobody waits for ever. */
const ALL = [
  ['give', 'exclude', 'read', 'write', 'name'],
  ['take', 'exclude', 'read', 'write', 'name'],
  ['give', 'exclude', 'read', 'write', 'name'],
];

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

/** The same with event loops that wait for what the others block for. */
const MIXED = [
  ['give', 'exclude', 'read', 'writeAsync'],
  ['takeAsync', 'excludeAsync', 'readAsync', 'writeAsync'],
  ['give', 'excludeAsync', 'readAsync', 'write'],
  ['take', 'exclude', 'read', 'write'],
];

/** Workers that use the same locks until they are told to stop. */
class Crew {
  readonly system: VirtualMemory;
  readonly stop = new Int32Array(new SharedArrayBuffer(4));
  /** Turns that were made, and sections of dead threads that were looked at. */
  readonly done = new Int32Array(new SharedArrayBuffer(8));
  readonly members: Victim[] = [];
  readonly #roles = new Map<Victim, readonly string[]>();
  readonly failures: unknown[] = [];
  readonly #turns: readonly (readonly string[])[];
  #started = 0;

  constructor(turns: readonly (readonly string[])[]) {
    vm = boot({ memory: '1 MiB', slots: 10, arenas: 8, tags: 256 });
    this.system = vm;
    this.#turns = turns;
  }

  async add(turns = this.#turns[this.#started % this.#turns.length] ?? []): Promise<void> {
    const { stop, done } = this;
    const member = await start(this.system, program, { seed: seed + this.#started++, stop, done, turns });
    this.#roles.set(member, turns);
    member.worker.on('error', (error) => this.failures.push(error));
    this.members.push(member);
  }

  /** The others must get on: some turns more, soon. */
  async progress(): Promise<void> {
    const before = load(this.done, 0);
    await until(() => load(this.done, 0) > before + 100 || this.failures.length > 0, 'the workers do not get on');
    expect(this.failures).toEqual([]);
  }

  async replace(victim: Victim): Promise<void> {
    this.members.splice(this.members.indexOf(victim), 1);
    await this.progress();
    await this.add(this.#roles.get(victim));
  }

  /** Stops everybody, wakes who waits for an item, and looks at what is left. */
  async end(): Promise<{ contended: number; slept: number }> {
    const { region, locks } = this.system;
    const { arena, arenaState } = region.tables;
    const row = arena.rowCount - 2;
    const results = this.members.map(({ worker }) => nextMessage(worker));
    store(this.stop, 0, 1);
    locks.mutex('mutex', { repair: () => {} }).run(() => locks.condition('condition').broadcast());
    const sums = { contended: 0, slept: 0 };
    for (const [result] of await Promise.all(results)) {
      sums.contended += result.contended;
      sums.slept += result.slept;
      expect(result.heldCount).toBe(0);
    }
    await Promise.all(this.members.map(({ worker }) => worker.terminate()));
    expect(this.failures).toEqual([]);
    for (const at of [row, row - 1]) {
      expect(arenaState.busyTags.get(at)).toBe(arenaState.busyTagsPeak.get(at));
    }
    for (const { name, holder, readers, waiting } of locks.list()) {
      expect({ name, holder, readers, waiting }).toEqual({ name, holder: null, readers: [], waiting: [] });
      locks.remove(name);
    }
    expect(locks.list()).toEqual([]);
    expect(locks.check().problems).toEqual([]);
    return sums;
  }
}

describe('locks under several workers', () => {
  it.each([
    ['mutex', [['exclude']]],
    ['names', [['name']]],
    ['condition variable', [['give'], ['take'], ['give', 'take']]],
    ['readers/writer lock', [['read', 'write']]],
    ['all', ALL],
    ['event loops beside threads', MIXED],
  ])('agree under contention: %s', async (name, turns) => {
    const crew = new Crew(turns);
    for (let i = 0; i < Math.max(CREW, turns.length); i++) await crew.add();
    await new Promise((resolve) => setTimeout(resolve, 600));
    await untilContended(crew.system, crew.members);
    const { contended, slept } = await crew.end();
    console.log(`${name}: ${crew.done[0]} turns, ${contended} contended entries, ${slept} sleeps`);
    expect(contended).toBeGreaterThan(0);
  });

  it('are recovered when a worker is terminated at any labelled place', async () => {
    const crew = new Crew(ALL);
    for (let i = 0; i < CREW; i++) await crew.add();
    const points = FAULT_POINTS.filter((point) => point.startsWith('sync.')) as FaultPoint[];
    expect(points.length).toBeGreaterThan(10);
    for (const point of points) await crew.replace(await killAt(crew.system, point, crew.members));
    // Whether one of them died inside a lock is chance: more of them do until one did.
    for (let at = 0; load(crew.done, 1) === 0 && at < 10 * points.length; at++) {
      await crew.replace(await killAt(crew.system, points[at % points.length] as FaultPoint, crew.members));
    }
    const { contended } = await crew.end();
    const repairs = load(crew.done, 1);
    console.log(`locks: ${points.length} places, ${contended} contended entries, ${repairs} repairs`);
    expect(repairs).toBeGreaterThan(0);
  });

  it.each([
    ['threads', ALL],
    ['threads and event loops', MIXED],
  ])('are recovered when workers are terminated at random times: %s', async (name, turns) => {
    console.log(`locks: seed ${seed}`);
    const crew = new Crew(turns);
    const random = new Prng(seed);
    for (let i = 0; i < turns.length; i++) await crew.add();
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      await new Promise((resolve) => setTimeout(resolve, random.below(20)));
      const victim = random.pick(crew.members);
      times.push(await kill(crew.system, victim));
      await crew.replace(victim);
    }
    await crew.end();
    times.sort((a, b) => a - b);
    console.log(
      `${name}: ${ROUNDS} deaths, recovered within ${times.at(-1)?.toFixed(1)} ms after the thread had ended`,
    );
  });

  it('are recovered when several workers are terminated at the same time', async () => {
    const crew = new Crew(ALL);
    for (let i = 0; i < 2 * CREW; i++) await crew.add();
    for (let round = 0; round < 2; round++) {
      await crew.progress();
      const victims = crew.members.splice(0, CREW);
      await Promise.all(victims.map((victim) => kill(crew.system, victim)));
      for (let i = 0; i < CREW; i++) await crew.add();
    }
    await crew.end();
  });
});

describe('a thread that blocks', () => {
  it.each(['mutex', 'condition', 'rwlock'])('is woken when its wait is cancelled: %s', async (kind) => {
    const system = boot({ memory: '1 MiB', slots: 8, arenas: 8, tags: 256 });
    vm = system;
    const { slot: slots } = system.region.tables;
    const mutex = system.locks.mutex('mutex');
    const rwlock = system.locks.rwlock('rwlock');
    if (kind === 'mutex') mutex.enter();
    if (kind === 'rwlock') rwlock.enterExclusive();
    // Well before the slice of a second ends, after which the waiter would have looked by itself: once, on a busy machine.
    let tookMs = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 20 && tookMs >= 900; round++) {
      const token = system.locks.cancelToken();
      const waiter = await start(system, waiting, { kind, handle: token.handle() });
      const asleep = () => load(system.region.words, slots.waitToken.address(waiter.slot)) !== 0;
      await until(asleep, 'the worker does not wait');
      expect(system.locks.list().find(({ name }) => name === kind)?.waiting).toEqual([waiter.slot]);
      expect(() => system.locks.remove(kind)).toThrow(/EBUSY: locks.remove/);
      const ended = nextMessage(waiter.worker);
      const from = performance.now();
      token.cancel();
      const [message] = await ended;
      tookMs = performance.now() - from;
      console.log(`cancelled a wait for a ${kind} in ${tookMs.toFixed(1)} ms`);
      expect(message).toEqual({ ended: 'ECANCELED', heldCount: 0 });
      await waiter.worker.terminate();
    }
    expect(tookMs).toBeLessThan(900);
    if (kind === 'mutex') mutex.exit();
    if (kind === 'rwlock') rwlock.exitExclusive();
    system.locks.remove(kind);
  });

  it('leaves the event loop of another running, which waits for the same lock', async () => {
    const crew = new Crew([['exclude']]);
    for (let i = 0; i < 2; i++) await crew.add();
    const mutex = crew.system.locks.mutex('mutex');
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    for (let round = 0; round < 20; round++) {
      expect(await mutex.enterAsync({ timeoutMs: PATIENCE_MS })).toBe(true);
      await new Promise((resolve) => setTimeout(resolve, 2));
      mutex.exit();
    }
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
    await crew.end();
  });
});
