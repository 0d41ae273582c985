/**
 * Failures of writing back, so that everybody who has the vnode open hears of them.
 *
 * Pages are written back by whoever needs their frames, in whichever thread. A failure is counted in the vnode's row; each
 * opener remembers the count that it has seen, and its next sync or close throws when there were more since.
 */

import { showCall, VmError, type VmErrorCode } from '../base/errors.ts';
import type { BoundTables, Region } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Pages } from '../page/pages.ts';
import { add, load, store } from '../sync/atomics.ts';
import type { Thread } from '../sync/thread.ts';

type Codes = readonly VmErrorCode[];

/** Codes that a row can remember. */
export const WRITE_ERRORS: Codes = ['EIO', 'ENOSPC', 'EACCES', 'ENOENT', 'ESTALE', 'ENOTSUP', 'ETIMEDOUT'];

/** The failures as one thread sees them. */
export class WriteErrors {
  readonly #words: Int32Array;
  readonly #vnode: BoundTables['vnode'];

  constructor(thread: Thread) {
    this.#words = thread.words;
    this.#vnode = thread.region.tables.vnode;
  }

  /** Failures so far: what an opener remembers. */
  count(vnode: VnodeIndex): number {
    return load(this.#words, this.#vnode.errorCount.address(vnode));
  }

  /** Notes a failure. */
  note(vnode: VnodeIndex, error: unknown): void {
    const code = error instanceof VmError ? error.code : 'EIO';
    store(this.#words, this.#vnode.errorCode.address(vnode), Math.max(0, WRITE_ERRORS.indexOf(code)) + 1);
    add(this.#words, this.#vnode.errorCount.address(vnode), 1);
  }

  /** The error of the last failure, for an opener that has not seen it. */
  unseen(vnode: VnodeIndex, call: string, path: string): VmError {
    const code = WRITE_ERRORS[load(this.#words, this.#vnode.errorCode.address(vnode)) - 1] ?? 'EIO';
    return new VmError(code, `${showCall(call, { path })}: writing back failed since this opener last looked`);
  }
}

/** Modifies every page of a vnode that is in memory: after a sync that failed its store may have forgotten what it had accepted. */
export function modifyAgain({ tables }: Region, pages: Pages, vnode: VnodeIndex): void {
  const { page } = tables;
  for (let frame = 0; frame < page.rowCount; frame++) {
    if (page.vnode.get(frame) !== vnode + 1) continue;
    const held = pages.hold(vnode, page.index.get(frame));
    if (held < 0) continue;
    pages.setModified(held);
    pages.release(held);
  }
}
