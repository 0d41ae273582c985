/**
 * The descriptors of one thread for files.
 *
 * PROBLEM     A thread reads and writes back pages of files that it has open, and of files that only others have: when it
 *             needs their frames. A descriptor must belong to the file that the vnode stands for.
 * STRUCTURE   Two sets, each with the ones used last: for reading, and for reading and writing. With each vnode the generation
 *             of its row. What was closed to make room is opened again by its path, and compared by device and inode; when
 *             it was renamed or unlinked, on Linux by the descriptor of a thread that has it open.
 * INVARIANTS  I1 a descriptor that is handed out has the device and inode of the vnode's row.
 * LOCKING     None: private to the thread. A row cannot be recycled while a page of it is being filled or written.
 * COSTS       Two look-ups in maps; an open and an fstat for what was closed.
 * FAILURE     `ENOENT` and `ESTALE` when the path names nothing or another file by now; `EACCES`; `EIO` with the cause.
 * REJECTED    One set with whatever mode was asked for first: read-only openers would keep writers from working.
 * REFERENCES  docs/glossary.md: vnode.
 */

import { closeSync, readdirSync } from 'node:fs';
import { fail, type VmError } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Thread } from '../sync/thread.ts';
import { Descriptors } from './descriptors.ts';
import {
  factsOf,
  type OpenedFile,
  type OpenFlags,
  openRegular,
  openRegularAsync,
  READ_ONLY,
  READ_WRITE,
  systemCode,
} from './file-facts.ts';
import { PathHeap } from './path-heap.ts';

/** Where Linux shows the descriptors of all threads of the process. */
const DESCRIPTORS = '/proc/self/fd';

function descriptorsOfProcess(): number[] {
  try {
    return readdirSync(DESCRIPTORS).map(Number);
  } catch {
    return [];
  }
}

/** Device and inode of an open regular file; null for anything else, also what was closed meanwhile. */
function identityOf(descriptor: number): Int32Array | null {
  try {
    return factsOf(descriptor)?.identity ?? null;
  } catch {
    return null;
  }
}

/** Descriptors by vnode. A row that stands for another file by now is known by its generation. */
export class FileDescriptors {
  readonly #vnode: BoundTables['vnode'];
  readonly #paths: PathHeap;
  readonly #reading: Descriptors;
  readonly #writing: Descriptors;
  /** Generation of the row that a vnode's descriptors were opened for. */
  readonly #generations = new Map<VnodeIndex, number>();
  /** The vnode that was looked at last, and what the map has for it. */
  #lastVnode: VnodeIndex = -1;
  #lastGeneration = 0;

  constructor(thread: Thread, max: number) {
    this.#vnode = thread.region.tables.vnode;
    this.#paths = new PathHeap(thread);
    this.#reading = new Descriptors(max);
    this.#writing = new Descriptors(max);
  }

  /** A descriptor that can be read from. Throws `ENOENT`, `ESTALE` when the path names another file by now, `EIO`. */
  forReading(vnode: VnodeIndex): number {
    this.#refresh(vnode);
    let known = this.#reading.get(vnode);
    if (known < 0) known = this.#writing.get(vnode);
    if (known >= 0) return known;
    const descriptor = this.#reopen(vnode, READ_ONLY);
    this.#reading.keep(vnode, descriptor);
    return descriptor;
  }

  /** A descriptor that can be written to. Throws like `forReading`, and `EACCES`. */
  forWriting(vnode: VnodeIndex): number {
    this.#refresh(vnode);
    const known = this.#writing.get(vnode);
    if (known >= 0) return known;
    const descriptor = this.#reopen(vnode, READ_WRITE);
    this.#writing.keep(vnode, descriptor);
    return descriptor;
  }

  /** Keeps a descriptor that was opened for a vnode. */
  keep(vnode: VnodeIndex, descriptor: number, writable: boolean): void {
    this.#refresh(vnode);
    if (writable) this.#writing.keep(vnode, descriptor);
    else this.#reading.keep(vnode, descriptor);
  }

  /** Hands the descriptors of one vnode to another. */
  move(from: VnodeIndex, to: VnodeIndex): void {
    this.#refresh(to);
    this.#reading.move(from, to);
    this.#writing.move(from, to);
  }

  /** Closes what is open for a vnode. */
  close(vnode: VnodeIndex): void {
    this.#lastVnode = -1;
    this.#generations.delete(vnode);
    this.#reading.close(vnode);
    this.#writing.close(vnode);
  }

  /** Closes everything. */
  closeAll(): void {
    this.#lastVnode = -1;
    this.#generations.clear();
    this.#reading.shrink(0);
    this.#writing.shrink(0);
  }

  /** Opens a file; with too many open, half of this thread's descriptors are closed and it is tried again. */
  open(path: string, flags: OpenFlags, call: string): OpenedFile {
    try {
      return openRegular(path, flags, call);
    } catch (error) {
      if (!this.#makeRoom(error)) throw error;
      return openRegular(path, flags, call);
    }
  }

  /** Like `open`, without waiting. */
  async openAsync(path: string, flags: OpenFlags, call: string, signal?: AbortSignal): Promise<OpenedFile> {
    try {
      return await openRegularAsync(path, flags, call, signal);
    } catch (error) {
      if (!this.#makeRoom(error)) throw error;
      return openRegularAsync(path, flags, call, signal);
    }
  }

  /** After an error for want of descriptors: closes half of those of this thread, false when that is not it. */
  #makeRoom(error: unknown): boolean {
    const code = systemCode((error as Error).cause);
    const count = this.#reading.count + this.#writing.count;
    if ((code !== 'EMFILE' && code !== 'ENFILE') || count === 0) return false;
    this.#reading.shrink(Math.floor(this.#reading.count / 2));
    this.#writing.shrink(Math.floor(this.#writing.count / 2));
    return true;
  }

  /** Closes what belongs to an earlier file in the same row. */
  #refresh(vnode: VnodeIndex): void {
    const generation = this.#vnode.generation.get(vnode);
    if (vnode === this.#lastVnode && generation === this.#lastGeneration) return;
    if (this.#generations.get(vnode) !== generation) {
      this.close(vnode);
      this.#generations.set(vnode, generation);
    }
    this.#lastVnode = vnode;
    this.#lastGeneration = generation;
  }

  #reopen(vnode: VnodeIndex, flags: OpenFlags): number {
    const path = this.#paths.read(this.#vnode.path.get(vnode) - 1, this.#vnode.pathLength.get(vnode));
    try {
      const file = this.open(path, flags, 'vnodes.reopen');
      if (this.#isOf(vnode, file.identity)) return file.descriptor;
      closeSync(file.descriptor);
      return fail('ESTALE', 'vnodes.reopen', { path }, 'the path names another file by now');
    } catch (error) {
      const code = (error as VmError).code;
      const descriptor = code === 'ENOENT' || code === 'ESTALE' ? this.#reopenMoved(vnode, flags) : -1;
      if (descriptor < 0) throw error;
      return descriptor;
    }
  }

  /** Opens a file that was renamed or unlinked, by a descriptor that some thread has for it; -1 when there is none. Linux only. */
  #reopenMoved(vnode: VnodeIndex, flags: OpenFlags): number {
    for (const number of descriptorsOfProcess()) {
      if (!this.#isOf(vnode, identityOf(number))) continue;
      try {
        const file = this.open(`${DESCRIPTORS}/${number}`, flags, 'vnodes.reopen');
        if (this.#isOf(vnode, file.identity)) return file.descriptor;
        closeSync(file.descriptor);
      } catch {
        // It was closed meanwhile, or does not permit it: perhaps another one.
      }
    }
    return -1;
  }

  #isOf(vnode: VnodeIndex, identity: Int32Array | null): boolean {
    return identity?.every((word, lane) => word === this.#vnode.identity.at(vnode, lane)) ?? false;
  }
}
