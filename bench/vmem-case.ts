/** One subject in one case of the vmem bench, in a thread of its own: what the compiler learned elsewhere is not here. */

import { parentPort, workerData } from 'node:worker_threads';
import { boot, type VirtualMemory } from 'pagewright';
import type { Arena } from 'pagewright/vmem';
import { measure } from './harness.ts';
import { Pairs, type Sizes } from './vmem-pairs.ts';
import { ArenaSubject, ConstrainedSubject, PEERS, QUANTUM } from './vmem-subjects.ts';

/** What the thread is told. */
export interface CaseData {
  /** Name of a peer, or null for an arena. */
  readonly peer: string | null;
  readonly live: number;
  readonly sizes: Sizes;
  readonly constrained: boolean;
  readonly seed: number;
  readonly limitMs: number;
}

/** What it found. */
export interface CaseResult {
  /** Nanoseconds a pair, or null when time ran out. */
  readonly ns: number | null;
  /** Of the first requests: the same for every subject. Null when time ran out. */
  readonly checksum: number | null;
}

/** Address space for a number of live blocks: twice what they hold on average. */
export function spaceFor(live: number, { minQuanta, maxQuanta }: Sizes): number {
  return Math.max(65536, live * (minQuanta + maxQuanta) * QUANTUM);
}

/** A system with one arena of addresses, and tags for every block and every gap between blocks. */
export function bootFor(
  live: number,
  sizes: Sizes,
  services: 'threads' | 'manual',
): { vm: VirtualMemory; arena: Arena } {
  const vm = boot({ memory: '1 MiB', tags: 2 * live + 65536, services });
  return { vm, arena: vm.createArena('bench', { base: 0, size: spaceFor(live, sizes), quantum: QUANTUM }) };
}

/** Throws unless every structure is sound and nothing is allocated. */
export function requireSound(vm: VirtualMemory, arena: Arena): void {
  const problems = vm.check().flatMap((report) => report.problems);
  if (problems.length > 0) throw new Error(`check() says ${problems.join('; ')}`);
  const left = arena.size('allocated');
  if (left !== 0) throw new Error(`${left} bytes are in use after everything was freed`);
}

function measureArena({ live, sizes, constrained, seed }: CaseData): CaseResult {
  const { vm, arena } = bootFor(live, sizes, 'manual');
  const pairs = new Pairs(constrained ? new ConstrainedSubject(arena) : new ArenaSubject(arena), live, sizes, seed);
  const checksum = pairs.fill();
  const ns = measure((count) => pairs.run(count));
  const sum = pairs.verify();
  const inUse = arena.size('allocated');
  if (inUse !== sum) throw new Error(`${inUse} bytes in use, blocks hold ${sum}`);
  pairs.empty();
  requireSound(vm, arena);
  vm.detach();
  return { ns, checksum };
}

function measurePeer(name: string, { live, sizes, seed, limitMs }: CaseData): CaseResult {
  const peer = PEERS.find((candidate) => candidate.name === name);
  if (peer === undefined) throw new Error(`no peer ${name}`);
  const deadline = performance.now() + limitMs;
  // Headers of the peers' blocks lie in the same space, and one lies before all: a little more for those.
  const pairs = new Pairs(peer.make(spaceFor(live, sizes) + live * 32 + 4096), live, sizes, seed);
  const checksum = pairs.fill(deadline);
  if (checksum === null) return { ns: null, checksum };
  const ns = measure((count) => {
    let sum = 0;
    // In pieces, so that a slow peer does not go on long after its time.
    for (let done = 0; done < count && performance.now() < deadline; done += 256) {
      sum ^= pairs.run(Math.min(256, count - done));
    }
    return sum;
  }, deadline);
  return { ns, checksum };
}

if (parentPort !== null) {
  const data = workerData as CaseData;
  parentPort.postMessage(data.peer === null ? measureArena(data) : measurePeer(data.peer, data));
}
