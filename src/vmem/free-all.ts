/** Freeing every allocation of an arena in one pass over its segment list. */

import { ARENA_CHANGES, ARENA_SEGMENT_HEAD, TAG_KIND_AT, TAG_SEGMENT_NEXT, TAG_SHIFT } from '../layout/index.ts';
import { redeemPledge } from '../sync/index.ts';
import { careForArena } from './allocate.ts';
import { hashFind } from './allocation-hash.ts';
import type { ArenaCore } from './arena-core.ts';
import { KIND_BUSY, KIND_FREE } from './kinds.ts';
import { leaveQuarantine } from './quarantine.ts';
import { freeTagNow } from './release.ts';
import { describeTag } from './snapshot.ts';
import { announceSpace } from './space-queue.ts';
import { returnInFlight } from './transfer.ts';

/** Allocations that are freed before other threads may have the lock. */
const PER_SECTION = 64;

/**
 * Frees the first allocation of the segment list until there is none. What lies before it holds no allocation, so the
 * search goes on where it was: the tag behind the one that was freed. When the lock was left and another thread changed
 * the list meanwhile, it starts again from the head. Nothing goes into quarantine, and what was in it is let go.
 */
export function freeAll(core: ArenaCore): void {
  const { words, base } = core;
  core.enter();
  if (core.quarantines) leaveQuarantine(core, true);
  core.exit();
  let changes = -1;
  let tag = 0;
  for (let more = true; more; ) {
    core.enter();
    if (words[base + ARENA_CHANGES] !== changes) tag = words[base + ARENA_SEGMENT_HEAD] as number;
    let inFlight = false;
    for (let freed = 0; tag !== 0 && freed < PER_SECTION && !inFlight; ) {
      if (words[(tag << TAG_SHIFT) + TAG_KIND_AT] !== KIND_BUSY) {
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
  }
}

/** The tag behind a busy one that is still there after it was freed: a free neighbour is joined with it. */
function nextKept(core: ArenaCore, busy: number): number {
  const { words } = core;
  const next = words[(busy << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
  if (next === 0 || words[(next << TAG_SHIFT) + TAG_KIND_AT] !== KIND_FREE) return next;
  return words[(next << TAG_SHIFT) + TAG_SEGMENT_NEXT] as number;
}
