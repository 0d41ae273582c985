/**
 * The system as one thread sees it: all rooms over one region.
 *
 * PROBLEM     A thread needs one object that knows the region, its slot and every room, and that others can be brought to.
 * STRUCTURE   boot -> VirtualMemory of the booting thread -> handle() -> attach(handle) in any other thread. Rooms are made
 *             in the order of their dependence; each brings a recoverer.
 * INVARIANTS  I1 one object per attachment, and it is used by its own thread only.  I2 after `detach` nothing works.
 * LOCKING     None of its own.
 * COSTS       Attaching claims a slot and makes a few hundred views: about a millisecond.
 * FAILURE     `ENOMEM` without a free slot; `EBUSY` for a detach that would leave locks behind.
 * REJECTED    One object for all threads behind a proxy: every call would then cross threads.
 * REFERENCES  docs/glossary.md: handle, slot, watch.
 */

import { MessageChannel, type Transferable, Worker, type WorkerOptions } from 'node:worker_threads';
import { type CheckReport, fail, onInvariantBroken, VmError } from '../base/index.ts';
import type { Region } from '../layout/index.ts';
import { checkPages, checkReplacement, Pages, recoverPages } from '../page/index.ts';
import { type Banks, Frames, PageLists } from '../phys/index.ts';
import { DeviceMaps, Pmem } from '../pmem/index.ts';
import {
  type AddressSpace,
  type AddressSpaceId,
  type AddressSpaceOptions,
  PagelockCache,
  type SharedMemory,
  type SharedMemoryId,
  type SharedMemoryOptions,
  Spaces,
} from '../seg/index.ts';
import {
  type Attachment,
  Callbacks,
  type Clock,
  chargeTo,
  finishTakeover,
  Locks,
  newWatchId,
  type OwnerIndex,
  type OwnerLimitChanges,
  type OwnerLimits,
  ownerOf,
  poisonReason,
  poisonRegion,
  registerOwner,
  releaseSlot,
  removeOwner,
  type SlotIndex,
  type SlotRecoverer,
  setOwnerLimits,
  type TakeoverReport,
  Thread,
  takeOver,
} from '../sync/index.ts';
import { type Arena, type ArenaOptions, Arenas } from '../vmem/index.ts';
import {
  IoRequests,
  type OpenOptions,
  type ProviderOptions,
  recoverIo,
  recoverVnodes,
  Vnodes,
} from '../vnode/index.ts';
import {
  type AsyncOptions,
  CachedMappings,
  type File,
  type MemoryOptions,
  openFile,
  openFileAsync,
  openMemory,
  openProvided,
  openProvidedAsync,
  openRemote,
  openRemoteAsync,
  PageMappings,
  type RemoteOptions,
  recoverMappings,
} from '../vpm/index.ts';
import { frameGauges } from './frame-gauges.ts';
import type { AdoptMessage, Handle, Watch } from './handle.ts';
import { HEAP, registerHeap } from './heap.ts';
import { closeFiles, requireNothingHeld } from './leaving.ts';
import { ListPressure } from './list-pressure.ts';
import { ownerUses } from './owner-uses.ts';
import { PageRoom } from './page-room.ts';
import { Pagedaemon, recoverPagedaemon } from './pagedaemon.ts';
import type { WatchRequest } from './service-messages.ts';
import { readSystem, type SystemStatistics } from './system-statistics.ts';
import { keepPort } from './watch.ts';
import { registerReclaimers, setStores, writeBackLargePages } from './wiring.ts';
import { workerArguments } from './worker-arguments.ts';

/** Where this thread sends ports for the monitor: the monitor itself, or this thread's own watched port. */
export interface MonitorLink {
  postMessage(message: WatchRequest, transfer: readonly Transferable[]): void;
}

/** Options of `spawn`: those of `Worker`; `workerData` must be an object, to which `vm` is added. */
export interface SpawnOptions extends WorkerOptions {
  readonly workerData?: Record<string, unknown>;
}

/** One thread's attachment to a system. Made by `boot` and `attach`. */
export class VirtualMemory {
  readonly region: Region;
  readonly banks: Banks;
  readonly thread: Thread;
  readonly callbacks: Callbacks;
  /** Locks of programs, by name. */
  readonly locks: Locks;
  readonly arenas: Arenas;
  readonly frames: Frames;
  /** Frames that meet constraints: contiguous, aligned, inside a window. */
  readonly pageLists: PageLists;
  readonly pages: Pages;
  /** Frames that stay where they are, in cookies. */
  readonly pmem: Pmem;
  /** Which part of which cookie a mapping of a device shows. */
  readonly deviceMaps: DeviceMaps;
  readonly vnodes: Vnodes;
  /** What this thread asks of the I/O workers. */
  readonly io: IoRequests;
  readonly mappings: PageMappings;
  /** Mappings as the original source makes them; see vpm/cached-mappings.ts. `ENOTSUP` unless booted with them. */
  readonly cachedMappings: CachedMappings;
  /** The cache of ranges whose pages stay locked; see seg/pagelock-cache.ts. */
  readonly pagelock: PagelockCache;
  /** Frees frames in time, and in order; see pagedaemon.ts. */
  readonly pagedaemon: Pagedaemon;
  /** Address spaces; see seg/spaces.ts. */
  readonly spaces: Spaces;
  /** Gives back, in this order, what a dead slot owned in each room. */
  readonly recoverers: readonly SlotRecoverer[];
  #monitor: MonitorLink | null;
  #detached = false;
  #onDetach: (() => void)[] = [];
  readonly #forgetInvariants: () => void;

  /** For `boot` and `attach`, which have claimed the slot. */
  constructor(region: Region, banks: Banks, slot: SlotIndex, monitor: MonitorLink | null) {
    this.region = region;
    this.banks = banks;
    this.thread = new Thread(region, slot);
    this.callbacks = new Callbacks(region);
    this.locks = new Locks(this.thread);
    this.arenas = new Arenas(this.thread, this.callbacks);
    this.frames = new Frames(this.thread);
    this.pageLists = new PageLists(this.frames);
    this.pages = new Pages(this.thread, this.frames, banks);
    this.pmem = new Pmem(this.thread, banks, this.pageLists, this.callbacks);
    this.deviceMaps = new DeviceMaps(this.thread);
    this.vnodes = new Vnodes(this.thread, this.pages, banks);
    this.io = new IoRequests(this.thread);
    setStores(this);
    this.mappings = new PageMappings(this.thread, banks, this.pages, this.vnodes);
    this.cachedMappings = new CachedMappings(this.thread, banks, this.frames, this.pages.holds, this.vnodes);
    this.pagelock = new PagelockCache(this.thread, this.callbacks, frameGauges(this.frames));
    this.spaces = new Spaces(this);
    registerHeap(this.callbacks, this.frames, banks.pageSize);
    this.pagedaemon = new Pagedaemon(this.thread, this.frames, this.pages, this.vnodes);
    registerReclaimers(this);
    this.pageLists.setPressure(new ListPressure(this.frames, this.pages, this.vnodes, this.pmem.pressure()));
    this.recoverers = [
      (_self, dead) => this.locks.recover(dead),
      recoverIo,
      (_self, dead) => this.arenas.recover(dead),
      recoverPages,
      (_self, dead) => this.cachedMappings.recover(dead),
      recoverVnodes,
      recoverMappings,
      (_self, dead) => this.pmem.recover(dead),
      (_self, dead) => this.pagelock.recover(dead),
      (_self, dead) => this.spaces.recover(dead),
      (_self, dead) => this.frames.recover(dead),
      recoverPagedaemon,
    ];
    this.frames.onShortage(() => this.pagedaemon.giveSpares());
    this.frames.room.set(new PageRoom(this.pages, this.vnodes));
    this.frames.onMemoryChange({
      removing: (first, count) => {
        this.pagelock.disable();
        writeBackLargePages(this, first, count);
      },
      removed: () => this.pagelock.enable(),
    });
    this.#monitor = monitor;
    // Whoever catches the error: a region with a broken structure stops.
    this.#forgetInvariants = onInvariantBroken((error) => poisonRegion(region, error.message));
  }

  /** This thread's slot. */
  get slot(): SlotIndex {
    return this.thread.slot;
  }

  /** What this thread's allocations bear: see `Arena.allocations` and `Arena.freeOf`. */
  get attachment(): Attachment {
    return this.thread.attachment;
  }

  /** The system's time. */
  get clock(): Clock {
    return this.thread.clock;
  }

  /** The arena of memory that all threads can reach: its addresses are physical. See heap.ts. */
  get heap(): Arena {
    return this.arenas.open(HEAP);
  }

  /**
   * Opens a regular file through the page cache; see `OpenOptions` for writing. Throws `ENOENT`, `EEXIST`, `EACCES`,
   * `EINVAL`, `EIO`, `ENOMEM`.
   */
  open(path: string, options?: OpenOptions): File {
    this.#requireAttached('open');
    return openFile(this, path, options);
  }

  /** Like `open`, without blocking the thread; `signal` ends the wait. See `openFileAsync`. */
  openAsync(path: string, options?: OpenOptions & AsyncOptions): Promise<File> {
    this.#requireAttached('openAsync');
    return openFileAsync(this, path, options);
  }

  /** Opens, or makes, a memory vnode of a name; see `openMemory`. */
  openMemory(name: string, options?: MemoryOptions): File {
    this.#requireAttached('openMemory');
    return openMemory(this, name, options);
  }

  /** Opens a resource behind HTTP or HTTPS for reading, waiting for it; see `openRemote`. */
  openRemote(url: string, options?: RemoteOptions): File {
    this.#requireAttached('openRemote');
    return openRemote(this, url, options);
  }

  /** Like `openRemote`, without blocking the thread. */
  openRemoteAsync(url: string, options?: RemoteOptions & AsyncOptions): Promise<File> {
    this.#requireAttached('openRemoteAsync');
    return openRemoteAsync(this, url, options);
  }

  /** Opens a vnode of a user's own kind: a module and an export that bring and take pages; see `VnodeProvider`. */
  openProvided(options: ProviderOptions): File {
    this.#requireAttached('openProvided');
    return openProvided(this, options);
  }

  /** Like `openProvided`, without waiting for a provider that is asynchronous. */
  openProvidedAsync(options: ProviderOptions & AsyncOptions): Promise<File> {
    this.#requireAttached('openProvidedAsync');
    return openProvidedAsync(this, options);
  }

  /** A handle for any number of threads: pass it on and call `attach` there. Watched on Linux only; see `spawn`. */
  handle(): Handle {
    this.#requireAttached('handle');
    return { pagewright: 'handle', region: this.region.buffer, memories: this.banks.memories };
  }

  /**
   * Starts a worker that finds a watched handle in `workerData.vm`: its end is noticed within milliseconds, and what it
   * held goes back. Throws `ENOTSUP` in a thread that is not watched itself.
   */
  spawn(url: string | URL, options: SpawnOptions = {}): Worker {
    const { handle, transfer } = this.#watchedHandle('spawn');
    const workerData = { ...options.workerData, vm: handle };
    const transferList = [...(options.transferList ?? []), transfer];
    return new Worker(url, { execArgv: workerArguments(), ...options, workerData, transferList });
  }

  /**
   * Posts a watched handle to a running worker, for example of a pool. There, `await adopted()` or
   * `attach(message)` in a message handler takes it.
   */
  adopt(worker: { postMessage(message: unknown, transfer: readonly Transferable[]): void }): void {
    const { handle, transfer } = this.#watchedHandle('adopt');
    const message: AdoptMessage = { pagewright: 'adopt', handle };
    worker.postMessage(message, [transfer]);
  }

  /** Takes a watched handle after attaching with a plain one: from now on this thread's end is noticed. */
  acceptWatch(watch: Watch): void {
    const { claim } = this.region.tables.slot;
    claim.put(this.slot, watch.id);
    keepPort(watch.port);
    this.#monitor = watch.port;
  }

  /** Makes an arena that every thread can open by its name; see `Arenas.create`. */
  createArena(name: string, options: ArenaOptions = {}): Arena {
    this.#requireAttached('createArena');
    return this.arenas.create(name, options);
  }

  /** Makes an address space, or opens the one of an `id` of another thread; see seg/address-space.ts. */
  addressSpace(options: AddressSpaceOptions | AddressSpaceId = {}): AddressSpace {
    this.#requireAttached('addressSpace');
    return this.spaces.openOrCreate(options);
  }

  /** Makes anonymous memory that address spaces can share, or opens that of an `id`; it stays until it is released. */
  sharedMemory(options: SharedMemoryOptions | SharedMemoryId): SharedMemory {
    this.#requireAttached('sharedMemory');
    return this.spaces.shared.openOrCreate(options);
  }

  /**
   * Makes an owner: a part of the program with limits of its own. What threads use is charged to owner 0, `default`, unless
   * they call `chargeTo`; `statistics().owners` has every owner's use. Throws `EEXIST`, `ENOMEM`, `EINVAL`.
   */
  createOwner(name: string, limits: OwnerLimits = {}): OwnerIndex {
    this.#requireAttached('createOwner');
    return registerOwner(this.thread, name, limits);
  }

  /** New limits of an owner, from now on; null: none. What is charged stays, also above them. Throws `ENOENT`, `EINVAL`. */
  setOwnerLimits(owner: OwnerIndex | string, limits: OwnerLimitChanges): void {
    this.#requireAttached('setOwnerLimits');
    setOwnerLimits(this.thread, owner, limits);
    this.arenas.limitsChanged();
    this.frames.core.limitsChanged();
  }

  /** Ends an owner. Throws `EBUSY` and says why: something is charged to it, or somebody charges it. `ENOENT`, `EINVAL`. */
  removeOwner(owner: OwnerIndex | string): void {
    this.#requireAttached('removeOwner');
    removeOwner(this.thread, owner, ownerUses(this));
  }

  /** The owner that this thread charges: another thread may `chargeTo` it as well. */
  get owner(): OwnerIndex {
    return ownerOf(this.thread);
  }

  /**
   * Says whom this thread charges from now on, by number or name. What it has stays charged to whom it was, and goes back to
   * them whoever frees it. Throws `ENOENT` for a name that no owner has, `EINVAL` for a number.
   */
  chargeTo(owner: OwnerIndex | string): void {
    this.#requireAttached('chargeTo');
    chargeTo(this.thread, owner);
    this.mappings.settleCharge();
  }

  /** The arena of a name. Throws `ENOENT`. */
  arena(name: string): Arena {
    this.#requireAttached('arena');
    return this.arenas.open(name);
  }

  /** Cleans up after a slot whose thread has ended: what the services do. For systems booted with `services: 'manual'`. */
  recover(slot: SlotIndex, watchId?: number): TakeoverReport | null {
    this.#requireAttached('recover');
    return takeOver(this.thread, slot, this.recoverers, watchId);
  }

  /** Gives back what a slot owned whose locks are free already: the daemon's part of `recover`. */
  finishRecovery(slot: SlotIndex): void {
    finishTakeover(this.thread, slot, this.recoverers);
  }

  /** Checks every structure; an empty list of problems everywhere means sound. Call it at quiet points. */
  check(): CheckReport[] {
    this.#requireAttached('check');
    return [
      this.locks.check(),
      ...this.arenas.check(),
      this.frames.check(),
      this.pmem.check(),
      checkPages(this.thread),
      checkReplacement(this.thread),
      this.vnodes.check(),
      this.cachedMappings.check(),
      this.pagelock.check(),
      this.spaces.check(),
    ];
  }

  /** Slots and owners as they are now. */
  statistics(): SystemStatistics {
    return readSystem(this);
  }

  /** Why the system has stopped, or null while it is sound. */
  get poisoned(): string | null {
    return poisonReason(this.region);
  }

  /** Runs at `detach`, newest first: for descriptors and other private things. */
  onDetach(release: () => void): void {
    this.#onDetach.push(release);
  }

  /**
   * Leaves the system: closes files, gives the slot back. Throws `EBUSY` while this thread holds locks, mappings, pins or
   * pages, and says which; when modified pages could not be written back, it has left all the same, and throws that error.
   */
  detach(): void {
    if (this.#detached) return;
    if (this.thread.heldCount !== 0) {
      const { slot } = this;
      fail('EBUSY', 'detach', { slot, locksHeld: this.thread.heldCount }, 'a thread that holds locks cannot detach');
    }
    let failure: unknown;
    if (poisonReason(this.region) === null) {
      this.spaces.leave();
      requireNothingHeld(this);
      this.arenas.leave();
      this.locks.leave();
      failure = closeFiles(this);
    } else {
      this.vnodes.closeDescriptors();
    }
    this.spaces.swap.close();
    for (const release of this.#onDetach.reverse()) release();
    this.#onDetach = [];
    this.frames.settle();
    if (poisonReason(this.region) === null) this.frames.caches.drainOne(this.slot);
    releaseSlot(this.thread);
    this.thread.end();
    this.#forgetInvariants();
    this.#detached = true;
    if (failure !== undefined) throw failure;
  }

  /** Same as `detach`. */
  [Symbol.dispose](): void {
    this.detach();
  }

  #watchedHandle(call: string): { handle: Handle; transfer: Transferable } {
    this.#requireAttached(call);
    if (this.#monitor === null) {
      throw new VmError('ENOTSUP', `${call}: this thread has no link to a monitor; use handle() and attach() instead`);
    }
    const { port1, port2 } = new MessageChannel();
    const id = newWatchId(this.region);
    this.#monitor.postMessage({ watch: id, port: port2 }, [port2]);
    return { handle: { ...this.handle(), watch: { id, port: port1 } }, transfer: port1 };
  }

  #requireAttached(call: string): void {
    if (this.#detached) throw new VmError('ESTALE', `${call}: this thread has detached`);
  }
}
