/**
 * Troubles that users of other allocators reported, run on an arena and on the peers, in a thread of their own.
 *
 *   burst   100,000 blocks, every other one deleted at random, then as many inserted: a scene that is edited. A report on
 *           three.js (issue 31465) has about 10 s for it. In a new thread, most of whose time is the compiler's.
 *   edited  the same in a heap that was edited before: the median of the next bursts.
 *   refused a constrained request that none of 10^5 fragments can serve, asked again and again while others come and go.
 *   snug    a heap of 699,050 with a request of 664,908: an allocator with binned sizes (OffsetAllocator) rounds the
 *           free space down and says that there is none.
 */

import { parentPort, workerData } from 'node:worker_threads';
import type { Arena } from 'pagewright/vmem';
import { median } from './harness.ts';
import { bootFor, requireSound } from './vmem-shape.ts';
import { ArenaSubject, PEERS, QUANTUM, type Subject } from './vmem-subjects.ts';

/** What the thread is told. */
export interface StoryData {
  readonly story: 'burst' | 'edited' | 'refused' | 'snug';
  /** Name of a peer, or null for an arena. */
  readonly peer: string | null;
  readonly seed: number;
  readonly limitMs: number;
}

const BLOCKS = 100_000;
const BURST = 50_000;
const RANDOM = { minQuanta: 1, maxQuanta: 64 };
const BURSTS_EDITED = 7;
const REFUSALS = 20_000;
const SNUG_HEAP = 699_050;
const SNUG_REQUEST = 664_908;
const SNUG_ROUNDS = 50_000;

/** Nanoseconds for each delete and insert, of every burst; null when time runs out. */
function bursts(subject: Subject, count: number, seed: number, deadline: number): number[] | null {
  let state = seed >>> 0;
  const random = (bound: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * bound);
  };
  const addresses = new Float64Array(BLOCKS);
  const sizes = new Float64Array(BLOCKS);
  const insert = (index: number): void => {
    const size = (RANDOM.minQuanta + random(RANDOM.maxQuanta)) * QUANTUM;
    const address = subject.alloc(size);
    if (!(address >= 0)) throw new Error(`no space for ${size} bytes`);
    addresses[index] = address;
    sizes[index] = size;
  };
  for (let index = 0; index < BLOCKS; index++) insert(index);
  const chosen = Uint32Array.from({ length: BLOCKS }, (_, index) => index);
  const times: number[] = [];
  for (let round = 0; round < count; round++) {
    for (let index = 0; index < BURST; index++) {
      const other = index + random(BLOCKS - index);
      const held = chosen[index] as number;
      chosen[index] = chosen[other] as number;
      chosen[other] = held;
    }
    const start = process.cpuUsage();
    for (let turn = 0; turn < 2 * BURST; turn++) {
      if (turn % 64 === 0 && performance.now() > deadline) return null;
      const index = chosen[turn % BURST] as number;
      if (turn < BURST) subject.free(addresses[index] as number, sizes[index] as number);
      else insert(index);
    }
    const { user, system } = process.cpuUsage(start);
    times.push(((user + system) * 1000) / (2 * BURST));
  }
  addresses.forEach((address, index) => {
    subject.free(address, sizes[index] as number);
  });
  return times;
}

/** The first burst, or the median of those after it. */
function burst(subject: Subject, story: StoryData['story'], seed: number, deadline: number): number | null {
  const times = bursts(subject, story === 'burst' ? 1 : 1 + BURSTS_EDITED, seed, deadline);
  return times === null ? null : median(story === 'burst' ? times : times.slice(1));
}

/** Nanoseconds for each refusal and a pair beside it; no free piece holds a multiple of 64 quanta and room behind it. */
function refused(arena: Arena): number {
  const fragments = Array.from({ length: 2 * BLOCKS }, () => arena.alloc(QUANTUM));
  fragments.forEach((address, index) => {
    if (index % 2 === 1) arena.free(address, QUANTUM);
  });
  const rest = arena.stats().largestFree;
  const tail = rest > QUANTUM ? arena.alloc(rest) : -1;
  const constraints = { align: 64 * QUANTUM, max: 2 * BLOCKS * QUANTUM };
  let sum = 0;
  const start = process.cpuUsage();
  for (let round = 0; round < REFUSALS; round++) {
    sum += arena.tryXalloc(QUANTUM, constraints);
    const address = arena.alloc(QUANTUM);
    arena.free(address, QUANTUM);
  }
  const { user, system } = process.cpuUsage(start);
  if (sum !== -REFUSALS) throw new Error('a request was served that nothing fits');
  fragments.forEach((address, index) => {
    if (index % 2 === 0) arena.free(address, QUANTUM);
  });
  if (tail >= 0) arena.free(tail, rest);
  return ((user + system) * 1000) / REFUSALS;
}

function tell({ story, peer, seed, limitMs }: StoryData): number | null {
  const spaceBytes = 4 * BLOCKS * RANDOM.maxQuanta * QUANTUM;
  if (peer !== null) {
    const found = PEERS.find((candidate) => candidate.name === peer);
    if (found === undefined) throw new Error(`no peer ${peer}`);
    return burst(found.make(spaceBytes), story, seed, performance.now() + limitMs);
  }
  const { vm, arena } = bootFor(BLOCKS, { sizes: RANDOM }, 'manual');
  let ns: number | null;
  if (story === 'burst' || story === 'edited') {
    ns = burst(new ArenaSubject(arena), story, seed, Number.POSITIVE_INFINITY);
  } else if (story === 'refused') {
    ns = refused(arena);
  } else {
    const heap = vm.createArena('snug', { base: 0, size: SNUG_HEAP });
    const serve = () => {
      for (let round = 0; round < SNUG_ROUNDS; round++) heap.free(heap.alloc(SNUG_REQUEST), SNUG_REQUEST);
    };
    serve();
    const start = process.cpuUsage();
    serve();
    const { user, system } = process.cpuUsage(start);
    ns = ((user + system) * 1000) / SNUG_ROUNDS;
  }
  requireSound(vm, arena);
  vm.detach();
  return ns;
}

if (parentPort !== null) parentPort.postMessage(tell(workerData as StoryData));
