/**
 * The store of vnodes that are files: their pages are read and written with vectored calls.
 *
 * PROBLEM     A page must never hold bytes that are not the file's; what the file did not take must stay known as modified;
 *             and the file in its file system is shorter than the vnode while its end has not been written back.
 * STRUCTURE   fill   1 read what lies below the size   2 short: cut by ourselves meanwhile, never written yet (beyond
 *                    `diskSize`), or cut by others: an error   3 zeros behind
 *             write  1 what lies below the size, in one call   2 short: go on behind   3 raise `diskSize`
 *
 * INVARIANTS  I1 what a fill returns are the file's bytes, and zeros where it has none.
 *             I2 a write puts nothing behind the vnode's size.
 *             I3 the file was at least `diskSize` long after our last call, unless others cut it.
 * LOCKING     None of its own: the callers hold the pages. `diskSize` may be set back by a racing writer, which only makes
 *             a file that others cut look like one that was not written yet.
 * COSTS       One system call for a run of pages.
 * FAILURE     `EIO`, `ENOSPC`, `EACCES`, `ENOENT`, `ESTALE` with the cause; failures of writes are noted for all openers.
 * REJECTED    Making the file longer with every write that extends it: a system call for each small append. Who wants to hear
 *             of a full disk at once opens with `allocate`.
 * REFERENCES  docs/glossary.md: vnode.
 */

import { fdatasyncSync, fsyncSync, ftruncateSync } from 'node:fs';
import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Banks } from '../phys/banks.ts';
import { type FaultPoint, faultPoint } from '../sync/fault.ts';
import type { Thread } from '../sync/thread.ts';
import { Cuts } from './cuts.ts';
import type { FileDescriptors } from './file-descriptors.ts';
import { type FileFacts, factsOf, systemError } from './file-facts.ts';
import {
  areAdjacent,
  copyFromFrames,
  framePieces,
  piecesBehind,
  readOnce,
  readPieces,
  writePieces,
  zeroFrames,
} from './frame-io.ts';
import type { HookedPages } from './page-hooks.ts';
import { PathHeap } from './path-heap.ts';
import type { VnodeStore } from './vnode-store.ts';

/** Writes that may bring nothing, one after another, before the file counts as full. */
const EMPTY_WRITES_MAX = 8;

/** Zeros written at a time. */
const ZERO_BYTES = 2 ** 20;

/** The store as one thread uses it. */
export class FileStore implements VnodeStore {
  readonly #thread: Thread;
  readonly #banks: Banks;
  readonly #descriptors: FileDescriptors;
  readonly #paths: PathHeap;
  readonly #vnode: BoundTables['vnode'];
  readonly #pageSize: number;
  readonly #cuts: Cuts;
  /** What programs do with pages on their way; null in threads without callbacks. */
  hooked: HookedPages | null = null;

  constructor(thread: Thread, banks: Banks, descriptors: FileDescriptors) {
    this.#thread = thread;
    this.#banks = banks;
    this.#descriptors = descriptors;
    this.#paths = new PathHeap(thread);
    this.#vnode = thread.region.tables.vnode;
    this.#pageSize = thread.region.geometry.pageSize;
    this.#cuts = new Cuts(thread.region);
  }

  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    const start = index * this.#pageSize;
    const wanted = this.#below(vnode, start, count);
    let got = 0;
    if (wanted > 0) {
      // 1.
      got = this.#readFrames(vnode, start, wanted, frames, at);
      // 2.
      if (got < wanted && start + got < Math.min(this.#vnode.size.get(vnode), this.#vnode.diskSize.get(vnode))) {
        const values = { path: this.#path(vnode), start, wanted, got };
        const rule = 'the file ended before its size: it was truncated meanwhile; use revalidate()';
        fail('EIO', 'vnodes.fill', values, rule);
      }
    }
    // 3.
    zeroFrames(this.#banks, frames, at, count, got);
    if (this.hooked?.concernsFills(vnode) && got > 0) {
      this.hooked.afterRead(vnode, this.#path(vnode), index, copyFromFrames(this.#banks, frames, at, got));
    }
    return got;
  }

  read(vnode: VnodeIndex, position: number, target: Uint8Array, at: number, length: number): number {
    // What hooks make of bytes on their way is in pages only.
    if (this.#vnode.detail.get(vnode) !== 0) return 0;
    const descriptor = this.#descriptors.forReading(vnode);
    if (VERIFY) return this.#read(vnode, descriptor, [target.subarray(at, at + length)], position);
    const got = readOnce(descriptor, target, at, length, position);
    return got === length ? got : this.#read(vnode, descriptor, [target.subarray(at, at + length)], position);
  }

  write(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    const start = index * this.#pageSize;
    const wanted = this.#below(vnode, start, count);
    if (wanted <= 0) return;
    let pieces: Uint8Array[];
    if (this.hooked?.concernsWrites(vnode)) {
      const copy = copyFromFrames(this.#banks, frames, at, wanted);
      this.hooked.beforeWrite(vnode, this.#path(vnode), index, copy);
      pieces = [copy];
    } else {
      pieces = framePieces(this.#banks, frames, at, wanted);
    }
    if (this.#vnode.written.get(vnode) === 0) this.#vnode.written.put(vnode, 1);
    this.#write(vnode, this.#descriptors.forWriting(vnode), pieces, start);
    this.#raiseDiskSize(vnode, start + wanted);
  }

  sync(vnode: VnodeIndex, dataOnly: boolean): void {
    const descriptor = this.#descriptors.forWriting(vnode);
    try {
      this.#inject('vnode.sync.error', 'EIO');
      // What was made longer by a truncation that a death cut short, or never written: the file gets its size.
      const facts = factsOf(descriptor);
      const size = this.#vnode.size.get(vnode);
      if (facts !== null && facts.size < size) ftruncateSync(descriptor, size);
      if (dataOnly) fdatasyncSync(descriptor);
      else fsyncSync(descriptor);
    } catch (cause) {
      throw systemError(cause, 'vnodes.sync', { path: this.#path(vnode) });
    }
  }

  truncate(vnode: VnodeIndex, size: number): void {
    const descriptor = this.#descriptors.forWriting(vnode);
    try {
      this.#inject('vnode.truncate.error', 'EIO');
      ftruncateSync(descriptor, size);
    } catch (cause) {
      throw systemError(cause, 'vnodes.truncate', { path: this.#path(vnode), size });
    }
    this.#vnode.diskSize.put(vnode, size);
    this.#vnode.written.put(vnode, 1);
  }

  /** Zeros behind the size: the file system then has blocks for them. */
  allocate(vnode: VnodeIndex, from: number, end: number): void {
    const descriptor = this.#descriptors.forWriting(vnode);
    const zeros = new Uint8Array(Math.min(ZERO_BYTES, end - from));
    this.#vnode.written.put(vnode, 1);
    try {
      for (let at = from; at < end; at += zeros.length) {
        this.#write(vnode, descriptor, [zeros.subarray(0, Math.min(zeros.length, end - at))], at);
      }
    } catch (error) {
      ftruncateSync(descriptor, from);
      throw error;
    }
    this.#raiseDiskSize(vnode, end);
  }

  /** What the file system says about the file now. Throws `ESTALE` when it is no regular file any more. */
  look(vnode: VnodeIndex): FileFacts {
    const facts = factsOf(this.#descriptors.forReading(vnode));
    return facts ?? fail('ESTALE', 'vnodes.facts', { vnode }, 'this is no regular file any more');
  }

  #path(vnode: VnodeIndex): string {
    return this.#paths.read(this.#vnode.path.get(vnode) - 1, this.#vnode.pathLength.get(vnode));
  }

  /** Bytes of `count` pages from `start` on that the file has, or is to have. */
  #below(vnode: VnodeIndex, start: number, count: number): number {
    return Math.max(0, Math.min(count * this.#pageSize, this.#cuts.storeEnd(vnode) - start));
  }

  /** Reads into frames, mostly with one call; those of a run that was taken at once lie side by side. */
  #readFrames(vnode: VnodeIndex, start: number, wanted: number, frames: Int32Array, at: number): number {
    const banks = this.#banks;
    const descriptor = this.#descriptors.forReading(vnode);
    const first = frames[at] as number;
    if (!VERIFY && areAdjacent(banks, frames, at, Math.ceil(wanted / this.#pageSize))) {
      const bytes = banks.views[banks.bankOf(first)] as Uint8Array;
      if (readOnce(descriptor, bytes, banks.offsetOf(first), wanted, start) === wanted) return wanted;
    }
    return this.#read(vnode, descriptor, framePieces(banks, frames, at, wanted), start);
  }

  /** Reads until the pieces are full or the file ends; one read that brings nothing may be an accident. */
  #read(vnode: VnodeIndex, descriptor: number, pieces: Uint8Array[], start: number): number {
    const wanted = pieces.reduce((sum, piece) => sum + piece.length, 0);
    let done = 0;
    let empty = 0;
    let rest = pieces;
    while (done < wanted && empty < 2) {
      let got = 0;
      if (!(VERIFY && faultPoint(this.#thread, 'vnode.read.short'))) {
        try {
          this.#inject('vnode.read.error', 'EIO');
          got = readPieces(descriptor, rest, start + done);
        } catch (cause) {
          throw systemError(cause, 'vnodes.fill', {
            path: this.#path(vnode),
            start: start + done,
            wanted: wanted - done,
          });
        }
      }
      empty = got === 0 ? empty + 1 : 0;
      done += got;
      if (done < wanted) rest = piecesBehind(pieces, done);
    }
    return done;
  }

  #write(vnode: VnodeIndex, descriptor: number, pieces: Uint8Array[], start: number): void {
    const wanted = pieces.reduce((sum, piece) => sum + piece.length, 0);
    let done = 0;
    let empty = 0;
    let rest = pieces;
    while (done < wanted) {
      try {
        this.#inject('vnode.write.error', 'EIO');
        this.#inject('vnode.write.full', 'ENOSPC');
        if (VERIFY && faultPoint(this.#thread, 'vnode.write.short')) {
          const first = rest[0] as Uint8Array;
          rest = [first.subarray(0, Math.ceil(first.length / 2))];
        }
        const taken = writePieces(descriptor, rest, start + done);
        done += taken;
        empty = taken === 0 ? empty + 1 : 0;
        if (empty === EMPTY_WRITES_MAX) throw Object.assign(new Error('nothing was written'), { code: 'ENOSPC' });
      } catch (cause) {
        throw systemError(cause, 'vnodes.write', {
          path: this.#path(vnode),
          start: start + done,
          wanted: wanted - done,
        });
      }
      if (done < wanted) rest = piecesBehind(pieces, done);
    }
  }

  #raiseDiskSize(vnode: VnodeIndex, end: number): void {
    if (this.#vnode.diskSize.get(vnode) < end) this.#vnode.diskSize.put(vnode, end);
  }

  #inject(point: FaultPoint, code: string): void {
    if (VERIFY && faultPoint(this.#thread, point)) throw Object.assign(new Error('injected'), { code });
  }
}
