/**
 * Quarantine: freed ranges that wait before they are used again.
 *
 * PROBLEM     Whoever still holds a freed identifier, port or address should find nothing there for a while, rather than
 *             somebody else's.
 * STRUCTURE   A list through `linkPrevious` and `linkNext` of the tags, in the order of the frees; `stamp` is the millisecond.
 *
 *               head -> [freed long ago] <-> [freed] <-> [freed just now] <- tail
 *
 *             A tag leaves at the head when so many were freed behind it and so much time has passed as the arena asks for.
 *             It is then joined with its neighbours and listed as any freed segment. Each free lets up to two go; a request
 *             that finds nothing lets all go that may. Nothing leaves before, unless the arena was made with `early`: see
 *             quarantine-yield.ts. Requests that wait look again when the time of the head is over.
 * INVARIANTS  I1 the list holds the tags of kind quarantined, and no others; count and size are theirs.   I2 stamps ascend.
 * LOCKING     The arena's lock; stores are logged.
 * COSTS       An arena without quarantine: one test of a constant. With: three tags a free, and those of the ones that leave.
 * FAILURE     A broken link is an `InvariantError`.
 * REJECTED    Keeping the range in the hash as an allocation: a second free would look right. Giving it early by default: who
 *             asks for a quarantine relies on it most when space is short.
 * REFERENCES  Quarantines of address sanitizers; TIME_WAIT of TCP ports.
 */

import { assert, VERIFY } from '../base/index.ts';
import {
  TAG_DOUBLE_SHIFT,
  TAG_KIND_AT,
  TAG_LINK_NEXT,
  TAG_LINK_PREVIOUS,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_STAMP,
} from '../layout/index.ts';
import { FOREVER, faultPoint } from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { COUNT_QUARANTINED, KIND_FREE, KIND_QUARANTINED, type TagIndex } from './kinds.ts';
import { settleTag } from './release.ts';
import { saveHeader, saveTag } from './spans.ts';
import { returnInFlight } from './transfer.ts';

/** Tags that one free lets go, so that the list shrinks when it has become too long. */
const LEAVE_PER_FREE = 2;

/** Puts a tag that was just freed, header and tag logged, into quarantine. True when a span was put in flight. */
export function quarantineTag(core: ArenaCore, tag: TagIndex): boolean {
  const { words, doubles, journal, row } = core;
  const { arenaLife: life } = core.tables;
  const record = tag << TAG_SHIFT;
  const tail = life.quarantineTail.get(row);
  words[record + TAG_KIND_AT] = KIND_QUARANTINED;
  words[record + TAG_LINK_PREVIOUS] = tail;
  words[record + TAG_LINK_NEXT] = 0;
  words[record + TAG_STAMP] = core.thread.clock.now() | 0;
  if (tail === 0) {
    journal.set(life.quarantineHead, row, tag);
  } else {
    const forwardAt = (tail << TAG_SHIFT) + TAG_LINK_NEXT;
    assert(words[forwardAt] === 0, 'vmem/quarantine: the tail has no successor');
    journal.log1(forwardAt);
    words[forwardAt] = tag;
  }
  journal.set(life.quarantineTail, row, tag);
  journal.set(life.quarantineCount, row, life.quarantineCount.get(row) + 1);
  const size = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  journal.setDouble(life.quarantineSize, row, life.quarantineSize.get(row) + size);
  core.count(COUNT_QUARANTINED);
  if (VERIFY) faultPoint(core.thread, 'vmem.quarantine.entered');
  for (let left = LEAVE_PER_FREE; left > 0 && isDue(core); left--)
    if (leaveOne(core, life.quarantineHead.get(row))) return true;
  return false;
}

/** True when the tag at the head has waited long enough. */
function isDue(core: ArenaCore): boolean {
  const { row } = core;
  const { arenaLife: life } = core.tables;
  const head = life.quarantineHead.get(row);
  if (head === 0 || life.quarantineCount.get(row) - 1 < life.quarantineFrees.get(row)) return false;
  return ageOf(core, head) >= life.quarantineMs.get(row);
}

/** Milliseconds since a tag was freed. */
function ageOf(core: ArenaCore, tag: TagIndex): number {
  return ((core.thread.clock.now() | 0) - (core.words[(tag << TAG_SHIFT) + TAG_STAMP] as number)) | 0;
}

/** Lets one tag go. The header is logged. True when a span was put in flight. */
function leaveOne(core: ArenaCore, tag: TagIndex): boolean {
  const { words, doubles, journal, row } = core;
  const { arenaLife: life } = core.tables;
  const record = tag << TAG_SHIFT;
  const next = words[record + TAG_LINK_NEXT] as number;
  const previous = words[record + TAG_LINK_PREVIOUS] as number;
  assert(words[record + TAG_KIND_AT] === KIND_QUARANTINED, 'vmem/quarantine I1: a listed tag is in quarantine');
  saveTag(core, tag);
  if (previous === 0) {
    journal.set(life.quarantineHead, row, next);
  } else {
    const forwardAt = (previous << TAG_SHIFT) + TAG_LINK_NEXT;
    journal.log1(forwardAt);
    words[forwardAt] = next;
  }
  if (next === 0) {
    journal.set(life.quarantineTail, row, previous);
  } else {
    const backAt = (next << TAG_SHIFT) + TAG_LINK_PREVIOUS;
    journal.log1(backAt);
    words[backAt] = previous;
  }
  journal.set(life.quarantineCount, row, life.quarantineCount.get(row) - 1);
  const size = doubles[(tag << TAG_DOUBLE_SHIFT) + TAG_SIZE] as number;
  journal.setDouble(life.quarantineSize, row, life.quarantineSize.get(row) - size);
  words[record + TAG_KIND_AT] = KIND_FREE;
  return settleTag(core, tag);
}

/**
 * Lets go what has waited long enough, or everything. Entered and left with the lock, with nothing logged; leaves it in
 * between to give spans back. `anyway`: also when the arena is being destroyed. Returns how many ranges that were.
 */
export function leaveQuarantine(core: ArenaCore, everything: boolean, anyway = false): number {
  const { arenaLife: life } = core.tables;
  let left = 0;
  while (everything ? life.quarantineHead.get(core.row) !== 0 : isDue(core)) {
    letGo(core, life.quarantineHead.get(core.row), anyway);
    left++;
  }
  return left;
}

/** Lets one tag go, as `leaveQuarantine` does. True when the lock was left in between. */
export function letGo(core: ArenaCore, tag: TagIndex, anyway = false): boolean {
  saveHeader(core);
  const inFlight = leaveOne(core, tag);
  core.thread.commit();
  if (!inFlight) return false;
  core.exit();
  returnInFlight(core.cores, core.thread.slot);
  if (anyway) core.enterAnyway();
  else core.enter();
  return true;
}

/** Milliseconds, 1 or more, until time alone lets something go of an arena or of those that it imports from. A look. */
export function quarantineQuietMs(from: ArenaCore): number {
  let least = FOREVER;
  for (let core: ArenaCore | null = from; core !== null; ) {
    const { row } = core;
    const { arenaLife: life } = core.tables;
    const head = core.quarantines ? life.quarantineHead.get(row) : 0;
    if (head !== 0 && life.quarantineCount.get(row) > life.quarantineFrees.get(row)) {
      least = Math.min(least, Math.max(1, life.quarantineMs.get(row) - ageOf(core, head)));
    }
    core = core.importArena >= 0 ? core.cores.at(core.importArena) : null;
  }
  return least;
}

/** How much is in quarantine and for how long, as the end of a sentence; '' for nothing. A look. */
export function quarantineInTheWay(core: ArenaCore): string {
  const { row } = core;
  const { arenaLife: life } = core.tables;
  const count = life.quarantineCount.get(row);
  const head = life.quarantineHead.get(row);
  if (!core.quarantines || head === 0) return '';
  const frees = life.quarantineFrees.get(row) - (count - 1);
  const ms = life.quarantineMs.get(row) - ageOf(core, head);
  const until = [...(frees > 0 ? [`${frees} more frees`] : []), ...(ms > 0 ? [`another ${ms} ms`] : [])];
  const rest = until.length === 0 ? '' : `, the oldest for ${until.join(' and ')}`;
  return `; ${life.quarantineSize.get(row)} is in quarantine (ranges: ${count})${rest}`;
}

/** Ranges in quarantine, and their sizes together. Under the lock. */
export function quarantineUse(core: ArenaCore): { readonly count: number; readonly size: number } {
  const { quarantineCount, quarantineSize } = core.tables.arenaLife;
  return { count: quarantineCount.get(core.row), size: quarantineSize.get(core.row) };
}
