/** Going through free segments when a search by strategy is not what is wanted. */

import {
  ARENA_BIN_MAP,
  ARENA_FREE_HEAD,
  BIN_MASK,
  BIN_SHIFT,
  TAG_DOUBLE_SHIFT,
  TAG_LINK_NEXT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_STAMP,
  TAG_START,
} from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { binOf, firstListFrom } from './free-lists.ts';
import type { TagIndex } from './kinds.ts';

/**
 * Goes through the free segments that are large enough, newer ones of a bin first and none of a bin behind an old one, until
 * one is accepted; 0 when none is. Under the arena's lock.
 */
export function visitLarge(
  core: ArenaCore,
  size: number,
  isOld: ((stamp: number) => boolean) | null,
  accepts: (start: number, segmentSize: number, tag: TagIndex) => boolean,
): TagIndex {
  const { words, doubles, base } = core;
  const firstBin = binOf(core, size);
  const floor = firstBin >>> BIN_SHIFT;
  for (let order = firstListFrom(core, floor); order >= 0; order = firstListFrom(core, order + 1)) {
    let bins = words[base + ARENA_BIN_MAP + order] as number;
    if (order === floor) bins &= -1 << (firstBin & BIN_MASK);
    for (; bins !== 0; bins &= bins - 1) {
      const bin = 31 - Math.clz32(bins & -bins);
      let tag = words[base + ARENA_FREE_HEAD + (order << BIN_SHIFT) + bin] as number;
      for (; tag !== 0; tag = words[(tag << TAG_SHIFT) + TAG_LINK_NEXT] as number) {
        if (isOld?.(words[(tag << TAG_SHIFT) + TAG_STAMP] as number) === true) break;
        core.looked++;
        const start = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_START] as number;
        const segmentSize = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
        if (segmentSize >= size && accepts(start, segmentSize, tag)) return tag;
      }
    }
  }
  return 0;
}
