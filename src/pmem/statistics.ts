/** What there is of cookies, and of what they are made. */

import type { FrameIndex } from '../phys/index.ts';
import type { OrderedRun } from './run-chains.ts';

/** What is there. */
export interface PmemStatistics {
  readonly cookies: number;
  /** Frames in the pool. */
  readonly poolFrames: number;
  /** Large pages in use. */
  readonly largePages: number;
  /** Frames reserved. */
  readonly reserved: number;
}

/** A picture of the pool and the large pages. */
export interface PmemSnapshot extends PmemStatistics {
  /** The seed's queue; empty by default. */
  readonly pool: readonly OrderedRun[];
  /** First frames of large pages with the number of their frames in the pool. */
  readonly large: readonly (readonly [root: FrameIndex, free: number])[];
}
