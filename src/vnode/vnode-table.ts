/**
 * The table of vnodes.
 *
 * PROBLEM     Threads that open one file must come to the same pages; a file that was changed by others must not; and
 *             rows must come back although the threads that used them may have died.
 * STRUCTURE   A row stands for a file as it was when its size and times were looked at:
 *
 *               (device, inode) -> bucket -> row -> row          row: stamp, size, path, bit per slot that has it open
 *
 *               free --take--> hashed --changed by others--> stale         recycled when no bit is set:
 *                 ^               '------------'--------------'            its pages are dropped first
 *                 '---------------------recycle----------------
 *
 *             All openers see pages of one size: who asks for another replaces the row if nobody has it open.
 *             A file that is found changed gets a new row; the old one leaves the hash and keeps its pages for those who
 *             still have it open. So no open ever waits for the pins of others, and none meets their old pages. While somebody has
 *             it open for writing, or pages are modified, size and times are ours and prove nothing: the row is joined.
 * INVARIANTS  I1 a row is in the hash iff its state is hashed; no two of them have the same identity.
 *             I2 a slot's bit is set iff the slot has the vnode open, for writing in `writers`.
 *             I3 identity and path of a row do not change while a bit is set; its stamp follows what we have written.
 *             I4 no page of the vnode lies beyond `pagePeak`.
 * LOCKING     One mutex (RANK.vnodeTable) for all of it: opening a file costs two system calls anyway.
 * COSTS       An open of a known file: one lock pair, one journaled store.
 * FAILURE     `ENOMEM` when every row is open somewhere; a death anywhere is undone with the journal.
 * REJECTED    A count of references (a dead thread's share could not be taken back); dropping the pages of a changed file
 *             in place (would have to wait for pins).
 * REFERENCES  illumos vfs/vnode.c; NFS close-to-open consistency for looking at times when a file is opened.
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { PageStore } from '../page/page-store.ts';
import type { Pages } from '../page/pages.ts';
import { faultPoint } from '../sync/fault.ts';
import { Mutex } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { cellsFor, PathHeap } from './path-heap.ts';
import { VNODE_KIND, VNODE_STATE, type VnodeFacts } from './vnode-kinds.ts';

/** Rows between two commits of a walk over all rows. */
const PIECE_ROWS = 256;

/** The table as one thread sees it. */
export class VnodeTable {
  readonly #thread: Thread;
  readonly #mutex: Mutex;
  readonly #vnode: BoundTables['vnode'];
  readonly #heads: BoundTables['vnodeBucket']['head'];
  readonly #pool: BoundTables['vnodePool'];
  readonly #paths: PathHeap;

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#mutex = new Mutex(thread, tables.vnodePool.lock.address(0), RANK.vnodeTable);
    this.#vnode = tables.vnode;
    this.#heads = tables.vnodeBucket.head;
    this.#pool = tables.vnodePool;
    this.#paths = new PathHeap(thread);
  }

  /**
   * The row of a file, with this slot's bit set: the known one if the file is unchanged, else a new one.
   * 1 make sure that a row and cells are free: nothing is logged yet, so pages may be dropped
   * 2 the row of the same identity: unchanged, done; changed, it becomes stale
   * 3 fill a new row, hash it
   */
  intern(facts: VnodeFacts, path: Uint8Array, pages: Pages, store: PageStore, writable: boolean): VnodeIndex {
    this.#mutex.enter();
    try {
      const bucket = this.#bucketOf(facts.identity);
      let row = this.#find(bucket, facts.identity);
      if (row >= 0 && !this.#hasShape(row, facts.pageShift)) this.#requireUnused(row, pages, store);
      else if (row >= 0 && (this.#isWritten(row, pages) || this.#isUnchanged(row, facts))) {
        this.#setOpen(row, this.#thread.slot, writable);
        if (typeof facts.timeoutMs === 'number') this.#thread.journal.set(this.#vnode.timeoutMs, row, facts.timeoutMs);
        return row;
      }
      // 1.
      while (!this.#hasFreeRow() || this.#paths.free < cellsFor(path.length)) {
        if (!this.#recycleOne(pages, store)) this.#failFull(path.length);
      }
      // 2.
      row = this.#find(bucket, facts.identity);
      if (row >= 0) {
        this.#unhash(row);
        this.#thread.journal.set(this.#vnode.state, row, VNODE_STATE.stale);
      }
      // 3.
      const fresh = this.#takeRow();
      this.#fillRow(fresh, facts, path);
      const { journal } = this.#thread;
      journal.set(this.#vnode.chainNext, fresh, this.#heads.get(bucket));
      journal.set(this.#heads, bucket, fresh + 1);
      this.#setOpen(fresh, this.#thread.slot, writable);
      if (VERIFY) faultPoint(this.#thread, 'vnode.open.inserted');
      return fresh;
    } finally {
      this.#mutex.exit();
    }
  }

  /** Sets this slot's bit of a row that another slot has open. Throws `ESTALE` when nobody has. */
  retain(row: VnodeIndex, generation: number, writable: boolean, slot: SlotIndex = this.#thread.slot): void {
    this.#mutex.enter();
    const same = this.#vnode.generation.get(row) === generation && this.isOpen(row);
    if (same) this.#setOpen(row, slot, writable);
    this.#mutex.exit();
    if (!same) fail('ESTALE', 'vnodes.retain', { vnode: row, generation }, 'nobody has this vnode open any more');
  }

  /** Clears this slot's bits. */
  release(row: VnodeIndex, slot: SlotIndex = this.#thread.slot): void {
    this.#mutex.enter();
    this.#clearOpen(row, slot);
    this.#mutex.exit();
  }

  /** Says that this slot writes to a vnode that it has open, or that it does no longer. */
  setWriter(row: VnodeIndex, writes: boolean): void {
    const { slot } = this.#thread;
    this.#mutex.enter();
    if (writes) this.#setBit(this.#vnode.writers, row, slot);
    else this.#clearBit(this.#vnode.writers, row, slot);
    this.#mutex.exit();
  }

  /** Takes the times over that the file has after we wrote to it. */
  restamp(row: VnodeIndex, stamp: Int32Array): void {
    this.#mutex.enter();
    for (let lane = 0; lane < 4; lane++) {
      this.#thread.journal.setAt(this.#vnode.stamp, row, lane, stamp[lane] as number);
    }
    this.#thread.journal.set(this.#vnode.written, row, 0);
    this.#mutex.exit();
  }

  /** Gives a row what openers have chosen for an older one of the same file, and not for it: hooks, the place of the LSN, limits. */
  inherit(row: VnodeIndex, from: VnodeIndex): void {
    const { journal } = this.#thread;
    this.#mutex.enter();
    const { detail, lsnOffset, modifiedMax, allocates, timeoutMs } = this.#vnode;
    for (const column of [detail, lsnOffset, modifiedMax, allocates, timeoutMs]) {
      if (column.get(row) === 0) journal.set(column, row, column.get(from));
    }
    this.#mutex.exit();
  }

  /** Runs under the lock, for what else is stored in rows. */
  locked(action: () => void): void {
    this.#mutex.enter();
    try {
      action();
    } finally {
      this.#mutex.exit();
    }
  }

  /** Takes a row out of the hash: the next open of its file gets another. */
  makeStale(row: VnodeIndex): void {
    this.#mutex.enter();
    if (this.#vnode.state.get(row) === VNODE_STATE.hashed) {
      this.#unhash(row);
      this.#thread.journal.set(this.#vnode.state, row, VNODE_STATE.stale);
    }
    this.#mutex.exit();
  }

  /** True while somebody has the vnode open for writing, or pages of it are modified. */
  isWritten(row: VnodeIndex, pages: Pages): boolean {
    return this.#isWritten(row, pages);
  }

  /** Clears the bits of a dead slot. */
  recover(dead: SlotIndex): void {
    this.#mutex.enter();
    const rows = this.#pool.freshRow.get(0);
    for (let row = 0; row < rows; row++) {
      this.#clearOpen(row, dead);
      if (row % PIECE_ROWS === PIECE_ROWS - 1) this.#thread.commit();
    }
    this.#mutex.exit();
  }

  /** Recycles every row that nobody has open, with its pages; returns how many rows are left in use. */
  recycleAll(pages: Pages, store: PageStore): number {
    this.#mutex.enter();
    const rows = this.#pool.freshRow.get(0);
    for (let row = 0; row < rows; row++) this.#tryRecycle(row, pages, store);
    const left = this.#pool.rowsInUse.get(0);
    this.#mutex.exit();
    return left;
  }

  /** True while some slot has the vnode open. */
  isOpen(row: VnodeIndex): boolean {
    for (let lane = 0; lane < this.#thread.region.geometry.slotLanes; lane++) {
      if (this.#vnode.openers.at(row, lane) !== 0) return true;
    }
    return false;
  }

  /** The path of a row that this slot has open. */
  path(row: VnodeIndex): string {
    return this.#paths.read(this.#vnode.path.get(row) - 1, this.#vnode.pathLength.get(row));
  }

  /** Broken invariants and the number of rows looked at. For quiet points. */
  inspect(): { checked: number; problems: string[] } {
    const problems: string[] = [];
    const { rowCount } = this.#vnode;
    const rows = this.#pool.freshRow.get(0);
    const chained = new Uint8Array(rowCount);
    const bucketCount = this.#thread.region.tables.vnodeBucket.rowCount;
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      let steps = 0;
      for (let link = this.#heads.get(bucket); link !== 0; link = this.#vnode.chainNext.get(link - 1)) {
        const row = link - 1;
        chained[row] = 1;
        if (++steps > rowCount) {
          problems.push(`vnode/vnode-table I1: the chain of bucket ${bucket} is a circle`);
          break;
        }
        if (this.#bucketOf(this.#identityOf(row)) !== bucket)
          problems.push(`vnode/vnode-table I1: row ${row} misplaced`);
        const first = this.#find(bucket, this.#identityOf(row));
        if (first !== row) problems.push(`vnode/vnode-table I1: rows ${first} and ${row} have one identity`);
      }
    }
    let inUse = 0;
    let cells = 0;
    for (let row = 0; row < rows; row++) {
      const state = this.#vnode.state.get(row);
      if ((state === VNODE_STATE.hashed) !== (chained[row] === 1)) {
        problems.push(`vnode/vnode-table I1: row ${row} has state ${state} and ${chained[row] ? 'a' : 'no'} chain`);
      }
      if (state === VNODE_STATE.free) {
        if (this.isOpen(row)) problems.push(`vnode/vnode-table I2: row ${row} is free and open`);
        continue;
      }
      inUse++;
      cells += cellsFor(this.#vnode.pathLength.get(row));
    }
    const counted = this.#pool.rowsInUse.get(0);
    if (inUse !== counted) problems.push(`vnode/vnode-table: ${inUse} rows in use, counted ${counted}`);
    const cellsInUse = this.#pool.cellsInUse.get(0);
    if (cells !== cellsInUse) problems.push(`vnode/path-heap I2: ${cells} cells in use, counted ${cellsInUse}`);
    const freeCells = this.#paths.countFree();
    if (freeCells !== this.#paths.free) problems.push(`vnode/path-heap I1: ${freeCells} cells are in the free chain`);
    return { checked: rows, problems };
  }

  #hasFreeRow(): boolean {
    return (
      this.#pool.freeHead.get(0) !== 0 || this.#pool.freshRow.get(0) < this.#vnode.rowCount - this.#pool.reserved.get(0)
    );
  }

  #takeRow(): VnodeIndex {
    const { journal } = this.#thread;
    journal.set(this.#pool.rowsInUse, 0, this.#pool.rowsInUse.get(0) + 1);
    const head = this.#pool.freeHead.get(0);
    if (head !== 0) {
      journal.set(this.#pool.freeHead, 0, this.#vnode.chainNext.get(head - 1));
      return head - 1;
    }
    const fresh = this.#pool.freshRow.get(0);
    journal.set(this.#pool.freshRow, 0, fresh + 1);
    return fresh;
  }

  #fillRow(row: VnodeIndex, facts: VnodeFacts, path: Uint8Array): void {
    const { journal } = this.#thread;
    const vnode = this.#vnode;
    journal.set(vnode.state, row, VNODE_STATE.hashed);
    journal.set(vnode.kind, row, facts.kind);
    journal.set(vnode.detail, row, facts.detail);
    journal.set(vnode.errorCount, row, 0);
    journal.set(vnode.lsnOffset, row, 0);
    journal.setDouble(vnode.lsnDurable, row, 0);
    journal.set(vnode.written, row, 0);
    journal.set(vnode.scans, row, 0);
    journal.set(vnode.pageShift, row, facts.pageShift ?? 0);
    journal.set(vnode.modifiedMax, row, 0);
    journal.set(vnode.allocates, row, 0);
    journal.set(vnode.timeoutMs, row, facts.timeoutMs ?? 0);
    journal.set(vnode.lateWrites, row, 0);
    journal.set(vnode.cuts, row, 0);
    for (let lane = 0; lane < 4; lane++) {
      journal.setAt(vnode.identity, row, lane, facts.identity[lane] as number);
      journal.setAt(vnode.stamp, row, lane, facts.stamp[lane] as number);
    }
    journal.setDouble(vnode.size, row, facts.size);
    journal.setDouble(vnode.sizePeak, row, facts.size);
    journal.setDouble(vnode.pagePeak, row, facts.size);
    journal.setDouble(vnode.diskSize, row, facts.size);
    journal.set(vnode.path, row, this.#paths.store(path) + 1);
    journal.set(vnode.pathLength, row, path.length);
  }

  /** Goes round the rows once and recycles the first that it can. */
  #recycleOne(pages: Pages, store: PageStore): boolean {
    const rows = this.#pool.freshRow.get(0);
    for (let steps = rows; steps > 0; steps--) {
      const row = this.#pool.recycleHand.get(0) % rows;
      this.#thread.journal.set(this.#pool.recycleHand, 0, row + 1);
      this.#thread.commit();
      // Who opens another one does not wait for it.
      if (store.isLate?.(row) && pages.modifiedOf(row) > 0) continue;
      if (this.#tryRecycle(row, pages, store)) return true;
    }
    return false;
  }

  /** Frees a row that nobody has open, with its pages and its path; false when it is in use. Nothing is logged before. */
  #tryRecycle(row: VnodeIndex, pages: Pages, store: PageStore): boolean {
    const vnode = this.#vnode;
    if (vnode.state.get(row) === VNODE_STATE.free || this.isOpen(row)) return false;
    if (pages.modifiedOf(row) > 0) this.#writeLeft(row, pages, store);
    const { pageSize } = this.#thread.region.geometry;
    if (pages.drop(row, Math.ceil(vnode.pagePeak.get(row) / pageSize)) > 0) return false;
    if (VERIFY) faultPoint(this.#thread, 'vnode.recycle.dropped');
    const { journal } = this.#thread;
    if (vnode.state.get(row) === VNODE_STATE.hashed) this.#unhash(row);
    this.#paths.release(vnode.path.get(row) - 1, vnode.pathLength.get(row));
    journal.set(vnode.state, row, VNODE_STATE.free);
    journal.set(vnode.generation, row, vnode.generation.get(row) + 1);
    journal.set(vnode.chainNext, row, this.#pool.freeHead.get(0));
    journal.set(this.#pool.freeHead, 0, row + 1);
    journal.set(this.#pool.rowsInUse, 0, this.#pool.rowsInUse.get(0) - 1);
    this.#thread.commit();
    return true;
  }

  /**
   * Writes back what a writer has left that ended before it could close, or whose close failed. When the path is gone, or
   * names another file, nobody can reach the bytes any more: they are given up.
   */
  #writeLeft(row: VnodeIndex, pages: Pages, store: PageStore): void {
    try {
      pages.writeBack(row, 0, Number.POSITIVE_INFINITY, store);
    } catch (error) {
      const { code } = error as { code?: unknown };
      if (code === 'ENOENT' || code === 'ESTALE' || this.#vnode.kind.get(row) === VNODE_KIND.memory) {
        pages.invalidate(row, 0);
      }
    }
  }

  #hasShape(row: VnodeIndex, pageShift: number | null): boolean {
    return pageShift === null || this.#vnode.pageShift.get(row) === pageShift;
  }

  /** A row that is to be replaced by one with pages of another size must have neither openers nor anything to lose. */
  #requireUnused(row: VnodeIndex, pages: Pages, store: PageStore): void {
    if (!this.isOpen(row) && pages.modifiedOf(row) > 0) this.#writeLeft(row, pages, store);
    if (!this.isOpen(row) && pages.modifiedOf(row) === 0) return;
    const pageSize = this.#thread.region.geometry.pageSize << this.#vnode.pageShift.get(row);
    const rule = 'it is in use with pages of this size: open it with the same pageSize, or without one';
    fail('EINVAL', 'vnodes.open', { path: this.path(row), pageSize }, rule);
  }

  #isWritten(row: VnodeIndex, pages: Pages): boolean {
    for (let lane = 0; lane < this.#thread.region.geometry.slotLanes; lane++) {
      if (this.#vnode.writers.at(row, lane) !== 0) return true;
    }
    return pages.modifiedOf(row) > 0;
  }

  #unhash(row: VnodeIndex): void {
    const { journal } = this.#thread;
    const next = this.#vnode.chainNext;
    const bucket = this.#bucketOf(this.#identityOf(row));
    let before = -1;
    for (let link = this.#heads.get(bucket); link !== row + 1; link = next.get(before)) before = link - 1;
    if (before < 0) journal.set(this.#heads, bucket, next.get(row));
    else journal.set(next, before, next.get(row));
  }

  #find(bucket: number, identity: Int32Array): VnodeIndex {
    for (let link = this.#heads.get(bucket); link !== 0; link = this.#vnode.chainNext.get(link - 1)) {
      if (this.#sameWords(this.#vnode.identity, link - 1, identity)) return link - 1;
    }
    return -1;
  }

  #isUnchanged(row: VnodeIndex, facts: VnodeFacts): boolean {
    if (facts.joins) return true;
    return this.#vnode.size.get(row) === facts.size && this.#sameWords(this.#vnode.stamp, row, facts.stamp);
  }

  #sameWords(column: BoundTables['vnode']['identity'], row: VnodeIndex, words: Int32Array): boolean {
    for (let lane = 0; lane < 4; lane++) if (column.at(row, lane) !== words[lane]) return false;
    return true;
  }

  #identityOf(row: VnodeIndex): Int32Array {
    return Int32Array.from([0, 1, 2, 3], (lane) => this.#vnode.identity.at(row, lane));
  }

  #bucketOf(identity: Int32Array): number {
    let mixed = 0;
    for (const word of identity) mixed = Math.imul(mixed ^ word, 0x9e3779b1);
    return (mixed ^ (mixed >>> 15)) & (this.#thread.region.tables.vnodeBucket.rowCount - 1);
  }

  #setOpen(row: VnodeIndex, slot: SlotIndex, writable: boolean): void {
    this.#setBit(this.#vnode.openers, row, slot);
    if (writable) this.#setBit(this.#vnode.writers, row, slot);
  }

  #clearOpen(row: VnodeIndex, slot: SlotIndex): void {
    this.#clearBit(this.#vnode.openers, row, slot);
    this.#clearBit(this.#vnode.writers, row, slot);
  }

  #setBit(column: BoundTables['vnode']['openers'], row: VnodeIndex, slot: SlotIndex): void {
    const bits = column.at(row, slot >>> 5);
    const set = bits | (1 << (slot & 31));
    if (set !== bits) this.#thread.journal.setAt(column, row, slot >>> 5, set);
  }

  #clearBit(column: BoundTables['vnode']['openers'], row: VnodeIndex, slot: SlotIndex): void {
    const bits = column.at(row, slot >>> 5);
    const left = bits & ~(1 << (slot & 31));
    if (left !== bits) this.#thread.journal.setAt(column, row, slot >>> 5, left);
  }

  #failFull(pathLength: number): never {
    const values = { pathLength, rows: this.#vnode.rowCount, cellsFree: this.#paths.free };
    fail('ENOMEM', 'vnodes.open', values, 'every vnode is open or has pages in use; boot with a larger `vnodes`');
  }
}

/** Undoes the opens of a dead slot. */
export function recoverVnodes(self: Thread, dead: SlotIndex): void {
  new VnodeTable(self).recover(dead);
}
