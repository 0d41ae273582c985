/** Bit arithmetic on words of the map of free frames. */

/** Frames in one word. */
export const WORD_BITS = 32;

/** A word whose frames are all free. */
export const ALL_FREE = -1;

/** Position of the lowest bit that is set in a word other than 0. */
export function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

/** Bits that are set in a word. */
export function onesCount(word: number): number {
  let pairs = word - ((word >>> 1) & 0x55555555);
  pairs = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The bits of a word that stand for frames `[low, high)`, counted from the word's first; `low` is below 32. */
export function wordMask(low: number, high: number): number {
  const upTo = high >= WORD_BITS ? ALL_FREE : (1 << high) - 1;
  return upTo & (ALL_FREE << low);
}
