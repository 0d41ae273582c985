/** What the cases of the vmem bench ask of an arena, and systems made for it. */

import { boot, type VirtualMemory } from 'pagewright';
import type { Arena, Strategy } from 'pagewright/vmem';
import type { Sizes } from './vmem-pairs.ts';
import { QUANTUM } from './vmem-subjects.ts';

/** What is asked of an arena, and how it is made. */
export interface Shape {
  readonly sizes: Sizes;
  /** Align 64, nocross 4096. */
  readonly constrained?: boolean;
  readonly strategy?: Strategy;
  /** Sizes up to this many quanta go through quantum caches. */
  readonly cachedQuanta?: number;
  /** Free pieces of one quantum that lie about, too small for any request. */
  readonly fragments?: number;
}

/** Address space for a number of live blocks: twice what they hold on average. */
export function spaceFor(live: number, { minQuanta, maxQuanta }: Sizes): number {
  return Math.max(65536, live * (minQuanta + maxQuanta) * QUANTUM);
}

/** A system with one arena of addresses, and tags for every block and every gap between blocks. */
export function bootFor(
  live: number,
  shape: Shape,
  services: 'threads' | 'manual',
): { vm: VirtualMemory; arena: Arena } {
  const { sizes, strategy = 'instant', cachedQuanta = 0, fragments = 0 } = shape;
  const vm = boot({ memory: '1 MiB', tags: 2 * live + 3 * fragments + 65536, services });
  // Slabs of a cache are never full: room for one more of each size in each thread.
  const size = spaceFor(live, sizes) + 2 * fragments * QUANTUM + cachedQuanta * 65536;
  const quantumCacheMax = cachedQuanta * QUANTUM;
  return { vm, arena: vm.createArena('bench', { base: 0, size, quantum: QUANTUM, strategy, quantumCacheMax }) };
}

/** Throws unless every structure is sound and nothing is allocated. */
export function requireSound(vm: VirtualMemory, arena: Arena): void {
  const problems = vm.check().flatMap((report) => report.problems);
  if (problems.length > 0) throw new Error(`check() says ${problems.join('; ')}`);
  const left = arena.size('allocated');
  if (left !== 0) throw new Error(`${left} bytes are in use after everything was freed`);
}
