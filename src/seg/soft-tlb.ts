/**
 * Translations that one thread keeps of one space, in private memory.
 *
 * Direct mapped by page number. An entry says in which frame a page is, which identity the frame then has, and the word and
 * value by which one knows that the translation is current. Nothing here is shared: a stale entry is found out when it is used.
 */

import type { FrameIndex } from '../phys/index.ts';
import { FAULT_KIND, type Faults } from './faults.ts';

/** Entries: 16 MiB of pages of 4 KiB. */
const ENTRIES = 4096;

/** The entry of a page, which may hold another one. */
export function tlbEntry(page: number): number {
  return page % ENTRIES;
}

/** Entries as columns. */
export class SoftTlb {
  /** Page number, -1 for an empty entry. */
  readonly page = new Float64Array(ENTRIES).fill(-1);
  readonly frame = new Int32Array(ENTRIES);
  /** Identity of the page in the frame; -1: the frame has none and stays where it is. */
  readonly vnode = new Int32Array(ENTRIES);
  readonly index = new Int32Array(ENTRIES);
  readonly writable = new Uint8Array(ENTRIES);
  /** Address of the word with the count of changes, and the count that goes with the translation. */
  readonly countAt = new Int32Array(ENTRIES);
  readonly count = new Int32Array(ENTRIES);

  /** Keeps what a fault has found. */
  fill(page: number, faults: Faults, countAt: number, count: number): FrameIndex {
    const entry = tlbEntry(page);
    this.page[entry] = page;
    this.frame[entry] = faults.frame;
    this.vnode[entry] = faults.kind === FAULT_KIND.physical ? -1 : faults.vnode;
    this.index[entry] = faults.index;
    this.writable[entry] = faults.writable ? 1 : 0;
    this.countAt[entry] = countAt;
    this.count[entry] = count;
    return faults.frame;
  }

  /** Forgets everything. */
  clear(): void {
    this.page.fill(-1);
  }
}
