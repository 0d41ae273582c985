/**
 * Vnodes as one thread uses them: opening files and bringing their pages.
 *
 * PROBLEM     Pages are shared, descriptors cannot be: each thread needs its own for the same vnode, and must be sure
 *             that it reads the same file.
 * STRUCTURE   shared: the row (vnode-table.ts)      private: how often this thread has it open, and a descriptor
 *
 *               open(path)   openat, fstat -> intern by device and inode -> bit of this slot, descriptor kept
 *               fill(pages)  descriptor, reopened by path if it was closed meanwhile -> one read into the frames
 *
 * INVARIANTS  I1 this slot's bit is set iff the private count is not 0.
 *             I2 a descriptor that bytes are read through has the row's device and inode.
 * LOCKING     None of its own; the fill runs under the exclusive locks of the pages that it brings.
 * COSTS       A fill is one system call: read for adjacent frames, readv for scattered ones.
 * FAILURE     `EIO` with the cause, also for a file that ended before its size; `ESTALE` when the path names another file.
 * REJECTED    Descriptors in shared memory: their numbers are reused once the opener has ended.
 * REFERENCES  docs/glossary.md: vnode.
 */

import { closeSync, readSync, readvSync } from 'node:fs';
import { resolve } from 'node:path';
import type { CheckReport } from '../base/check.ts';
import { fail, failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { PageStore } from '../page/page-store.ts';
import type { Pages } from '../page/pages.ts';
import type { Banks } from '../phys/banks.ts';
import { faultPoint } from '../sync/fault.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { DESCRIPTORS_MAX, Descriptors } from './descriptors.ts';
import { type FileFacts, factsOf, type OpenedFile, openForReading, systemCode, systemError } from './file-facts.ts';
import { PATH_BYTES_MAX } from './path-heap.ts';
import { VnodeTable } from './vnode-table.ts';

/** Largest file: page indices are 32-bit. */
const PAGES_MAX = 0x7fffffff;

/** What is known about an open vnode. */
export interface VnodeStat {
  readonly vnode: VnodeIndex;
  readonly generation: number;
  readonly path: string;
  readonly size: number;
}

/** The vnodes as one thread sees them. */
export class Vnodes implements PageStore {
  readonly #thread: Thread;
  readonly #pages: Pages;
  readonly #banks: Banks;
  readonly #table: VnodeTable;
  readonly #vnode: BoundTables['vnode'];
  readonly #pageSize: number;
  /** How often this thread has a vnode open. */
  readonly #opens = new Map<VnodeIndex, number>();
  readonly #descriptors: Descriptors;

  constructor(thread: Thread, pages: Pages, banks: Banks, descriptorsMax: number = DESCRIPTORS_MAX) {
    this.#thread = thread;
    this.#pages = pages;
    this.#banks = banks;
    this.#table = new VnodeTable(thread);
    this.#vnode = thread.region.tables.vnode;
    this.#pageSize = thread.region.geometry.pageSize;
    this.#descriptors = new Descriptors(descriptorsMax);
  }

  /** Opens a regular file; every open needs a `close`. Throws `ENOENT`, `EINVAL`, `EIO`, `ENOMEM`. */
  open(path: string): VnodeIndex {
    if (typeof path !== 'string' || path === '' || path.includes('\0')) {
      failMisuse('vnodes.open', { path }, 'a path is a text that is not empty and has no zero byte');
    }
    const absolute = resolve(path);
    const bytes = new TextEncoder().encode(absolute);
    if (bytes.length > PATH_BYTES_MAX)
      failMisuse('vnodes.open', { path }, `a path has at most ${PATH_BYTES_MAX} bytes`);
    const file = this.#openFile(absolute, 'vnodes.open');
    let vnode: VnodeIndex;
    try {
      vnode = this.#intern(file, bytes);
    } catch (error) {
      closeSync(file.descriptor);
      throw error;
    }
    this.#opens.set(vnode, (this.#opens.get(vnode) ?? 0) + 1);
    this.#descriptors.keep(vnode, file.descriptor);
    return vnode;
  }

  /** Opens a vnode that another thread has open, by number and generation. Throws `ESTALE` when it is gone. */
  retain(vnode: VnodeIndex, generation: number): void {
    if (!this.#opens.has(vnode)) this.#table.retain(vnode, generation);
    this.#opens.set(vnode, (this.#opens.get(vnode) ?? 0) + 1);
  }

  /** Takes one open back. The pages stay until their frames or the row are needed. */
  close(vnode: VnodeIndex): void {
    const opens = this.#requireOpen(vnode, 'vnodes.close');
    if (opens > 1) {
      this.#opens.set(vnode, opens - 1);
      return;
    }
    this.#opens.delete(vnode);
    this.#descriptors.close(vnode);
    this.#table.release(vnode);
  }

  /** Closes everything: at detach. */
  closeAll(): void {
    for (const vnode of this.#opens.keys()) this.#table.release(vnode);
    this.#opens.clear();
    this.closeDescriptors();
  }

  /** Closes what is private to this thread: all that can be done in a region that has stopped. */
  closeDescriptors(): void {
    this.#descriptors.shrink(0);
  }

  /**
   * Looks at the file again. Returns the same vnode when size and times are what they were, else a new one, open in its
   * place; pages of the old one stay with those who have it open.
   */
  revalidate(vnode: VnodeIndex): VnodeIndex {
    const opens = this.#requireOpen(vnode, 'vnodes.revalidate');
    const facts = this.#facts(vnode);
    const next = this.#intern(facts, new TextEncoder().encode(this.#table.path(vnode)));
    if (next === vnode) return vnode;
    this.#opens.set(next, (this.#opens.get(next) ?? 0) + 1);
    if (opens === 1) this.#descriptors.move(vnode, next);
    this.close(vnode);
    return next;
  }

  /** True when size and times of the file are no longer those of the vnode. */
  isChanged(vnode: VnodeIndex): boolean {
    this.#requireOpen(vnode, 'vnodes.isChanged');
    const facts = this.#facts(vnode);
    if (facts.size !== this.#vnode.size.get(vnode)) return true;
    return facts.stamp.some((word, lane) => word !== this.#vnode.stamp.at(vnode, lane));
  }

  /** Bytes of a vnode. */
  size(vnode: VnodeIndex): number {
    return this.#vnode.size.get(vnode);
  }

  /** Number, generation, path and size of a vnode that this thread has open. */
  stat(vnode: VnodeIndex): VnodeStat {
    this.#requireOpen(vnode, 'vnodes.stat');
    const generation = this.#vnode.generation.get(vnode);
    return { vnode, generation, path: this.#table.path(vnode), size: this.size(vnode) };
  }

  /** Drops the pages of every vnode that nobody has open; returns how many vnodes are left. */
  dropUnused(): number {
    return this.#table.recycleAll(this.#pages);
  }

  /** Compares rows, hash and paths. For quiet points. */
  check(): CheckReport {
    return { structure: 'vnode/vnodes', ...this.#table.inspect() };
  }

  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    const start = index * this.#pageSize;
    const wanted = Math.max(0, Math.min(count * this.#pageSize, this.size(vnode) - start));
    if (wanted > 0) {
      const descriptor = this.#descriptorOf(vnode);
      let done = this.#readFrames(descriptor, frames, at, wanted, start);
      while (done < wanted) {
        const got = this.#readRest(descriptor, frames, at, wanted, done, start);
        if (got === 0) this.#failShort(vnode, start, wanted, done);
        done += got;
      }
    }
    this.#zeroBehind(frames, at, count, wanted);
    return wanted;
  }

  write(vnode: VnodeIndex, index: number, _frames: Int32Array, _at: number, count: number): void {
    fail('ENOTSUP', 'vnodes.write', { vnode, index, count }, 'vnodes are read only');
  }

  /** One system call for all frames; returns the bytes that came. */
  #readFrames(descriptor: number, frames: Int32Array, at: number, wanted: number, start: number): number {
    if (VERIFY && faultPoint(this.#thread, 'vnode.read.short')) return 0;
    const banks = this.#banks;
    const pieces: Uint8Array[] = [];
    for (let done = 0, lane = at; done < wanted; ) {
      // Adjacent frames of one bank are one piece.
      const first = frames[lane] as number;
      const bank = banks.bankOf(first);
      let pages = 1;
      while (done + pages * this.#pageSize < wanted && frames[lane + pages] === first + pages) {
        if (banks.bankOf(first + pages) !== bank) break;
        pages++;
      }
      const length = Math.min(pages * this.#pageSize, wanted - done);
      const offset = banks.offsetOf(first);
      pieces.push((banks.views[bank] as Uint8Array).subarray(offset, offset + length));
      done += length;
      lane += pages;
    }
    try {
      if (VERIFY && faultPoint(this.#thread, 'vnode.read.error')) throw new Error('injected');
      if (pieces.length === 1) return readSync(descriptor, pieces[0] as Uint8Array, 0, wanted, start);
      return readvSync(descriptor, pieces, start);
    } catch (cause) {
      throw systemError(cause, 'vnodes.fill', { start, wanted });
    }
  }

  /** Goes on after a read that brought less than it was asked for: within one frame. */
  #readRest(descriptor: number, frames: Int32Array, at: number, wanted: number, done: number, start: number): number {
    if (VERIFY && faultPoint(this.#thread, 'vnode.read.short')) return 0;
    const inPage = done % this.#pageSize;
    const frame = frames[at + (done - inPage) / this.#pageSize] as number;
    const length = Math.min(this.#pageSize - inPage, wanted - done);
    const bytes = this.#banks.views[this.#banks.bankOf(frame)] as Uint8Array;
    try {
      return readSync(descriptor, bytes, this.#banks.offsetOf(frame) + inPage, length, start + done);
    } catch (cause) {
      throw systemError(cause, 'vnodes.fill', { start: start + done, length });
    }
  }

  #zeroBehind(frames: Int32Array, at: number, count: number, wanted: number): void {
    for (let page = Math.floor(wanted / this.#pageSize); page < count; page++) {
      const frame = frames[at + page] as number;
      const offset = this.#banks.offsetOf(frame);
      const from = Math.max(0, wanted - page * this.#pageSize);
      (this.#banks.views[this.#banks.bankOf(frame)] as Uint8Array).fill(0, offset + from, offset + this.#pageSize);
    }
  }

  #intern(facts: FileFacts, path: Uint8Array): VnodeIndex {
    if (facts.size > PAGES_MAX * this.#pageSize) {
      fail('ENOTSUP', 'vnodes.open', { size: facts.size }, `a file has at most ${PAGES_MAX} pages`);
    }
    return this.#table.intern(facts, path, this.#pages);
  }

  #facts(vnode: VnodeIndex): FileFacts {
    const facts = factsOf(this.#descriptorOf(vnode));
    return facts ?? fail('ESTALE', 'vnodes.revalidate', { vnode }, 'this is no regular file any more');
  }

  #descriptorOf(vnode: VnodeIndex): number {
    const known = this.#descriptors.get(vnode);
    if (known >= 0) return known;
    const descriptor = this.#reopen(vnode);
    this.#descriptors.keep(vnode, descriptor);
    return descriptor;
  }

  /** Opens a vnode's path again and makes sure that it still names the same file. */
  #reopen(vnode: VnodeIndex): number {
    const path = this.#table.path(vnode);
    const file = this.#openFile(path, 'vnodes.reopen');
    if (file.identity.every((word, lane) => word === this.#vnode.identity.at(vnode, lane))) return file.descriptor;
    closeSync(file.descriptor);
    return fail('ESTALE', 'vnodes.reopen', { path }, 'the path names another file by now');
  }

  /** Opens a file; with too many open, half of this thread's descriptors are closed and it is tried again. */
  #openFile(path: string, call: string): OpenedFile {
    try {
      return openForReading(path, call);
    } catch (error) {
      const code = systemCode((error as Error).cause);
      if ((code !== 'EMFILE' && code !== 'ENFILE') || this.#descriptors.count === 0) throw error;
      this.#descriptors.shrink(Math.floor(this.#descriptors.count / 2));
      return openForReading(path, call);
    }
  }

  #requireOpen(vnode: VnodeIndex, call: string): number {
    const opens = this.#opens.get(vnode);
    if (opens !== undefined) return opens;
    return fail('ESTALE', call, { vnode }, 'this thread does not have the vnode open');
  }

  #failShort(vnode: VnodeIndex, start: number, wanted: number, done: number): never {
    const values = { path: this.#table.path(vnode), start, wanted, got: done };
    fail('EIO', 'vnodes.fill', values, 'the file ended before its size: it was truncated meanwhile; use revalidate()');
  }
}

/** Undoes the opens of a dead slot. */
export function recoverVnodes(self: Thread, dead: SlotIndex): void {
  new VnodeTable(self).recover(dead);
}
