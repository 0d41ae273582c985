/**
 * Replays the allocations of real programs on an arena: see bench/traces/heap/README.md for the format.
 *
 * Such a trace says what a program asked for and not what it got, so that nothing is compared but soundness: the whole
 * trace is read first, then run and timed, checked now and then, and at the end everything is freed and the arena must be
 * one free piece again. The time is that of the build that replays.
 */

import { log2Floor } from '../../base/exact.ts';
import { formatSize } from '../../base/units.ts';
import { boot } from '../../system/boot.ts';
import type { Arena } from '../../vmem/index.ts';
import type { Difference, Replay, Replayer } from './replay.ts';
import type { TraceHeader } from './trace.ts';

const ALLOCATE = 1;
const RESIZE = 2;
const FREE = 3;

const CODES: Readonly<Record<string, number>> = { a: ALLOCATE, r: RESIZE, f: FREE };

/** What malloc aligns to on 64-bit machines. */
const QUANTUM_BYTES = 16;

/** Addresses are only numbers here, so there may be plenty. */
const ARENA_BYTES = 2 ** 40;

const CHECKS = 8;

/** See the file's header. */
export const heapReplayer: Replayer = {
  kind: 'heap',
  version: 1,
  start: (header) => new HeapReplay(header),
};

class HeapReplay implements Replay {
  readonly #vm;
  readonly #arena: Arena;
  readonly #codes: number[] = [];
  readonly #ids: number[] = [];
  readonly #sizes: number[] = [];
  readonly #aligns: number[] = [];
  /** Ids that are allocated, as far as was read. */
  readonly #live = new Set<number>();
  #nextId = 0;
  #summary = '';

  constructor(header: TraceHeader) {
    const live = typeof header.peakLiveCount === 'number' ? header.peakLiveCount : 0;
    const tags = Math.max(8192, 2 ** (log2Floor(live + 1) + 3));
    this.#vm = boot({ memory: '1 MiB', tags, services: 'manual' });
    this.#arena = this.#vm.createArena('heap', { base: QUANTUM_BYTES, size: ARENA_BYTES, quantum: QUANTUM_BYTES });
  }

  step(value: unknown): Difference | null {
    const wrong = this.#ruleBroken(value);
    if (wrong !== null) return { expected: wrong, got: JSON.stringify(value) };
    const [letter, id, size = 0, align = 0] = value as [string, number, number?, number?];
    const code = CODES[letter] as number;
    if (code === FREE) this.#live.delete(id);
    else this.#live.add(id);
    if (code === ALLOCATE) this.#nextId = id + 1;
    this.#codes.push(code);
    this.#ids.push(id);
    this.#sizes.push(size);
    this.#aligns.push(align);
    return null;
  }

  finish(): Difference | null {
    const count = this.#codes.length;
    const addresses: number[] = [];
    const sizes: number[] = [];
    let liveBytes = 0;
    let peakBytes = 0;
    let topAddress = 0;
    let busyMs = 0;
    const problems: string[] = [];
    for (let from = 0; from < count; ) {
      const to = Math.min(count, from + Math.ceil(count / CHECKS));
      const began = performance.now();
      for (; from < to; from++) {
        const id = this.#ids[from] as number;
        const size = this.#sizes[from] as number;
        if (this.#codes[from] === FREE) {
          this.#arena.xfree(addresses[id] as number, sizes[id] as number);
          liveBytes -= sizes[id] as number;
          sizes[id] = 0;
          continue;
        }
        const before = this.#codes[from] === RESIZE ? (sizes[id] as number) : 0;
        const address = this.#place(size, this.#aligns[from] as number);
        if (before > 0) this.#arena.xfree(addresses[id] as number, before);
        addresses[id] = address;
        sizes[id] = size;
        liveBytes += size - before;
        if (liveBytes > peakBytes) peakBytes = liveBytes;
        if (address + size > topAddress) topAddress = address + size;
      }
      busyMs += performance.now() - began;
      problems.push(...this.#arena.check().problems);
    }
    for (let id = 0; id < sizes.length; id++) {
      if ((sizes[id] as number) > 0) this.#arena.xfree(addresses[id] as number, sizes[id] as number);
    }
    problems.push(...this.#arena.check().problems);
    const footprintBytes = Math.max(0, topAddress - QUANTUM_BYTES);
    this.#summary = [
      `${((busyMs * 1e6) / Math.max(1, count)).toFixed(0)} ns an operation in this build`,
      `peak ${formatSize(peakBytes)}`,
      `fragmentation ${(footprintBytes === 0 ? 0 : 100 * (1 - peakBytes / footprintBytes)).toFixed(1)} % of ${formatSize(footprintBytes)}`,
      `${CHECKS + 1} checks`,
    ].join(', ');
    const whole = this.#arena.stats().largestFree === ARENA_BYTES;
    if (problems.length > 0) return { expected: 'a sound arena', got: problems.slice(0, 3).join('; ') };
    return whole ? null : { expected: 'one free piece after everything was freed', got: this.#arena.dump() };
  }

  dump(): string {
    return this.#arena.dump().slice(0, 4000);
  }

  summary(): string {
    return this.#summary;
  }

  close(): void {
    this.#vm.detach();
  }

  /** The rule of the format that a line breaks, or null. */
  #ruleBroken(value: unknown): string | null {
    if (!Array.isArray(value)) return 'an array: ["a", id, size], ["r", id, size] or ["f", id]';
    const [letter, id, size, align = QUANTUM_BYTES] = value as unknown[];
    const code = typeof letter === 'string' && Object.hasOwn(CODES, letter) ? CODES[letter] : undefined;
    if (code === undefined) return 'one of the operations "a", "r" and "f"';
    if (!Number.isSafeInteger(id) || (id as number) < 0) return 'an id that is an integer from 0';
    if (code === ALLOCATE && id !== this.#nextId)
      return `the next id, ${this.#nextId}: ids are dense and never used again`;
    if (code !== ALLOCATE && !this.#live.has(id as number)) return 'an id that is allocated and was not freed before';
    if (code === FREE) return value.length === 2 ? null : 'an id and nothing else to free';
    const fits = Number.isSafeInteger(size) && (size as number) > 0 && (size as number) <= ARENA_BYTES;
    if (!fits) return `a size that is an integer from 1 to ${ARENA_BYTES}`;
    const powers = Number.isSafeInteger(align) && Number.isInteger(Math.log2(align as number));
    return powers && (align as number) <= ARENA_BYTES ? null : 'an alignment that is a power of two';
  }

  #place(size: number, align: number): number {
    return align > QUANTUM_BYTES ? this.#arena.xalloc(size, { align }) : this.#arena.alloc(size);
  }
}
