/**
 * Copies through cached mappings, at most two pages a call, as the source makes them.
 *
 * What it zeroes is the source's business too: with new pages the end of the last page that was written, even if that page
 * was there before and only another one is new; and nothing of a second new page after an error in the first.
 */

import type { VnodeIndex } from '../page/page-hash.ts';
import type { CachedMapping } from './cached-mapping.ts';
import type { CachedMappings } from './cached-mappings.ts';
import { MAPPING_COUNTER } from './mapping-counters.ts';
import type { MapAccess } from './page-mappings.ts';

/** Entries of the scatter list of a copy: two pages and the end. */
const COPY_SEGMENTS = 3;

/** The other side of a copy. */
export interface ByteMover {
  /**
   * Moves up to `length` bytes: for `'read'` from the bank's bytes at `at`, for `'write'` to them. Returns how many, fewer
   * when its own end was reached; -1 for a fault, and then it has moved none.
   */
  move(bytes: Uint8Array, at: number, length: number, access: MapAccess): number;
}

/** A plain array as the other side of a copy. */
export class UserBytes implements ByteMover {
  readonly #bytes: Uint8Array;
  #done = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Bytes moved so far. */
  get moved(): number {
    return this.#done;
  }

  move(bytes: Uint8Array, at: number, length: number, access: MapAccess): number {
    const count = Math.min(length, this.#bytes.length - this.#done);
    const user = this.#bytes.subarray(this.#done, this.#done + count);
    if (access === 'read') user.set(bytes.subarray(at, at + count));
    else bytes.set(user, at);
    this.#done += count;
    return count;
  }
}

/** How to copy. */
export interface CachedCopyOptions {
  /** `'read'` from the vnode, `'write'` to it. Default `'read'`. */
  readonly access?: MapAccess;
  /** False: pages that are missing are made and not read. Default true. */
  readonly fetch?: boolean;
  /** Without `fetch`: zero the first page in front of the offset. Default false. */
  readonly zeroStart?: boolean;
}

/** What a copy came to. */
export interface CopyReport {
  /** Bytes that were moved: what was asked for or less. */
  readonly moved: number;
  /** Pages that were made. */
  readonly created: number;
  /** The other side faulted. */
  readonly faulted: boolean;
}

/** Copies up to `length` bytes between a vnode and a mover. Throws what `map` throws. */
export function copyCached(
  mappings: CachedMappings,
  vnode: VnodeIndex,
  offset: number,
  length: number,
  user: ByteMover,
  options: CachedCopyOptions = {},
): CopyReport {
  const { access = 'read', fetch = true, zeroStart = false } = options;
  const mapping = mappings.map(vnode, offset, length, { access, fetch, segments: COPY_SEGMENTS });
  const { created, count } = mapping;
  const { pageSize } = mappings;
  const inPage = offset % pageSize;
  try {
    if (!fetch && zeroStart) {
      if (inPage > 0) zero(mapping, 0, 0, inPage);
      tally(mappings, MAPPING_COUNTER.zeroedStarts);
    }
    let moved = 0;
    let asked = 0;
    let faulted = false;
    for (let page = 0; page < count && asked < length && !faulted; page++) {
      const from = page === 0 ? inPage : 0;
      const wanted = Math.min(length - asked, pageSize - from);
      const { bytes, offset: at } = mapping.bytesOf(page);
      const got = user.move(bytes, at + from, wanted, access);
      faulted = got < 0;
      if (!faulted) moved += got;
      asked += wanted;
    }
    const end = offset + moved;
    if (!fetch && created > 0 && end < Math.ceil((offset + length) / pageSize) * pageSize) {
      const page = Math.floor((end - (offset - inPage)) / pageSize);
      if (page < count) zero(mapping, page, end % pageSize, pageSize);
      else tally(mappings, MAPPING_COUNTER.zeroFaults);
    }
    return { moved, created, faulted };
  } finally {
    mapping.release(access);
  }
}

function zero(mapping: CachedMapping, page: number, from: number, to: number): void {
  const { bytes, offset } = mapping.bytesOf(page);
  bytes.fill(0, offset + from, offset + to);
}

function tally(mappings: CachedMappings, lane: number): void {
  const { counters } = mappings;
  counters[lane] = (counters[lane] as number) + 1;
}
