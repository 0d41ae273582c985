/** A source of spans that answers a moment later: what the daemon runs for blocked threads. */

import type { AsyncSpanSource } from 'pagewright/vmem';

let next = 1000;

/** Leases ranges one behind the other. */
export const leases: AsyncSpanSource = {
  async importAsync(size) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    next += size;
    return next - size;
  },
};
