/**
 * Reading and writing through a space.
 *
 * PROBLEM     An access must cost little more than the bytes that it moves, take no lock when the page is known, and never see
 *             or change a page that is no longer the one at its address.
 * STRUCTURE   Page by page:
 *
 *               1 the entry of the page in this thread's table; not there, or not to write: fault, which fills it
 *               2 to write, and for frames without identity: enter the write section
 *               3 set this slot's bit in the page lock, compare the identity
 *               4 compare the count of changes: if it is another one, back to 1
 *               5 copy   6 take the bit and the section back
 *
 *             Step 3 keeps the page in its frame. Step 4 comes behind it: if the count is the same, the translation was right
 *             at that moment, and the access counts as done then. A store must also be over before a change is: the section.
 * INVARIANTS  I1 between steps 4 and 6 of a store the translation is current.   I2 a store marks its page as modified before
 *             and after.
 * LOCKING     None on a hit. A fault takes the space shared.
 * COSTS       A hit to read: four atomic operations; to write: eight.
 * FAILURE     `EFAULT` names address and rule; what lies before the address has been read or written.
 * REJECTED    A section for reads of pages: their page lock does. No page lock inside sections: eviction would have to wait
 *             for all of them.
 * REFERENCES  write-sections.ts for the proof; software MMUs of emulators (QEMU's softmmu TLB).
 */

import { fail, failMisuse } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { Pages } from '../page/index.ts';
import type { Banks, FrameIndex } from '../phys/index.ts';
import { add, compareExchange, faultPoint, load, type RwLock, store, type Thread } from '../sync/index.ts';
import { FAULT_KIND, type Faults, type UserAnswer } from './faults.ts';
import { SoftTlb, tlbEntry } from './soft-tlb.ts';
import type { SpaceCore } from './space-core.ts';
import type { SpaceIndex } from './space-kinds.ts';
import type { WriteSections } from './write-sections.ts';

/** Accesses of one thread to one space. */
export class SpaceAccess {
  private readonly core: SpaceCore;
  private readonly thread: Thread;
  private readonly space: SpaceIndex;
  private readonly generation: number;
  private readonly lock: RwLock;
  private readonly sections: WriteSections;
  private readonly faults: Faults;
  private readonly pages: Pages;
  private readonly banks: Banks;
  private readonly tlb = new SoftTlb();
  private readonly pageSize: number;
  private readonly bankWords: Int32Array[] = [];
  /** The access under way: identity -1 means a frame without one; whether a section is open. */
  private holdsPage = false;
  private inSection = false;

  constructor(core: SpaceCore, space: SpaceIndex, sections: WriteSections, faults: Faults, pages: Pages, banks: Banks) {
    this.core = core;
    this.thread = core.thread;
    this.space = space;
    this.generation = core.spaces.generation.get(space);
    this.lock = core.lockOf(space);
    this.sections = sections;
    this.faults = faults;
    this.pages = pages;
    this.banks = banks;
    this.pageSize = core.pageSize;
  }

  /** Copies bytes of the space into an array. */
  read(address: number, target: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length; ) {
      const where = address + done;
      const page = Math.floor(where / this.pageSize);
      const inPage = where - page * this.pageSize;
      const bytes = Math.min(this.pageSize - inPage, length - done);
      const frame = this.open(page, where, false);
      if (frame < 0) target.fill(0, at + done, at + done + bytes);
      else {
        const offset = this.banks.offsetOf(frame) + inPage;
        const from = this.banks.views[this.banks.bankOf(frame)] as Uint8Array;
        target.set(from.subarray(offset, offset + bytes), at + done);
        this.close(frame);
      }
      done += bytes;
    }
  }

  /** Copies bytes of an array into the space. */
  write(address: number, source: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length; ) {
      const where = address + done;
      const page = Math.floor(where / this.pageSize);
      const inPage = where - page * this.pageSize;
      const bytes = Math.min(this.pageSize - inPage, length - done);
      const frame = this.open(page, where, true);
      const offset = this.banks.offsetOf(frame) + inPage;
      const to = this.banks.views[this.banks.bankOf(frame)] as Uint8Array;
      to.set(source.subarray(at + done, at + done + bytes), offset);
      this.closeWritten(frame);
      done += bytes;
    }
  }

  /** Fills a range with one byte. */
  fill(address: number, value: number, length: number): void {
    for (let done = 0; done < length; ) {
      const where = address + done;
      const page = Math.floor(where / this.pageSize);
      const inPage = where - page * this.pageSize;
      const bytes = Math.min(this.pageSize - inPage, length - done);
      const frame = this.open(page, where, true);
      const offset = this.banks.offsetOf(frame) + inPage;
      (this.banks.views[this.banks.bankOf(frame)] as Uint8Array).fill(value, offset, offset + bytes);
      this.closeWritten(frame);
      done += bytes;
    }
  }

  /** The aligned word at an address, read at once. */
  load(address: number): number {
    const page = this.pageOfWord('load', address);
    const frame = this.open(page, address, false);
    if (frame < 0) return 0;
    const value = load(this.wordsOf(frame), this.wordAt(frame, address - page * this.pageSize));
    this.close(frame);
    return value;
  }

  /** Stores the aligned word at an address at once. */
  store(address: number, value: number): void {
    const page = this.pageOfWord('store', address);
    const frame = this.open(page, address, true);
    store(this.wordsOf(frame), this.wordAt(frame, address - page * this.pageSize), value);
    this.closeWritten(frame);
  }

  /** Adds to the aligned word at an address; returns what was there. */
  add(address: number, value: number): number {
    const page = this.pageOfWord('add', address);
    const frame = this.open(page, address, true);
    const found = add(this.wordsOf(frame), this.wordAt(frame, address - page * this.pageSize), value);
    this.closeWritten(frame);
    return found;
  }

  /** Replaces the aligned word at an address when it holds `expected`; returns what was there. */
  compareAndSwap(address: number, expected: number, value: number): number {
    const page = this.pageOfWord('compareAndSwap', address);
    const frame = this.open(page, address, true);
    const at = this.wordAt(frame, address - page * this.pageSize);
    const found = compareExchange(this.wordsOf(frame), at, expected, value);
    this.closeWritten(frame);
    return found;
  }

  /** Brings the page at an address in, to read. */
  touch(address: number): void {
    const frame = this.open(Math.floor(address / this.pageSize), address, false);
    if (frame >= 0) this.close(frame);
  }

  /** Brings the page at an address in as a pin needs it: this space's own, if it is not shared. Holds it; -1: no page lock. */
  lockPage(address: number, write: boolean): FrameIndex {
    const page = Math.floor(address / this.pageSize);
    this.fault(page, address, write, true);
    const { kind, frame } = this.faults;
    return kind === FAULT_KIND.page ? frame : -1 - frame;
  }

  /** The frame of a page, kept still until `close`; -1 for a hole that is read. Steps 1 to 4. */
  private open(page: number, address: number, write: boolean): FrameIndex {
    const { tlb, pages } = this;
    const entry = tlbEntry(page);
    for (;;) {
      // 1.
      if (tlb.page[entry] !== page || (write && tlb.writable[entry] === 0)) {
        this.fault(page, address, write, false);
        if (this.faults.kind === FAULT_KIND.hole) return -1;
        if (this.faults.kind === FAULT_KIND.page) pages.release(this.faults.frame);
        continue;
      }
      const frame = tlb.frame[entry] as number;
      const vnode = tlb.vnode[entry] as number;
      const isPage = vnode >= 0;
      // 2.
      const section = write || !isPage;
      if (section) this.sections.enter(this.space);
      if (VERIFY && write) faultPoint(this.thread, 'seg.write.entered');
      // 3.
      let current = !isPage || pages.holds.tryShared(frame);
      const held = current && isPage;
      if (held && !pages.holds.hasPage(frame, vnode, tlb.index[entry] as number)) current = false;
      // 4.
      if (current && load(this.thread.words, tlb.countAt[entry] as number) !== tlb.count[entry]) current = false;
      if (current) {
        this.holdsPage = isPage;
        this.inSection = section;
        if (write && isPage) pages.setModified(frame);
        return frame;
      }
      if (held) pages.release(frame);
      if (section) this.sections.leave();
      tlb.page[entry] = -1;
    }
  }

  /** Step 6. */
  private close(frame: FrameIndex): void {
    if (this.holdsPage) this.pages.release(frame);
    if (this.inSection) this.sections.leave();
    this.inSection = false;
  }

  /** Steps 5 and 6 of a store. */
  private closeWritten(frame: FrameIndex): void {
    if (this.holdsPage) {
      this.pages.setModified(frame);
      this.pages.release(frame);
    }
    this.sections.leave();
    this.inSection = false;
  }

  /** Fills the entry of a page; a page that was found is held, unless it is a hole. Waits; takes the space shared. */
  private fault(page: number, address: number, write: boolean, own: boolean): void {
    const { thread, sections, lock, space, faults } = this;
    const countAt = sections.countAddress(space, page);
    let answer: UserAnswer | null = null;
    for (;;) {
      lock.enterShared();
      let asked: ReturnType<Faults['userSegment']>;
      try {
        this.requireLive();
        const count = load(thread.words, countAt);
        if (faults.resolve(space, address, write, own, answer)) {
          if (faults.kind !== FAULT_KIND.hole) this.tlb.fill(page, faults, countAt, count);
          return;
        }
        asked = faults.userSegment(space, address);
      } finally {
        lock.exitShared();
      }
      answer = faults.askUser(asked, address, write);
    }
  }

  /** Throws `ESTALE` when the space is gone. The caller holds it. */
  requireLive(): void {
    if (this.core.isLive(this.space, this.generation)) return;
    fail('ESTALE', 'access', { space: this.space }, 'the address space was destroyed');
  }

  private pageOfWord(call: string, address: number): number {
    if (!(Number.isSafeInteger(address) && address >= 0 && address % 4 === 0)) {
      failMisuse(call, { address }, 'a word lies at a multiple of 4');
    }
    return Math.floor(address / this.pageSize);
  }

  private wordsOf(frame: FrameIndex): Int32Array {
    const bank = this.banks.bankOf(frame);
    const known = this.bankWords[bank];
    if (known !== undefined) return known;
    const bytes = this.banks.views[bank] as Uint8Array;
    const words = new Int32Array(bytes.buffer);
    this.bankWords[bank] = words;
    return words;
  }

  private wordAt(frame: FrameIndex, inPage: number): number {
    return (this.banks.offsetOf(frame) + inPage) / Int32Array.BYTES_PER_ELEMENT;
  }
}
