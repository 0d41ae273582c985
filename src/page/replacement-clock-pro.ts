/**
 * CLOCK-Pro: a clock that knows how soon pages come back.
 *
 * PROBLEM     Scans and loops larger than the memory should not push out pages that are used again and again; and how much
 *             room newcomers need depends on the load.
 * STRUCTURE   One ring of nodes with three hands. Nodes are hot or cold pages in memory, or test: cold pages that have left
 *             and are watched for a while.
 *
 *               come     a test node has its name: hot, and one more cold page is aimed for; else cold
 *               cold hand    hit: hot; else the page leaves, and a test node takes its place
 *               hot hand     runs while there are more hot pages than aimed for: hit: the mark goes; else cold
 *               test hand    runs while there are more test nodes than pages: they go, and one cold page less is aimed for
 *
 * INVARIANTS  I1 links agree, and hands point to nodes of the ring, or nowhere if it is empty.
 *             I2 counts are the nodes of each kind; there are at most as many test nodes as frames.
 *             I3 every valid page is in the ring from before it is valid, or was relocated a moment ago.
 * LOCKING     One mutex. Hits set the page's mark and take nothing.
 * COSTS       64 bytes a frame for two nodes, up to 32 for names; two lock pairs for up to 32 pages that leave,
 *             one for those that come.
 * FAILURE     No candidates when the ring has no page.
 * REJECTED    Lists of hot and cold pages: order between them is what the hands compare.
 * REFERENCES  Jiang, Chen and Zhang, CLOCK-Pro, USENIX 2005.
 */

import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { Thread } from '../sync/thread.ts';
import { NodeRing } from './node-ring.ts';
import type { VnodeIndex } from './page-hash.ts';
import type { ReplacementPolicy } from './replacement-policy.ts';
import { fingerprint, isAmong } from './replacement-s3fifo.ts';

/** Kinds of nodes. */
const HOT = 1;
const COLD = 2;
const TEST = 3;

/** Hands of the ring. */
const HAND_HOT = 0;
const HAND_COLD = 1;
const HAND_TEST = 2;

/** Fewest cold pages aimed for: some, and a share of all. Fewer, and pages leave before a second touch close to the first. */
const COLD_MIN = 4;
const COLD_DIVISOR = 10;

/** The policy as one thread sees it. */
export class ClockPro implements ReplacementPolicy {
  readonly markMax = 1;
  readonly #thread: Thread;
  readonly #ring: NodeRing;
  readonly #page: BoundTables['page'];
  readonly #policy: BoundTables['policy'];
  readonly #node: BoundTables['policyNode'];
  readonly #names: BoundTables['policyGhost'];
  readonly #lock: number;
  readonly #frames: number;

  constructor(thread: Thread) {
    const { tables, geometry } = thread.region;
    this.#thread = thread;
    this.#ring = new NodeRing(thread);
    this.#page = tables.page;
    this.#policy = tables.policy;
    this.#node = tables.policyNode;
    this.#names = tables.policyGhost;
    this.#lock = tables.policy.lock.address(0);
    this.#frames = geometry.frames;
  }

  inserted(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      this.#page.referenced.put(frame, 0);
      if (this.#ring.kindOf(frame) !== 0) this.#ring.remove(frame);
      const ghost = this.#ghostOf(vnode, index + page);
      if (ghost >= 0) {
        this.#aim(1);
        this.#dropGhost(ghost);
      }
      this.#ring.insert(frame, ghost >= 0 ? HOT : COLD, HAND_HOT);
      this.#thread.commit();
    }
    mutexExit(this.#thread, this.#lock);
  }

  candidates(out: Int32Array, max: number): number {
    let chosen = 0;
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    for (let steps = 6 * this.#frames; chosen < max && steps > 0; steps--) {
      if (this.#resident() - chosen <= 0) break;
      const frame = this.#runCold();
      this.#thread.commit();
      while (this.#ring.count(HOT) > Math.max(0, this.#resident() - chosen - this.#target())) this.#runHot();
      if (frame < 0) continue;
      if (isAmong(out, chosen, frame)) break;
      out[chosen++] = frame;
    }
    mutexExit(this.#thread, this.#lock);
    return chosen;
  }

  evicted(frames: Int32Array, at: number, count: number, vnodes: Int32Array, indices: Int32Array): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    for (let page = 0; page < count; page++) {
      const frame = frames[at + page] as number;
      if (this.#ring.kindOf(frame) === 0) continue;
      this.#leave(frame, vnodes[page] as number, indices[page] as number);
      this.#thread.commit();
      while (this.#ring.count(TEST) > Math.max(1, this.#resident())) this.#runTest();
    }
    mutexExit(this.#thread, this.#lock);
  }

  relocated(from: FrameIndex, to: FrameIndex): void {
    mutexEnter(this.#thread, this.#lock, RANK.replacement);
    const kind = this.#ring.kindOf(from);
    if (this.#ring.kindOf(to) !== 0) this.#ring.remove(to);
    if (kind !== 0) this.#ring.replace(from, to, kind);
    mutexExit(this.#thread, this.#lock);
  }

  problems(): string[] {
    return this.#ring.problems();
  }

  /** A test node takes the place of a page that leaves. */
  #leave(frame: FrameIndex, vnode: VnodeIndex, index: number): void {
    const ghost = this.#takeGhost();
    const { journal } = this.#thread;
    journal.set(this.#node.vnode, ghost, vnode);
    journal.set(this.#node.index, ghost, index);
    journal.set(this.#names.key, this.#rowOf(vnode, index), ghost + 1);
    this.#ring.replace(frame, ghost, TEST);
  }

  /** One step of the cold hand: a page that should leave, or -1. */
  #runCold(): FrameIndex {
    const node = this.#ring.hand(HAND_COLD);
    const kind = this.#ring.kindOf(node);
    if (kind !== TEST && this.#page.vnode.get(node) === 0) {
      this.#ring.remove(node);
      return -1;
    }
    this.#ring.advance(HAND_COLD);
    if (kind !== COLD) return -1;
    if (this.#page.referenced.get(node) === 0) return node;
    this.#page.referenced.put(node, 0);
    this.#ring.setKind(node, HOT);
    return -1;
  }

  #runHot(): void {
    const node = this.#ring.hand(HAND_HOT);
    const kind = this.#ring.kindOf(node);
    this.#ring.advance(HAND_HOT);
    if (kind === HOT && this.#page.vnode.get(node) === 0) this.#ring.remove(node);
    else if (kind === HOT && this.#page.referenced.get(node) !== 0) this.#page.referenced.put(node, 0);
    else if (kind === HOT) this.#ring.setKind(node, COLD);
    this.#thread.commit();
  }

  #runTest(): void {
    const node = this.#ring.hand(HAND_TEST);
    this.#ring.advance(HAND_TEST);
    if (this.#ring.kindOf(node) === TEST) {
      this.#aim(-1);
      this.#dropGhost(node);
    }
    this.#thread.commit();
  }

  /** Aims for more or fewer cold pages; the word counts from all pages downward, so that 0 is where it begins. */
  #aim(more: number): void {
    const missing = this.#policy.coldTarget.get(0) - more;
    const bounded = Math.min(Math.max(missing, 0), this.#frames - 1);
    this.#thread.journal.set(this.#policy.coldTarget, 0, bounded);
  }

  /** Cold pages aimed for. */
  #target(): number {
    const resident = this.#resident();
    return Math.max(COLD_MIN, Math.ceil(resident / COLD_DIVISOR), resident - this.#policy.coldTarget.get(0));
  }

  #resident(): number {
    return this.#ring.count(HOT) + this.#ring.count(COLD);
  }

  /** The test node of a page, or -1. */
  #ghostOf(vnode: VnodeIndex, index: number): number {
    const node = this.#names.key.get(this.#rowOf(vnode, index)) - 1;
    if (node < 0 || this.#ring.kindOf(node) !== TEST) return -1;
    return this.#node.vnode.get(node) === vnode && this.#node.index.get(node) === index ? node : -1;
  }

  /** A node for a page that leaves, out of the ring. */
  #takeGhost(): number {
    const { journal } = this.#thread;
    for (;;) {
      const free = this.#policy.freeGhosts.get(0) - 1;
      if (free >= 0) {
        journal.set(this.#policy.freeGhosts, 0, this.#node.next.get(free));
        return free;
      }
      const fresh = this.#policy.freshGhost.get(0);
      if (fresh < this.#frames) {
        journal.set(this.#policy.freshGhost, 0, fresh + 1);
        return this.#frames + fresh;
      }
      this.#runTest();
    }
  }

  #dropGhost(node: number): void {
    const { journal } = this.#thread;
    const row = this.#rowOf(this.#node.vnode.get(node), this.#node.index.get(node));
    if (this.#names.key.get(row) === node + 1) journal.set(this.#names.key, row, 0);
    this.#ring.remove(node);
    journal.set(this.#node.next, node, this.#policy.freeGhosts.get(0));
    journal.set(this.#policy.freeGhosts, 0, node + 1);
  }

  #rowOf(vnode: VnodeIndex, index: number): number {
    return (Math.imul(fingerprint(vnode, index), 0x9e3779b1) >>> 7) & (this.#names.rowCount - 1);
  }
}
