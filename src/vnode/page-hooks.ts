/**
 * What a program does with pages on their way to and from a file: the ground for a write-ahead log and for checksums.
 *
 * PROBLEM     A database that logs before it writes must keep pages in memory until their log records are durable, whichever
 *             thread writes back; and it wants to seal pages when they leave and to test them when they come.
 * STRUCTURE   A file may be opened with hooks (a module and an export, found in every thread) and with the place of a log
 *             sequence number (LSN) in each page: 8 bytes, little endian, below 2^53. The row keeps how far the log is durable.
 *
 *               write   1 private copy of the pages   2 highest LSN in it; beyond the durable log: beforeWriteBack, which may
 *                       force the log and says how far it is; still beyond: the pages stay   3 seal each page   4 to the file
 *               fill    1 from the file   2 test a private copy of each page
 *
 * INVARIANTS  I1 no bytes of a page with an LSN go to the file before the log is durable up to it, if whoever changes a page
 *             stores the new LSN into it before anything else.
 *             I2 hooks see private memory only.
 * LOCKING     The pages are held shared while they are written, exclusively while they are filled: a hook must not touch the
 *             same file. The durable LSN is only ever raised.
 * COSTS       A copy of each page, for files with hooks or an LSN only.
 * FAILURE     `EBUSY` for pages that are ahead of the log: they stay modified, and no opener is told of a failed write.
 *             `EIO` for a page whose test fails, with what the hook threw as the cause.
 * REJECTED    An LSN for each frame in shared memory: pages have it in their headers anyway, where recovery needs it.
 * REFERENCES  Mohan et al., ARIES: the page LSN and the write-ahead rule; no-steal as its strict form.
 */

import { fail, VmError } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { CallbackReference, Callbacks } from '../sync/callbacks.ts';
import type { Thread } from '../sync/thread.ts';

/** Pages that are about to be written back and whose highest LSN is beyond the durable log. */
export interface AheadOfLog {
  readonly path: string;
  readonly index: number;
  readonly count: number;
  readonly lsn: number;
}

/**
 * What a program does with pages of a file, in bytes of its page size; `index` counts such pages. The module must not touch the
 * file's pages from these functions.
 */
export interface PageHooks {
  /** Forces the log, if it wants to, and returns how far it is durable by now. */
  beforeWriteBack?(pages: AheadOfLog): number;
  /** Changes the bytes of a page before they go to the file: a checksum, for example. The page in memory stays as it is. */
  seal?(path: string, index: number, bytes: Uint8Array): void;
  /** Throws when the bytes of a page that came from the file are not right. The last page may be shorter. */
  test?(path: string, index: number, bytes: Uint8Array): void;
}

/** What `vm.open` takes for databases. */
export interface PageHookOptions {
  /** Module and export of the `PageHooks`. */
  readonly hooks?: CallbackReference;
  /** Byte offset of the LSN in every page. */
  readonly lsnOffset?: number;
}

/** Bytes of an LSN. */
export const LSN_BYTES = 8;

/** The hooks as one thread runs them. */
export class HookedPages {
  readonly #callbacks: Callbacks;
  readonly #thread: Thread;
  readonly #vnode: BoundTables['vnode'];
  readonly #pageSize: number;

  constructor(thread: Thread, callbacks: Callbacks) {
    this.#callbacks = callbacks;
    this.#thread = thread;
    this.#vnode = thread.region.tables.vnode;
    this.#pageSize = thread.region.geometry.pageSize;
  }

  /** True when pages of the vnode pass through here when they are written. */
  concernsWrites(vnode: VnodeIndex): boolean {
    if (this.#vnode.lsnOffset.get(vnode) !== 0) return true;
    return this.#hooks(vnode)?.seal !== undefined;
  }

  /** True when they do when they are filled. */
  concernsFills(vnode: VnodeIndex): boolean {
    return this.#hooks(vnode)?.test !== undefined;
  }

  /** How far the log is durable. */
  durable(vnode: VnodeIndex): number {
    return this.#vnode.lsnDurable.get(vnode);
  }

  /** Says that the log is durable up to an LSN. */
  raise(vnode: VnodeIndex, lsn: number): void {
    if (this.durable(vnode) < lsn) this.#vnode.lsnDurable.put(vnode, lsn);
  }

  /** Steps 2 and 3 of a write, on a private copy. Throws `EBUSY` when the pages are ahead of the log. */
  beforeWrite(vnode: VnodeIndex, path: string, index: number, bytes: Uint8Array): void {
    const hooks = this.#hooks(vnode);
    const offset = this.#vnode.lsnOffset.get(vnode) - 1;
    const size = this.#sizeOf(vnode);
    const first = (index * this.#pageSize) / size;
    if (offset >= 0) {
      const lsn = this.#highest(bytes, offset, size);
      if (lsn > this.durable(vnode) && hooks?.beforeWriteBack !== undefined) {
        const count = Math.ceil(bytes.length / size);
        const page = { path, index: first, count, lsn };
        this.raise(
          vnode,
          told(page, () => hooks.beforeWriteBack?.(page) ?? 0),
        );
      }
      if (lsn > this.durable(vnode)) {
        const values = { path, index: first, lsn, durable: this.durable(vnode) };
        fail('EBUSY', 'vnodes.write', values, 'the page is ahead of the log; call file.logged() when it is durable');
      }
    }
    if (hooks?.seal === undefined) return;
    for (let at = 0; at < bytes.length; at += size) {
      const page = { path, index: first + at / size };
      told(page, () => hooks.seal?.(path, page.index, bytes.subarray(at, at + size)));
    }
  }

  /** Step 2 of a fill, on a private copy. Throws `EIO`. */
  afterRead(vnode: VnodeIndex, path: string, index: number, bytes: Uint8Array): void {
    const hooks = this.#hooks(vnode);
    const size = this.#sizeOf(vnode);
    for (let at = 0; at < bytes.length; at += size) {
      const page = (index * this.#pageSize + at) / size;
      try {
        hooks?.test?.(path, page, bytes.subarray(at, at + size));
      } catch (cause) {
        throw new VmError('EIO', `vnodes.fill(path=${path}, page=${page}): ${String(cause)}`, { cause });
      }
    }
  }

  /** Ties hooks to a vnode that is being opened. Throws `EINVAL` when it has others. */
  tie(vnode: VnodeIndex, { hooks, lsnOffset }: PageHookOptions): void {
    const detail = hooks === undefined ? 0 : this.#callbacks.intern(hooks) + 1;
    const offset = lsnOffset === undefined ? 0 : lsnOffset + 1;
    if (detail > 0) this.#callbacks.resolve<PageHooks>(detail - 1);
    const pageSize = this.#sizeOf(vnode);
    if (offset > pageSize - LSN_BYTES + 1) {
      fail('EINVAL', 'vnodes.open', { lsnOffset, pageSize }, 'an LSN lies inside each page');
    }
    const known = { detail: this.#vnode.detail.get(vnode), offset: this.#vnode.lsnOffset.get(vnode) };
    const differs = (known.detail !== 0 && detail !== known.detail) || (known.offset !== 0 && offset !== known.offset);
    if (differs) fail('EINVAL', 'vnodes.open', { lsnOffset }, 'the file is open with other hooks or another lsnOffset');
    const { journal } = this.#thread;
    journal.set(this.#vnode.detail, vnode, detail);
    journal.set(this.#vnode.lsnOffset, vnode, offset);
  }

  #hooks(vnode: VnodeIndex): PageHooks | null {
    const detail = this.#vnode.detail.get(vnode);
    return detail === 0 ? null : this.#callbacks.resolve<PageHooks>(detail - 1);
  }

  /** Bytes of a page of the vnode. */
  #sizeOf(vnode: VnodeIndex): number {
    return this.#pageSize << this.#vnode.pageShift.get(vnode);
  }

  #highest(bytes: Uint8Array, offset: number, pageSize: number): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let highest = 0;
    for (let at = offset; at + LSN_BYTES <= bytes.length; at += pageSize) {
      highest = Math.max(highest, Number(view.getBigUint64(at, true)));
    }
    return highest;
  }
}

/** What a program's hook returns for a page that is to be written; what it throws becomes `EIO`, but for a `VmError`. */
function told<T>({ path, index }: { readonly path: string; readonly index: number }, hook: () => T): T {
  try {
    return hook();
  } catch (cause) {
    if (cause instanceof VmError) throw cause;
    throw new VmError('EIO', `vnodes.write(path=${path}, page=${index}): ${String(cause)}`, { cause });
  }
}
