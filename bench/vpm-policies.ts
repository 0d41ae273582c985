/** Replacement policies of the page cache, one after another, on loads that they treat differently. */

import { boot, type VirtualMemory } from 'pagewright';
import { Prng } from 'pagewright/base';
import { type Harness, measure } from './harness.ts';
import { LARGE_BYTES, MEMORY_BYTES, MIB, overOffsets, PAGE, zipfOffsets } from './vpm-case.ts';

const POLICIES = ['clock', 's3fifo', 'clockPro', 'queues'] as const;

/** Reads of the few pages that are used again and again, then some of pages that are used once. */
function mixedOffsets(seed: number, count: number): Float64Array {
  const random = new Prng(seed);
  const pages = LARGE_BYTES / PAGE;
  let step = 0;
  const hot = Math.floor((MEMORY_BYTES / PAGE) * 0.7);
  let once = 0;
  return Float64Array.from({ length: count }, () => {
    if (random.below(2) === 0) return random.below(hot) * PAGE;
    // In steps that grow, which no read-ahead follows.
    step = (step + once++) % pages;
    return ((hot + step) % pages) * PAGE;
  });
}

/** Nanoseconds of a read, and how many reads of a hundred are hits, for each policy and load. */
export function policies(harness: Harness, path: string, seed: number): void {
  const loads = { zipf: zipfOffsets(seed, 1 << 17, LARGE_BYTES), 'some used once': mixedOffsets(seed, 1 << 17) };
  for (const policy of POLICIES) {
    for (const [load, offsets] of Object.entries(loads)) {
      const name = `4 KiB, ${load}, policy ${policy}`;
      if (!harness.wants(name)) continue;
      const vm: VirtualMemory = boot({ memory: MEMORY_BYTES + 2 * MIB, services: 'manual', replacement: policy });
      const file = vm.open(path);
      const target = new Uint8Array(PAGE);
      const operations = overOffsets(offsets, (offset) => file.read(offset, target));
      operations(offsets.length);
      const before = vm.statistics().pages;
      const ns = measure(operations);
      const { hits, misses } = vm.statistics().pages;
      if (ns !== null) harness.report(name, ns);
      const found = hits - before.hits;
      harness.reportValue(`${name}: hits of 100 reads`, (100 * found) / (found + misses - before.misses), '');
      file.close();
      vm.detach();
    }
  }
}
