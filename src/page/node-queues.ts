/**
 * Queues of frames for replacement policies.
 *
 * PROBLEM     Policies keep frames in several queues, move them from one to another and take them out of the middle, and a
 *             thread may end in the middle of that.
 * STRUCTURE   head -> node <-> node <-> ... <- tail: nodes come at the tail and leave at the head. Node f stands for frame f
 *             and is on one queue at most.
 * INVARIANTS  I1 links, ends and counts agree, and the place of a node names its queue.
 *             A node may stand for a frame that has lost its page to somebody else: policies drop it when they meet it.
 * LOCKING     Under the policy's mutex, through the journal.
 * COSTS       About six journaled stores for each change.
 * FAILURE     Assertions.
 * REJECTED    One class of queues for each policy.
 * REFERENCES  phys/frame-lists.ts.
 */

import { assert } from '../base/assert.ts';
import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import type { Thread } from '../sync/thread.ts';

/** The queues as one thread sees them. */
export class NodeQueues {
  readonly #thread: Thread;
  readonly #queue: BoundTables['policyQueue'];
  readonly #node: BoundTables['policyNode'];
  readonly #page: BoundTables['page'];

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#queue = thread.region.tables.policyQueue;
    this.#node = thread.region.tables.policyNode;
    this.#page = thread.region.tables.page;
  }

  /** The queue of a frame, or -1. */
  queueOf(frame: FrameIndex): number {
    return this.#node.place.get(frame) - 1;
  }

  /** Nodes of a queue; without the lock a hint. */
  count(queue: number): number {
    return this.#queue.count.get(queue);
  }

  /** The frame that leaves a queue first and that has a page, or -1; those without one are dropped. */
  first(queue: number): FrameIndex {
    for (;;) {
      const frame = this.#queue.head.get(queue) - 1;
      if (frame < 0 || this.#page.vnode.get(frame) !== 0) return frame;
      this.remove(frame);
      this.#thread.commit();
    }
  }

  /** Puts a frame at the end of a queue, from wherever it is. */
  push(queue: number, frame: FrameIndex): void {
    if (this.queueOf(frame) >= 0) this.remove(frame);
    const { journal } = this.#thread;
    const last = this.#queue.tail.get(queue);
    journal.set(this.#node.place, frame, queue + 1);
    journal.set(this.#node.next, frame, 0);
    journal.set(this.#node.previous, frame, last);
    if (last === 0) journal.set(this.#queue.head, queue, frame + 1);
    else journal.set(this.#node.next, last - 1, frame + 1);
    journal.set(this.#queue.tail, queue, frame + 1);
    journal.set(this.#queue.count, queue, this.#queue.count.get(queue) + 1);
  }

  /** Takes a frame off its queue. */
  remove(frame: FrameIndex): void {
    const queue = this.queueOf(frame);
    assert(queue >= 0, 'page/node-queues I1: a frame that is removed is on a queue');
    const { journal } = this.#thread;
    const { next, previous, place } = this.#node;
    const after = next.get(frame);
    const before = previous.get(frame);
    if (before === 0) journal.set(this.#queue.head, queue, after);
    else journal.set(next, before - 1, after);
    if (after === 0) journal.set(this.#queue.tail, queue, before);
    else journal.set(previous, after - 1, before);
    journal.set(place, frame, 0);
    journal.set(this.#queue.count, queue, this.#queue.count.get(queue) - 1);
  }

  /** Lets one frame take another one's place. */
  replace(from: FrameIndex, to: FrameIndex): void {
    const queue = this.queueOf(from);
    if (queue < 0) return;
    if (this.queueOf(to) >= 0) this.remove(to);
    const { journal } = this.#thread;
    const { next, previous, place } = this.#node;
    const after = next.get(from);
    const before = previous.get(from);
    journal.set(place, to, queue + 1);
    journal.set(next, to, after);
    journal.set(previous, to, before);
    if (before === 0) journal.set(this.#queue.head, queue, to + 1);
    else journal.set(next, before - 1, to + 1);
    if (after === 0) journal.set(this.#queue.tail, queue, to + 1);
    else journal.set(previous, after - 1, to + 1);
    journal.set(place, from, 0);
  }

  /** Broken invariants. For quiet points. */
  problems(): string[] {
    const problems: string[] = [];
    const seen = new Set<FrameIndex>();
    for (let queue = 0; queue < this.#queue.count.view.length; queue++) {
      let before = 0;
      let found = 0;
      for (let link = this.#queue.head.get(queue); link !== 0; link = this.#node.next.get(link - 1)) {
        const frame = link - 1;
        if (seen.has(frame)) {
          problems.push(`page/node-queues I1: frame ${frame} is linked twice`);
          break;
        }
        seen.add(frame);
        found++;
        if (this.queueOf(frame) !== queue || this.#node.previous.get(frame) !== before) {
          problems.push(`page/node-queues I1: frame ${frame} on queue ${queue}`);
        }
        before = link;
      }
      if (found !== this.count(queue) || this.#queue.tail.get(queue) !== before) {
        problems.push(`page/node-queues I1: queue ${queue}: count ${this.count(queue)}, found ${found}`);
      }
    }
    return problems;
  }
}
