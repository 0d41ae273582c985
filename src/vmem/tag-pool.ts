/**
 * Boundary tags: the pool of the region, and the reserve of each arena.
 *
 * PROBLEM     Operations need tags at once, under the arena's lock, and a death must not lose any.
 *             An arena that takes all there are must not stop the system: its heap, and its address spaces.
 * STRUCTURE   pool: given back, a list through `spareNext` | never used, the rows from `fresh` on
 *                              |  batches of REFILL tags, one lock
 *             reserve of an arena: a list through `spareNext`
 *
 *             A tag keeps its `spareNext` while it is in use, so that taking it from the reserve is undone by putting
 *             the head back. Row 0 of the table is never used. One tag in 32 is left to arenas of the system.
 * INVARIANTS  I1 every tag is in the pool, in one reserve, or in use by one arena.
 *             I2 `count` and `spareCount` are the lengths of their lists.
 * LOCKING     The reserve is under its arena's lock, the pool under its own. Refill and trim run under both, at points
 *             where the section has logged nothing else, and leaving the pool commits both sides at once.
 * COSTS       Taking and giving back one tag touch the header and the tag. A refill moves a whole list in five stores.
 * FAILURE     `refillReserve` returns false when the pool has none for the arena: the operation fails with ENOMEM and changes nothing.
 * REJECTED    Growing the pool from arenas, as the source does: the table is laid out at boot and untouched rows cost
 *             nothing, so that nothing here can recurse.
 * REFERENCES  Bonwick and Adams 2001, section 4.3.
 */

import { assert, VERIFY } from '../base/index.ts';
import {
  ARENA_SPARE_COUNT,
  ARENA_SPARE_HEAD,
  type BoundTables,
  TAG_KIND_AT,
  TAG_SHIFT,
  TAG_SPARE_NEXT,
  TAG_WORDS,
} from '../layout/index.ts';
import { faultPoint, mutexEnter, mutexExit, RANK, type Thread } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { KIND_NONE, type TagIndex } from './kinds.ts';

/** Tags that one operation may need. */
export const TAGS_PER_OPERATION = 2;

/** Tags that a refill brings. */
const REFILL = 32;

/** Of so many tags one is kept for the arenas of the system. */
const SYSTEM_SHARE = 32;

/** A reserve above this is trimmed. */
export const RESERVE_MAX = 128;

/** What a trim leaves. */
const RESERVE_KEPT = 64;

/** Tag of a row of the tag table. */
export function tagOfRow(tables: BoundTables, row: number): TagIndex {
  return (tables.tag.kind.address(row) - TAG_KIND_AT) / TAG_WORDS;
}

/** Row of a tag, for people. */
export function rowOfTag(tables: BoundTables, tag: TagIndex): number {
  return tag - tagOfRow(tables, 0);
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

/** Brings the reserve to at least `needed` tags if the pool can. The arena's section has logged nothing yet. */
export function refillReserve(core: ArenaCore, needed: number): boolean {
  const { words, base, thread, tables, journal } = core;
  assert(journal.length === 0, 'vmem/tag-pool: a refill starts a section');
  if (VERIFY && faultPoint(thread, 'vmem.tags.refill')) return false;
  const { tagPool } = tables;
  mutexEnter(thread, tagPool.lock.address(0), RANK.tagPool);
  while ((words[base + ARENA_SPARE_COUNT] as number) < needed) {
    const most = Math.min(REFILL, tagsLeft(core));
    if (most <= 0) break;
    if (tagPool.count.get(0) > 0) takeReturned(core, most);
    else takeFresh(core, most);
    thread.commit();
  }
  mutexExit(thread, tagPool.lock.address(0));
  return (words[base + ARENA_SPARE_COUNT] as number) >= needed;
}

/** Tags of the pool that the arena may have. Under the pool's lock, or a look. */
function tagsLeft({ tables, system }: ArenaCore): number {
  const { rowCount } = tables.tag;
  return unusedTags(tables) - (system ? 0 : Math.floor(rowCount / SYSTEM_SHARE));
}

function unusedTags({ tagPool, tag }: BoundTables): number {
  return tagPool.count.get(0) + Math.max(0, tag.rowCount - Math.max(1, tagPool.fresh.get(0)));
}

/** Moves up to `most` tags from the list of the pool. Under both locks; nothing logged before. */
function takeReturned(core: ArenaCore, most: number): void {
  const { words, base, journal, tables } = core;
  const { tagPool } = tables;
  const moved = Math.min(most, tagPool.count.get(0));
  const first = tagPool.head.get(0);
  let last = first;
  for (let step = 1; step < moved; step++) last = words[(last << TAG_SHIFT) | TAG_SPARE_NEXT] as number;
  const lastNextAt = (last << TAG_SHIFT) | TAG_SPARE_NEXT;
  const rest = words[lastNextAt] as number;
  journal.log3(lastNextAt, base + ARENA_SPARE_HEAD, base + ARENA_SPARE_COUNT);
  journal.set(tagPool.head, 0, rest);
  journal.set(tagPool.count, 0, tagPool.count.get(0) - moved);
  words[lastNextAt] = words[base + ARENA_SPARE_HEAD] as number;
  words[base + ARENA_SPARE_HEAD] = first;
  words[base + ARENA_SPARE_COUNT]! += moved;
}

/** Moves up to `most` rows that were never used. Under both locks; nothing logged before. */
function takeFresh(core: ArenaCore, most: number): void {
  const { words, base, journal, tables } = core;
  const { tagPool, tag: tags } = tables;
  const fresh = Math.max(1, tagPool.fresh.get(0));
  const moved = Math.min(most, tags.rowCount - fresh);
  journal.log2(base + ARENA_SPARE_HEAD, base + ARENA_SPARE_COUNT);
  journal.set(tagPool.fresh, 0, fresh + moved);
  let head = words[base + ARENA_SPARE_HEAD] as number;
  for (let row = fresh + moved - 1; row >= fresh; row--) {
    const tag = tagOfRow(tables, row);
    words[(tag << TAG_SHIFT) | TAG_SPARE_NEXT] = head;
    head = tag;
  }
  words[base + ARENA_SPARE_HEAD] = head;
  words[base + ARENA_SPARE_COUNT]! += moved;
}

/** Gives tags back to the pool until `kept` are left. The arena's section has logged nothing yet. */
export function trimReserve(core: ArenaCore, kept = RESERVE_KEPT): void {
  const { words, base, thread, tables, journal } = core;
  assert(journal.length === 0, 'vmem/tag-pool: a trim starts a section');
  const { tagPool } = tables;
  if (VERIFY && kept !== 0 && faultPoint(thread, 'vmem.tags.trim')) return;
  mutexEnter(thread, tagPool.lock.address(0), RANK.tagPool);
  while ((words[base + ARENA_SPARE_COUNT] as number) > kept) {
    const spareCount = words[base + ARENA_SPARE_COUNT] as number;
    const moved = Math.min(REFILL, spareCount - kept);
    const first = words[base + ARENA_SPARE_HEAD] as number;
    let last = first;
    for (let step = 1; step < moved; step++) last = words[(last << TAG_SHIFT) | TAG_SPARE_NEXT] as number;
    const lastNextAt = (last << TAG_SHIFT) | TAG_SPARE_NEXT;
    journal.log3(lastNextAt, base + ARENA_SPARE_HEAD, base + ARENA_SPARE_COUNT);
    words[base + ARENA_SPARE_HEAD] = words[lastNextAt] as number;
    words[base + ARENA_SPARE_COUNT] = spareCount - moved;
    words[lastNextAt] = tagPool.head.get(0);
    journal.set(tagPool.head, 0, first);
    journal.set(tagPool.count, 0, tagPool.count.get(0) + moved);
    thread.commit();
  }
  mutexExit(thread, tagPool.lock.address(0));
}

/** Tags of the region: how many there are, and how many are in no reserve and no arena. */
export function tagPoolUse(thread: Thread): { readonly tags: number; readonly unused: number } {
  const { tagPool, tag } = thread.region.tables;
  const tags = Math.max(0, tag.rowCount - 1);
  mutexEnter(thread, tagPool.lock.address(0), RANK.tagPool);
  const unused = unusedTags(thread.region.tables);
  mutexExit(thread, tagPool.lock.address(0));
  return { tags, unused };
}

/** True when an arena has too few tags for an operation, and can get none. A look. */
export function lacksTags(core: ArenaCore): boolean {
  return (core.words[core.base + ARENA_SPARE_COUNT] as number) < TAGS_PER_OPERATION && tagsLeft(core) <= 0;
}
