/** What a user's own vnodes are made of: an object that a module exports. */

import type { CallbackReference } from '../sync/callbacks.ts';

/** What a provider says about a vnode now. */
export interface ProvidedLook {
  /** Bytes. */
  readonly size: number;
  /** Another one whenever the contents may have changed. */
  readonly version: string | number;
}

/**
 * Brings and takes pages. With `isAsync` the methods run in the I/O worker and may return promises; without it they run in
 * whichever thread needs the page, while that thread holds it, and must return at once. The bytes are private memory.
 */
export interface VnodeProvider {
  readonly isAsync?: boolean;
  /** Bytes of a vnode when it is opened; not asked when there is `look`. */
  size(name: string): number;
  /**
   * Fills `bytes`, which lie at `offset`, at most up to the size of the vnode. With a time limit there is a signal, which is
   * aborted when nobody waits for the bytes any more.
   */
  getPage(name: string, offset: number, bytes: Uint8Array, signal?: AbortSignal): void | Promise<void>;
  /**
   * Takes bytes; without it the vnodes are read only. With a time limit there is a signal, as for `getPage`. Whoever rejects
   * when it is aborted says that these bytes will not be stored any more; until it has settled one way or the other, nothing
   * else is given that overlaps them.
   */
  putPage?(name: string, offset: number, bytes: Uint8Array, signal?: AbortSignal): void | Promise<void>;
  /**
   * Cuts a vnode, or lengthens it with zeros: what was cut must not come back when it grows again. Without it `putPage` gets
   * zeros for every byte that is cut.
   */
  truncate?(name: string, size: number): void | Promise<void>;
  /**
   * Size and version now, for `file.revalidate`, `file.isChanged` and later opens, which then leave old pages to those who have
   * the vnode open. Without it a vnode changes only through us.
   */
  look?(name: string, signal?: AbortSignal): ProvidedLook | Promise<ProvidedLook>;
  /** Makes durable what `putPage` took. */
  sync?(name: string): void | Promise<void>;
}

/** How a user's own vnode is opened. */
export interface ProviderOptions {
  /** Module and export of the `VnodeProvider`. */
  readonly provider: CallbackReference;
  /** Which vnode of it. */
  readonly name: string;
  readonly mode?: 'r' | 'rw';
  /** Bytes, if the provider is not to be asked; its version is then looked at by `revalidate` only. */
  readonly size?: number;
  /** As for files: see `OpenOptions`. The provider then brings and takes whole pages of it, but for the last. */
  readonly pageSize?: number;
  /**
   * Milliseconds within which `getPage`, `putPage`, `look` and `sync` of an asynchronous provider must have answered, 0 for ever.
   * Who waits gets `ETIMEDOUT` then, and what is answered later is dropped; pages that were not taken stay modified. Holds for
   * all openers; the last one who gives it decides. Default: what it was, or for ever.
   */
  readonly timeoutMs?: number;
}
