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
 *               5 copy; to read, compare the count again: if it is another one, back to 1   6 take the bit and the section back
 *
 *             Step 3 keeps the page in its frame. Step 4 comes behind it: if the count is the same, the translation was right
 *             at that moment. A store must be over before a change is: the section. What was read counts if the count is still
 *             the same behind it: else the page may have been left to a fork, whose stores are not this space's.
 * INVARIANTS  I1 between steps 4 and 6 of a store, and of a load that counts, the translation is current.   I2 a store marks its
 *             page as modified before and after.
 * LOCKING     None on a hit. A fault takes the space shared.
 * COSTS       A hit to read: five atomic operations; to write: eight.
 * FAILURE     `EFAULT` names call, address and rule. The whole range is looked at first: only when somebody unmaps or protects a
 *             part of it meanwhile, when memory is short, or when a driver of users refuses, what lies before has been moved.
 * REJECTED    A section for reads of pages: their page lock does. No page lock inside sections: eviction would have to wait
 *             for all of them.
 * REFERENCES  write-sections.ts for the proof; software MMUs of emulators (QEMU's softmmu TLB).
 */

import { fail } from '../base/errors.ts';
import { VERIFY } from '../base/verify.ts';
import type { KnownPages, Pages, VnodeIndex } from '../page/index.ts';
import type { Banks, FrameIndex } from '../phys/index.ts';
import { add, compareExchange, faultPoint, load, type RwLock, store, type Thread } from '../sync/index.ts';
import { namedError } from '../vpm/named-errors.ts';
import { FAULT_KIND, type Faults, type UserAnswer } from './faults.ts';
import { SoftTlb, tlbEntry } from './soft-tlb.ts';
import { failWord } from './space-arguments.ts';
import type { SpaceCore } from './space-core.ts';
import type { SpaceIndex } from './space-kinds.ts';
import type { WriteSections } from './write-sections.ts';

/** Bytes of a word. */
const WORD = Int32Array.BYTES_PER_ELEMENT;
const INVERSE_WORD = 1 / WORD;

/** Accesses of one thread to one space. `call`: who asks, for errors. */
export class SpaceAccess {
  private readonly core: SpaceCore;
  private readonly thread: Thread;
  private readonly words: Int32Array;
  private readonly space: SpaceIndex;
  private readonly generation: number;
  private readonly lock: RwLock;
  private readonly sections: WriteSections;
  private readonly faults: Faults;
  private readonly pages: Pages;
  private readonly known: KnownPages;
  private readonly tlb: SoftTlb;
  private readonly anonVnode: VnodeIndex;
  private readonly pageSize: number;
  private readonly inversePageSize: number;
  private readonly bankBytes: readonly Uint8Array[];
  /** The last range that was found to be accessible, and the count of changes that goes with that. */
  private readonly checked = { from: 0, to: 0, write: false, countAt: 0, count: 0 };
  /** The last call that said which range it asks for. */
  private readonly asked = { call: '', address: 0, length: 0 };
  /** The words of each bank. */
  readonly bankWords: readonly Int32Array[];

  constructor(core: SpaceCore, space: SpaceIndex, sections: WriteSections, faults: Faults, pages: Pages, banks: Banks) {
    this.core = core;
    this.thread = core.thread;
    this.words = core.thread.words;
    this.space = space;
    this.generation = core.spaces.generation.get(space);
    this.lock = core.lockOf(space);
    this.sections = sections;
    this.faults = faults;
    this.pages = pages;
    this.known = pages.known;
    this.tlb = new SoftTlb(banks);
    this.anonVnode = core.control.anonVnode.get(0) - 1;
    this.pageSize = core.pageSize;
    this.inversePageSize = 1 / core.pageSize;
    this.bankBytes = banks.views;
    this.bankWords = banks.views.map((bytes) => new Int32Array(bytes.buffer));
  }

  /** Says which call asks for which range from here on, for errors. */
  asking(call: string, address: number, length: number): void {
    const { asked } = this;
    asked.call = call;
    asked.address = address;
    asked.length = length;
  }

  /** Copies bytes of the space into an array. */
  read(address: number, target: Uint8Array, at: number, length: number): void {
    const { tlb } = this;
    this.asking('as.read', address, length);
    this.requireRange('as.read', address, length, false);
    for (let done = 0; done < length; ) {
      const where = address + done;
      const page = Math.floor(where * this.inversePageSize);
      const inPage = where - page * this.pageSize;
      const bytes = Math.min(this.pageSize - inPage, length - done);
      const entry = this.open(page, where, false, 'as.read');
      if (entry < 0) target.fill(0, at + done, at + done + bytes);
      else {
        const offset = (tlb.wordAt[entry] as number) * WORD + inPage;
        const from = this.bankBytes[tlb.bank[entry] as number] as Uint8Array;
        target.set(from.subarray(offset, offset + bytes), at + done);
        const counts = this.isCurrent(entry);
        this.close(entry);
        if (!counts) continue;
      }
      done += bytes;
    }
  }

  /** Copies bytes of an array into the space. */
  write(address: number, source: Uint8Array, at: number, length: number): void {
    const { tlb } = this;
    this.asking('as.write', address, length);
    this.requireRange('as.write', address, length, true);
    for (let done = 0; done < length; ) {
      const where = address + done;
      const page = Math.floor(where * this.inversePageSize);
      const inPage = where - page * this.pageSize;
      const bytes = Math.min(this.pageSize - inPage, length - done);
      const entry = this.open(page, where, true, 'as.write');
      const whole = bytes === source.length ? source : source.subarray(at + done, at + done + bytes);
      const offset = (tlb.wordAt[entry] as number) * WORD + inPage;
      (this.bankBytes[tlb.bank[entry] as number] as Uint8Array).set(whole, offset);
      this.closeWritten(entry);
      done += bytes;
    }
  }

  /** Fills a range with one byte. */
  fill(address: number, value: number, length: number): void {
    const { tlb } = this;
    this.asking('as.fill', address, length);
    this.requireRange('as.fill', address, length, true);
    for (let done = 0; done < length; ) {
      const where = address + done;
      const page = Math.floor(where * this.inversePageSize);
      const inPage = where - page * this.pageSize;
      const bytes = Math.min(this.pageSize - inPage, length - done);
      const entry = this.open(page, where, true, 'as.fill');
      const offset = (tlb.wordAt[entry] as number) * WORD + inPage;
      (this.bankBytes[tlb.bank[entry] as number] as Uint8Array).fill(value, offset, offset + bytes);
      this.closeWritten(entry);
      done += bytes;
    }
  }

  /** Reads the aligned word at an address at once. */
  load(address: number, call = 'as.load'): number {
    const { tlb } = this;
    if (typeof address !== 'number') failWord(call, address);
    const page = Math.floor(address * this.inversePageSize);
    const word = (address - page * this.pageSize) * INVERSE_WORD;
    if (word !== (word | 0)) failWord(call, address);
    for (;;) {
      const entry = this.open(page, address, false, call);
      if (entry < 0) return 0;
      const words = this.bankWords[tlb.bank[entry] as number] as Int32Array;
      const value = load(words, (tlb.wordAt[entry] as number) + word);
      const counts = this.isCurrent(entry);
      this.close(entry);
      if (counts) return value;
    }
  }

  /** Stores the aligned word at an address at once. */
  store(address: number, value: number, call = 'as.store'): void {
    const entry = this.openWord(call, address);
    store(this.wordsOf(entry), this.wordAt(entry, address), value);
    this.closeWritten(entry);
  }

  /** Adds to the aligned word at an address; returns what was there. */
  add(address: number, value: number, call = 'as.add'): number {
    const entry = this.openWord(call, address);
    const found = add(this.wordsOf(entry), this.wordAt(entry, address), value);
    this.closeWritten(entry);
    return found;
  }

  /** Replaces the aligned word at an address when it holds `expected`; returns what was there. */
  compareAndSwap(address: number, expected: number, value: number, call = 'as.compareAndSwap'): number {
    const entry = this.openWord(call, address);
    const found = compareExchange(this.wordsOf(entry), this.wordAt(entry, address), expected, value);
    this.closeWritten(entry);
    return found;
  }

  /** Brings the page at an address in, to read. */
  touch(address: number, call: string): void {
    const entry = this.open(Math.floor(address / this.pageSize), address, false, call);
    if (entry >= 0) this.close(entry);
  }

  /** Brings the page at an address in as a pin needs it: this space's own, if it is not shared. Holds it; -1: no page lock. */
  lockPage(address: number, write: boolean, call: string): FrameIndex {
    const page = Math.floor(address / this.pageSize);
    this.fault(page, address, write, true, call);
    const { kind, frame } = this.faults;
    return kind === FAULT_KIND.page ? frame : -1 - frame;
  }

  /** Runs `act`, in which a page that would have to be waited for throws `PageMissing`. */
  impatiently<Result>(act: () => Result): Result {
    const { faults } = this;
    faults.mayWait = false;
    try {
      return act();
    } finally {
      faults.mayWait = true;
    }
  }

  /** Brings pages in as a pin needs them; nobody holds them afterwards. No pages: waits until nobody has the space alone. */
  bring(address: number, pages: number, write: boolean, call: string): void {
    if (pages === 0) {
      this.lock.enterShared();
      this.lock.exitShared();
    }
    for (let page = 0; page < pages; page++) {
      const frame = this.lockPage(address + page * this.pageSize, write, call);
      if (frame >= 0) this.pages.release(frame);
    }
  }

  /** What `keep` has found. */
  readonly kept = { frame: -1, bank: 0, wordAt: 0, countAt: 0, count: 0, ofFile: false };

  /** Holds the page at an address for a cursor, and fills `kept`; false for a hole, or a frame without identity. */
  keep(page: number, address: number, write: boolean, call: string): boolean {
    const { tlb, kept, faults } = this;
    const entry = tlbEntry(page);
    for (;;) {
      const isKnown = tlb.page[entry] === page && (!write || tlb.writable[entry] !== 0);
      if (!isKnown) {
        this.fault(page, address, write, false, call);
        if (faults.kind === FAULT_KIND.hole) return false;
        if (faults.kind === FAULT_KIND.page) this.pages.release(faults.frame);
      }
      const vnode = tlb.vnode[entry] as number;
      if (vnode < 0) return false;
      kept.frame = tlb.frame[entry] as number;
      if (this.known.hold(kept.frame, vnode, tlb.index[entry] as number)) {
        kept.bank = tlb.bank[entry] as number;
        kept.wordAt = tlb.wordAt[entry] as number;
        kept.countAt = tlb.countAt[entry] as number;
        kept.count = tlb.count[entry] as number;
        kept.ofFile = vnode !== this.anonVnode;
        if (load(this.words, kept.countAt) === kept.count) return true;
        this.known.release(kept.frame);
      }
      tlb.drop(entry);
    }
  }

  /** The entry of a page, kept still until `close`; -1 for a hole that is read. Steps 1 to 4. */
  private open(page: number, address: number, write: boolean, call: string): number {
    const { tlb } = this;
    const entry = tlbEntry(page);
    // 1.
    if (tlb.page[entry] === page && (!write || tlb.writable[entry] !== 0) && this.enter(entry, write)) return entry;
    return this.openSlow(page, address, write, call);
  }

  /** Steps 2 to 4: false when the translation is no longer current. */
  private enter(entry: number, write: boolean): boolean {
    const { tlb } = this;
    const frame = tlb.frame[entry] as number;
    const vnode = tlb.vnode[entry] as number;
    const isPage = vnode >= 0;
    // 2.
    const section = write || !isPage;
    if (section) this.sections.enter(this.space);
    if (VERIFY && write) faultPoint(this.thread, 'seg.write.entered');
    // 3.
    if (!isPage || this.known.hold(frame, vnode, tlb.index[entry] as number)) {
      // 4.
      if (load(this.words, tlb.countAt[entry] as number) === tlb.count[entry]) {
        if (write && isPage) this.known.prepare(frame);
        return true;
      }
      if (isPage) this.known.release(frame);
    }
    if (section) this.sections.leave();
    return false;
  }

  /** True while the translation of an entry is the one that there is. */
  private isCurrent(entry: number): boolean {
    return load(this.words, this.tlb.countAt[entry] as number) === this.tlb.count[entry];
  }

  /** Faults until the translation that came of it can be used. */
  private openSlow(page: number, address: number, write: boolean, call: string): number {
    const { tlb, pages, faults } = this;
    const entry = tlbEntry(page);
    for (;;) {
      this.fault(page, address, write, false, call);
      if (faults.kind === FAULT_KIND.hole) return -1;
      if (faults.kind === FAULT_KIND.page) pages.release(faults.frame);
      if (this.enter(entry, write)) return entry;
      tlb.drop(entry);
    }
  }

  /** Step 6. */
  private close(entry: number): void {
    const { tlb } = this;
    if ((tlb.vnode[entry] as number) >= 0) this.known.release(tlb.frame[entry] as number);
    else this.sections.leave();
  }

  /** Steps 5 and 6 of a store. */
  private closeWritten(entry: number): void {
    const { tlb } = this;
    if ((tlb.vnode[entry] as number) >= 0) {
      const frame = tlb.frame[entry] as number;
      this.known.finish(frame);
      this.known.release(frame);
    }
    this.sections.leave();
  }

  /** Fills the entry of a page; a page that was found is held, unless it is a hole. Waits; takes the space shared. */
  private fault(page: number, address: number, write: boolean, own: boolean, call: string): void {
    const { thread, sections, lock, space, faults } = this;
    faults.call = call;
    const countAt = sections.countAddress(space, page);
    let answer: UserAnswer | null = null;
    for (;;) {
      lock.enterShared();
      let asked: ReturnType<Faults['userSegment']>;
      try {
        this.requireLive(call);
        const count = load(thread.words, countAt);
        if (faults.resolve(space, address, write, own, answer)) {
          if (faults.kind !== FAULT_KIND.hole) this.tlb.fill(page, faults, countAt, count);
          return;
        }
        asked = faults.userSegment(space, address);
      } catch (error) {
        throw this.named(call, address, error);
      } finally {
        lock.exitShared();
      }
      answer = faults.askUser(asked, address, write);
      faults.call = call;
    }
  }

  /**
   * Throws unless every page of a range may be accessed, so that a range which ends outside moves no byte. What changes between
   * here and the access is still found page by page. Remembers what it saw until the space changes: then it costs a load.
   */
  private requireRange(call: string, address: number, length: number, write: boolean): void {
    const { pageSize, checked, words, lock, faults, sections, space } = this;
    // One page: the access itself looks.
    const page = Math.floor(address * this.inversePageSize);
    const end = address + length;
    if (end <= (page + 1) * pageSize) return;
    if (
      address >= checked.from &&
      end <= checked.to &&
      (checked.write || !write) &&
      load(words, checked.countAt) === checked.count
    )
      return;
    const countAt = sections.countAddress(space, page);
    faults.call = call;
    lock.enterShared();
    try {
      this.requireLive(call);
      const count = load(words, countAt);
      if (faults.requireRange(space, address, end, write)) {
        checked.from = address;
        checked.to = end;
        checked.write = write;
        checked.countAt = countAt;
        checked.count = count;
      }
    } finally {
      lock.exitShared();
    }
  }

  /** What went wrong below, with the call and its range: a page that did not come says only where it was to come from. */
  private named(call: string, address: number, error: unknown): unknown {
    const { asked } = this;
    const place = asked.call === call ? { address: asked.address, length: asked.length } : { address };
    return namedError(call, error, place);
  }

  /** Throws `ESTALE` when the space is gone. The caller holds it. */
  requireLive(call: string): void {
    if (this.core.isLive(this.space, this.generation)) return;
    fail('ESTALE', call, { space: this.space }, 'the address space was destroyed');
  }

  /** `open` for a store of a word. */
  private openWord(call: string, address: number): number {
    if (typeof address !== 'number') failWord(call, address);
    const page = Math.floor(address * this.inversePageSize);
    const word = (address - page * this.pageSize) * INVERSE_WORD;
    if (word !== (word | 0)) failWord(call, address);
    return this.open(page, address, true, call);
  }

  private wordsOf(entry: number): Int32Array {
    return this.bankWords[this.tlb.bank[entry] as number] as Int32Array;
  }

  private wordAt(entry: number, address: number): number {
    const inPage = address - Math.floor(address * this.inversePageSize) * this.pageSize;
    return (this.tlb.wordAt[entry] as number) + inPage * INVERSE_WORD;
  }
}
