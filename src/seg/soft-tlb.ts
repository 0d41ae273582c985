/**
 * Translations that one thread keeps of one space, in private memory.
 *
 * Direct mapped by page number. An entry says in which frame a page is, which identity the frame then has, and the word and
 * value by which one knows that the translation is current. Nothing here is shared: a stale entry is found out when it is used.
 */

import type { Banks } from '../phys/index.ts';
import { FAULT_KIND, type Faults } from './faults.ts';

/** Entries: 16 MiB of pages of 4 KiB. */
const ENTRIES = 4096;

/** The entry of a page, which may hold another one. The low bits of a number below 2^53 are what the operator takes. */
export function tlbEntry(page: number): number {
  return page & (ENTRIES - 1);
}

/** Entries as columns. */
export class SoftTlb {
  /** Page number; an empty entry equals none. */
  readonly page = new Float64Array(ENTRIES).fill(Number.NaN);
  readonly frame = new Int32Array(ENTRIES);
  /** Where the frame lies: its bank, and its first byte there in words. */
  readonly bank = new Int32Array(ENTRIES);
  readonly wordAt = new Int32Array(ENTRIES);
  /** Identity of the page in the frame; -1: the frame has none and stays where it is. */
  readonly vnode = new Int32Array(ENTRIES);
  readonly index = new Int32Array(ENTRIES);
  readonly writable = new Uint8Array(ENTRIES);
  /** Address of the word with the count of changes, and the count that goes with the translation. */
  readonly countAt = new Int32Array(ENTRIES);
  readonly count = new Int32Array(ENTRIES);

  private readonly banks: Banks;

  constructor(banks: Banks) {
    this.banks = banks;
  }

  /** Keeps what a fault has found. */
  fill(page: number, faults: Faults, countAt: number, count: number): void {
    const entry = tlbEntry(page);
    const { frame } = faults;
    this.page[entry] = page;
    this.frame[entry] = frame;
    this.bank[entry] = this.banks.bankOf(frame);
    this.wordAt[entry] = this.banks.offsetOf(frame) / Int32Array.BYTES_PER_ELEMENT;
    this.vnode[entry] = faults.kind === FAULT_KIND.physical ? -1 : faults.vnode;
    this.index[entry] = faults.index;
    this.writable[entry] = faults.writable ? 1 : 0;
    this.countAt[entry] = countAt;
    this.count[entry] = count;
  }

  /** Forgets one translation. */
  drop(entry: number): void {
    this.page[entry] = Number.NaN;
  }
}
