/** What the parts of the page layer have in common, for one thread. */

import type { FrameBytes } from '../phys/banks.ts';
import type { Frames } from '../phys/frames.ts';
import type { Thread } from '../sync/thread.ts';
import type { CacheList } from './cache-list.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { LargePages } from './large-pages.ts';
import type { PageHash } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageShapes } from './page-shapes.ts';

/** The structures that all operations on pages work on. */
export interface PageParts {
  readonly thread: Thread;
  readonly frames: Frames;
  readonly bytes: FrameBytes;
  readonly hash: PageHash;
  readonly holds: PageHolds;
  readonly dirty: DirtyPages;
  readonly cache: CacheList;
  readonly shapes: PageShapes;
  readonly large: LargePages;
}
