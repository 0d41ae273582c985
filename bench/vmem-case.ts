/** One subject in one case of the vmem bench, in a thread of its own: what the compiler learned elsewhere is not here. */

import { parentPort, workerData } from 'node:worker_threads';
import type { Arena } from 'pagewright/vmem';
import { measure } from './harness.ts';
import { Pairs } from './vmem-pairs.ts';
import { bootFor, requireSound, type Shape, spaceFor } from './vmem-shape.ts';
import { ArenaSubject, ConstrainedSubject, PEERS, QUANTUM } from './vmem-subjects.ts';

/** What the thread is told. */
export interface CaseData {
  /** Name of a peer, or null for an arena. */
  readonly peer: string | null;
  readonly live: number;
  readonly shape: Shape;
  readonly seed: number;
  readonly limitMs: number;
}

/** What it found. */
export interface CaseResult {
  /** Nanoseconds a pair, or null when time ran out. */
  readonly ns: number | null;
  /** Of the first requests: the same for every subject. Null when time ran out. */
  readonly checksum: number | null;
  /** Allocations and frees of boundary tags for 1,000 pairs; null for a peer, and without quantum caches. */
  readonly tagOperations: number | null;
}

/** Pairs over which operations on boundary tags are counted. */
const COUNTED_PAIRS = 1_000_000;

/** Makes free pieces of one quantum between busy ones; returns the busy ones. */
function fragment(arena: Arena, count: number): number[] {
  const addresses = Array.from({ length: 2 * count }, () => arena.alloc(QUANTUM));
  return addresses.filter((address, index) => {
    if (index % 2 === 0) arena.free(address, QUANTUM);
    return index % 2 === 1;
  });
}

/** What the boundary tags have to do with 1,000 pairs that go through quantum caches. */
function countTagOperations(arena: Arena, pairs: Pairs): number {
  const before = arena.stats().counts;
  pairs.run(COUNTED_PAIRS);
  const after = arena.stats().counts;
  return ((after.allocations - before.allocations + after.frees - before.frees) * 1000) / COUNTED_PAIRS;
}

function measureArena({ live, shape, seed }: CaseData): CaseResult {
  const { vm, arena } = bootFor(live, shape, 'manual');
  const subject = shape.constrained ? new ConstrainedSubject(arena) : new ArenaSubject(arena);
  const between = fragment(arena, shape.fragments ?? 0);
  const pairs = new Pairs(subject, live, shape.sizes, seed);
  const checksum = pairs.fill();
  const ns = measure((count) => pairs.run(count));
  const tagOperations = shape.cachedQuanta === undefined ? null : countTagOperations(arena, pairs);
  const sum = pairs.verify() + between.length * QUANTUM;
  const inUse = arena.size('allocated');
  // With caches the arena counts whole slabs.
  if (inUse !== sum && shape.cachedQuanta === undefined) throw new Error(`${inUse} bytes in use, blocks hold ${sum}`);
  pairs.empty();
  for (const address of between) arena.free(address, QUANTUM);
  arena.drain();
  requireSound(vm, arena);
  vm.detach();
  return { ns, checksum, tagOperations };
}

function measurePeer(name: string, { live, shape, seed, limitMs }: CaseData): CaseResult {
  const peer = PEERS.find((candidate) => candidate.name === name);
  if (peer === undefined) throw new Error(`no peer ${name}`);
  const deadline = performance.now() + limitMs;
  // Headers of the peers' blocks lie in the same space, and one lies before all: a little more for those.
  const pairs = new Pairs(peer.make(spaceFor(live, shape.sizes) + live * 32 + 4096), live, shape.sizes, seed);
  const checksum = pairs.fill(deadline);
  if (checksum === null) return { ns: null, checksum, tagOperations: null };
  const ns = measure((count) => {
    let sum = 0;
    // In pieces, so that a slow peer does not go on long after its time.
    for (let done = 0; done < count && performance.now() < deadline; done += 256) {
      sum ^= pairs.run(Math.min(256, count - done));
    }
    return sum;
  }, deadline);
  return { ns, checksum, tagOperations: null };
}

if (parentPort !== null) {
  const data = workerData as CaseData;
  parentPort.postMessage(data.peer === null ? measureArena(data) : measurePeer(data.peer, data));
}
