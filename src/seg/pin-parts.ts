/** What pins consist of while they are made, and until they are released. */

import type { CacheOwner, Pin } from './pagelock-kinds.ts';
import type { SegmentIndex, ShadowIndex } from './space-kinds.ts';

/** What of a pin lies in one segment. */
export interface PinPart {
  /** Pin of the cache, or negative. */
  readonly cachePin: Pin;
  /** The list, when the cache does not have it; -1 else. */
  readonly list: ShadowIndex;
  /** What the cache was asked for: its original rules want that again at the end. */
  readonly key: CacheKey;
}

/** What the cache is asked for. */
export interface CacheKey {
  readonly owner: CacheOwner;
  /** Bytes from the start of the map, the vnode or the segment on. */
  readonly first: number;
  readonly bytes: number;
  readonly flags: number;
}

/** A part of a request. */
export interface PartRequest {
  readonly segment: SegmentIndex;
  readonly start: number;
  readonly end: number;
  readonly write: boolean;
}
