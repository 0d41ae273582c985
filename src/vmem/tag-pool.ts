/**
 * Boundary tags: the pool of the region, and the reserve of each arena.
 *
 * PROBLEM     Operations need tags at once, under the arena's lock, and a death must not lose any.
 *             An arena that takes all there are must not stop the system: its heap, and its address spaces.
 * STRUCTURE   pool: chunks of the table of tags, see tag-chunks.ts   |   batches of REFILL tags, one lock
 *             reserve of an arena: a list through `spareNext`
 *
 *             A tag keeps its `spareNext` while it is in use, so that taking it from the reserve is undone by putting
 *             the head back. One tag in 32 is left to arenas of the system; half of those may go to programs whose allocations
 *             shrink, one at a time, since giving space back should not fail. Chunks come, and go, when the pool has none or too
 *             many: tag-arena.ts.
 * INVARIANTS  I1 every tag is in the pool, in one reserve, or in use by one arena.
 *             I2 `spareCount` is the length of the reserve's list.
 * LOCKING     The reserve is under its arena's lock, the pool under its own. Tags move between them under both, at points
 *             where the section has logged nothing else, and are committed on both sides at once.
 * COSTS       Taking and giving back one tag touch the header and the tag.
 * FAILURE     Whoever finds the pool without tags for it says so in `starved`: who brings some tells those who wait.
 * REJECTED    Tags straight from the pool: its lock would be taken in every operation of every arena.
 * REFERENCES  Bonwick and Adams 2001, section 4.3.
 */

import { assert } from '../base/index.ts';
import {
  ARENA_SPARE_COUNT,
  ARENA_SPARE_HEAD,
  type BoundTables,
  TAG_KIND_AT,
  TAG_SHIFT,
  TAG_SPARE_NEXT,
} from '../layout/index.ts';
import { mutexEnter, mutexExit, RANK, type Thread } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { KIND_NONE, type TagIndex } from './kinds.ts';
import { countUnused, giveTags, takeTags } from './tag-chunks.ts';

/** Tags that one operation may need. */
export const TAGS_PER_OPERATION = 2;

/** Tags that move between a reserve and the pool at once. */
const REFILL = 32;

/** Of so many tags one is kept for the arenas of the system. */
const SYSTEM_SHARE = 32;

/** A reserve above this is trimmed. */
export const RESERVE_MAX = 128;

/** What a trim leaves. */
export const RESERVE_KEPT = 64;

/** Takes the lock of the pool. */
export function enterPool(thread: Thread): void {
  mutexEnter(thread, thread.region.tables.tagPool.lock.address(0), RANK.tagPool);
}

/** Gives it back. */
export function exitPool(thread: Thread): void {
  mutexExit(thread, thread.region.tables.tagPool.lock.address(0));
}

/** Takes a tag from the reserve, which is not empty. The header is logged. */
export function takeSpare(core: ArenaCore): TagIndex {
  const { words, base } = core;
  const tag = words[base + ARENA_SPARE_HEAD] as number;
  assert(tag !== 0, 'vmem/tag-pool I2: the reserve holds as many tags as it says');
  words[base + ARENA_SPARE_HEAD] = words[(tag << TAG_SHIFT) | TAG_SPARE_NEXT] as number;
  words[base + ARENA_SPARE_COUNT]!--;
  return tag;
}

/** Puts a tag that was in use into the reserve. The header is logged. */
export function putSpare(core: ArenaCore, tag: TagIndex): void {
  const { words, base } = core;
  const record = tag << TAG_SHIFT;
  core.journal.log2(record | TAG_SPARE_NEXT, record | TAG_KIND_AT);
  words[record | TAG_SPARE_NEXT] = words[base + ARENA_SPARE_HEAD] as number;
  words[record | TAG_KIND_AT] = KIND_NONE;
  words[base + ARENA_SPARE_HEAD] = tag;
  words[base + ARENA_SPARE_COUNT]!++;
}

/**
 * Brings the reserve to at least `needed` tags as far as the pool has some for the arena; `shrinking`: no more than that. Under both
 * locks; commits.
 */
export function takeFromPool(core: ArenaCore, needed: number, shrinking = false): void {
  const { words, base, tables } = core;
  const { tagPool } = tables;
  for (;;) {
    const spare = words[base + ARENA_SPARE_COUNT] as number;
    if (spare >= needed || tagPool.count.get(0) === 0) return;
    const most = Math.min(shrinking ? needed - spare : REFILL, tagsLeft(core, shrinking));
    if (most <= 0) return;
    takeTags(core, most);
    core.thread.commit();
  }
}

/** Gives tags back to the pool until `kept` are left. Under both locks; commits. */
export function giveToPool(core: ArenaCore, kept: number): void {
  const { words, base } = core;
  for (;;) {
    const more = (words[base + ARENA_SPARE_COUNT] as number) - kept;
    if (more <= 0) return;
    giveTags(core, Math.min(REFILL, more));
    core.thread.commit();
  }
}

/**
 * Tags that the arena may have of the pool and of chunks that can still come, to shrink an allocation or for anything. Under the
 * pool's lock, or a look.
 */
export function tagsLeft({ tables, system }: ArenaCore, shrinking = false): number {
  return countUnused(tables) - (system ? 0 : keptForSystem(tables, shrinking));
}

function keptForSystem({ tag }: BoundTables, shrinking: boolean): number {
  return Math.floor(tag.rowCount / (shrinking ? 2 * SYSTEM_SHARE : SYSTEM_SHARE));
}

/** True when an arena has too few tags for an operation, and can get none. A look. */
export function lacksTags(core: ArenaCore): boolean {
  return (core.words[core.base + ARENA_SPARE_COUNT] as number) < TAGS_PER_OPERATION && tagsLeft(core) <= 0;
}
