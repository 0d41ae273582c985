/**
 * Chunks of the table of boundary tags: what the pool consists of.
 *
 * PROBLEM     The table has room for far more tags than most systems need. The rows that are in use must be told from those
 *             that nobody has touched, and rows that are all free again must be found together, so that they can go back.
 * STRUCTURE   A chunk is 2^k neighbouring rows. While it is in the pool, its free tags are
 *
 *               given back: a list through `spareNext`   |   never used since the chunk came: the rows from `fresh` on
 *
 *             Chunks with some tags free are on one list, those with all free on another, those with none on neither. Tags
 *             are taken from the first list as long as there is one, so that the second grows. Chunk 0 is in the pool from
 *             the first use on, and stays: the arena that all others come from needs its first tags (tag-arena.ts). Row 0
 *             is never used.
 * INVARIANTS  I1 a chunk's `count` is the length of its list and the rows from `fresh` on; the pool's is their sum.
 *             I2 a chunk is on the list that its count says; links go both ways.
 *             I3 rows of chunks that are not in the pool are nobody's.
 * LOCKING     The tag pool's lock, for all of it; whose reserve tags come from, or go to, holds its arena's too.
 * COSTS       Taking walks as many tags as it takes. Giving back stores three words for a run of tags of one chunk.
 * FAILURE     None: callers see to it that there is something to take.
 * REJECTED    One list of all free tags: chunks that are all free could not be taken off it. Giving tags back to the first
 *             chunk at hand: none would ever be whole.
 * REFERENCES  Bonwick 1994, slabs; docs/glossary.md: boundary tag.
 */

import { assert } from '../base/index.ts';
import {
  ARENA_SPARE_COUNT,
  ARENA_SPARE_HEAD,
  type BoundTables,
  TAG_KIND_AT,
  TAG_SHIFT,
  TAG_SPARE_NEXT,
  TAG_WORDS,
  tagChunkShift,
} from '../layout/index.ts';
import type { Thread } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import type { TagIndex } from './kinds.ts';

/** Number of a chunk: its first row is that times `chunkRows`. */
export type ChunkIndex = number & { readonly __unit?: 'chunk of tags' };

/** Tag of a row of the tag table. */
export function tagOfRow(tables: BoundTables, row: number): TagIndex {
  return (tables.tag.kind.address(row) - TAG_KIND_AT) / TAG_WORDS;
}

/** Row of a tag, for people. */
export function rowOfTag(tables: BoundTables, tag: TagIndex): number {
  return tag - tagOfRow(tables, 0);
}

/** Rows of a chunk. */
export function chunkRows(tables: BoundTables): number {
  return 1 << tagChunkShift(tables.tag.rowCount);
}

/** First row behind a chunk, counted from its first one: a small table is less than one chunk. */
function endOf({ tag }: BoundTables, rows: number): number {
  return Math.min(rows, tag.rowCount);
}

/** Tags of the region: row 0, and rows beyond the last whole chunk, are none. */
export function countTags(tables: BoundTables): number {
  return Math.max(0, endOf(tables, tables.tagChunk.rowCount * chunkRows(tables)) - 1);
}

/** Tags in the pool, and those of chunks that can still come. Under the pool's lock, or a look. */
export function countUnused(tables: BoundTables): number {
  const { tagPool, tagChunk } = tables;
  const open = tagPool.chunks.get(0);
  if (open === 0) return countTags(tables);
  return tagPool.count.get(0) + (tagChunk.rowCount - open) * chunkRows(tables);
}

/** Brings chunk 0 into a pool that was never used. Under the pool's lock. */
export function openFirstChunk(thread: Thread): void {
  const { tables } = thread.region;
  if (tables.tagPool.chunks.get(0) !== 0) return;
  openChunk(thread, 0, Math.min(1, tables.tag.rowCount));
}

/** Brings a chunk into the pool, of which the first `used` rows are somebody's already. Logged. */
export function openChunk(thread: Thread, chunk: ChunkIndex, used: number): void {
  const { journal } = thread;
  const { tables } = thread.region;
  const { tagPool, tagChunk } = tables;
  assert(tagChunk.open.get(chunk) === 0, 'vmem/tag-chunks I3: a chunk that comes is not in the pool');
  const free = endOf(tables, chunkRows(tables)) - used;
  journal.set(tagChunk.open, chunk, 1);
  journal.set(tagChunk.head, chunk, 0);
  journal.set(tagChunk.fresh, chunk, used);
  journal.set(tagChunk.count, chunk, 0);
  changeCount(thread, chunk, free);
  const chunks = tagPool.chunks.get(0) + 1;
  journal.set(tagPool.chunks, 0, chunks);
  if (chunks > tagPool.chunksPeak.get(0)) tagPool.chunksPeak.put(0, chunks);
}

/** Takes a chunk out of the pool whose tags are all free. Logged. */
export function closeChunk(thread: Thread, chunk: ChunkIndex): void {
  const { journal } = thread;
  const { tables } = thread.region;
  const { tagPool, tagChunk } = tables;
  const rows = chunkRows(tables);
  assert(tagChunk.count.get(chunk) === rows, 'vmem/tag-chunks I3: a chunk that goes has all its tags');
  changeCount(thread, chunk, -rows);
  journal.set(tagChunk.open, chunk, 0);
  journal.set(tagPool.chunks, 0, tagPool.chunks.get(0) - 1);
}

/** Moves up to `most` tags of one chunk to the arena's reserve; the pool has some. Under both locks, nothing logged before. */
export function takeTags(core: ArenaCore, most: number): void {
  const { tables, thread, words, base, journal } = core;
  const { tagPool, tagChunk } = tables;
  const chunk = (tagPool.head.get(0) || tagPool.wholeHead.get(0)) - 1;
  assert(chunk >= 0, 'vmem/tag-chunks I2: a pool with free tags has a chunk on a list');
  const fresh = tagChunk.fresh.get(chunk);
  const left = endOf(tables, chunkRows(tables)) - fresh;
  const givenBack = tagChunk.count.get(chunk) - left;
  const moved = Math.min(most, givenBack > 0 ? givenBack : left);
  journal.log2(base + ARENA_SPARE_HEAD, base + ARENA_SPARE_COUNT);
  const head = words[base + ARENA_SPARE_HEAD] as number;
  if (givenBack > 0) {
    const first = tagChunk.head.get(chunk);
    let last = first;
    for (let step = 1; step < moved; step++) last = words[(last << TAG_SHIFT) | TAG_SPARE_NEXT] as number;
    const lastNextAt = (last << TAG_SHIFT) | TAG_SPARE_NEXT;
    journal.log1(lastNextAt);
    journal.set(tagChunk.head, chunk, words[lastNextAt] as number);
    words[lastNextAt] = head;
    words[base + ARENA_SPARE_HEAD] = first;
  } else {
    journal.set(tagChunk.fresh, chunk, fresh + moved);
    words[base + ARENA_SPARE_HEAD] = linkRows(core, chunk, fresh, moved, head);
  }
  words[base + ARENA_SPARE_COUNT]! += moved;
  changeCount(thread, chunk, -moved);
}

/** Makes rows of a chunk that nobody has a list that ends in `tail`; returns its head. They cannot be reached: not logged. */
export function linkRows(
  { tables, words }: ArenaCore,
  chunk: ChunkIndex,
  first: number,
  count: number,
  tail: TagIndex,
): TagIndex {
  const firstTag = tagOfRow(tables, chunk * chunkRows(tables) + first);
  let head = tail;
  for (let tag = firstTag + count - 1; tag >= firstTag; tag--) {
    words[(tag << TAG_SHIFT) | TAG_SPARE_NEXT] = head;
    head = tag;
  }
  return head;
}

/** Moves that many tags of the arena's reserve to their chunks. Under both locks. Logged. */
export function giveTags(core: ArenaCore, count: number): void {
  const { tables, thread, words, base, journal } = core;
  const { tagChunk } = tables;
  const shift = tagChunkShift(tables.tag.rowCount);
  const zero = tagOfRow(tables, 0);
  journal.log2(base + ARENA_SPARE_HEAD, base + ARENA_SPARE_COUNT);
  let tag = words[base + ARENA_SPARE_HEAD] as number;
  for (let left = count; left > 0; ) {
    // A run of tags of one chunk goes in one piece.
    const first = tag;
    const chunk = (first - zero) >>> shift;
    let last = first;
    tag = words[(last << TAG_SHIFT) | TAG_SPARE_NEXT] as number;
    let run = 1;
    for (; run < left && (tag - zero) >>> shift === chunk; run++) {
      last = tag;
      tag = words[(last << TAG_SHIFT) | TAG_SPARE_NEXT] as number;
    }
    const lastNextAt = (last << TAG_SHIFT) | TAG_SPARE_NEXT;
    journal.log1(lastNextAt);
    words[lastNextAt] = tagChunk.head.get(chunk);
    journal.set(tagChunk.head, chunk, first);
    changeCount(thread, chunk, run);
    left -= run;
  }
  words[base + ARENA_SPARE_HEAD] = tag;
  words[base + ARENA_SPARE_COUNT]! -= count;
}

/** Changes how many tags a chunk has free, and which list it is on. Logged. */
function changeCount(thread: Thread, chunk: ChunkIndex, by: number): void {
  const { journal } = thread;
  const { tables } = thread.region;
  const { tagPool, tagChunk } = tables;
  const rows = chunkRows(tables);
  const before = tagChunk.count.get(chunk);
  const count = before + by;
  assert(count >= 0 && count <= rows, 'vmem/tag-chunks I1: a chunk has no more tags than rows');
  const stays = before !== 0 && before !== rows && count !== 0 && count !== rows;
  if (!stays && before !== 0) unlink(thread, chunk, before === rows);
  journal.set(tagChunk.count, chunk, count);
  journal.set(tagPool.count, 0, tagPool.count.get(0) + by);
  if (!stays && count !== 0) link(thread, chunk, count === rows);
}

function link(thread: Thread, chunk: ChunkIndex, whole: boolean): void {
  const { journal } = thread;
  const { tagPool, tagChunk } = thread.region.tables;
  const head = whole ? tagPool.wholeHead : tagPool.head;
  const next = head.get(0);
  journal.set(tagChunk.next, chunk, next);
  journal.set(tagChunk.previous, chunk, 0);
  if (next !== 0) journal.set(tagChunk.previous, next - 1, chunk + 1);
  journal.set(head, 0, chunk + 1);
  if (whole) journal.set(tagPool.wholeCount, 0, tagPool.wholeCount.get(0) + 1);
}

function unlink(thread: Thread, chunk: ChunkIndex, whole: boolean): void {
  const { journal } = thread;
  const { tagPool, tagChunk } = thread.region.tables;
  const next = tagChunk.next.get(chunk);
  const previous = tagChunk.previous.get(chunk);
  if (next !== 0) journal.set(tagChunk.previous, next - 1, previous);
  if (previous !== 0) journal.set(tagChunk.next, previous - 1, next);
  else journal.set(whole ? tagPool.wholeHead : tagPool.head, 0, next);
  if (whole) journal.set(tagPool.wholeCount, 0, tagPool.wholeCount.get(0) - 1);
}

/** Broken invariants of the pool. Under its lock; linear in the free tags of it. */
export function checkChunks(tables: BoundTables): string[] {
  const { tagPool, tagChunk } = tables;
  const words = tables.tag.kind.view;
  const problems: string[] = [];
  const expect = (holds: boolean, what: string): void => {
    if (!holds && problems.length < 20) problems.push(`vmem/tag-chunks ${what}`);
  };
  const rows = chunkRows(tables);
  const listed = new Map<ChunkIndex, boolean>();
  for (const whole of [false, true]) {
    let previous = 0;
    const first = (whole ? tagPool.wholeHead : tagPool.head).get(0);
    for (let at = first; at !== 0 && listed.size <= tagChunk.rowCount; at = tagChunk.next.get(at - 1)) {
      expect(!listed.has(at - 1) && tagChunk.previous.get(at - 1) === previous, `I2: links of chunk ${at - 1}`);
      listed.set(at - 1, whole);
      previous = at;
    }
  }
  const zero = tagOfRow(tables, 0);
  let [sum, open, wholes] = [0, 0, 0];
  for (let chunk = 0; chunk < tagChunk.rowCount; chunk++) {
    const count = tagChunk.count.get(chunk);
    const isOpen = tagChunk.open.get(chunk) === 1;
    expect(isOpen || count === 0, `I3: chunk ${chunk} is not in the pool and has ${count} tags`);
    if (!isOpen) continue;
    let back = 0;
    for (let tag = tagChunk.head.get(chunk); tag !== 0 && back <= rows; back++) {
      const row = tag - zero;
      expect(Math.floor(row / rows) === chunk && row !== 0, `I1: row ${row} is listed by chunk ${chunk}`);
      tag = words[row * TAG_WORDS + (TAG_SPARE_NEXT - TAG_KIND_AT)] as number;
    }
    const fresh = endOf(tables, rows) - tagChunk.fresh.get(chunk);
    expect(back + fresh === count, `I1: chunk ${chunk} has ${back} tags given back, ${fresh} fresh, count ${count}`);
    const list = count === 0 ? undefined : count === rows;
    expect(listed.get(chunk) === list, `I2: chunk ${chunk} with ${count} tags is on the wrong list`);
    sum += count;
    open++;
    if (count === rows) wholes++;
  }
  expect(sum === tagPool.count.get(0), `I1: ${sum} free tags, count ${tagPool.count.get(0)}`);
  expect(open === tagPool.chunks.get(0), `I3: ${open} chunks, count ${tagPool.chunks.get(0)}`);
  expect(wholes === tagPool.wholeCount.get(0), `I2: ${wholes} whole chunks, count ${tagPool.wholeCount.get(0)}`);
  return problems;
}
