/**
 * Address spaces as users see them.
 *
 * PROBLEM     One range of addresses over files, anonymous memory, shared memory and devices, for all threads at once, with
 *             copies of it at an instant and parts of it that stay where they are.
 * STRUCTURE   An object of one thread over the shared space:
 *
 *               map                        options -> room -> segment, in one transaction
 *               unmap, protect, advise     space-changes.ts        fork    space-fork.ts
 *               read, write, words         space-access.ts         pin     space-pins.ts
 *
 * INVARIANTS  I1 the object is good for one space: when that is destroyed, every call says `ESTALE`, also if its row is taken again.
 * LOCKING     See space-core.ts and space-changes.ts.
 * COSTS       Making the object: a table of translations, 120 KiB.
 * FAILURE     `EFAULT`, `EINVAL`, `ENOMEM`, `EEXIST`, `EBUSY`, `ESTALE`.
 * REJECTED    Several ranges to a segment; spaces that span systems.
 * REFERENCES  illumos vm_as.c.
 */

import { fail, failMisuse, isPowerOfTwo, requireInteger } from '../base/index.ts';
import type { CancelToken, RwLock } from '../sync/index.ts';
import type { Arena } from '../vmem/index.ts';
import { type PinWaitAsync, whenUnpinned } from './async-changes.ts';
import { pinWhenThere } from './async-pins.ts';
import { type RemapOptions, remapDevice } from './device-remap.ts';
import { type MapOptions, type MapPlan, planMap } from './map-options.ts';
import { MapSetUp } from './map-set-up.ts';
import type { SpacePin } from './pin-pieces.ts';
import { allocPlain } from './plain-segments.ts';
import { SpaceAccess } from './space-access.ts';
import { SpaceAdvice } from './space-advice.ts';
import {
  newBytes,
  type PinWaitGiven,
  pinWaitOf,
  rejectMore,
  requireBytes,
  requireCookie,
  requireOptions,
  requirePin,
  requireRange,
  requireWord,
} from './space-arguments.ts';
import { SpaceChanges } from './space-changes.ts';
import { CURSOR_PAGES_MAX, type CursorOptions, SpaceCursor } from './space-cursor.ts';
import { dumpSpace, type SegmentInfo, segmentInfo } from './space-dump.ts';
import { type Advice, type Protection, type SegmentIndex, SPACE_STATE, type SpaceIndex } from './space-kinds.ts';
import { SpacePins } from './space-pins.ts';
import type { SpaceParts } from './spaces.ts';
import type { UserPart } from './user-drivers.ts';

/** What asynchronous calls, which have waited before, wait for pins. */
const AT_ONCE: PinWaitGiven = { timeoutMs: 0 };

/** What another thread needs to find the same space: can be posted. */
export interface AddressSpaceId {
  readonly space: SpaceIndex;
  readonly generation: number;
}

/** Options of calls that may meet pins. */
export interface PinWait {
  /** Milliseconds to wait until the range is not pinned any more. Default 0: `EBUSY`. */
  readonly timeoutMs?: number;
  /** Ends the wait with `ECANCELED`, from any thread. */
  readonly cancel?: CancelToken;
}

/** One thread's view of an address space. Made by `vm.addressSpace`. */
export class AddressSpace {
  /** For `vm.addressSpace` in another thread. */
  readonly id: AddressSpaceId;
  private readonly parts: SpaceParts;
  private readonly space: SpaceIndex;
  private readonly lock: RwLock;
  private readonly access: SpaceAccess;
  private readonly changes: SpaceChanges;
  private readonly pins: SpacePins;
  private readonly advice: SpaceAdvice;

  /** For `Spaces`. */
  constructor(parts: SpaceParts, space: SpaceIndex) {
    const { core, sections, faults, rooms, shadows, charge } = parts;
    this.parts = parts;
    this.space = space;
    this.id = { space, generation: core.spaces.generation.get(space) };
    this.lock = core.lockOf(space);
    this.access = new SpaceAccess(core, space, sections, faults, rooms.pages, rooms.banks);
    this.changes = new SpaceChanges(parts, space, this.access);
    const tree = parts.segments.tree;
    this.pins = new SpacePins(core, space, tree, this.access, shadows, rooms, charge);
    this.advice = new SpaceAdvice(parts, space, this.access, this.changes);
  }

  /** Bytes that are mapped. */
  get size(): number {
    return this.parts.core.spaces.size.get(this.space);
  }

  /** Maps something and returns its address. Throws `ENOMEM`, `EEXIST`, `EBUSY`, `EINVAL`; then nothing has changed. */
  map(options: MapOptions): number {
    const { core, room } = this.parts;
    const plan = planMap(options, core.pageSize);
    const arena = room.open('as.map', this.space, this.id.generation);
    const setUp = new MapSetUp(this.parts, this.space, plan);
    // Whoever maps with a driver by name has registered it.
    if (options.driver !== undefined) this.parts.drivers.tellCommon();
    if (plan.address >= 0 && plan.replace) this.cut('as.map', arena, plan.address, plan.address + plan.size, plan);
    this.lock.enterExclusive();
    try {
      this.access.requireLive('as.map');
      room.begin(this.space, arena);
      const address = this.place(arena, plan);
      try {
        const segment = this.parts.segments.attach(this.space, address, plan.size, plan.guard, setUp);
        if (segment < 0) fail('EEXIST', 'as.map', { address, size: plan.size }, 'something is mapped there');
      } catch (error) {
        arena.xfree(address - plan.guard, plan.size + 2 * plan.guard);
        throw error;
      }
      return address;
    } catch (error) {
      setUp.discard();
      throw error;
    } finally {
      room.end();
      this.lock.exitExclusive();
    }
  }

  /** Unmaps all that lies in a range; what is not mapped is skipped. Throws `EBUSY` or `ETIMEDOUT` while a part is pinned. */
  unmap(address: number, size: number, options: PinWait = {}): void {
    const [start, end] = this.pageRange('as.unmap', address, size);
    this.unmapNow('as.unmap', start, end, pinWaitOf('as.unmap', options));
  }

  /** `unmap` that leaves the event loop free while a part is pinned. Rejects with `ETIMEDOUT`, `ECANCELED` and others. */
  async unmapAsync(address: number, size: number, options: PinWaitAsync = {}): Promise<void> {
    const [start, end] = this.pageRange('as.unmapAsync', address, size);
    await this.whenUnpinned('as.unmapAsync', start, end, options, () =>
      this.unmapNow('as.unmapAsync', start, end, AT_ONCE),
    );
  }

  /** Changes what a range may be used for. Throws `EFAULT` for a gap, `EINVAL` above `maxProtection`, `EBUSY` for pins. */
  protect(address: number, size: number, protection: Protection, options: PinWait = {}): void {
    const [start, end] = this.pageRange('as.protect', address, size);
    this.protectNow('as.protect', start, end, protection, pinWaitOf('as.protect', options));
  }

  /** `protect`, likewise. */
  async protectAsync(address: number, size: number, protection: Protection, options: PinWaitAsync = {}): Promise<void> {
    const [start, end] = this.pageRange('as.protectAsync', address, size);
    const attempt = () => this.protectNow('as.protectAsync', start, end, protection, AT_ONCE);
    await this.whenUnpinned('as.protectAsync', start, end, options, attempt);
  }

  /**
   * Says how a range will be used: `'willNeed'` brings it in, `'free'` gives private anonymous pages up: they read as zeros
   * then; pinned ones stay. `'dontNeed'` writes modified pages of files back. The others are remembered for drivers.
   */
  advise(address: number, size: number, advice: Advice, ...more: readonly never[]): void {
    rejectMore('as.advise', more);
    const [start, end] = this.pageRange('as.advise', address, size);
    this.advice.advise(start, end, advice);
  }

  /** Writes what was stored into shared mappings of files back, and makes it durable. Throws `EIO` and others. */
  sync(address: number, size: number, ...more: readonly never[]): void {
    rejectMore('as.sync', more);
    const [start, end] = this.pageRange('as.sync', address, size);
    this.advice.sync(start, end);
  }

  /**
   * Shows another part of a cookie, or another cookie, in the device segment at an address: in every segment that shows the same
   * device map, of forks too. Throws `ENOTSUP` for other segments, `EINVAL` for a cookie that is too short or was freed, `EBUSY`
   * or `ETIMEDOUT` while one of them is pinned; then nothing has changed.
   */
  remap(address: number, options: RemapOptions): void {
    requireRange('as.remap', address, 0);
    requireOptions('as.remap', options, ['cookie', 'offset', 'timeoutMs']);
    requireCookie('as.remap', this.parts.rooms.pmem, options.cookie);
    remapDevice(this.parts, this.space, this.changes, address, options);
  }

  /** What is mapped at an address, or null. Logarithmic in the number of segments. */
  lookup(address: number): SegmentInfo | null {
    requireInteger('as.lookup', 'address', address, 0, Number.MAX_SAFE_INTEGER);
    this.lock.enterShared();
    try {
      this.access.requireLive('as.lookup');
      const segment = this.parts.segments.tree.find(this.space, address);
      return segment < 0 ? null : segmentInfo(this.parts.core, segment);
    } finally {
      this.lock.exitShared();
    }
  }

  /** Reads bytes into a new array. */
  read(address: number, length: number): Uint8Array;
  /** Fills an array with the bytes from an address on. */
  read(address: number, target: Uint8Array): Uint8Array;
  read(address: number, into: number | Uint8Array): Uint8Array {
    if (typeof into === 'number') requireInteger('as.read', 'length', into, 0, 2 ** 32);
    else requireBytes('as.read', 'target', into);
    requireRange('as.read', address, typeof into === 'number' ? into : into.length);
    const target = typeof into === 'number' ? newBytes('as.read', into) : into;
    this.access.read(address, target, 0, target.length);
    return target;
  }

  /**
   * Writes bytes. A fork sees of each page all that one call stores there, or nothing. Throws `EFAULT`, with nothing stored, when a
   * part of the range is not mapped, not to be written, or behind the end of its file. What lies before may be stored when a part
   * goes during the call, when there is no memory for a page (`ENOMEM`), or when a driver of users refuses one. The same for `fill`.
   */
  write(address: number, bytes: Uint8Array): void {
    requireBytes('as.write', 'bytes', bytes);
    requireRange('as.write', address, bytes.length);
    this.access.write(address, bytes, 0, bytes.length);
  }

  /** Fills a range with one byte. */
  fill(address: number, value: number, length: number): void {
    requireRange('as.fill', address, length);
    requireInteger('as.fill', 'value', value, 0, 255);
    this.access.fill(address, value, length);
  }

  /** Reads the 32-bit word at an address that is a multiple of 4. Sequentially consistent, like the following. */
  load(address: number): number {
    return this.access.load(address);
  }

  /** Stores a 32-bit word. */
  store(address: number, value: number): void {
    requireWord('as.store', value);
    this.access.store(address, value);
  }

  /** Adds to a 32-bit word; returns what was there. */
  add(address: number, value: number): number {
    requireWord('as.add', value);
    return this.access.add(address, value);
  }

  /** Replaces a 32-bit word that holds `expected`; returns what was there. */
  compareAndSwap(address: number, expected: number, value: number): number {
    requireWord('as.compareAndSwap', expected);
    requireWord('as.compareAndSwap', value);
    return this.access.compareAndSwap(address, expected, value);
  }

  /**
   * Keeps a range where it is until the pin is released, for example for WebAssembly, native code or a socket. The pin's views
   * show the space's own bytes; to store through them, pin for `'write'`. Counts against `lockedFrames` of the owner.
   */
  pin(address: number, length: number, access: 'read' | 'write', ...more: readonly never[]): SpacePin {
    rejectMore('as.pin', more);
    requirePin('as.pin', address, length, access);
    return this.pins.pin(address, length, access === 'write');
  }

  /**
   * `pin` that leaves the event loop free while pages come in and while others change the space. Rejects with what `pin` throws,
   * `ETIMEDOUT`, `ECANCELED`; then nothing is pinned. A pin that comes is released like any other.
   */
  async pinAsync(
    address: number,
    length: number,
    access: 'read' | 'write',
    options: PinWaitAsync = {},
  ): Promise<SpacePin> {
    requirePin('as.pinAsync', address, length, access);
    return pinWhenThere(this.parts, this.pins, this.id, { address, length, write: access === 'write' }, options);
  }

  /**
   * A cursor for words that are used again and again: it keeps up to `pages` pages (a power of two, 64 unless told) where they
   * are until they are replaced in its table, or it is released. Pages that it keeps are neither evicted nor moved.
   */
  cursor(options: CursorOptions = {}): SpaceCursor {
    requireOptions('as.cursor', options, ['pages']);
    const { pages = 64 } = options;
    const { core, spaces, rooms, sections } = this.parts;
    if (!(Number.isInteger(pages) && pages <= CURSOR_PAGES_MAX && isPowerOfTwo(pages)))
      failMisuse('as.cursor', { pages }, `a power of two up to ${CURSOR_PAGES_MAX}`);
    const { access, space } = this;
    const { words } = core.thread;
    const { bankWords } = access;
    return spaces.openCursor((released) => {
      const { pageSize } = core;
      const parts = { access, sections, known: rooms.pages.known, words, bankWords, space, pageSize, released };
      return new SpaceCursor(parts, pages);
    });
  }

  /** A copy of the space as it is at one instant during the call. Its price does not grow with what is mapped. */
  fork(...more: readonly never[]): AddressSpace {
    rejectMore('as.fork', more);
    const { fork, spaces } = this.parts;
    return spaces.bind(fork.fork(this.space, this.access, (child) => spaces.takeApart(child)));
  }

  /**
   * Unmaps everything and ends the space, for all threads. Throws `EBUSY` or `ETIMEDOUT` while a part is pinned; what a file or a
   * driver of users threw first, when all were told and the space is gone.
   */
  destroy(options: PinWait = {}): void {
    this.destroyNow('as.destroy', pinWaitOf('as.destroy', options));
  }

  /** `destroy`, likewise. */
  async destroyAsync(options: PinWaitAsync = {}): Promise<void> {
    await this.whenUnpinned('as.destroyAsync', 0, Number.MAX_SAFE_INTEGER, options, () =>
      this.destroyNow('as.destroyAsync', AT_ONCE),
    );
  }

  /** Moves what private mappings have reserved to another owner. Throws `EBUSY` when segments are charged together with others. */
  changeOwner(owner: number): void {
    const { region } = this.parts.core.thread;
    requireInteger('as.changeOwner', 'owner', owner, 0, region.tables.owner.rowCount - 1);
    this.changes.begin('as.changeOwner', 0, 0, 0);
    try {
      this.changes.changeOwner(owner);
    } finally {
      this.changes.end();
    }
  }

  /** The segments in the order of addresses. */
  segments(): SegmentInfo[] {
    this.lock.enterShared();
    try {
      this.access.requireLive('as.segments');
      return this.parts.segments.tree.list(this.space).map((segment) => segmentInfo(this.parts.core, segment));
    } finally {
      this.lock.exitShared();
    }
  }

  /** All segments as text, one a line. */
  dump(): string {
    return dumpSpace(this.id, this.segments());
  }

  /**
   * A segment without a driver, as the original allocates them: rounded to pages; -1 when the range is not inside the space,
   * touches its hole, ends above the user limit, or meets another segment. `isStatic`: only the last is looked at.
   */
  allocSegment(base: number, size: number, isStatic = false): SegmentIndex {
    return allocPlain(this.parts, this.id, this.access, base, size, isStatic);
  }

  /** Copies of segments cannot be told what to inherit: `ENOTSUP`, as in the original. */
  inherit(_address: number, _size: number): never {
    return fail('ENOTSUP', 'as.inherit', { ...this.id }, 'no driver supports it');
  }

  private unmapNow(call: string, start: number, end: number, wait: PinWaitGiven): void {
    this.cut(call, this.parts.room.open(call, this.space, this.id.generation), start, end, wait);
  }

  private protectNow(call: string, start: number, end: number, protection: Protection, wait: PinWaitGiven): void {
    if (!['none', 'read', 'write'].includes(protection)) failMisuse(call, { protection }, "'none', 'read', 'write'");
    this.changes.begin(call, start, end, wait.timeoutMs, wait.cancel);
    try {
      this.changes.protectRange(call, start, end, protection);
    } finally {
      this.changes.end();
    }
  }

  private destroyNow(call: string, { timeoutMs, cancel }: PinWaitGiven): void {
    const { core, spaces } = this.parts;
    const { slots, thread } = core;
    this.changes.begin(call, 0, Number.MAX_SAFE_INTEGER, timeoutMs, cancel);
    const failure = this.advice.writeLast(0, Number.MAX_SAFE_INTEGER);
    core.lock.enter();
    thread.journal.set(core.spaces.state, this.space, SPACE_STATE.unsettled);
    thread.journal.set(slots.unsettled, thread.slot, this.space + 1);
    core.lock.exit();
    this.changes.end();
    const [told] = spaces.takeApart(this.space);
    if (failure !== undefined || told !== undefined) throw failure ?? told;
  }

  /** Steps of an unmapping. */
  private cut(call: string, arena: Arena, start: number, end: number, { timeoutMs, cancel }: PinWaitGiven): void {
    const told: UserPart[] = [];
    this.changes.begin(call, start, end, timeoutMs, cancel);
    let failure: unknown;
    try {
      failure = this.advice.writeLast(start, end);
      this.changes.cutRange(arena, start, end, told);
    } finally {
      this.changes.end();
    }
    this.changes.finish();
    this.parts.drivers.tellDue(told);
    if (failure !== undefined) throw failure;
  }

  private whenUnpinned(
    call: string,
    start: number,
    end: number,
    options: PinWaitAsync,
    attempt: () => void,
  ): Promise<void> {
    return whenUnpinned(this.parts.core, this.changes, { call, start, end }, options, attempt);
  }

  /** Where a new segment lies; its room is taken. */
  private place(arena: Arena, plan: MapPlan): number {
    const { room } = this.parts;
    const { address, size, guard, align, min, max } = plan;
    if (address < 0) {
      const found = room.take(arena, { size, guard, align, min, max });
      return found < 0 ? room.failNoRoom('as.map', { size, guard, align, min, max }) : found;
    }
    this.requireInside(address, size);
    if (room.reserve(arena, address - guard, address + size + guard)) return address;
    return fail('EEXIST', 'as.map', { address, size, guard }, 'something is mapped there, or in the guard gaps');
  }

  private requireInside(address: number, size: number): void {
    const { spaces } = this.parts.core;
    const base = spaces.base.get(this.space);
    const limit = Math.min(spaces.limit.get(this.space), spaces.userLimit.get(this.space));
    if (address >= base && address + size <= limit) return;
    failMisuse('as.map', { address, size, base, limit }, 'the range must lie inside the space');
  }

  private pageRange(call: string, address: number, size: number): [number, number] {
    const { pageSize } = this.parts.core;
    requireRange(call, address, size);
    if (size === 0) failMisuse(call, { address, size }, 'a range has at least a byte');
    if (address % pageSize !== 0) failMisuse(call, { address, pageSize }, 'the address is a multiple of the page size');
    return [address, Math.ceil((address + size) / pageSize) * pageSize];
  }
}
