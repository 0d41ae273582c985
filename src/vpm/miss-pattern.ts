/**
 * Whether the pages that one thread maps are missing one after another: mappings name vnodes, not open files, so that there
 * is no pattern of a reader to go by (read-pattern.ts). Only misses are looked at: hits cost nothing more.
 */

import type { VnodeIndex } from '../page/page-hash.ts';

/** Most pages that are brought ahead; with the mapping they fill one fetch. */
const AHEAD_PAGES_MAX = 31;

/** Pages ahead when a pattern begins. */
const AHEAD_PAGES_FIRST = 4;

/** The misses of one thread's mappings. */
export class MissPattern {
  #vnode: VnodeIndex = -1;
  #next = -1;
  #ahead = 0;

  /**
   * Notes that page `missing` of a vnode is not there, and that pages up to `end` are mapped; returns how many pages should
   * come along behind those, at most `max`.
   */
  note(vnode: VnodeIndex, missing: number, end: number, max: number): number {
    const follows = vnode === this.#vnode && missing === this.#next;
    this.#ahead = follows ? Math.min(AHEAD_PAGES_MAX, Math.max(AHEAD_PAGES_FIRST, 2 * this.#ahead)) : 0;
    const ahead = Math.max(0, Math.min(this.#ahead, max));
    this.#vnode = vnode;
    this.#next = end + ahead;
    return ahead;
  }
}
