/**
 * Entries of the mapping cache: which pages are remembered, and who uses them.
 *
 * PROBLEM     Remember the pages that were mapped last, so that they keep their frames, with hits of many threads spread
 *             over several locks; and undo what a thread that ended was using.
 * STRUCTURE   Entry e belongs to list e modulo the number of lists. A list has two queues whose parts change:
 *
 *               take     from the head of   allocate  e5 -> e1 -> e9        when it is empty, the two change parts;
 *               release  to the tail of     release   e13 -> e17            when both are, the next list serves
 *
 *             so that each list gives out what was released longest ago. A miss begins with the list under its slot's
 *             rotor, which moves on by one. A frame names the entry of its page, and the entry names frame, vnode and
 *             index: only both together mean that the page has it.
 * INVARIANTS  I1 an entry is on a queue of its own list iff no slot uses it.   I2 links and ends of queues agree.
 *             I3 this slot's bit of an entry is set iff its private count is not 0.
 * LOCKING     One mutex for each list (RANK.mappingList), never two. The word of a frame is changed by compare and swap.
 *             A releaser looks for sleepers after it left the list; a sleeper says that it wants before it looks at the
 *             lists: one of them sees the other.
 * COSTS       A hit and its release: two lock pairs and about eight journaled stores, as much as in the source.
 * FAILURE     -1 when every list is empty.
 * REJECTED    A lock for each entry and for each queue, as the source has them: three lock pairs for a hit. A count of
 *             users: a dead thread's share could not be taken back.
 * REFERENCES  illumos vm/vpm.c.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import type { VnodeIndex } from '../page/page-hash.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { and, compareExchange, load, or } from '../sync/atomics.ts';
import { Condition } from '../sync/condvar.ts';
import { faultPoint } from '../sync/fault.ts';
import { Mutex, mutexEnter, mutexExit } from '../sync/mutex.ts';
import { RANK } from '../sync/ranks.ts';
import type { SlotIndex, Thread } from '../sync/thread.ts';
import { MAPPING_COUNTER, mappingCountersOf } from './mapping-counters.ts';

/** Number of an entry. */
export type EntryIndex = number & { readonly __unit?: 'mapping entry' };

/** What `take` returns when the page was given an entry by somebody else meanwhile. */
export const ENTRY_RACED = -2;

/** What an entry remembers. */
export interface RememberedPage {
  readonly frame: FrameIndex;
  readonly vnode: VnodeIndex;
  readonly index: number;
}

/** The entries as one thread sees them. */
export class MappingEntries {
  readonly #thread: Thread;
  readonly #list: BoundTables['mappingList'];
  readonly #entry: BoundTables['mappingEntry'];
  readonly #frame: BoundTables['mappingFrame'];
  readonly #slot: BoundTables['mappingSlot'];
  readonly #wanting: BoundTables['mappingCache']['wanting'];
  readonly #waitMutex: Mutex;
  readonly #released: Condition;
  readonly #counters: Float64Array;
  /** How often this thread uses an entry. */
  readonly #depth: Uint32Array;
  readonly #mask: number;
  /** Entries that this thread uses. */
  #using = 0;
  /** What the entry taken last remembered before; frame -1 for nothing. */
  previous: RememberedPage = { frame: -1, vnode: -1, index: -1 };

  constructor(thread: Thread) {
    const { tables } = thread.region;
    this.#thread = thread;
    this.#list = tables.mappingList;
    this.#entry = tables.mappingEntry;
    this.#frame = tables.mappingFrame;
    this.#slot = tables.mappingSlot;
    this.#wanting = tables.mappingCache.wanting;
    this.#waitMutex = new Mutex(thread, tables.mappingCache.waitLock.address(0), RANK.mappingWait);
    this.#released = new Condition(thread, tables.mappingCache.released.address(0));
    this.#counters = mappingCountersOf(thread);
    this.#depth = new Uint32Array(tables.mappingEntry.rowCount);
    this.#mask = tables.mappingList.rowCount - 1;
  }

  /** How often this thread uses an entry. */
  depthOf(entry: EntryIndex): number {
    return this.#depth[entry] as number;
  }

  /** The entry that a frame names, right or wrong, or -1. */
  namedBy(frame: FrameIndex): EntryIndex {
    return load(this.#thread.words, this.#frame.entry.address(frame)) - 1;
  }

  /** Takes a frame's entry away, whatever it is; or only a certain one. */
  forget(frame: FrameIndex, only?: EntryIndex): void {
    const address = this.#frame.entry.address(frame);
    const word = only === undefined ? load(this.#thread.words, address) : only + 1;
    if (word !== 0) compareExchange(this.#thread.words, address, word, 0);
  }

  /** Uses the entry of a page that this thread holds; -1 when it has none. */
  find(frame: FrameIndex, vnode: VnodeIndex, index: number): EntryIndex {
    const entry = this.namedBy(frame);
    if (entry < 0 || (VERIFY && faultPoint(this.#thread, 'vpm.cache.contend'))) return -1;
    const address = this.#enter(entry);
    const mine = this.remembers(entry, frame, vnode, index) && !this.#isStolen(entry);
    if (mine) this.#use(entry);
    mutexExit(this.#thread, address);
    if (mine) return entry;
    this.forget(frame, entry);
    this.#count(MAPPING_COUNTER.steals);
    return -1;
  }

  /**
   * Gives a page that this thread holds an entry, which this thread then uses; `previous` says what the entry remembered.
   * -1 when no list has one, `ENTRY_RACED` when the page was given one meanwhile.
   */
  take(frame: FrameIndex, vnode: VnodeIndex, index: number): EntryIndex {
    const { slot } = this.#thread;
    const rotor = this.#slot.rotor.get(slot);
    this.#slot.rotor.put(slot, rotor + 1);
    return this.#takeFrom(rotor & this.#mask, frame, vnode, index);
  }

  /** Ends one use of an entry; after the last one it goes to the release queue of its list. */
  release(entry: EntryIndex): void {
    const depth = (this.#depth[entry] as number) - 1;
    assert(depth >= 0, 'vpm/mapping-entries I3: an entry is released by a slot that uses it');
    this.#depth[entry] = depth;
    if (depth > 0) return;
    this.#using--;
    const address = this.#enter(entry);
    this.#dropHolder(entry, this.#thread.slot);
    mutexExit(this.#thread, address);
    this.#wake();
  }

  /**
   * Sleeps until some list may have an entry, at most `timeoutMs`; false when the time ran out, and at once when this
   * thread uses all of them. The caller may use entries, but then must be the only one that does so while it waits.
   */
  wait(timeoutMs: number): boolean {
    if (this.#using === this.#entry.rowCount) return false;
    const { words, bitLane, bit } = this.#thread;
    const wanting = this.#wanting.address(0, bitLane);
    this.#waitMutex.enter();
    or(words, wanting, bit);
    try {
      return this.#anyFree() || this.#released.wait(this.#waitMutex, timeoutMs);
    } finally {
      and(words, wanting, ~bit);
      if (this.#waitMutex.held) this.#waitMutex.exit();
    }
  }

  /** True when an entry names this page. */
  remembers(entry: EntryIndex, frame: FrameIndex, vnode: VnodeIndex, index: number): boolean {
    const row = this.#entry;
    return row.frame.get(entry) === frame + 1 && row.vnode.get(entry) === vnode && row.index.get(entry) === index;
  }

  /** What an entry remembers, or null. A look without the lock. */
  pageOf(entry: EntryIndex): RememberedPage | null {
    const row = this.#entry;
    const frame = row.frame.get(entry) - 1;
    return frame < 0 ? null : { frame, vnode: row.vnode.get(entry), index: row.index.get(entry) };
  }

  /** Which queue of a list is taken from, and the entries of both in order. For quiet points. */
  queues(list: number): { readonly allocate: number; readonly queues: readonly EntryIndex[][] } {
    return { allocate: this.#list.allocate.get(list), queues: [this.#walk(list, 0), this.#walk(list, 1)] };
  }

  /** Takes back what a dead slot used, and wakes everybody: it may have died before it woke somebody. */
  recover(dead: SlotIndex): void {
    const lane = dead >>> 5;
    const bit = 1 << (dead & 31);
    for (let entry = 0; entry < this.#entry.rowCount; entry++) {
      if ((this.#entry.holders.at(entry, lane) & bit) === 0) continue;
      const address = this.#enter(entry);
      this.#dropHolder(entry, dead);
      mutexExit(this.#thread, address);
    }
    and(this.#thread.words, this.#wanting.address(0, lane), ~bit);
    this.#waitMutex.enter();
    this.#released.broadcast();
    this.#waitMutex.exit();
  }

  /** Broken invariants. For quiet points. */
  problems(): string[] {
    const problems: string[] = [];
    const queued = new Set<EntryIndex>();
    for (let list = 0; list < this.#list.rowCount; list++) {
      for (const queue of [0, 1]) {
        let before = 0;
        for (const entry of this.#walk(list, queue)) {
          if (queued.has(entry)) problems.push(`vpm/mapping-entries I2: entry ${entry} is queued twice`);
          queued.add(entry);
          if ((entry & this.#mask) !== list || this.#entry.queue.get(entry) !== queue + 1) {
            problems.push(`vpm/mapping-entries I1: entry ${entry} is on queue ${queue} of list ${list}`);
          }
          if (this.#entry.previous.get(entry) !== before) {
            problems.push(`vpm/mapping-entries I2: entry ${entry} points back wrong`);
          }
          before = entry + 1;
        }
        if (this.#list.tail.at(list, queue) !== before) {
          problems.push(`vpm/mapping-entries I2: the tail of queue ${queue} of list ${list}`);
        }
      }
    }
    for (let entry = 0; entry < this.#entry.rowCount; entry++) {
      if (this.#isUsed(entry) === queued.has(entry)) {
        problems.push(`vpm/mapping-entries I1: entry ${entry} is ${queued.has(entry) ? 'queued and used' : 'lost'}`);
      }
    }
    return problems;
  }

  #takeFrom(first: number, frame: FrameIndex, vnode: VnodeIndex, index: number): EntryIndex {
    const thread = this.#thread;
    for (let step = 0; step <= this.#mask; step++) {
      const list = (first + step) & this.#mask;
      const address = this.#list.lock.address(list);
      mutexEnter(thread, address, RANK.mappingList);
      const entry = this.#first(list);
      if (entry < 0) {
        mutexExit(thread, address);
        this.#count(MAPPING_COUNTER.emptyLists);
        continue;
      }
      // From here on the page has this entry for everybody who looks; a death leaves it naming one that is not its own.
      if (compareExchange(thread.words, this.#frame.entry.address(frame), 0, entry + 1) !== 0) {
        mutexExit(thread, address);
        this.#count(MAPPING_COUNTER.contended);
        return ENTRY_RACED;
      }
      if (VERIFY) faultPoint(thread, 'vpm.cache.named');
      this.#unlink(entry);
      const row = this.#entry;
      this.previous = { frame: row.frame.get(entry) - 1, vnode: row.vnode.get(entry), index: row.index.get(entry) };
      const { journal } = thread;
      journal.set(row.frame, entry, frame + 1);
      journal.set(row.vnode, entry, vnode);
      journal.set(row.index, entry, index);
      this.#use(entry);
      mutexExit(thread, address);
      if (VERIFY) faultPoint(thread, 'vpm.cache.taken');
      return entry;
    }
    return -1;
  }

  /** Under the list's lock: the entry that comes next, or -1; the queues change parts when one of them is empty. */
  #first(list: number): EntryIndex {
    const allocate = this.#list.allocate.get(list);
    const head = this.#list.head.at(list, allocate);
    if (head !== 0) return head - 1;
    const released = this.#list.head.at(list, 1 - allocate);
    if (released !== 0) this.#thread.journal.set(this.#list.allocate, list, 1 - allocate);
    return released - 1;
  }

  /** Under the list's lock: one more use by this slot. */
  #use(entry: EntryIndex): void {
    const depth = this.#depth[entry] as number;
    if (depth === 0) {
      const { bitLane, bit, journal } = this.#thread;
      if (this.#entry.queue.get(entry) !== 0) this.#unlink(entry);
      journal.setAt(this.#entry.holders, entry, bitLane, this.#entry.holders.at(entry, bitLane) | bit);
      this.#using++;
    }
    this.#depth[entry] = depth + 1;
  }

  /** Under the list's lock: a slot does not use the entry any more. */
  #dropHolder(entry: EntryIndex, slot: SlotIndex): void {
    const { journal } = this.#thread;
    const lane = slot >>> 5;
    const holders = this.#entry.holders.at(entry, lane) & ~(1 << (slot & 31));
    journal.setAt(this.#entry.holders, entry, lane, holders);
    if (this.#isUsed(entry)) return;
    const list = entry & this.#mask;
    const queue = 1 - this.#list.allocate.get(list);
    const last = this.#list.tail.at(list, queue);
    journal.set(this.#entry.queue, entry, queue + 1);
    journal.set(this.#entry.previous, entry, last);
    journal.set(this.#entry.next, entry, 0);
    if (last === 0) journal.setAt(this.#list.head, list, queue, entry + 1);
    else journal.set(this.#entry.next, last - 1, entry + 1);
    journal.setAt(this.#list.tail, list, queue, entry + 1);
  }

  #unlink(entry: EntryIndex): void {
    const { journal } = this.#thread;
    const { next, previous, queue } = this.#entry;
    const list = entry & this.#mask;
    const lane = queue.get(entry) - 1;
    assert(lane >= 0, 'vpm/mapping-entries I1: an entry that is taken is on a queue');
    const after = next.get(entry);
    const before = previous.get(entry);
    if (before === 0) journal.setAt(this.#list.head, list, lane, after);
    else journal.set(next, before - 1, after);
    if (after === 0) journal.setAt(this.#list.tail, list, lane, before);
    else journal.set(previous, after - 1, before);
    journal.set(queue, entry, 0);
  }

  /** For tests: an entry that nobody uses counts as stolen now and then. */
  #isStolen(entry: EntryIndex): boolean {
    return VERIFY && !this.#isUsed(entry) && faultPoint(this.#thread, 'vpm.cache.steal');
  }

  #isUsed(entry: EntryIndex): boolean {
    const { slotLanes } = this.#thread.region.geometry;
    for (let lane = 0; lane < slotLanes; lane++) {
      if (this.#entry.holders.at(entry, lane) !== 0) return true;
    }
    return false;
  }

  #anyFree(): boolean {
    for (let list = 0; list <= this.#mask; list++) {
      const address = this.#list.lock.address(list);
      mutexEnter(this.#thread, address, RANK.mappingList);
      const found = this.#list.head.at(list, 0) !== 0 || this.#list.head.at(list, 1) !== 0;
      mutexExit(this.#thread, address);
      if (found) return true;
    }
    return false;
  }

  /** Wakes those who wait, if anybody does. */
  #wake(): void {
    const { words } = this.#thread;
    const { slotLanes } = this.#thread.region.geometry;
    for (let lane = 0; lane < slotLanes; lane++) {
      if (load(words, this.#wanting.address(0, lane)) === 0) continue;
      this.#waitMutex.enter();
      this.#released.broadcast();
      this.#waitMutex.exit();
      return;
    }
  }

  #walk(list: number, queue: number): EntryIndex[] {
    const entries: EntryIndex[] = [];
    for (let link = this.#list.head.at(list, queue); link !== 0 && entries.length <= this.#entry.rowCount; ) {
      entries.push(link - 1);
      link = this.#entry.next.get(link - 1);
    }
    return entries;
  }

  #enter(entry: EntryIndex): number {
    const address = this.#list.lock.address(entry & this.#mask);
    mutexEnter(this.#thread, address, RANK.mappingList);
    return address;
  }

  #count(lane: number): void {
    this.#counters[lane] = (this.#counters[lane] as number) + 1;
  }
}
