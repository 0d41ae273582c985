/**
 * All arenas of a system, as one thread sees them.
 *
 * Arenas live in shared memory: one that a thread creates can be opened by name in every other.
 */

import { type CheckReport, fail, failMisuse, rejectUnknownOptions, VmError } from '../base/index.ts';
import type { Callbacks, SlotIndex, Thread } from '../sync/index.ts';
import { requireSignal } from '../sync/mutex-async.ts';
import { type AddressReport, Arena } from './arena.ts';
import type { ArenaCore } from './arena-core.ts';
import { ArenaCores, type PressureListener } from './arena-cores.ts';
import { type ArenaOptions, planArena } from './arena-options.ts';
import { failAddress, requireFunction, requireOptions } from './arguments.ts';
import { checkArena } from './check.ts';
import { type ArenaIndex, isSystemName, STATE_READY, TAGS_NAME } from './kinds.ts';
import { createArena, enterRegistry, exitRegistry, findArena } from './lifecycle.ts';
import { releaseParked } from './quantum-caches.ts';
import { listRecordings, type RecordingReport } from './recorder.ts';
import { recoverArenas } from './recover.ts';
import { announceLimits, checkQueue, recoverQueue } from './space-queue.ts';
import { abandonImports, serveImports } from './span-service.ts';
import { type ArenaStatistics, readStatistics } from './statistics.ts';
import { checkTagPool, tagArenaRow, tagPoolUse } from './tag-arena.ts';

/** What `Arenas.stats` says. */
export interface ArenasStatistics {
  /** Boundary tags that there can be. */
  readonly tags: number;
  /** Those that no arena has. */
  readonly unusedTags: number;
  /** Those that `vm.tags`, the arena that tags come from, has for itself. */
  readonly ownTags: number;
  /** By arena; the last is `vm.tags`. */
  readonly arenas: readonly ArenaStatistics[];
}

/** See the file's header. One per attached thread. */
export class Arenas {
  readonly #cores: ArenaCores;
  readonly #handles: (Arena | undefined)[] = [];

  constructor(thread: Thread, callbacks: Callbacks) {
    this.#cores = new ArenaCores(thread, callbacks);
  }

  /**
   * Makes an arena. Throws `EINVAL`, `EEXIST`, `ENOMEM` or (for a destroyed source) `ESTALE`, and leaves nothing behind. Names
   * that begin with `vm.` are the system's: `EINVAL`.
   */
  create(name: string, options: ArenaOptions = {}): Arena {
    if (typeof name === 'string' && isSystemName(name)) {
      failMisuse('arenas.create', { name }, 'names that begin with `vm.` are for arenas of the system');
    }
    return this.createForSystem(name, options);
  }

  /** The same for rooms of the system, whose arenas have names that programs cannot give, and tags that are kept for them. */
  createForSystem(name: string, options: ArenaOptions = {}): Arena {
    const plan = planArena(name, options, this.#cores.callbacks);
    const from = options.import?.from;
    const core = createArena(this.#cores, plan, from instanceof Arena ? from.generation : 0);
    return this.#handle(core.row);
  }

  /** The arena of a name or a row. Throws `ENOENT`, and `ENOTSUP` for that of boundary tags, which nobody else may use. */
  open(nameOrIndex: string | ArenaIndex): Arena {
    const { arena } = this.#cores.thread.region.tables;
    if (typeof nameOrIndex !== 'string' && typeof nameOrIndex !== 'number') {
      failMisuse('arenas.open', { arena: nameOrIndex }, 'pass a name or an index');
    }
    if (nameOrIndex === TAGS_NAME || nameOrIndex === tagArenaRow(this.#cores.thread.region.tables)) {
      fail(
        'ENOTSUP',
        'arenas.open',
        { arena: nameOrIndex },
        'boundary tags are the system’s; `arenas.stats` counts them',
      );
    }
    enterRegistry(this.#cores);
    const row = typeof nameOrIndex === 'string' ? findArena(this.#cores, nameOrIndex) : nameOrIndex;
    const found = row >= 0 && row < arena.rowCount && arena.state.get(row) === STATE_READY;
    const handle = found ? this.#handle(row) : null;
    exitRegistry(this.#cores);
    if (handle === null) fail('ENOENT', 'arenas.open', { arena: nameOrIndex }, 'no such arena');
    return handle;
  }

  /** True when there is an arena of this name. */
  has(name: string): boolean {
    enterRegistry(this.#cores);
    const row = findArena(this.#cores, name);
    exitRegistry(this.#cores);
    return row >= 0;
  }

  /** Destroys an arena; see `Arena.destroy`. */
  destroy(arena: Arena | string | ArenaIndex): void {
    (arena instanceof Arena ? arena : this.open(arena)).destroy();
  }

  /** All arenas but that of boundary tags, in the order of their rows. */
  list(): Arena[] {
    const { arena } = this.#cores.thread.region.tables;
    enterRegistry(this.#cores);
    const arenas: Arena[] = [];
    const end = tagArenaRow(this.#cores.thread.region.tables);
    for (let row = 0; row < end; row++) if (arena.state.get(row) === STATE_READY) arenas.push(this.#handle(row));
    exitRegistry(this.#cores);
    return arenas;
  }

  /** What an address is in every arena that knows it. */
  whatis(address: number): AddressReport[] {
    if (!Number.isSafeInteger(address) || address < 0) failAddress('*', 'arenas.whatis', address);
    return this.#each((arena) => arena.whatis(address)).filter((report) => report !== null);
  }

  /** Checks every arena, and what they share. */
  check(): CheckReport[] {
    const { spaceWaiters, tags } = this.#cores.thread.region.geometry;
    const tagArena = this.#tagArena();
    return [
      ...this.#each((arena) => arena.check()),
      ...(tagArena === null ? [] : [checkArena(tagArena)]),
      { structure: 'vmem/tag-pool', checked: tags, problems: checkTagPool(this.#cores) },
      { structure: 'vmem/space-queue', checked: spaceWaiters, problems: checkQueue(this.#cores.thread) },
    ];
  }

  /** Numbers of every arena, and of the boundary tags that they share. */
  stats(): ArenasStatistics {
    const { tags, unused, own } = tagPoolUse(this.#cores);
    const tagArena = this.#tagArena();
    const arenas = this.#each((arena) => arena.stats());
    if (tagArena !== null) arenas.push(readStatistics(tagArena));
    return { tags, unusedTags: unused, ownTags: own, arenas };
  }

  /** Puts what this thread has cached back into the arenas. */
  drain(): void {
    this.#each((arena) => arena.drain());
  }

  /** For a thread that detaches: the same, and what it waits for or imports for others is left to them. */
  leave(): void {
    const { thread } = this.#cores;
    this.drain();
    releaseParked(thread, thread.slot);
    abandonImports(this.#cores, thread.slot);
    recoverQueue(thread, thread.slot);
  }

  /**
   * Runs the import functions of asynchronous sources for threads that are blocked in `allocWait` or lack the function: those
   * that this thread has. Resolves when the signal is aborted, the thread detaches, or the system is shut down; rejects with
   * `EPOISONED` when the system stops because it is broken. The daemon does it for functions of modules; call it in a thread
   * whose event loop is free for names that it has registered.
   */
  async serveImports(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    requireOptions('arenas.serveImports', options);
    rejectUnknownOptions('arenas.serveImports', options, ['signal']);
    requireSignal('arenas.serveImports', options.signal);
    await serveImports(this.#cores, options.signal);
  }

  /**
   * Calls back, with the arena's name and the size, before a request of this thread that found no space waits: the listener
   * may free something. Returns a function that ends it.
   */
  onPressure(listener: PressureListener): () => void {
    requireFunction('arenas.onPressure', 'listener', listener);
    this.#cores.pressureListeners.add(listener);
    return () => this.#cores.pressureListeners.delete(listener);
  }

  /** Has everybody look again who waits for space: a limit of an owner has changed. */
  limitsChanged(): void {
    announceLimits(this.#cores.thread);
  }

  /** Recordings that are under way, in whichever thread: see `Arena.record`. */
  recordings(): RecordingReport[] {
    return listRecordings(this.#cores);
  }

  /** Gives back what a dead slot had in flight, and ends arenas that it was creating or destroying. */
  recover(dead: SlotIndex): void {
    recoverArenas(this.#cores, dead);
  }

  /** What `look` finds in each arena. Those that somebody destroys meanwhile are left out. */
  #each<Found>(look: (arena: Arena) => Found): Found[] {
    const found: Found[] = [];
    for (const arena of this.list()) {
      try {
        found.push(look(arena));
      } catch (error) {
        if (!(error instanceof VmError) || error.code !== 'ESTALE') throw error;
      }
    }
    return found;
  }

  /** The arena of boundary tags, which comes with the first other one. */
  #tagArena(): ArenaCore | null {
    const { tables } = this.#cores.thread.region;
    const row = tagArenaRow(tables);
    return tables.arena.state.get(row) === STATE_READY ? this.#cores.at(row) : null;
  }

  #handle(row: ArenaIndex): Arena {
    const core = this.#cores.at(row);
    const known = this.#handles[row];
    if (known !== undefined && known.generation === core.generation) return known;
    const handle = new Arena(core);
    this.#handles[row] = handle;
    return handle;
  }
}
