/**
 * Where boundary tags come from: an arena whose own tags are among those that it gives out.
 *
 * PROBLEM     The table of tags has room for more than most systems will need. What is in use of it has to be known, and
 *             has to grow and shrink with the load, while every arena asks with its lock held, this one included.
 * STRUCTURE   `vm.tags`, the arena of the last row, has one span: the rows of the table behind chunk 0. Its allocations are
 *             chunks, and each is in the pool (tag-chunks.ts):
 *
 *               arena's reserve is used up -> the pool -> the pool is empty -> a chunk of `vm.tags` -> the pool -> reserve
 *               arena's reserve is too long -> the pool -> chunks that are all free, but for one, go back to `vm.tags`
 *
 *             `vm.tags` itself takes its tags from a reserve that is set aside, and that the chunk which it gives out fills
 *             up again in the same section, before anybody else has tags of it: so it never waits for itself, and asking
 *             goes one step deep. Its first tags are those of chunk 0. It fills up OWN_BATCH tags at a time, because a chunk
 *             that holds tags of `vm.tags` cannot go back.
 * INVARIANTS  I1 a chunk is in the pool exactly when it is chunk 0 or allocated in `vm.tags`.
 *             I2 whoever finds the lock of `vm.tags` free finds OWN_LEAST tags in its reserve: more than an allocation needs.
 * LOCKING     The lock of `vm.tags` has a rank of its own behind that of all other arenas, then the pool's. A chunk comes, or
 *             goes, in one section under both: allocation, pool and reserve are committed together.
 * COSTS       A chunk is up to 1024 tags. Rows that were never used take no memory: nothing here touches them.
 * FAILURE     `refillReserve` returns false when all chunks are out, or what is left is kept for the system: the operation
 *             fails with ENOMEM and changes nothing.
 * REJECTED    Asking without the arena's lock, as the source does: others change the arena meanwhile, and each caller would
 *             have to begin again. Letting programs have the arena: they could free chunks that are in use.
 * REFERENCES  Bonwick and Adams 2001, section 4.3; docs/differences.md.
 */

import { assert, VERIFY } from '../base/index.ts';
import {
  ARENA_BUCKET_COUNT,
  ARENA_MAPS_STALE,
  ARENA_SEGMENT_HEAD,
  ARENA_SPARE_COUNT,
  ARENA_SPARE_HEAD,
  type BoundTables,
  TAG_SEGMENT_NEXT,
  TAG_SHIFT,
} from '../layout/index.ts';
import { faultPoint, mutexEnter, mutexExit, RANK, type Thread } from '../sync/index.ts';
import { createHash, hashFind, hashNeedsCare, maintainHash } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import type { ArenaCores } from './arena-cores.ts';
import { carve, NO_IMPORTER } from './carve.ts';
import { rebuildMaps } from './free-lists.ts';
import { type ArenaIndex, KIND_SPAN_STATIC, STATE_READY, STRATEGY_INSTANT, TAGS_NAME } from './kinds.ts';
import { freeTagNow } from './release.ts';
import { findSegment } from './search.ts';
import { announceLimits } from './space-queue.ts';
import { insertSpan } from './spans.ts';
import {
  checkChunks,
  chunkRows,
  closeChunk,
  countTags,
  countUnused,
  linkRows,
  openChunk,
  openFirstChunk,
} from './tag-chunks.ts';
import {
  enterPool,
  exitPool,
  giveToPool,
  RESERVE_KEPT,
  RESERVE_MAX,
  TAGS_PER_OPERATION,
  tagsLeft,
  takeFromPool,
} from './tag-pool.ts';

/** Tags that `vm.tags` has in reserve at least. */
const OWN_LEAST = 4;

/** Tags that it takes of a chunk when it has fewer. */
const OWN_BATCH = 64;

/** Chunks that stay in the pool although all of their tags are free: a load that comes and goes moves none. */
const WHOLE_KEPT = 1;

/** Row of the arena of tags. */
export function tagArenaRow({ arena }: BoundTables): ArenaIndex {
  return arena.rowCount - 1;
}

/** Makes the arena of tags unless there is one. False without tags or buckets. May be repeated after a death. Under the registry's lock. */
export function makeTagArena(cores: ArenaCores): boolean {
  const { thread } = cores;
  const { tables } = thread.region;
  const { arena, arenaLife } = tables;
  const row = tagArenaRow(tables);
  if (arena.state.get(row) === STATE_READY) return true;
  const rows = chunkRows(tables);
  // Nobody looks at the row before it is ready: plain stores will do.
  arena.quantum.put(row, rows);
  arena.strategy.put(row, STRATEGY_INSTANT);
  arenaLife.limit.put(row, Number.POSITIVE_INFINITY);
  arena.name.putText(row, TAGS_NAME);
  // Whoever made a core of the row before read other constants.
  thread.journal.set(arena.generation, row, arena.generation.get(row) + 1);
  thread.commit();
  const core = cores.at(row);
  enterTagArena(core);
  enterPool(thread);
  openFirstChunk(thread);
  thread.commit();
  takeFromPool(core, Math.max(TAGS_PER_OPERATION + OWN_LEAST, Math.min(OWN_BATCH, rows / 4)));
  exitPool(thread);
  const size = (tables.tagChunk.rowCount - 1) * rows;
  const tagged = (core.words[core.base + ARENA_SPARE_COUNT] as number) >= TAGS_PER_OPERATION;
  const made = (tagged || size === 0) && (core.words[core.base + ARENA_BUCKET_COUNT] !== 0 || createHash(core));
  if (made && size !== 0 && core.words[core.base + ARENA_SEGMENT_HEAD] === 0) {
    insertSpan(core, rows, size, KIND_SPAN_STATIC);
    thread.commit();
  }
  mutexExit(thread, core.lockAddress);
  if (made) {
    thread.journal.set(arena.state, row, STATE_READY);
    thread.commit();
  }
  return made;
}

/** The arena of tags for a thread; null for that arena itself, and before it is ready. */
function tagArenaFor(core: ArenaCore): ArenaCore | null {
  const row = tagArenaRow(core.tables);
  return core.row !== row && core.tables.arena.state.get(row) === STATE_READY ? core.cores.at(row) : null;
}

/** Takes the lock of the arena of tags: others of its kind may be held. */
function enterTagArena(tagArena: ArenaCore): void {
  mutexEnter(tagArena.thread, tagArena.lockAddress, RANK.tagArena);
  if (tagArena.words[tagArena.base + ARENA_MAPS_STALE] !== 0) rebuildMaps(tagArena);
}

/**
 * Brings the reserve to at least `needed` tags if there are some; to shrink an allocation also some of those that are kept for the
 * system. The arena's section has logged nothing yet.
 */
export function refillReserve(core: ArenaCore, needed: number, shrinking = false): boolean {
  const { words, base, thread, journal } = core;
  assert(journal.length === 0, 'vmem/tag-arena: a refill starts a section');
  if (VERIFY && faultPoint(thread, 'vmem.tags.refill')) return false;
  enterPool(thread);
  takeFromPool(core, needed, shrinking);
  const enough = (words[base + ARENA_SPARE_COUNT] as number) >= needed;
  const out = !enough && tagsLeft(core, shrinking) <= 0;
  if (out) noteStarved(core);
  exitPool(thread);
  return enough || (!out && growPool(core, needed, shrinking));
}

/** The same with chunks of the arena of tags. */
function growPool(core: ArenaCore, needed: number, shrinking: boolean): boolean {
  const { words, base, thread } = core;
  const tagArena = tagArenaFor(core);
  if (tagArena === null) return false;
  if (VERIFY && faultPoint(thread, 'vmem.tagArena.grow')) return false;
  enterTagArena(tagArena);
  careForTagArena(tagArena);
  enterPool(thread);
  // Another thread may have brought some meanwhile.
  takeFromPool(core, needed, shrinking);
  while ((words[base + ARENA_SPARE_COUNT] as number) < needed && tagsLeft(core, shrinking) > 0 && addChunk(tagArena)) {
    takeFromPool(core, needed, shrinking);
  }
  const enough = (words[base + ARENA_SPARE_COUNT] as number) >= needed;
  if (!enough) noteStarved(core);
  if (VERIFY) faultPoint(thread, 'vmem.tagArena.grown');
  exitPool(thread);
  mutexExit(thread, tagArena.lockAddress);
  return enough;
}

/** Keeps the hash and the reserve of the arena of tags in shape. Under its lock, nothing logged; commits. */
function careForTagArena(tagArena: ArenaCore): void {
  const { words, base, thread } = tagArena;
  if (hashNeedsCare(tagArena)) maintainHash(tagArena);
  if ((words[base + ARENA_SPARE_COUNT] as number) <= RESERVE_MAX) return;
  enterPool(thread);
  giveToPool(tagArena, RESERVE_KEPT);
  exitPool(thread);
}

/** Allocates a chunk and puts it into the pool. False when all are out. Under both locks, nothing logged; commits. */
function addChunk(tagArena: ArenaCore): boolean {
  const { words, base, thread, tables, journal } = tagArena;
  const rows = chunkRows(tables);
  const segment = findSegment(tagArena, rows, STRATEGY_INSTANT, null);
  if (segment === 0) return false;
  const address = carve(tagArena, segment, rows, STRATEGY_INSTANT, null, NO_IMPORTER);
  assert(address >= 0, 'vmem/tag-arena I2: an allocation has a tag in reserve');
  if (VERIFY) faultPoint(thread, 'vmem.tagArena.carved');
  const chunk = address / rows;
  let own = 0;
  if ((words[base + ARENA_SPARE_COUNT] as number) < OWN_LEAST) {
    own = Math.min(OWN_BATCH, rows / 2);
    journal.log2(base + ARENA_SPARE_HEAD, base + ARENA_SPARE_COUNT);
    words[base + ARENA_SPARE_HEAD] = linkRows(tagArena, chunk, 0, own, words[base + ARENA_SPARE_HEAD] as number);
    words[base + ARENA_SPARE_COUNT]! += own;
  }
  openChunk(thread, chunk, own);
  thread.commit();
  return true;
}

/** Gives tags back to the pool until `kept` are left. The arena's section has logged nothing yet. */
export function trimReserve(core: ArenaCore, kept = RESERVE_KEPT): void {
  const { words, base, thread, tables, journal } = core;
  assert(journal.length === 0, 'vmem/tag-arena: a trim starts a section');
  if (VERIFY && kept !== 0 && faultPoint(thread, 'vmem.tags.trim')) return;
  if ((words[base + ARENA_SPARE_COUNT] as number) > kept) {
    enterPool(thread);
    giveToPool(core, kept);
    exitPool(thread);
  }
  if (tables.tagPool.wholeCount.get(0) > WHOLE_KEPT) shrinkPool(core);
  tellStarved(thread);
}

/** Gives chunks back that are all free. */
function shrinkPool(core: ArenaCore): void {
  const { thread, tables } = core;
  const { tagPool } = tables;
  const tagArena = tagArenaFor(core);
  if (tagArena === null || (VERIFY && faultPoint(thread, 'vmem.tagArena.shrink'))) return;
  enterTagArena(tagArena);
  careForTagArena(tagArena);
  enterPool(thread);
  while (tagPool.wholeCount.get(0) > WHOLE_KEPT) {
    const chunk = tagPool.wholeHead.get(0) - 1;
    closeChunk(thread, chunk);
    if (VERIFY) faultPoint(thread, 'vmem.tagArena.closed');
    const at = hashFind(tagArena, chunk * chunkRows(tables));
    assert(at >= 0, 'vmem/tag-arena I1: a chunk of the pool is allocated');
    freeTagNow(tagArena, at);
    thread.commit();
  }
  exitPool(thread);
  mutexExit(thread, tagArena.lockAddress);
}

/** Somebody goes without tags: whoever gives some back says so to those who wait. Under the pool's lock. */
function noteStarved({ tables }: ArenaCore): void {
  tables.tagPool.starved.put(0, 1);
}

/** Tells requests that wait that there are tags. A death in between is made up for by the recovery of the queue. */
function tellStarved(thread: Thread): void {
  const { starved } = thread.region.tables.tagPool;
  if (starved.get(0) === 0) return;
  starved.put(0, 0);
  announceLimits(thread);
}

/** Tags of the region: see `Arenas.stats`. Called without a lock. */
export function tagPoolUse(cores: ArenaCores): {
  readonly tags: number;
  readonly unused: number;
  readonly own: number;
} {
  const { thread } = cores;
  const { tables } = thread.region;
  const tagArena = cores.at(tagArenaRow(tables));
  const { words, base } = tagArena;
  enterTagArena(tagArena);
  enterPool(thread);
  let own = words[base + ARENA_SPARE_COUNT] as number;
  const first = words[base + ARENA_SEGMENT_HEAD] as number;
  for (let tag = first; tag !== 0; tag = words[(tag << TAG_SHIFT) | TAG_SEGMENT_NEXT] as number) own++;
  const unused = countUnused(tables);
  exitPool(thread);
  mutexExit(thread, tagArena.lockAddress);
  return { tags: countTags(tables), unused, own };
}

/** Broken invariants of the pool, and of what it has of the arena of tags. Called without a lock. */
export function checkTagPool(cores: ArenaCores): string[] {
  const { thread } = cores;
  const { tables } = thread.region;
  const tagArena = cores.at(tagArenaRow(tables));
  enterTagArena(tagArena);
  enterPool(thread);
  const problems = checkChunks(tables);
  if (tables.arena.state.get(tagArena.row) === STATE_READY) {
    for (let chunk = 1; chunk < tables.tagChunk.rowCount; chunk++) {
      const allocated = hashFind(tagArena, chunk * chunkRows(tables)) >= 0;
      if (allocated === (tables.tagChunk.open.get(chunk) === 1)) continue;
      problems.push(`vmem/tag-arena I1: chunk ${chunk} is ${allocated ? '' : 'not '}allocated`);
    }
    const least = tables.tagChunk.rowCount > 1 ? OWN_LEAST : 0;
    const spare = tagArena.words[tagArena.base + ARENA_SPARE_COUNT] as number;
    if (spare < least) problems.push(`vmem/tag-arena I2: ${spare} tags in reserve`);
  }
  exitPool(thread);
  mutexExit(thread, tagArena.lockAddress);
  return problems;
}
