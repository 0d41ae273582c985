/** Recordings of live arenas: what several threads did replays through the shipped replayer, address for address. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { boot, shutDown, type VirtualMemory } from 'pagewright';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { Prng } from '../src/base/index.ts';
import { type ReplayResult, replayFile } from '../src/inspect/index.ts';
import { Callbacks, load, store, takeOver } from '../src/sync/index.ts';
import { type Arena, type ArenaOptions, Arenas } from '../src/vmem/index.ts';
import { nextMessage, start, type Victim } from './support/chaos.ts';
import { contendedOf } from './support/contention.ts';
import { testRegion, testThread } from './support/region.ts';
import { testSeed } from './support/seed.ts';

const folder = mkdtempSync(join(tmpdir(), 'pagewright-recording-'));
afterAll(() => rmSync(folder, { recursive: true }));

function replay(text: string): ReplayResult {
  const file = join(folder, 'trace.jsonl');
  writeFileSync(file, text);
  return replayFile(file);
}

/** Every operation came out as recorded. */
function expectExact(text: string, operationsMin: number): ReplayResult {
  const result = replay(text);
  expect(result.first).toBeNull();
  expect(result.mismatches).toBe(0);
  expect(result.operations).toBeGreaterThanOrEqual(operationsMin);
  return result;
}

/** Random operations of every kind that an arena knows. */
class Churn {
  readonly live: [number, number][] = [];
  readonly #random: Prng;
  readonly #arena: Arena;
  #spans = 0;

  constructor(random: Prng, arena: Arena) {
    this.#random = random;
    this.#arena = arena;
  }

  step(): void {
    const random = this.#random;
    const arena = this.#arena;
    const what = random.below(100);
    if (what < 40) this.#keep(random.between(1, 60));
    else if (what < 52) this.#constrained();
    else if (what < 84) this.#free();
    else if (what < 92) this.#resize();
    else if (what < 94) arena.add(100_032 + 64 * this.#spans++, 64);
    else if (what < 95) arena.mergeSpans();
    else if (what < 96) arena.releaseQuarantine();
    else if (what < 97) arena.trim();
    else if (what < 98) this.#split();
    else this.#reserve();
  }

  #split(): void {
    const { quantum } = this.#arena;
    const entry = this.live.find(([, size]) => size > quantum);
    if (entry === undefined) return;
    const [address, size] = entry;
    this.#arena.split(address, size, quantum);
    entry[1] = quantum;
    this.live.push([address + quantum, Math.ceil(size / quantum) * quantum - quantum]);
  }

  #keep(size: number): void {
    const strategy = this.#random.pick(['instant', 'best', 'exact', 'next'] as const);
    const address = this.#arena.tryAlloc(size, strategy);
    if (address >= 0) this.live.push([address, size]);
  }

  #constrained(): void {
    const size = this.#random.between(1, 30);
    const { quantum } = this.#arena;
    const align = quantum * 2 ** this.#random.below(7);
    const address = this.#arena.tryXalloc(size, { align, nocross: 64 * quantum, min: this.#random.below(500) });
    if (address >= 0) this.live.push([address, size]);
  }

  #free(): void {
    if (this.live.length === 0) return;
    const [[address, size]] = this.live.splice(this.#random.below(this.live.length), 1) as [[number, number]];
    this.#arena.free(address, size);
  }

  #resize(): void {
    if (this.live.length === 0) return;
    const entry = this.#random.pick(this.live);
    const size = this.#random.between(1, 60);
    if (this.#arena.tryResize(entry[0], entry[1], size)) entry[1] = size;
  }

  #reserve(): void {
    const { quantum } = this.#arena;
    const address = 100_000 - (100_000 % quantum) + quantum * this.#random.below(1000);
    const size = quantum * this.#random.between(1, 9);
    if (this.#arena.tryReserve(address, size)) this.live.push([address, size]);
  }
}

describe('a recording of one thread', () => {
  const seed = testSeed('recording', 20261122);

  it.each<[string, ArenaOptions]>([
    ['static spans', { size: 4096 }],
    ['quantum 16', { size: 16384, quantum: 16 }],
    ['imports', { import: { from: { export: 'arena' }, large: true } }],
    ['next fit', { size: 4096, strategy: 'next' }],
    ['quarantine', { size: 4096, quarantine: { frees: 10 } }],
    ['imports and quarantine', { quarantine: { frees: 5 }, import: { from: { export: 'arena' } } }],
  ])('replays: %s', (title, options) => {
    const { thread, callbacks } = testRegion({ recordEntries: 40_000 });
    const arenas = new Arenas(thread, callbacks);
    const source = arenas.create('source', { size: 8192, quantum: options.quantum ?? 1 });
    const given = options.import === undefined ? options : { ...options, import: { from: source, large: true } };
    const arena = arenas.create('a', given);
    const random = new Prng(seed, title.length);
    const churn = new Churn(random, arena);
    const steps = (count: number) => {
      for (let step = 0; step < count; step++) churn.step();
    };
    steps(500);
    const recording = arena.record({ name: title });
    let text = '';
    for (let round = 0; round < 4; round++) {
      steps(500);
      text += recording.drain();
    }
    text += recording.stop();
    expect(recording.stop()).toBe('');
    steps(10);
    expectExact(text, 1000);
    expect(arena.check().problems).toEqual([]);
  });

  it('replays ranges that waited in quarantine', () => {
    const { thread, callbacks } = testRegion({ recordEntries: 40_000 });
    const arena = new Arenas(thread, callbacks).create('a', { size: 2048, quarantine: { frees: 20 } });
    const random = new Prng(seed, 3);
    const live: number[] = [];
    const recording = arena.record();
    for (let step = 0; step < 2000; step++) {
      if (random.chance(0.5) && live.length > 0) arena.free(live.splice(random.below(live.length), 1)[0] as number, 16);
      else {
        const address = arena.tryAlloc(16);
        if (address >= 0) live.push(address);
      }
    }
    expectExact(recording.stop(), 1500);
    // A part of an allocation that waits.
    const second = arena.record();
    arena.resize(live[0] as number, 16, 8);
    arena.free(live[0] as number, 8);
    expect(second.missed).toBe(0);
    const text = second.stop();
    expect(text).toContain(`"op":"split","arena":"a","addr":${live[0]},"size":16,"to":8`);
    expect(expectExact(text, 1).summary).toBe('');
  });

  it('is not replayed when it was cut, also between two lines', () => {
    const { thread, callbacks } = testRegion();
    const arena = new Arenas(thread, callbacks).create('a', { size: 100 });
    const recording = arena.record();
    for (let size = 1; size < 5; size++) arena.alloc(size);
    const lines = recording.stop().split(/(?<=\n)/);
    expectExact(lines.join(''), 5);
    for (const length of [2, lines.length - 2, lines.length - 1]) {
      expect(() => replay(lines.slice(0, length).join(''))).toThrow(/was cut behind operation \d+: the line that ends/);
    }
    const without = lines.filter((_line, number) => number !== 5).join('');
    expect(() => replay(without)).toThrow(/was cut or changed: its last line announces \d+ operations, and it holds/);
    // What earlier versions wrote has no end, and says so.
    const old = lines.slice(0, -1).join('').replace(',"end":true', '');
    expectExact(old, 5);
  });

  it('ends clearly when nobody reads it, and is refused twice', () => {
    const { thread, callbacks } = testRegion({ recordEntries: 128 });
    const arenas = new Arenas(thread, callbacks);
    const arena = arenas.create('a', { size: 1000 });
    const recording = arena.record();
    expect(() => arena.record()).toThrow(/EBUSY: arena.record\(arena="a"\): it is recorded already/);
    for (let count = 0; count < 100; count++) arena.alloc(1);
    expect(recording.missed).toBe(36);
    expect(arenas.recordings()).toEqual([{ arena: 'a', slot: thread.slot, pending: 64, room: 64, missed: 36 }]);
    const result = expectExact(recording.stop(), 64);
    expect(result.summary).toMatch(
      /^the recording ended early: 36 operations are not in it; the ring was full: read it/,
    );
    expect(arenas.recordings()).toEqual([]);
    const others = ['b', 'c'].map((name) => arenas.create(name).record());
    expect(() => arena.record()).toThrow(/ENOMEM: arena.record\(.*all 2 recordings are under way/);
    for (const other of others) other.stop();
    expect(() => arena.record({ file: 'x' } as object)).toThrow(/unknown option "file"/);
  });

  it('is given up when its thread dies, and ends with the arena', () => {
    const { region, thread, callbacks } = testRegion();
    const arenas = new Arenas(thread, callbacks);
    const arena = arenas.create('a', { size: 100 });
    const victim = testThread(region);
    new Arenas(victim, new Callbacks(region)).open('a').record();
    expect(arenas.recordings()).toHaveLength(1);
    takeOver(thread, victim.slot, [(_self, dead) => arenas.recover(dead)]);
    expect(arenas.recordings()).toEqual([]);
    const recording = arena.record();
    arena.free(arena.alloc(7), 7);
    arena.destroy();
    const drained = recording.drain();
    expect(drained).toContain('"op":"alloc","arena":"a","size":7');
    // Another arena in the same row has a recording of its own.
    const next = arenas.create('next', { size: 10 });
    expect(next.index).toBe(arena.index);
    const second = next.record();
    const rest = recording.stop();
    expect(rest).toMatch(/^{"op":"end","arena":"a","operations":\d+}\n$/);
    expectExact(drained + rest, 3);
    next.alloc(3);
    expect(second.stop()).toContain('"op":"alloc","arena":"next","size":3');
    using third = next.record();
    next.xfreeAll();
    next.destroy();
    expect(third.missed).toBe(0);
    third.stop();
    expect(arenas.recordings()).toEqual([]);
  });
});

let vm: VirtualMemory | undefined;

afterEach(async () => {
  if (vm) await shutDown(vm);
  vm = undefined;
});

describe('a recording of three workers', () => {
  const seed = testSeed('recording of workers', 20261123);
  const program = new URL('../build/test/workers/arena-churn.js', import.meta.url);
  const SIZE = 1 << 16;
  const threadsIn = (text: string) => new Set(text.match(/"thread":\d+/g)).size;

  it('replays with the same addresses', async () => {
    vm = boot({ memory: '1 MiB', slots: 8, tags: 16384, recordEntries: 2 ** 19 });
    const system = vm;
    const heap = system.createArena('heap', { size: SIZE });
    const plain = system.createArena('plain', { import: { from: heap } });
    system.createArena('large', { import: { from: heap, large: true } });
    system.createArena('leaf', { import: { from: plain, roundTo: 256 } });
    const cookies = new Int32Array(new SharedArrayBuffer(4 * SIZE));
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const pace = new Int32Array(new SharedArrayBuffer(8));
    const crew: Victim[] = [];
    for (let number = 0; number < 3; number++) {
      crew.push(await start(system, program, { seed: seed + number, cookies, stop, pace }));
    }
    const crewSlots = crew.map(({ slot }) => slot);
    const recordings = [heap.record(), plain.record()];
    const texts = ['', ''];
    const all = () => texts.every((text) => threadsIn(text) >= 3 && text.length > 200_000);
    for (let round = 0; round < 60 || !all() || contendedOf(system, crewSlots) === 0; round++) {
      // No more than the ring holds, however long this thread rests.
      store(pace, 1, load(pace, 0) + 20_000);
      await new Promise((resolve) => setTimeout(resolve, 10));
      recordings.forEach((recording, index) => {
        texts[index] += recording.drain();
      });
    }
    recordings.forEach((recording, index) => {
      texts[index] += recording.stop();
    });
    stop[0] = 1;
    const results = await Promise.all(crew.map(({ worker }) => nextMessage(worker)));
    const contended = results.reduce((sum, [result]) => sum + result.contended, 0);
    expect(contended).toBeGreaterThan(0);
    for (const text of texts) {
      expect(threadsIn(text)).toBeGreaterThanOrEqual(3);
      const { operations, summary } = expectExact(text, 1000);
      expect(summary).toBe('');
      console.log(`${operations} operations of ${threadsIn(text)} threads replay exactly`);
    }
  });
});
