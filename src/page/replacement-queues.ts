/**
 * Queues: the order in which the source's mapping cache and its list of clean pages give frames up.
 *
 * PROBLEM     Compare what the source does with other policies, over the pages that the default brings.
 * STRUCTURE   A share of the pages is kept on lists, one after another under a rotor; each list has two queues whose parts
 *             change when the one that gives out is empty. What a list gives out becomes clean, and the clean page that
 *             came first leaves:
 *
 *               come --rotor--> release queue ... allocate queue --not hit--> clean --not hit--> leaves
 *                                  ^-------- hit --------'                      | hit: back to a list
 *
 *             The source moves a page at every hit; here hits only mark, and the page moves when its turn comes.
 * INVARIANTS  I1 every valid page is on a queue from before it is valid, or was relocated a moment ago.
 * LOCKING     One mutex. Hits take nothing.
 * COSTS       32 bytes a frame; two lock pairs for up to 32 pages that leave, one for those that come.
 * FAILURE     No candidates when no queue has a page.
 * REJECTED    A lock for each list: pages come and go in batches, and hits take none.
 * REFERENCES  illumos vm/vpm.c; vpm/mapping-entries.ts is the original.
 */

import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';
import { NodeQueues } from './node-queues.ts';
import type { VnodeIndex } from './page-hash.ts';
import type { ReplacementPolicy } from './replacement-policy.ts';
import { isAmong } from './replacement-s3fifo.ts';

/** Percent of the frames whose pages are kept on lists. */
const KEPT_PERCENT = 12;

/** The policy as one thread sees it. */
export class QueueReplacement implements ReplacementPolicy {
  readonly markMax = 1;
  readonly #thread: Thread;
  readonly #queues: NodeQueues;
  readonly #page: BoundTables['page'];
  readonly #policy: BoundTables['policy'];
  readonly #allocate: BoundTables['policyQueue']['allocate'];
  readonly #lock: number;
  readonly #lists: number;
  /** Number of the queue of clean pages. */
  readonly #clean: number;
  readonly #keptMax: number;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#queues = new NodeQueues(thread);
    this.#page = tables.page;
    this.#policy = tables.policy;
    this.#allocate = tables.policyQueue.allocate;
    this.#lock = tables.policy.lock.address(0);
    this.#lists = (geometry.policyQueues - 1) / 2;
    this.#clean = geometry.policyQueues - 1;
    this.#keptMax = Math.max(1, Math.floor((geometry.frames * KEPT_PERCENT) / 100));
  }

  inserted(_vnode: VnodeIndex, _index: number, frames: Int32Array, at: number, count: number): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      this.#page.referenced.put(frame, 0);
      this.#keep(frame);
      this.#thread.commit();
    }
    this.#shrink();
    mutexExit(this.#thread, this.#lock);
  }

  candidates(out: Int32Array, max: number): number {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    let chosen = 0;
    for (let steps = 4 * this.#page.rowCount; chosen < max && steps > 0; steps--) {
      const frame = this.#queues.count(this.#clean) > chosen ? this.#queues.first(this.#clean) : -1;
      if (frame < 0) {
        if (!this.#release()) break;
        continue;
      }
      if (isAmong(out, chosen, frame)) break;
      if (this.#page.referenced.get(frame) === 0) {
        this.#queues.push(this.#clean, frame);
        out[chosen++] = frame;
      } else {
        this.#page.referenced.put(frame, 0);
        this.#keep(frame);
        this.#thread.commit();
        this.#shrink();
      }
      this.#thread.commit();
    }
    mutexExit(this.#thread, this.#lock);
    return chosen;
  }

  evicted(frames: Int32Array, at: number, count: number): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    for (let lane = at; lane < at + count; lane++) {
      const frame = frames[lane] as number;
      if (this.#queues.queueOf(frame) >= 0) this.#queues.remove(frame);
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

  /** Puts a frame on the release queue of the list under the rotor. */
  #keep(frame: FrameIndex): void {
    const rotor = this.#policy.rotor.get(0);
    this.#thread.journal.set(this.#policy.rotor, 0, (rotor + 1) & (this.#lists - 1));
    this.#queues.push(this.#releaseQueue(rotor), frame);
  }

  /** Makes pages clean until the lists have no more than their share. */
  #shrink(): void {
    while (this.#kept() > this.#keptMax && this.#release());
  }

  /** One page of the list under the rotor, or of the next that has any, becomes clean; false when all are empty. */
  #release(): boolean {
    const first = this.#policy.rotor.get(0);
    for (let step = 0; step < this.#lists; step++) {
      const list = (first + step) & (this.#lists - 1);
      for (let turns = this.#countOf(list); turns >= 0; turns--) {
        const frame = this.#next(list);
        if (frame < 0) break;
        const hit = this.#page.referenced.get(frame) !== 0;
        if (hit && turns > 0) this.#page.referenced.put(frame, 0);
        this.#queues.push(hit && turns > 0 ? this.#releaseQueue(list) : this.#clean, frame);
        this.#thread.commit();
        if (!hit || turns === 0) return true;
      }
    }
    return false;
  }

  /** The page of a list that comes next, or -1; the queues change parts when one of them is empty. */
  #next(list: number): FrameIndex {
    const frame = this.#queues.first(2 * list + this.#allocate.get(2 * list));
    if (frame >= 0) return frame;
    this.#thread.journal.set(this.#allocate, 2 * list, 1 - this.#allocate.get(2 * list));
    return this.#queues.first(2 * list + this.#allocate.get(2 * list));
  }

  #releaseQueue(list: number): number {
    return 2 * list + 1 - this.#allocate.get(2 * list);
  }

  #countOf(list: number): number {
    return this.#queues.count(2 * list) + this.#queues.count(2 * list + 1);
  }

  #kept(): number {
    let kept = 0;
    for (let queue = 0; queue < this.#clean; queue++) kept += this.#queues.count(queue);
    return kept;
  }
}
