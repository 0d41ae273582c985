/** Freeing every allocation of an arena in one pass over its segment list. */

import { fail, failMisuse } from '../base/index.ts';
import {
  ARENA_CHANGES,
  ARENA_SEGMENT_HEAD,
  TAG_KIND_AT,
  TAG_OWNER,
  TAG_SEGMENT_NEXT,
  TAG_SHIFT,
} from '../layout/index.ts';
import { redeemPledge } from '../sync/index.ts';
import { careForArena } from './allocate.ts';
import { hashFind } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { type ArenaIndex, KIND_BUSY, KIND_FREE } from './kinds.ts';
import { leaveQuarantine } from './quarantine.ts';
import { freeTagNow } from './release.ts';
import { shareIdle } from './share-idle.ts';
import { describeTag } from './snapshot.ts';
import { announceSpace } from './space-queue.ts';
import { returnInFlight } from './transfer.ts';

/** Allocations that are freed before other threads may have the lock. */
const PER_SECTION = 64;

/**
 * Frees the first allocation of the segment list until there is none. What lies before it holds no allocation, so the
 * search goes on where it was: the tag behind the one that was freed. When the lock was left and another thread changed
 * the list meanwhile, it starts again from the head. Nothing goes into quarantine, and what was in it is let go. Throws
 * `EBUSY`, with nothing freed, while another arena has spans of this one; spans that are imported meanwhile stay.
 */
export function freeAll(core: ArenaCore): void {
  const { words, base } = core;
  if (core.caches !== null) {
    failMisuse('arena.xfreeAll', { arena: core.name }, 'an arena with quantum caches cannot be freed at once');
  }
  core.enter();
  const importer = findImporter(core);
  if (importer >= 0) {
    core.exit();
    const name = JSON.stringify(core.tables.arena.name.text(importer));
    fail('EBUSY', 'arena.xfreeAll', { arena: core.name }, `the arena ${name} has imported spans of it`);
  }
  if (core.quarantines) leaveQuarantine(core, true);
  core.exit();
  let changes = -1;
  let tag = 0;
  for (let more = true; more; ) {
    core.enter();
    if (words[base + ARENA_CHANGES] !== changes) tag = words[base + ARENA_SEGMENT_HEAD] as number;
    let inFlight = false;
    for (let freed = 0; tag !== 0 && freed < PER_SECTION && !inFlight; ) {
      if (words[(tag << TAG_SHIFT) + TAG_KIND_AT] !== KIND_BUSY || importerOf(core, tag) >= 0) {
        tag = words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
        continue;
      }
      careForArena(core);
      const busy = tag;
      tag = nextKept(core, busy);
      inFlight = freeTagNow(core, hashFind(core, describeTag(core, busy).start));
      core.thread.commit();
      if (core.charges) redeemPledge(core.thread);
      freed++;
    }
    changes = words[base + ARENA_CHANGES] as number;
    more = tag !== 0 || inFlight;
    core.exit();
    announceSpace(core);
    if (inFlight) returnInFlight(core.cores, core.thread.slot);
    shareIdle(core);
  }
}

/** The arena that has an allocation as an imported span, or -1. */
function importerOf(core: ArenaCore, tag: number): ArenaIndex {
  return -1 - (core.words[(tag << TAG_SHIFT) + TAG_OWNER] as number);
}

/** An arena that has spans of this one, or -1. Under the lock. */
function findImporter(core: ArenaCore): ArenaIndex {
  const { words, base } = core;
  let tag = words[base + ARENA_SEGMENT_HEAD] as number;
  for (; tag !== 0; tag = words[(tag << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number) {
    if (words[(tag << TAG_SHIFT) + TAG_KIND_AT] === KIND_BUSY && importerOf(core, tag) >= 0)
      return importerOf(core, tag);
  }
  return -1;
}

/** The tag behind a busy one that is still there after it was freed: a free neighbour is joined with it. */
function nextKept(core: ArenaCore, busy: number): number {
  const { words } = core;
  const next = words[(busy << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  if (next === 0 || words[(next << TAG_SHIFT) + TAG_KIND_AT] !== KIND_FREE) return next;
  return words[(next << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
}
