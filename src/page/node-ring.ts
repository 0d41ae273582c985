/**
 * A ring of nodes with three hands, for CLOCK-Pro.
 *
 * PROBLEM     Nodes of several kinds lie in one circle; they come behind a hand, change their kind, take another one's place,
 *             and leave while hands point to them.
 * STRUCTURE   node -> node -> ... -> the first again, linked both ways; hands name nodes; the place of a node is its kind.
 * INVARIANTS  I1 links agree, and each hand names a node of the ring, or none if it is empty.   I2 counts are right.
 * LOCKING     Under the policy's mutex, through the journal.
 * COSTS       About six journaled stores for each change.
 * FAILURE     Assertions.
 * REJECTED    An array with holes: nodes would have to move.
 * REFERENCES  replacement-clock-pro.ts.
 */

import { assert } from '../base/assert.ts';
import type { BoundTables } from '../layout/region.ts';
import type { Thread } from '../sync/thread.ts';

const HANDS = 3;

/** The ring as one thread sees it. */
export class NodeRing {
  readonly #thread: Thread;
  readonly #node: BoundTables['policyNode'];
  readonly #policy: BoundTables['policy'];

  constructor(thread: Thread) {
    this.#thread = thread;
    this.#node = thread.region.tables.policyNode;
    this.#policy = thread.region.tables.policy;
  }

  /** The kind of a node, 0 when it is not in the ring. */
  kindOf(node: number): number {
    return this.#node.place.get(node);
  }

  /** Nodes of a kind. */
  count(kind: number): number {
    return this.#policy.counts.at(0, kind);
  }

  /** The node that a hand names, or -1. */
  hand(hand: number): number {
    return this.#policy.hands.at(0, hand) - 1;
  }

  /** Moves a hand on by one node. */
  advance(hand: number): void {
    const node = this.hand(hand);
    assert(node >= 0, 'page/node-ring I1: a hand moves in a ring that is not empty');
    this.#setHand(hand, this.#node.next.get(node));
  }

  /** Puts a node in front of a hand, which is where the hand comes last. */
  insert(node: number, kind: number, hand: number): void {
    const { journal } = this.#thread;
    const { next, previous } = this.#node;
    const after = this.hand(hand);
    if (after < 0) {
      journal.set(next, node, node + 1);
      journal.set(previous, node, node + 1);
      for (let each = 0; each < HANDS; each++) this.#setHand(each, node + 1);
    } else {
      const before = previous.get(after) - 1;
      journal.set(next, node, after + 1);
      journal.set(previous, node, before + 1);
      journal.set(next, before, node + 1);
      journal.set(previous, after, node + 1);
    }
    journal.set(this.#node.place, node, kind);
    this.#count(kind, 1);
  }

  /** Takes a node out; hands that name it move on. */
  remove(node: number): void {
    const { journal } = this.#thread;
    const { next, previous } = this.#node;
    const kind = this.kindOf(node);
    assert(kind !== 0, 'page/node-ring I1: a node that is removed is in the ring');
    const after = next.get(node);
    const before = previous.get(node);
    const last = after === node + 1;
    for (let each = 0; each < HANDS; each++) {
      if (this.hand(each) === node) this.#setHand(each, last ? 0 : after);
    }
    if (!last) {
      journal.set(next, before - 1, after);
      journal.set(previous, after - 1, before);
    }
    journal.set(this.#node.place, node, 0);
    this.#count(kind, -1);
  }

  /** Lets a node that is not in the ring take the place of one that is. */
  replace(from: number, to: number, kind: number): void {
    const { journal } = this.#thread;
    const { next, previous } = this.#node;
    const before = this.kindOf(from);
    assert(before !== 0 && this.kindOf(to) === 0, 'page/node-ring I1: a node outside takes the place of one inside');
    const alone = next.get(from) === from + 1;
    const after = alone ? to + 1 : next.get(from);
    const ahead = alone ? to + 1 : previous.get(from);
    for (let each = 0; each < HANDS; each++) {
      if (this.hand(each) === from) this.#setHand(each, to + 1);
    }
    journal.set(next, to, after);
    journal.set(previous, to, ahead);
    journal.set(next, ahead - 1, to + 1);
    journal.set(previous, after - 1, to + 1);
    journal.set(this.#node.place, from, 0);
    journal.set(this.#node.place, to, kind);
    this.#count(before, -1);
    this.#count(kind, 1);
  }

  /** Changes the kind of a node. */
  setKind(node: number, kind: number): void {
    this.#count(this.kindOf(node), -1);
    this.#thread.journal.set(this.#node.place, node, kind);
    this.#count(kind, 1);
  }

  /** Broken invariants. For quiet points. */
  problems(): string[] {
    const problems: string[] = [];
    const found = [0, 0, 0, 0];
    const seen = new Set<number>();
    const first = this.hand(0);
    for (let node = first; node >= 0 && !seen.has(node); node = this.#node.next.get(node) - 1) {
      seen.add(node);
      const kind = this.kindOf(node);
      found[kind] = (found[kind] ?? 0) + 1;
      const after = this.#node.next.get(node) - 1;
      if (kind === 0 || this.#node.previous.get(after) !== node + 1) {
        problems.push(`page/node-ring I1: node ${node} of kind ${kind}`);
      }
    }
    for (let hand = 0; hand < HANDS; hand++) {
      const node = this.hand(hand);
      if (node >= 0 ? !seen.has(node) : seen.size > 0) problems.push(`page/node-ring I1: hand ${hand} names ${node}`);
    }
    for (let kind = 1; kind < found.length; kind++) {
      if (found[kind] !== this.count(kind)) {
        problems.push(`page/node-ring I2: kind ${kind}: count ${this.count(kind)}, found ${found[kind]}`);
      }
    }
    return problems;
  }

  #setHand(hand: number, link: number): void {
    this.#thread.journal.setAt(this.#policy.hands, 0, hand, link);
  }

  #count(kind: number, amount: number): void {
    this.#thread.journal.setAt(this.#policy.counts, 0, kind, this.#policy.counts.at(0, kind) + amount);
  }
}
