/**
 * The phys bench: contiguous requests in fragmented memory against a frame-by-frame scan, and pmem beside many large pages.
 *
 * Every state is made the same way for both subjects, and each result is compared: a run that one finds and the other does
 * not would end the bench. Cases are pairs of taking and giving back, or refusals.
 */

import { boot, type VirtualMemory } from 'pagewright';
import type { PageList } from 'pagewright/phys';
import type { Cookie } from 'pagewright/pmem';
import { type Bench, type Harness, measure } from './harness.ts';
import { FrameScan } from './phys-scan.ts';

const PAGE = 4096;
const SIZES = [14, 18, 20, 22] as const;
const REQUESTS = [1, 16, 64, 512] as const;
const LARGE_PAGES = [10, 100, 1000, 10_000] as const;
const COOKIES = [1, 16, 512, 700] as const;

/** Goals in nanoseconds: refusals at every size, requests that are served and given back, steady pairs. */
const REFUSED_NS = 5000;
const SERVED_NS = 2000;
const STEADY_NS = 1500;

/** How much more pmem may take beside any number of large pages than beside the fewest. */
const PMEM_RATIO = 2;

/** Which frames are taken before a case begins. */
const PATTERNS: readonly { readonly name: string; readonly taken: (frame: number, chance: number) => boolean }[] = [
  { name: 'every 2nd taken', taken: (frame) => frame % 2 === 0 },
  { name: 'every 8th taken', taken: (frame) => frame % 8 === 0 },
  { name: 'every 64th taken', taken: (frame) => frame % 64 === 0 },
  { name: 'half taken at random', taken: (_frame, chance) => chance < 0.5 },
];

/** A generator for both subjects: numbers from 0 to 1. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

function start(frames: number): VirtualMemory {
  return boot({
    memory: frames * PAGE,
    bankSize: Math.min(2 ** 32, frames * PAGE),
    tags: 8192,
    vnodes: 256,
    services: 'manual',
  });
}

/** The phys bench. */
export const physBench: Bench = {
  name: 'phys',
  about: 'runs of frames in fragmented memory, and pmem beside many large pages',
  details: `phys: cases
  2^N frames, PATTERN: COUNT frames   N: ${SIZES.join(', ')}; COUNT: ${REQUESTS.join(', ')};
                                      PATTERN: ${PATTERNS.map(({ name }) => name).join(', ')}
  2^N frames, 80 % in runs of 16: steady pair
  pmem beside L large pages: COUNT frames   L: ${LARGE_PAGES.join(', ')}; COUNT: ${COOKIES.join(', ')}
`,
  async run(harness) {
    for (const power of SIZES) {
      for (const { name, taken } of PATTERNS) {
        const title = `2^${power} frames, ${name}`;
        if (REQUESTS.some((count) => harness.wants(caseName(title, count))))
          fragmented(harness, title, 2 ** power, taken);
      }
      const title = `2^${power} frames, 80 % in runs of 16: steady pair`;
      if (harness.wants(title)) steady(harness, title, 2 ** power);
    }
    const times = new Map<number, number>();
    for (const largePages of LARGE_PAGES) {
      const title = `pmem beside ${largePages} large pages`;
      if (COOKIES.some((count) => harness.wants(`${title}: ${count} frames`)))
        beside(harness, title, largePages, times);
    }
  },
};

function caseName(title: string, count: number): string {
  return `${title}: ${count} frames`;
}

function fragmented(
  harness: Harness,
  title: string,
  frames: number,
  taken: (frame: number, chance: number) => boolean,
): void {
  const vm = start(frames);
  const scan = new FrameScan(frames);
  const random = generator(harness.options.seed);
  const { pageLists: lists } = vm;
  lists.alloc({ size: frames * PAGE, segments: frames });
  for (let frame = 0; frame < frames; frame++) {
    if (taken(frame, random())) continue;
    lists.giveFrame(frame);
    scan.mark(frame, 1, true);
  }
  for (const count of REQUESTS) {
    const name = caseName(title, count);
    if (!harness.wants(name)) continue;
    const request = { size: count * PAGE };
    const first = lists.tryAlloc(request);
    const other = scan.take(count);
    if ((first?.runs[0]?.first ?? -1) !== other) throw new Error(`${name}: ${first?.runs[0]?.first} and ${other}`);
    if (first !== null) lists.free(first);
    if (other >= 0) scan.mark(other, count, true);
    const ns = measure((operations) => {
      let sum = 0;
      for (let operation = 0; operation < operations; operation++) {
        const list = lists.tryAlloc(request);
        if (list === null) continue;
        sum = (sum + list.frameCount) | 0;
        lists.free(list);
      }
      return sum;
    });
    const peerNs = measure((operations) => {
      let sum = 0;
      for (let operation = 0; operation < operations; operation++) {
        const at = scan.take(count);
        if (at < 0) continue;
        sum = (sum + count) | 0;
        scan.mark(at, count, true);
      }
      return sum;
    }, performance.now() + harness.options.peerLimitMs);
    const kind = other < 0 ? 'refused' : 'taken, given back';
    const goal = { atMost: other < 0 ? REFUSED_NS : SERVED_NS };
    harness.report(`${name}: ${kind}`, ns ?? Number.NaN, [{ peer: 'frame by frame', ns: peerNs }], goal);
  }
  vm.detach();
}

function steady(harness: Harness, title: string, frames: number): void {
  const vm = start(frames);
  const scan = new FrameScan(frames);
  const { pageLists: lists } = vm;
  const runs = Math.floor((frames * 0.8) / 16);
  const mine: PageList[] = [];
  for (let run = 0; run < runs; run++) mine.push(lists.alloc({ size: 16 * PAGE }));
  // The lowest run that fits is what the scan would have found as well, one by one.
  scan.mark(runs * 16, frames - runs * 16, true);
  const theirs = mine.map(({ runs: [run] }) => run?.first as number);
  const pick = generator(harness.options.seed);
  const ns = measure((operations) => {
    for (let operation = 0; operation < operations; operation++) {
      const index = Math.floor(pick() * runs);
      lists.free(mine[index] as PageList);
      mine[index] = lists.alloc({ size: 16 * PAGE });
    }
    return lists.outstanding;
  });
  const pickTheirs = generator(harness.options.seed);
  const peerNs = measure((operations) => {
    for (let operation = 0; operation < operations; operation++) {
      const index = Math.floor(pickTheirs() * runs);
      scan.mark(theirs[index] as number, 16, true);
      theirs[index] = scan.take(16);
    }
    return theirs[0] as number;
  }, performance.now() + harness.options.peerLimitMs);
  harness.report(title, ns ?? Number.NaN, [{ peer: 'frame by frame', ns: peerNs }], { atMost: STEADY_NS });
  vm.detach();
}

/** Half of each large page is a live cookie, the other half is pooled. */
function beside(harness: Harness, title: string, largePages: number, times: Map<number, number>): void {
  const frames = 2 ** Math.ceil(Math.log2(Math.max(8192, largePages * 512 * 1.5)));
  const vm = start(frames);
  const { pmem } = vm;
  const cookies: Cookie[] = [];
  for (let half = 0; half < largePages * 2; half++) cookies.push(pmem.alloc({ size: 256 * PAGE }));
  for (let half = 0; half < largePages * 2; half += 2) pmem.free(cookies[half] as Cookie);
  const inUse = pmem.statistics().largePages;
  if (inUse !== largePages) throw new Error(`${title}: ${inUse} large pages`);
  for (const count of COOKIES) {
    const name = `${title}: ${count} frames`;
    if (!harness.wants(name)) continue;
    const ns = measure((operations) => {
      let sum = 0;
      for (let operation = 0; operation < operations; operation++) {
        const cookie = pmem.alloc({ size: count * PAGE });
        sum = (sum + cookie.frames) | 0;
        pmem.free(cookie);
      }
      return sum;
    });
    harness.report(name, ns ?? Number.NaN);
    if (ns === null) continue;
    const fewest = times.get(count);
    if (fewest === undefined) times.set(count, ns);
    else
      harness.reportValue(`${name}: against ${LARGE_PAGES[0]} large pages`, ns / fewest, 'x', { atMost: PMEM_RATIO });
  }
  vm.detach();
}
