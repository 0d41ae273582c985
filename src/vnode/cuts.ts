/**
 * Cuts that the store of a vnode has been asked for and has not agreed to yet.
 *
 * PROBLEM     A store may refuse a cut. Until it has agreed, the pages behind the cut must stay what they are, modified ones
 *             included; but nothing of them may reach the store once it has been cut.
 * STRUCTURE   cuts     even: no cut   odd: one is under way, of the range in `cutRange`
 *
 *               begin   1 range   2 cuts odd   3 the size (vnode-sizes.ts)      end   1 the size, if refused   2 cuts even
 *
 *             While it is odd, no write of pages in the range begins. Those that had begun go on up to the old end, before the
 *             store is asked; and pages that are brought get the bytes that the store has up to the old end: right if it
 *             refuses, and dropped if it does not.
 * INVARIANTS  I1 it changes under the exclusive lock of the vnode only; odd without such a lock, the thread has died, and the
 *                size is what counts: what lies behind it was cut.
 * LOCKING     Whoever writes a page back claims it before it looks here; whoever cuts looks for claims after `begin`.
 * COSTS       A load for each write-back, two for each fill.
 * FAILURE     None.
 * REJECTED    Dropping the pages first: what was written and not in the store was lost with a refusal. Writing them first:
 *             a full disk could not be cut.
 * REFERENCES  vnode-sizes.ts.
 */

import { VmError } from '../base/errors.ts';
import type { BoundTables, Region } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import { add, load } from '../sync/atomics.ts';
import { LOCK_OWNER } from '../sync/mutex.ts';
import type { Thread } from '../sync/thread.ts';

/** Lanes of `cutRange`. */
const TO = 0;
const FROM = 1;

/** Why pages were not taken: they stay modified, and nobody need hear of it. */
export class CutUnderWay extends VmError {}

/** The cuts as one thread sees them. */
export class Cuts {
  readonly #words: Int32Array;
  readonly #vnode: BoundTables['vnode'];

  constructor({ words, tables }: Region) {
    this.#words = words;
    this.#vnode = tables.vnode;
  }

  /** Begins a cut of a vnode from one size to another. Under the exclusive lock, nothing logged. */
  begin(thread: Thread, vnode: VnodeIndex, from: number, to: number): void {
    const { cutRange, cuts } = this.#vnode;
    thread.journal.setDoubleAt(cutRange, vnode, TO, to);
    thread.journal.setDoubleAt(cutRange, vnode, FROM, from);
    thread.commit();
    add(this.#words, cuts.address(vnode), 1);
  }

  /** Ends what was begun, by this thread or by one that died. Under the exclusive lock. */
  end(vnode: VnodeIndex): void {
    if (this.#isOdd(vnode)) add(this.#words, this.#vnode.cuts.address(vnode), 1);
  }

  /** Throws `CutUnderWay` while bytes below `end` may be about to be cut. */
  requireNone(vnode: VnodeIndex, end: number): void {
    if (!this.#isUnderWay(vnode) || end <= this.#vnode.cutRange.at(vnode, TO)) return;
    throw new CutUnderWay('EBUSY', `vnodes.write(vnode=${vnode}): the vnode is being cut`);
  }

  /** Brings pages, again if that failed while a cut began or ended: what was asked for may be gone. */
  during(vnode: VnodeIndex, fill: () => number): number {
    for (;;) {
      const before = this.#count(vnode);
      try {
        return fill();
      } catch (error) {
        if (this.#count(vnode) === before) throw error;
      }
    }
  }

  /**
   * Up to where pages have bytes in the store. While a cut is under way that is the old end: for what is brought, and for
   * what was on its way to the store when it began, which is waited for before the store is cut.
   */
  storeEnd(vnode: VnodeIndex): number {
    const { cutRange, size } = this.#vnode;
    for (;;) {
      const before = this.#count(vnode);
      const end = this.#isUnderWay(vnode) ? Math.max(size.get(vnode), cutRange.at(vnode, FROM)) : size.get(vnode);
      if (this.#count(vnode) === before) return end;
    }
  }

  /** Odd, and by a thread that lives. */
  #isUnderWay(vnode: VnodeIndex): boolean {
    return this.#isOdd(vnode) && (load(this.#words, this.#vnode.lock.address(vnode)) & LOCK_OWNER) !== 0;
  }

  #count(vnode: VnodeIndex): number {
    return load(this.#words, this.#vnode.cuts.address(vnode));
  }

  #isOdd(vnode: VnodeIndex): boolean {
    return (this.#count(vnode) & 1) !== 0;
  }
}
