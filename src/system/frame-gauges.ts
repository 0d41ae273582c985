/** Memory as the reaper of the pagelock cache sees it: free frames, and frames of the page cache, which can be reclaimed. */

import type { Frames } from '../phys/index.ts';
import type { MemoryGauges } from '../seg/index.ts';

/** Memory is short when less than this part of it is left. */
const LOTS_FREE_PART = 1 / 64;

/** Gauges over the frames of this system. The marks are those of the original system: a 64th and half of that. */
export function frameGauges(frames: Frames): MemoryGauges {
  const lotsFree = () => {
    const { total, absent } = frames.counts();
    return Math.floor((total - absent) * LOTS_FREE_PART);
  };
  return {
    get freePages() {
      const { free, page } = frames.counts();
      return free + page;
    },
    get lotsFree() {
      return lotsFree();
    },
    get desiredFree() {
      return Math.floor(lotsFree() / 2);
    },
    neededFree: 0,
  };
}
