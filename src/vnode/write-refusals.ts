/** What a store throws when pages are written back, and which of it a sync must tell of. */

import { VmError, type VmErrorCode } from '../base/errors.ts';

/** Refusals that are none: this thread cannot wait for the store, or the page is ahead of its log. */
const UNTOLD: readonly VmErrorCode[] = ['EWOULDBLOCK', 'EBUSY'];

/** The path names the file no more. */
const MOVED: readonly VmErrorCode[] = ['ENOENT', 'ESTALE'];

/**
 * True when a sync must tell of what a store threw. `isOthers`: this thread has not got the vnode open, and others have; a file
 * that was renamed or unlinked is then for them to write, who have a descriptor.
 */
export function isFailure(error: unknown, isOthers: boolean): boolean {
  const code = error instanceof VmError ? error.code : 'EIO';
  return !UNTOLD.includes(code) && !(isOthers && MOVED.includes(code));
}
