/**
 * Vnodes as one thread uses them: opening, closing, syncing, and which store their pages belong to.
 *
 * PROBLEM     Pages are shared, descriptors cannot be: each thread needs its own for the same vnode, and must be sure
 *             that it reads the same file. What was written must be in the file when `sync` says so, whoever wrote it.
 * STRUCTURE   shared: the row (vnode-table.ts)      private: how often this thread has it open, and descriptors
 *
 *               open(path)     openat, fstat -> intern by device and inode -> bit of this slot, descriptor kept
 *               fill, write    the store of the vnode's kind
 *               sync           every modified page to the store, then the store's own sync
 *               close          the last one of a writer: modified pages to the store, times of the file taken over
 *
 * INVARIANTS  I1 this slot's bit is set iff the private count is not 0; its writer's bit iff that of writers is not 0.
 *             I2 a descriptor that bytes are read through has the row's device and inode.
 *             I3 a failure of writing back is counted before anybody can take the page for written.
 * LOCKING     None of its own; the store runs while its caller holds the pages.
 * COSTS       An open is two system calls; a sync what the file system takes.
 * FAILURE     `EIO` and others with the cause; a close that fails has closed, and the pages stay modified.
 * REJECTED    Descriptors in shared memory: their numbers are reused once the opener has ended.
 * REFERENCES  docs/glossary.md: vnode; Linux errseq.c for telling every opener of a failure.
 */

import { closeSync } from 'node:fs';
import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Pages } from '../page/pages.ts';
import type { Banks } from '../phys/banks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { DESCRIPTORS_MAX } from './descriptors.ts';
import { FileDescriptors } from './file-descriptors.ts';
import type { OpenedFile } from './file-facts.ts';
import { FileStore } from './file-store.ts';
import type { IoQuestion } from './io-requests.ts';
import { hasLate } from './late-writes.ts';
import { OpenCounts } from './open-counts.ts';
import { type FilePlace, type OpenOptions, type OpenPlan, placeOf, planOpen } from './open-options.ts';
import type { HookedPages } from './page-hooks.ts';
import { PATH_BYTES_MAX } from './path-heap.ts';
import { hashWords } from './remote-client.ts';
import { VNODE_KIND, type VnodeFacts, type VnodeStat } from './vnode-kinds.ts';
import { VnodeSizes } from './vnode-sizes.ts';
import type { VnodeLook, VnodeStore } from './vnode-store.ts';
import { VnodeTable } from './vnode-table.ts';
import { modifyAgain, WriteErrors } from './write-errors.ts';
import { isFailure } from './write-refusals.ts';

/** Most pages of a vnode: page indices are 32-bit. */
export const PAGES_MAX = 0x7fffffff;

/** The vnodes as one thread sees them. */
export class Vnodes implements VnodeStore {
  /** Sizes, and the locks that guard them. */
  readonly sizes: VnodeSizes;
  /** Failures of writing back. */
  readonly errors: WriteErrors;
  readonly #pages: Pages;
  readonly #table: VnodeTable;
  readonly #vnode: BoundTables['vnode'];
  readonly #region: Thread['region'];
  readonly #opens = new OpenCounts();
  readonly #descriptors: FileDescriptors;
  readonly #files: FileStore;
  /** Stores by kind. */
  readonly #stores: (VnodeStore | undefined)[] = [];

  constructor(thread: Thread, pages: Pages, banks: Banks, descriptorsMax: number = DESCRIPTORS_MAX) {
    this.#pages = pages;
    this.#region = thread.region;
    this.#table = new VnodeTable(thread);
    this.#vnode = thread.region.tables.vnode;
    this.#descriptors = new FileDescriptors(thread, descriptorsMax);
    this.#files = new FileStore(thread, banks, this.#descriptors);
    this.#stores[VNODE_KIND.file] = this.#files;
    this.sizes = new VnodeSizes(thread, banks, pages, this);
    this.errors = new WriteErrors(thread);
  }

  /** Lets programs' hooks run on the pages of files in this thread. */
  setHooks(hooked: HookedPages): void {
    this.#files.hooked = hooked;
  }

  /** How far the log of a file's pages is durable. */
  get hooked(): HookedPages {
    return this.#files.hooked ?? fail('ENOTSUP', 'vnodes', {}, 'this thread runs no hooks');
  }

  /** Brings the store of a kind of vnodes, in every thread that may meet its pages. */
  setStore(kind: number, store: VnodeStore): void {
    this.#stores[kind] = store;
  }

  /** Opens a regular file; every open needs a `close`. Throws `ENOENT`, `EEXIST`, `EACCES`, `EINVAL`, `EIO`, `ENOMEM`. */
  open(path: string, options: OpenOptions = {}): VnodeIndex {
    const place = placeOf('vnodes.open', path);
    const plan = planOpen(options, 'vnodes.open', this.#region.geometry.pageSize);
    return this.#keepOpened(this.#descriptors.open(place.absolute, plan, 'vnodes.open'), place, plan);
  }

  /**
   * Like `open`, without waiting for the file system. `truncate` says that the caller will cut the file. Throws `ECANCELED` too.
   */
  async openAsync(path: string, options: OpenOptions, truncate: boolean, signal?: AbortSignal): Promise<VnodeIndex> {
    const place = placeOf('vnodes.open', path);
    const plan = planOpen({ ...options, truncate }, 'vnodes.open', this.#region.geometry.pageSize);
    const file = await this.#descriptors.openAsync(place.absolute, plan, 'vnodes.open', signal);
    return this.#keepOpened(file, place, { ...plan, truncate: false });
  }

  /** Opens a vnode of another kind than files, known by its kind and a text; every open needs a `close`. */
  openNamed(name: string, facts: Omit<VnodeFacts, 'identity'>, writable: boolean): VnodeIndex {
    const bytes = new TextEncoder().encode(name);
    if (bytes.length > PATH_BYTES_MAX) failMisuse('vnodes.openNamed', { name }, `at most ${PATH_BYTES_MAX} bytes`);
    if (facts.size > PAGES_MAX * this.#region.geometry.pageSize) {
      fail('ENOTSUP', 'vnodes.openNamed', { name, size: facts.size }, `a vnode has at most ${PAGES_MAX} pages`);
    }
    // No device has a negative number: names and files never meet.
    const identity = hashWords(name);
    identity[1] = -facts.kind;
    const vnode = this.#table.intern({ ...facts, identity }, bytes, this.#pages, this, writable);
    this.#opens.count(vnode, writable);
    return vnode;
  }

  /** Opens a vnode that another thread has open, by number and generation. Throws `ESTALE` when it is gone. */
  retain(vnode: VnodeIndex, generation: number, writable = false): void {
    const opens = this.#opens.get(vnode);
    if (opens === undefined || (writable && opens.writers === 0)) this.#table.retain(vnode, generation, writable);
    this.#opens.count(vnode, writable);
  }

  /** Keeps a vnode open for another slot, for as long as something that belongs to no thread names it. */
  retainFor(vnode: VnodeIndex, generation: number, writable: boolean, slot: SlotIndex): void {
    this.#table.retain(vnode, generation, writable, slot);
  }

  /** Takes `retainFor` back. What was written to it is for whoever recycles the row to write back. */
  releaseFor(vnode: VnodeIndex, slot: SlotIndex): void {
    this.#table.release(vnode, slot);
  }

  /**
   * Opens a block vnode: a name that stands for a common vnode, which is open here. Throws `EINVAL` while others have the name
   * open for another one.
   */
  openBlock(name: string, common: VnodeIndex, writable: boolean): VnodeIndex {
    this.#opens.require(common, 'vnodes.openBlock');
    const stamp = Int32Array.of(common, this.#vnode.generation.get(common), 0, 0);
    const facts = { kind: VNODE_KIND.block, size: 0, stamp, detail: 0, joins: true, pageShift: null };
    for (;;) {
      const block = this.openNamed(`block ${name}`, facts, writable);
      if (this.#hasStamp(block, stamp)) return block;
      this.close(block, writable);
      if (this.#table.isOpen(block)) {
        fail('EINVAL', 'vnodes.openBlock', { name }, 'the name stands for another file that somebody has open by it');
      }
      this.#table.makeStale(block);
    }
  }

  /** The vnode whose pages stand for this one: its common vnode for a block vnode, itself for any other. */
  commonOf(vnode: VnodeIndex): VnodeIndex {
    return this.#vnode.kind.get(vnode) === VNODE_KIND.block ? this.#vnode.stamp.at(vnode, 0) : vnode;
  }

  /** Throws `ESTALE` unless this thread has the vnode open, and `EACCES` unless it may write to it if `writable`. */
  requireAccess(vnode: VnodeIndex, writable: boolean): void {
    const opens = this.#opens.require(vnode, 'vnodes.requireAccess');
    if (!writable || opens.writers > 0) return;
    fail('EACCES', 'vnodes.requireAccess', { vnode }, "it is open for reading only; open it with mode 'rw'");
  }

  /**
   * Takes one open back. The last one for writing in this thread writes modified pages to the store first; when that fails,
   * the vnode is closed all the same, and the error thrown. The pages stay until their frames or the row are needed.
   */
  close(vnode: VnodeIndex, writable = false): void {
    const opens = this.#opens.require(vnode, 'vnodes.close');
    if (writable && opens.writers === 0) fail('EINVAL', 'vnodes.close', { vnode }, 'it is not open for writing here');
    const failure = writable && opens.writers === 1 ? this.#flush(vnode) : undefined;
    if (writable) opens.writers--;
    if (--opens.all > 0) {
      if (writable && opens.writers === 0) this.#table.setWriter(vnode, false);
    } else {
      this.#opens.delete(vnode);
      this.#descriptors.close(vnode);
      this.#table.release(vnode);
    }
    if (failure !== undefined) throw failure;
  }

  /** Closes everything: at detach. Throws the first failure of writing back when all is closed. */
  closeAll(): void {
    let failure: unknown;
    for (const [vnode, opens] of this.#opens) {
      const failed = opens.writers > 0 ? this.#flush(vnode) : undefined;
      failure ??= failed;
      this.#table.release(vnode);
    }
    this.#opens.clear();
    this.closeDescriptors();
    if (failure !== undefined) throw failure;
  }

  /** Closes what is private to this thread: all that can be done in a region that has stopped. */
  closeDescriptors(): void {
    this.#descriptors.closeAll();
  }

  /**
   * Makes every byte that was written before, by whichever thread, durable: returns only after the store has synced. When
   * it fails, pages that may not have arrived are modified again.
   */
  syncOpen(vnode: VnodeIndex, dataOnly: boolean): void {
    this.#opens.require(vnode, 'vnodes.sync');
    if (this.isMemory(vnode)) return;
    this.#pages.writeBack(vnode, 0, Number.POSITIVE_INFINITY, this);
    try {
      this.sync(vnode, dataOnly);
    } catch (error) {
      this.errors.note(vnode, error);
      modifyAgain(this.#region, this.#pages, vnode);
      throw error;
    }
    this.#restamp(vnode);
  }

  /**
   * Looks at the file again. Returns the same vnode when size and times are what they were, else a new one, open in its
   * place; pages of the old one stay with those who have it open. While somebody has the file open for writing, it stays
   * one vnode: modified pages are written back, the others forgotten, and the size is what the file has then. Resources and
   * users' own vnodes have a version in place of times. `look` is what the store has said, if it was asked already.
   */
  revalidate(vnode: VnodeIndex, writable = false, look?: VnodeLook): VnodeIndex {
    const opens = this.#opens.require(vnode, 'vnodes.revalidate');
    const store = this.#store(vnode);
    if (store.look === undefined) return vnode;
    if (this.#table.isWritten(vnode, this.#pages)) {
      this.#refresh(vnode, look);
      return vnode;
    }
    const seen = look ?? store.look(vnode);
    if (seen === null) return vnode;
    const next = this.#internAgain(vnode, seen, writable);
    if (next === vnode) return vnode;
    this.#table.inherit(next, vnode);
    this.#opens.count(next, writable);
    if (opens.all === 1) this.#descriptors.move(vnode, next);
    this.close(vnode, writable);
    return next;
  }

  /**
   * True when size and times of the file are no longer those of the vnode. Cannot be told while somebody has it open for
   * writing, and is false then.
   */
  isChanged(vnode: VnodeIndex): boolean {
    this.#opens.require(vnode, 'vnodes.isChanged');
    const store = this.#store(vnode);
    if (store.look === undefined || this.#table.isWritten(vnode, this.#pages)) return false;
    const seen = store.look(vnode);
    return seen !== null && (seen.size !== this.size(vnode) || !this.#hasStamp(vnode, seen.stamp));
  }

  /** Bytes of a vnode. */
  size(vnode: VnodeIndex): number {
    return this.#vnode.size.get(vnode);
  }

  /** Bytes of a page of a vnode. */
  pageSizeOf(vnode: VnodeIndex): number {
    return this.#region.geometry.pageSize << this.#vnode.pageShift.get(vnode);
  }

  /** True for a vnode that has no store. */
  isMemory(vnode: VnodeIndex): boolean {
    return this.#vnode.kind.get(vnode) === VNODE_KIND.memory;
  }

  /** Path or name of a vnode that somebody has open. */
  nameOf(vnode: VnodeIndex): string {
    return this.#table.path(vnode);
  }

  /** See `VnodeStore.lookQuestion`. */
  lookQuestion(vnode: VnodeIndex): IoQuestion | null {
    return this.#store(vnode).lookQuestion?.(vnode) ?? null;
  }

  /** See `VnodeStore.farSource`. */
  farSource(vnode: VnodeIndex): number | null {
    return this.#store(vnode).farSource?.(vnode) ?? null;
  }

  /** Number, generation, path and size of a vnode that this thread has open. */
  stat(vnode: VnodeIndex): VnodeStat {
    this.#opens.require(vnode, 'vnodes.stat');
    const generation = this.#vnode.generation.get(vnode);
    const path = this.#table.path(vnode);
    return { vnode, generation, path, size: this.size(vnode), pageSize: this.pageSizeOf(vnode) };
  }

  /** Drops the pages of every vnode that nobody has open, written back if they must be; returns how many are left. */
  dropUnused(): number {
    return this.#table.recycleAll(this.#pages, this);
  }

  /** Compares rows, hash and paths. For quiet points. */
  check(): CheckReport {
    return { structure: 'vnode/vnodes', ...this.#table.inspect() };
  }

  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    return this.sizes.cuts.during(vnode, () => this.#store(vnode).fill(vnode, index, frames, at, count));
  }

  /** Reads straight from the store, past the pages; 0 when its kind cannot. See `VnodeStore.read`. */
  readDirect(vnode: VnodeIndex, position: number, target: Uint8Array, at: number, length: number): number {
    return this.#store(vnode).read?.(vnode, position, target, at, length) ?? 0;
  }

  write(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    this.sizes.cuts.requireNone(vnode, (index + count) * this.#region.geometry.pageSize);
    try {
      this.#store(vnode).write(vnode, index, frames, at, count);
    } catch (error) {
      const isOthers = !this.#opens.has(vnode) && this.#table.isOpen(vnode);
      if (!this.isMemory(vnode) && isFailure(error, isOthers)) this.errors.note(vnode, error);
      throw error;
    }
  }

  isLate(vnode: VnodeIndex): boolean {
    return hasLate(this.#region, vnode);
  }

  outlastCut(vnode: VnodeIndex, error: unknown): boolean {
    return this.sizes.outlastCut(vnode, error);
  }

  sync(vnode: VnodeIndex, dataOnly: boolean): void {
    this.#store(vnode).sync(vnode, dataOnly);
  }

  truncate(vnode: VnodeIndex, size: number): void {
    this.#store(vnode).truncate(vnode, size);
  }

  keepsCut(vnode: VnodeIndex): boolean {
    return this.#store(vnode).keepsCut?.(vnode) ?? false;
  }

  allocate(vnode: VnodeIndex, from: number, end: number): void {
    this.#store(vnode).allocate?.(vnode, from, end);
  }

  #store(vnode: VnodeIndex): VnodeStore {
    const kind = this.#vnode.kind.get(vnode);
    return (
      this.#stores[kind] ??
      fail('ENOTSUP', 'vnodes', { vnode, kind }, 'this thread has no store for vnodes of this kind')
    );
  }

  /** Makes a file that was opened a vnode of this thread; when that fails, it is closed. */
  #keepOpened(file: OpenedFile, { bytes }: FilePlace, plan: OpenPlan): VnodeIndex {
    let vnode: VnodeIndex;
    try {
      vnode = this.#intern({ ...file, kind: VNODE_KIND.file, pageShift: plan.pageShift }, bytes, plan.writable);
    } catch (error) {
      closeSync(file.descriptor);
      throw error;
    }
    this.#opens.count(vnode, plan.writable);
    this.#descriptors.keep(vnode, file.descriptor, plan.writable);
    this.#finishOpen(vnode, plan);
    return vnode;
  }

  /** The rest of an open; when it fails, the vnode is closed. */
  #finishOpen(vnode: VnodeIndex, { tied, truncate, writable, modifiedMax, allocate }: OpenPlan): void {
    try {
      if (modifiedMax !== null) this.#vnode.modifiedMax.put(vnode, modifiedMax);
      if (allocate) this.#vnode.allocates.put(vnode, 1);
      if (tied !== null) this.#table.locked(() => this.hooked.tie(vnode, tied));
      if (truncate) this.sizes.truncate(vnode, 0);
    } catch (error) {
      this.close(vnode, writable);
      throw error;
    }
  }

  /** Writes modified pages to the store; returns what went wrong. */
  #flush(vnode: VnodeIndex): unknown {
    if (this.isMemory(vnode)) return undefined;
    try {
      if (this.#pages.modifiedOf(vnode) > 0) this.#pages.writeBack(vnode, 0, Number.POSITIVE_INFINITY, this);
      this.#restamp(vnode);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Takes over the times of a file that we have written to; those of others are left to be noticed. */
  #restamp(vnode: VnodeIndex): void {
    if (this.#vnode.written.get(vnode) === 0) return;
    const seen = this.#store(vnode).look?.(vnode) ?? null;
    if (seen !== null) this.#table.restamp(vnode, seen.stamp);
  }

  #refresh(vnode: VnodeIndex, look?: VnodeLook): void {
    this.#pages.writeBack(vnode, 0, Number.POSITIVE_INFINITY, this);
    const facts = look ?? this.#store(vnode).look?.(vnode) ?? null;
    if (facts === null) return;
    this.sizes.forget(vnode);
    if (facts.size !== this.size(vnode)) this.sizes.follow(vnode, facts.size);
    this.#table.restamp(vnode, facts.stamp);
  }

  #intern(facts: Omit<VnodeFacts, 'detail' | 'joins'>, path: Uint8Array, writable: boolean): VnodeIndex {
    if (facts.size > PAGES_MAX * this.#region.geometry.pageSize) {
      fail('ENOTSUP', 'vnodes.open', { size: facts.size }, `a file has at most ${PAGES_MAX} pages`);
    }
    return this.#table.intern({ ...facts, detail: 0, joins: false }, path, this.#pages, this, writable);
  }

  /** The row of an open vnode as its store shows it now: the same, or another. */
  #internAgain(vnode: VnodeIndex, look: VnodeLook, writable: boolean): VnodeIndex {
    const identity = Int32Array.from([0, 1, 2, 3], (lane) => this.#vnode.identity.at(vnode, lane));
    const [kind, pageShift] = [this.#vnode.kind.get(vnode), this.#vnode.pageShift.get(vnode)];
    const facts = { identity, size: look.size, stamp: look.stamp, kind, pageShift };
    return this.#intern(facts, new TextEncoder().encode(this.#table.path(vnode)), writable);
  }

  #hasStamp(vnode: VnodeIndex, stamp: Int32Array): boolean {
    return stamp.every((word, lane) => word === this.#vnode.stamp.at(vnode, lane));
  }
}
