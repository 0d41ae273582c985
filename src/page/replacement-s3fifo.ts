/**
 * S3-FIFO: three queues, first in, first out.
 *
 * PROBLEM     Most pages are asked for once and never again: they should not push out those that are.
 * STRUCTURE   small  a tenth of the pages: where new ones come        main   where those go that were asked for again
 *             ghost  names of pages that left small, as many as there are frames
 *
 *               come     name in ghost: main, else small
 *               leave    small above its tenth: its oldest page goes to main if it was hit twice, else it leaves;
 *                        else main's oldest: hit: once more around with one hit less, else it leaves
 *
 * INVARIANTS  I1 every valid page is on a queue from before it is valid, or was relocated a moment ago.
 *             I2 a name counts while fewer pages than there are frames have left small since.
 * LOCKING     One mutex for queues and ghosts. Hits count in the page's mark, up to 3, and take nothing.
 * COSTS       32 bytes a frame for queues, up to 32 for ghosts; two lock pairs for up to 32 pages that leave, one for those that
 *             come.
 * FAILURE     No candidates when no queue has a page.
 * REJECTED    A queue of ghosts: a table in which newer names overwrite older ones of the same place forgets a few early.
 * REFERENCES  Yang, Zhang, Qiu, Yue and Vigfusson, FIFO queues are all you need for cache eviction, SOSP 2023.
 */

import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';
import { NodeQueues } from './node-queues.ts';
import type { VnodeIndex } from './page-hash.ts';
import type { ReplacementPolicy } from './replacement-policy.ts';

const SMALL = 0;
const MAIN = 1;

/** Share of the pages that small may have. */
const SMALL_DIVISOR = 10;

/** Hits from which on a page of small goes to main. */
const MAIN_HITS = 2;

/** The policy as one thread sees it. */
export class S3Fifo implements ReplacementPolicy {
  readonly markMax = 3;
  readonly #thread: Thread;
  readonly #queues: NodeQueues;
  readonly #page: BoundTables['page'];
  readonly #policy: BoundTables['policy'];
  readonly #ghost: BoundTables['policyGhost'];
  readonly #lock: number;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#queues = new NodeQueues(thread);
    this.#page = tables.page;
    this.#policy = tables.policy;
    this.#ghost = tables.policyGhost;
    this.#lock = tables.policy.lock.address(0);
  }

  inserted(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      this.#page.referenced.put(frame, 0);
      this.#queues.push(this.#isGhost(vnode, index + page) ? MAIN : SMALL, frame);
    }
    mutexExit(this.#thread, this.#lock);
  }

  candidates(out: Int32Array, max: number): number {
    let chosen = 0;
    let ofSmall = 0;
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    // Each page of main comes round at most markMax times before its mark is 0.
    for (let steps = (this.markMax + 1) * this.#page.rowCount; chosen < max && steps > 0; steps--) {
      const small = this.#queues.count(SMALL) - ofSmall;
      const main = this.#queues.count(MAIN) - (chosen - ofSmall);
      if (small + main <= 0) break;
      const isSmall = main <= 0 || small * SMALL_DIVISOR > small + main;
      const frame = isSmall ? this.#fromSmall() : this.#fromMain();
      this.#thread.commit();
      if (frame < 0) continue;
      if (isAmong(out, chosen, frame)) break;
      out[chosen++] = frame;
      if (isSmall) ofSmall++;
    }
    mutexExit(this.#thread, this.#lock);
    return chosen;
  }

  evicted(frames: Int32Array, at: number, count: number, vnodes: Int32Array, indices: Int32Array): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      const queue = this.#queues.queueOf(frame);
      if (queue >= 0) this.#queues.remove(frame);
      if (queue === SMALL) this.#remember(vnodes[page] as number, indices[page] as number);
      this.#thread.commit();
    }
    mutexExit(this.#thread, this.#lock);
  }

  relocated(from: FrameIndex, to: FrameIndex): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    this.#queues.replace(from, to);
    mutexExit(this.#thread, this.#lock);
  }

  problems(): string[] {
    return this.#queues.problems();
  }

  /** The oldest page of small if it may leave; it goes to the end, or to main. */
  #fromSmall(): FrameIndex {
    const frame = this.#queues.first(SMALL);
    if (frame < 0) return -1;
    const moves = this.#page.referenced.get(frame) >= MAIN_HITS;
    if (moves) this.#page.referenced.put(frame, 0);
    this.#queues.push(moves ? MAIN : SMALL, frame);
    return moves ? -1 : frame;
  }

  #fromMain(): FrameIndex {
    const frame = this.#queues.first(MAIN);
    if (frame < 0) return -1;
    const mark = this.#page.referenced.get(frame);
    if (mark > 0) this.#page.referenced.put(frame, mark - 1);
    this.#queues.push(MAIN, frame);
    return mark > 0 ? -1 : frame;
  }

  #remember(vnode: VnodeIndex, index: number): void {
    const { journal } = this.#thread;
    const sequence = (this.#policy.sequence.get(0) + 1) | 0;
    const key = fingerprint(vnode, index);
    const row = this.#rowOf(key);
    journal.set(this.#policy.sequence, 0, sequence);
    journal.set(this.#ghost.key, row, key);
    journal.set(this.#ghost.sequence, row, sequence);
  }

  /** True when the page left small not long ago; it is forgotten then. */
  #isGhost(vnode: VnodeIndex, index: number): boolean {
    const key = fingerprint(vnode, index);
    const row = this.#rowOf(key);
    if (this.#ghost.key.get(row) !== key) return false;
    const age = (this.#policy.sequence.get(0) - this.#ghost.sequence.get(row)) >>> 0;
    this.#thread.journal.set(this.#ghost.key, row, 0);
    return age < this.#page.rowCount;
  }

  #rowOf(key: number): number {
    return (Math.imul(key, 0x9e3779b1) >>> 7) & (this.#ghost.rowCount - 1);
  }
}

/** True when a frame is in one of the first `count` lanes. */
export function isAmong(lanes: Int32Array, count: number, frame: FrameIndex): boolean {
  for (let lane = 0; lane < count; lane++) if (lanes[lane] === frame) return true;
  return false;
}

/** A number that stands for a page; never 0. */
export function fingerprint(vnode: VnodeIndex, index: number): number {
  const mixed = Math.imul(index ^ Math.imul(vnode + 1, 0x85ebca6b), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 15)) | 1;
}
