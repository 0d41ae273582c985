/**
 * A driver of the pagelock cache that keeps account of shadow lists in memory that all threads share: one word each.
 *
 * A word is 0 unknown, 1 live, 2 reclaimed, 3 joined into another one.
 */

import type { CacheDriver } from 'pagewright/seg';
import { add, compareExchange, exchange, load } from 'pagewright/sync';

/** States of a shadow list. */
export const SHADOW = { live: 1, reclaimed: 2, joined: 3 } as const;

/** Word of the last shadow list given out. */
const LAST = 0;

/** Word of the count of reclaims that came twice. */
const TWICE = 1;

/** First shadow list. */
export const SHADOW_FIRST = 2;

/** Makes a table for so many shadow lists. */
export function createTally(shadows: number): Int32Array {
  const tally = new Int32Array(new SharedArrayBuffer((SHADOW_FIRST + shadows) * 4));
  tally[LAST] = SHADOW_FIRST - 1;
  return tally;
}

/** A new live shadow list; throws when the table is full. */
export function newShadow(tally: Int32Array): number {
  const shadow = add(tally, LAST, 1) + 1;
  if (shadow >= tally.length) throw new Error('the table of shadow lists is full');
  exchange(tally, shadow, SHADOW.live);
  return shadow;
}

/** The state of a shadow list. */
export function stateOf(tally: Int32Array, shadow: number): number {
  return load(tally, shadow);
}

/** How many shadow lists are in each state, and how many were reclaimed twice. */
export function countTally(tally: Int32Array) {
  const counts = { live: 0, reclaimed: 0, joined: 0, twice: tally[TWICE] as number };
  const end = (tally[LAST] as number) + 1;
  for (let shadow = SHADOW_FIRST; shadow < end; shadow++) {
    const state = tally[shadow];
    if (state === SHADOW.live) counts.live++;
    else if (state === SHADOW.reclaimed) counts.reclaimed++;
    else if (state === SHADOW.joined) counts.joined++;
  }
  return counts;
}

/** The driver over a table. */
export function tallyDriver(tally: Int32Array): CacheDriver {
  return {
    reclaim(_owner, _address, _length, shadow) {
      if (exchange(tally, shadow, SHADOW.reclaimed) === SHADOW.reclaimed) add(tally, TWICE, 1);
      return false;
    },
    join(first, second) {
      const joined = newShadow(tally);
      compareExchange(tally, first, SHADOW.live, SHADOW.joined);
      compareExchange(tally, second, SHADOW.live, SHADOW.joined);
      return joined;
    },
  };
}
