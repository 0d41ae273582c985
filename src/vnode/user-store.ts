/**
 * Users' own vnodes: calls of their providers.
 *
 * PROBLEM     A user's code brings pages, in whichever thread they are needed, and must not get hold of the frames: it could
 *             keep a view and write into a page of somebody else later.
 * STRUCTURE   The row names the provider (a callback) and, in its path, which of its vnodes it is. A provider that is not
 *             asynchronous runs here; the others in the remote I/O worker. Bytes pass through private memory. A provider
 *             that cannot cut gets zeros: here for whole pages, through a write-back for the page that is cut in two.
 * INVARIANTS  I1 a provider sees private memory only.   I2 bytes that were cut do not come back when the vnode grows again.
 * LOCKING     The pages that are brought or taken are held by the caller.
 * COSTS       The provider's, and a copy.
 * FAILURE     What the provider threw, as the cause of an error with its code if files have it too (`ENOSPC`, `EACCES` and the
 *             like), else of an `EIO`; `VmError`s as they are. `EINVAL` for a promise of a provider
 *             that does not say isAsync.
 * REJECTED    Views of the frames: no way to take them back.
 * REFERENCES  illumos VOP_GETPAGE and VOP_PUTPAGE.
 */

import { fail, requireInteger, VmError } from '../base/errors.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { Banks } from '../phys/banks.ts';
import type { Callbacks } from '../sync/callbacks.ts';
import type { Thread } from '../sync/thread.ts';
import { Cuts } from './cuts.ts';
import { knownCode } from './file-facts.ts';
import { copyFromFrames, copyToFrames } from './frame-io.ts';
import type { IoQuestion } from './io-requests.ts';
import { PathHeap } from './path-heap.ts';
import type { ProvidedLook, VnodeProvider } from './provider.ts';
import { hashWords } from './remote-client.ts';
import type { VnodeLook, VnodeStore } from './vnode-store.ts';

/** Zeros that a provider gets at a time: whole pages of any size. */
const CUT_BYTES = 131_072;

/** What a vnode of a provider is called among all vnodes. */
export function providedName(detail: number, name: string): string {
  return `user#${detail} ${name}`;
}

/** The number of the provider and its own name in a `providedName`; null for any other name. */
export function splitProvided(text: string): { readonly detail: number; readonly name: string } | null {
  const match = /^user#(\d+) (.*)$/s.exec(text);
  return match === null ? null : { detail: Number(match[1]), name: match[2] as string };
}

/** Size and version as a row has them. Throws `EINVAL` when a provider said something else. */
export function checkedLook({ size, version }: ProvidedLook): VnodeLook {
  requireInteger('provider.look', 'size', size, 0, Number.MAX_SAFE_INTEGER);
  if (typeof version !== 'string' && typeof version !== 'number') {
    fail('EINVAL', 'provider.look', { version }, 'a version is a text or a number');
  }
  return { size, stamp: hashWords(`${typeof version} ${version}`) };
}

/** The store of users' own vnodes. */
export class UserStore implements VnodeStore {
  readonly #banks: Banks;
  readonly #callbacks: Callbacks;
  readonly #vnode: BoundTables['vnode'];
  readonly #paths: PathHeap;
  readonly #elsewhere: VnodeStore;
  readonly #cuts: Cuts;

  /** @param elsewhere asks the I/O worker. */
  constructor(thread: Thread, banks: Banks, callbacks: Callbacks, elsewhere: VnodeStore) {
    this.#banks = banks;
    this.#callbacks = callbacks;
    this.#vnode = thread.region.tables.vnode;
    this.#paths = new PathHeap(thread);
    this.#elsewhere = elsewhere;
    this.#cuts = new Cuts(thread.region);
  }

  /** The provider of a vnode. Throws `ENOENT` when its module cannot be loaded. */
  provider(vnode: VnodeIndex): VnodeProvider {
    return this.#callbacks.resolve<VnodeProvider>(this.#vnode.detail.get(vnode));
  }

  /** Which vnode of its provider it is. */
  name(vnode: VnodeIndex): string {
    const path = this.#paths.read(this.#vnode.path.get(vnode) - 1, this.#vnode.pathLength.get(vnode));
    return path.slice(path.indexOf(' ') + 1);
  }

  fill(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): number {
    const provider = this.provider(vnode);
    if (provider.isAsync) return this.#elsewhere.fill(vnode, index, frames, at, count);
    const start = index * this.#banks.pageSize;
    const length = this.below(vnode, start, count);
    const bytes = new Uint8Array(length);
    this.#call(vnode, () => provider.getPage(this.name(vnode), start, bytes));
    copyToFrames(this.#banks, bytes, frames, at, count);
    return length;
  }

  write(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    const provider = this.provider(vnode);
    if (provider.putPage === undefined) fail('ENOTSUP', 'vnodes.write', { vnode }, 'its provider takes no pages');
    this.#noteWrite(vnode, provider);
    if (provider.isAsync) {
      this.#elsewhere.write(vnode, index, frames, at, count);
      return;
    }
    const start = index * this.#banks.pageSize;
    const bytes = copyFromFrames(this.#banks, frames, at, this.taken(vnode, start, count));
    this.#call(vnode, () => provider.putPage?.(this.name(vnode), start, bytes));
  }

  sync(vnode: VnodeIndex, dataOnly: boolean): void {
    const provider = this.provider(vnode);
    if (provider.isAsync) this.#elsewhere.sync(vnode, dataOnly);
    else this.#call(vnode, () => provider.sync?.(this.name(vnode)));
  }

  /** The provider cuts, or else gets zeros for the pages that go; the caller writes back the page that is cut in two. */
  truncate(vnode: VnodeIndex, size: number): void {
    const provider = this.provider(vnode);
    this.#noteWrite(vnode, provider);
    if (provider.isAsync) this.#elsewhere.truncate(vnode, size);
    else for (const step of this.cutSteps(vnode, size)) this.#call(vnode, step);
  }

  look(vnode: VnodeIndex): VnodeLook | null {
    const provider = this.provider(vnode);
    if (provider.look === undefined) return null;
    if (provider.isAsync) return this.#elsewhere.look?.(vnode) ?? null;
    return checkedLook(this.#call(vnode, () => provider.look?.(this.name(vnode))) as ProvidedLook);
  }

  lookQuestion(vnode: VnodeIndex): IoQuestion | null {
    const { isAsync, look } = this.provider(vnode);
    return isAsync && look !== undefined ? (this.#elsewhere.lookQuestion?.(vnode) ?? null) : null;
  }

  farSource(vnode: VnodeIndex): number | null {
    return this.provider(vnode).isAsync === true ? this.#vnode.detail.get(vnode) : null;
  }

  keepsCut(vnode: VnodeIndex): boolean {
    return this.provider(vnode).truncate === undefined;
  }

  /** What the provider is to do, one after another, when a vnode is cut or lengthened to a size. */
  *cutSteps(vnode: VnodeIndex, size: number): Generator<() => void | Promise<void>> {
    const provider = this.provider(vnode);
    const name = this.name(vnode);
    if (provider.truncate !== undefined) {
      yield () => provider.truncate?.(name, size);
      return;
    }
    const pageBytes = this.#banks.pageSize << this.#vnode.pageShift.get(vnode);
    const end = this.#vnode.sizePeak.get(vnode);
    for (let at = Math.ceil(size / pageBytes) * pageBytes; at < end; at += CUT_BYTES) {
      const start = at;
      yield () => provider.putPage?.(name, start, new Uint8Array(Math.min(CUT_BYTES, end - start)));
    }
  }

  /**
   * Bytes of `count` pages from `start` on that a provider takes: also what is behind the size while the vnode is being cut, so
   * that it gets zeros for it.
   */
  taken(vnode: VnodeIndex, start: number, count: number): number {
    const end = Math.max(this.#cuts.storeEnd(vnode), this.keepsCut(vnode) ? this.#vnode.sizePeak.get(vnode) : 0);
    return Math.max(0, Math.min(count * this.#banks.pageSize, end - start));
  }

  /** Bytes of `count` pages from `start` on that a provider brings: what lies below the size, or did before a cut that is under way. */
  below(vnode: VnodeIndex, start: number, count: number): number {
    return Math.max(0, Math.min(count * this.#banks.pageSize, this.#cuts.storeEnd(vnode) - start));
  }

  /** The version goes on by what we write: it is taken over with the next sync or close. */
  #noteWrite(vnode: VnodeIndex, provider: VnodeProvider): void {
    if (provider.look !== undefined) this.#vnode.written.put(vnode, 1);
  }

  #call(vnode: VnodeIndex, action: () => unknown): unknown {
    let result: unknown;
    try {
      result = action();
    } catch (cause) {
      if (cause instanceof VmError) throw cause;
      throw new VmError(knownCode(cause), `vnode ${vnode}: its provider failed: ${String(cause)}`, { cause });
    }
    if (result instanceof Promise) {
      result.catch(() => undefined);
      fail('EINVAL', 'vnodes', { vnode }, 'a provider that returns promises says so with isAsync');
    }
    return result;
  }
}
