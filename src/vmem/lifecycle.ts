/**
 * Creating and destroying arenas.
 *
 * PROBLEM     An arena comes into being, and goes, in several steps under several locks; the thread that does it may be
 *             terminated at any of them, and other threads may be using the arena when it is to go.
 * STRUCTURE   free -> creating -> ready -> destroying -> free
 *             In the two states between, the row names the slot that is at work: whoever recovers that slot dismantles the
 *             row. Destroying begins by raising the generation, after which every handle is stale.
 * INVARIANTS  I1 a row that is free has no tags, no buckets, and a free lock.
 *             I2 an arena that others import from, or that has live allocations, is not destroyed.
 * LOCKING     The registry's lock for the state; the arena's lock for the rest.
 * COSTS       Dismantling is linear in spans; allocations there are none.
 * FAILURE     `ENOMEM` without a row, a name's worth of buckets or tags: nothing is left behind. `EBUSY` says why.
 * REJECTED    Destroying an arena under its users (they would free into somebody else's row).
 * REFERENCES  docs/locking.md: rank `arenaRegistry`.
 */

import { assert, fail, VERIFY } from '../base/index.ts';
import {
  ARENA_BUSY_TAGS,
  ARENA_IDLE_HEAD,
  ARENA_SEGMENT_HEAD,
  PAUSED_KINDS,
  TAG_KIND_AT,
  TAG_SEGMENT_NEXT,
  TAG_SHIFT,
} from '../layout/index.ts';
import { faultPoint, mutexEnter, mutexExit, mutexHeld, RANK } from '../sync/index.ts';
import { createHash, destroyHash } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import type { ArenaCores } from './arena-cores.ts';
import type { ArenaPlan } from './arena-options.ts';
import { clearIndex } from './free-index.ts';
import { freeListRemove } from './free-lists.ts';
import {
  type ArenaIndex,
  FLAG_COMPAT_SEED,
  HEAP_NAME,
  KIND_FREE,
  KIND_SPAN_IMPORTED,
  KIND_SPAN_STATIC,
  STATE_CREATING,
  STATE_DESTROYING,
  STATE_FREE,
  STATE_READY,
} from './kinds.ts';
import {
  CACHED_QUANTA_MAX,
  CACHED_QUANTA_MAX_SEED,
  createQuantumCaches,
  removeQuantumCaches,
} from './quantum-caches.ts';
import { leaveQuarantine } from './quarantine.ts';
import { releaseSpan } from './release.ts';
import { announceSpace } from './space-queue.ts';
import { insertSpan, removeSpan, saveHeader, saveTag } from './spans.ts';
import { makeTagArena, refillReserve, tagArenaRow, trimReserve } from './tag-arena.ts';
import { TAGS_PER_OPERATION } from './tag-pool.ts';
import { returnInFlight } from './transfer.ts';

const NO_ROOM = 'no boundary tags or hash buckets are left; boot with more `tags`';

/** Takes the lock of the list of arenas. */
export function enterRegistry(cores: ArenaCores): void {
  const { thread } = cores;
  mutexEnter(thread, thread.region.tables.tagPool.registryLock.address(0), RANK.arenaRegistry);
}

/** Gives it back. */
export function exitRegistry(cores: ArenaCores): void {
  const { thread } = cores;
  mutexExit(thread, thread.region.tables.tagPool.registryLock.address(0));
}

/** The row of a ready arena with this name, or -1. Under the registry's lock. */
export function findArena(cores: ArenaCores, name: string): ArenaIndex {
  const { arena } = cores.thread.region.tables;
  for (let row = 0; row < arena.rowCount; row++) {
    if (arena.state.get(row) === STATE_READY && arena.name.text(row) === name) return row;
  }
  return -1;
}

/** Makes an arena from checked options. */
export function createArena(cores: ArenaCores, plan: ArenaPlan, sourceGeneration: number): ArenaCore {
  const { thread } = cores;
  const { arena } = thread.region.tables;
  // 1. A row of our own. The first arena brings the one that tags come from.
  enterRegistry(cores);
  if (!makeTagArena(cores)) failClaim(cores, plan, 'ENOMEM', NO_ROOM);
  const row = claimRow(cores, plan, sourceGeneration);
  exitRegistry(cores);
  if (VERIFY) faultPoint(thread, 'vmem.create.claimed');
  // 2. Caches, buckets, tags, the first span.
  if (plan.quantumCacheMax > 0) makeCaches(cores, row, plan);
  const core = cores.at(row);
  core.enterAnyway();
  const made = createHash(core) && (plan.size === 0 || refillReserve(core, TAGS_PER_OPERATION));
  if (made && plan.size !== 0) insertSpan(core, plan.base, plan.size, KIND_SPAN_STATIC);
  core.exit();
  if (!made) {
    dismantle(cores, row);
    fail('ENOMEM', 'arenas.create', { name: plan.name }, NO_ROOM);
  }
  // 3. Others may find it.
  enterRegistry(cores);
  thread.journal.set(arena.state, row, STATE_READY);
  thread.journal.set(arena.actor, row, 0);
  exitRegistry(cores);
  return core;
}

/** Claims the rows of the arena's quantum caches; dismantles the arena when there are too few. */
function makeCaches(cores: ArenaCores, row: ArenaIndex, plan: ArenaPlan): void {
  try {
    const quantaMax = (plan.flags & FLAG_COMPAT_SEED) === 0 ? CACHED_QUANTA_MAX : CACHED_QUANTA_MAX_SEED;
    createQuantumCaches(cores.thread.region, row, plan.quantum, plan.quantumCacheMax, quantaMax);
  } catch (error) {
    dismantle(cores, row);
    throw error;
  }
}

/** Finds a free row and fills in what does not change. Under the registry's lock, which it leaves before it throws. */
function claimRow(cores: ArenaCores, plan: ArenaPlan, sourceGeneration: number): ArenaIndex {
  const { thread } = cores;
  const { arena, arenaState } = thread.region.tables;
  let row = -1;
  const rows = tagArenaRow(thread.region.tables);
  for (let candidate = rows - 1; candidate >= 0; candidate--) {
    if (arena.state.get(candidate) === STATE_FREE) row = candidate;
    else if (arena.name.text(candidate) === plan.name) failClaim(cores, plan, 'EEXIST', 'an arena of this name exists');
  }
  if (row < 0) failClaim(cores, plan, 'ENOMEM', `all ${rows} arenas are taken; boot with more \`arenas\``);
  const source = plan.importArena;
  if (source >= 0) {
    const alive = arena.generation.get(source) === sourceGeneration && arena.state.get(source) === STATE_READY;
    if (!alive) failClaim(cores, plan, 'ESTALE', 'the arena to import from was destroyed');
  }
  // Nobody looks at a free row: plain stores will do until the state changes.
  arena.quantum.put(row, plan.quantum);
  arena.strategy.put(row, plan.strategy);
  arena.flags.put(row, plan.flags);
  arena.importArena.put(row, plan.importArena + 1);
  arena.importCallback.put(row, plan.importCallback + 1);
  arena.importUnit.put(row, plan.importUnit);
  arena.name.putText(row, plan.name);
  fillLife(cores, row, plan);
  const firstWord = arenaState.busyTags.address(row) - ARENA_BUSY_TAGS;
  thread.words.fill(0, firstWord, firstWord + arenaState.busyTags.stride);
  clearIndex(thread, row, plan.strategy);
  // Whoever made a core of the row while it was free read old constants: that core is stale from here on.
  thread.journal.set(arena.generation, row, arena.generation.get(row) + 1);
  thread.journal.set(arena.state, row, STATE_CREATING);
  thread.journal.set(arena.actor, row, thread.tag);
  return row;
}

/** The rows beside the arena's own. */
function fillLife(cores: ArenaCores, row: ArenaIndex, plan: ArenaPlan): void {
  const { arenaLife: life, spanRequest: request } = cores.thread.region.tables;
  life.limit.put(row, plan.limit);
  life.quarantineFrees.put(row, plan.quarantineFrees);
  life.quarantineMs.put(row, plan.quarantineMs);
  life.lowAt.put(row, plan.lowAt);
  life.lowCallback.put(row, plan.lowCallback + 1);
  life.lowTold.put(row, 0);
  life.recording.put(row, 0);
  for (const column of [life.quarantineHead, life.quarantineTail, life.quarantineCount]) column.put(row, 0);
  life.quarantineSize.put(row, 0);
  request.state.put(row, 0);
  request.failures.put(row, 0);
  for (let kind = 0; kind < PAUSED_KINDS; kind++) request.misses.putAt(row, kind, 0);
  request.timeoutMs.put(row, plan.importMs);
}

function failClaim(cores: ArenaCores, plan: ArenaPlan, code: 'EEXIST' | 'ENOMEM' | 'ESTALE', rule: string): never {
  exitRegistry(cores);
  return fail(code, 'arenas.create', { name: plan.name }, rule);
}

/** Throws `ENOTSUP` for the heap, which is the system's: all threads live on it. */
export function requireNotHeap(core: ArenaCore, call: string): void {
  if (core.name !== HEAP_NAME) return;
  fail(
    'ENOTSUP',
    call,
    { arena: core.name },
    'the heap is shared by all; only the system ends it or changes its spans',
  );
}

/** Destroys an arena. Throws `ENOTSUP` for the heap, `EBUSY` while it has allocations or another arena imports from it. */
export function destroyArena(core: ArenaCore): void {
  const { cores, thread, journal } = core;
  const { arena } = core.tables;
  requireNotHeap(core, 'arena.destroy');
  enterRegistry(cores);
  for (let row = 0; row < arena.rowCount; row++) {
    if (arena.state.get(row) === STATE_FREE || arena.importArena.get(row) !== core.row + 1) continue;
    if (core.current) failBusy(core, `arena ${JSON.stringify(arena.name.text(row))} imports from it`);
  }
  try {
    if (!core.current) core.failStale();
    if (core.releases && !core.canRelease) {
      const { name } = cores.callbacks.describe(core.importCallback);
      fail(
        'ENOENT',
        'arena.destroy',
        { arena: core.name },
        `${name}, which takes spans back, is not known in this thread`,
      );
    }
    const why = core.caches?.close() ?? null;
    if (why !== null) failBusy(core, `${why}${countCached(core)}`);
    core.enter();
  } catch (error) {
    if (mutexHeld(thread, core.tables.tagPool.registryLock.address(0))) exitRegistry(cores);
    throw error;
  }
  const busyTags = core.words[core.base + ARENA_BUSY_TAGS] as number;
  if (busyTags !== 0) {
    core.exit();
    core.caches?.reopen();
    failBusy(core, `it has ${busyTags} live allocation${busyTags === 1 ? '' : 's'}`);
  }
  journal.set(arena.state, core.row, STATE_DESTROYING);
  journal.set(arena.actor, core.row, thread.tag);
  journal.set(arena.generation, core.row, core.generation + 1);
  core.exit();
  exitRegistry(cores);
  announceSpace(core);
  if (VERIFY) faultPoint(thread, 'vmem.destroy.started');
  dismantle(cores, core.row);
}

/** How many cached objects users have, for the message. */
function countCached(core: ArenaCore): string {
  let count = 0;
  core.caches?.forEachAllocated(() => {
    count++;
  });
  return count === 0 ? '' : `: ${count}`;
}

function failBusy(core: ArenaCore, why: string): never {
  exitRegistry(core.cores);
  return fail('EBUSY', 'arena.destroy', { arena: core.name }, why);
}

/** Gives back everything that a row in state `creating` or `destroying` has, and frees it. May be repeated. */
export function dismantle(cores: ArenaCores, row: ArenaIndex): void {
  const { thread } = cores;
  const { arena } = thread.region.tables;
  const core = cores.at(row);
  removeQuantumCaches(thread.region, row);
  core.enterAnyway();
  if (core.quarantines) leaveQuarantine(core, true, true);
  while (core.words[core.base + ARENA_SEGMENT_HEAD] !== 0) dropFirstSpan(core);
  destroyHash(core);
  trimReserve(core, 0);
  core.exit();
  enterRegistry(cores);
  // The core used here knows the row's old constants: nobody may find it again under the generation of the next arena.
  thread.journal.set(arena.generation, row, arena.generation.get(row) + 1);
  thread.journal.set(arena.state, row, STATE_FREE);
  thread.journal.set(arena.actor, row, 0);
  exitRegistry(cores);
}

/** Removes the first span, which is free, and returns it to its source. Entered and left with the lock. */
function dropFirstSpan(core: ArenaCore): void {
  const { words, base } = core;
  const span = words[base + ARENA_SEGMENT_HEAD] as number;
  const segment = words[(span << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  const free = words[(segment << TAG_SHIFT) + TAG_KIND_AT] === KIND_FREE;
  assert(free, 'vmem/lifecycle I2: an arena without allocations is one free segment per span');
  saveHeader(core);
  // Spans of an arena that ends are all idle; the list itself is not needed any more.
  words[base + ARENA_IDLE_HEAD] = 0;
  freeListRemove(core, segment);
  saveTag(core, segment);
  if (core.releases && words[(span << TAG_SHIFT) + TAG_KIND_AT] === KIND_SPAN_IMPORTED && core.canRelease) {
    releaseSpan(core, span, segment);
    core.exit();
    returnInFlight(core.cores, core.thread.slot);
    core.enterAnyway();
  } else {
    removeSpan(core, span, segment);
    core.thread.commit();
  }
}
