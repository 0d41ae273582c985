/** What the vmem bench compares: an arena, and allocators of other packages behind the same two calls. */

import { MemPool } from '@thi.ng/malloc';
import Allocator from 'malloc';
import type { Arena } from 'pagewright/vmem';

/** Bytes in a quantum of every subject. */
export const QUANTUM = 16;

/** An allocator under test. */
export interface Subject {
  /** Address, or a negative number or NaN when there is no space. */
  alloc(size: number): number;
  free(address: number, size: number): void;
}

/** An arena: locked and journaled in shared memory, by the strategy that it was made with. */
export class ArenaSubject implements Subject {
  readonly #arena: Arena;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  alloc(size: number): number {
    return this.#arena.tryAlloc(size);
  }

  free(address: number, size: number): void {
    this.#arena.free(address, size);
  }
}

const CONSTRAINTS = { align: 64, nocross: 4096 } as const;

/** An arena with constrained requests. */
export class ConstrainedSubject implements Subject {
  readonly #arena: Arena;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  alloc(size: number): number {
    return this.#arena.tryXalloc(size, CONSTRAINTS);
  }

  free(address: number, size: number): void {
    this.#arena.xfree(address, size);
  }
}

/** `@thi.ng/malloc`: first fit over a list, one thread. */
export class ThingSubject implements Subject {
  readonly #pool: MemPool;

  constructor(sizeBytes: number) {
    this.#pool = new MemPool({ size: sizeBytes, align: QUANTUM });
  }

  alloc(size: number): number {
    return this.#pool.malloc(size) || -1;
  }

  free(address: number): void {
    this.#pool.free(address);
  }
}

/** `malloc`: a skip list of free blocks, one thread. */
export class SkipListSubject implements Subject {
  readonly #allocator: Allocator;

  constructor(sizeBytes: number) {
    this.#allocator = new Allocator(new ArrayBuffer(sizeBytes));
  }

  alloc(size: number): number {
    return this.#allocator.alloc(size) || -1;
  }

  free(address: number): void {
    this.#allocator.free(address);
  }
}

/** The peers by the names of their packages. */
export const PEERS: readonly { readonly name: string; make(sizeBytes: number): Subject }[] = [
  { name: '@thi.ng/malloc', make: (sizeBytes) => new ThingSubject(sizeBytes) },
  { name: 'malloc', make: (sizeBytes) => new SkipListSubject(sizeBytes) },
];
