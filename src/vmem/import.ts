/**
 * Importing a span from the arena's source.
 *
 * STRUCTURE   1 how much to ask for   2 leave the lock, ask the source   3 take the lock, make a span of it; a range that
 *             cannot become one goes back at once
 * LOCKING     Entered and left with the arena's lock; dropped in step 2. At every moment the range is recorded: see
 *             transfer.ts.
 * FAILURE     False: the source has nothing, or there is no tag for the span. Throws `ESTALE` without the lock when the
 *             arena was destroyed meanwhile, `EINVAL` for a span that a function should not have returned.
 */

import { ADDRESS_MAX, fail, failMisuse, VERIFY } from '../base/index.ts';
import { ARENA_WORD } from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import { allocate } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import type { Constraints } from './fit.ts';
import { ARENA_COUNTER, ARENA_FLAG, LARGE_IMPORT_FACTOR, STRATEGY, TAG_KIND } from './kinds.ts';
import { spanOverlap } from './span-tree.ts';
import { insertSpan } from './spans.ts';
import { refillReserve, TAGS_PER_OPERATION } from './tag-pool.ts';
import { clearTransfer, recordFunctionImport, returnInFlight, spanSource } from './transfer.ts';

/** Brings in a span for a request of `size`. See the file's header. */
export function importSpan(
  core: ArenaCore,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  attempt: number,
): boolean {
  if (!core.imports || !mayImport(core, constraints, attempt)) return false;
  // 1.
  let wanted = core.flags & ARENA_FLAG.largeImport ? size * LARGE_IMPORT_FACTOR : size;
  if (core.importUnit !== 0) wanted = Math.ceil(wanted / core.importUnit) * core.importUnit;
  if (wanted > ADDRESS_MAX) return false;
  // 2.
  core.exit();
  if (VERIFY && faultPoint(core.thread, 'vmem.import.start')) {
    core.enter();
    return false;
  }
  const start = core.importArena >= 0 ? askArena(core, wanted, strategy) : askFunction(core, wanted);
  const received = core.tables.transfer.size.get(core.thread.slot);
  if (VERIFY) faultPoint(core.thread, 'vmem.import.received');
  // 3.
  try {
    core.enter();
  } catch (error) {
    returnInFlight(core.cores, core.thread.slot);
    throw error;
  }
  if (start < 0) {
    core.count(ARENA_COUNTER.importFailures);
    return false;
  }
  return recordSpan(core, start, core.importArena >= 0 ? wanted : received);
}

/** What constraints a source can be asked for. */
function mayImport(core: ArenaCore, constraints: Constraints | null, attempt: number): boolean {
  if (constraints === null) return true;
  if (constraints.align !== core.quantum || constraints.phase !== 0 || constraints.nocross !== 0) return false;
  return attempt === 0 || (core.flags & ARENA_FLAG.compatSeed) !== 0;
}

function askArena(core: ArenaCore, wanted: number, strategy: number): number {
  const source = core.cores.at(core.importArena);
  const rounded = Math.ceil(wanted / source.quantum) * source.quantum;
  if (rounded > ADDRESS_MAX) return -1;
  return allocate(source, rounded, core.importUnit !== 0 ? STRATEGY.instant : strategy, null, core.row);
}

function askFunction(core: ArenaCore, wanted: number): number {
  const source = spanSource(core.cores, core);
  const answer = source.import(wanted);
  const start = typeof answer === 'number' ? answer : answer.start;
  const size = typeof answer === 'number' ? wanted : answer.size;
  if (start === -1) return -1;
  const { quantum } = core;
  const whole = Number.isSafeInteger(start) && start >= 0 && start % quantum === 0 && size % quantum === 0;
  if (!whole || !Number.isSafeInteger(size) || size < wanted || start > ADDRESS_MAX - size) {
    source.release?.(start, size);
    failMisuse(
      `import function of arena ${core.name}`,
      { wanted, start, size, quantum },
      'must return -1 or a range of whole quanta that is large enough',
    );
  }
  recordFunctionImport(core, start, size);
  return start;
}

/** Makes a span of the range in flight. */
function recordSpan(core: ArenaCore, start: number, size: number): boolean {
  const overlapped = spanOverlap(core, start, size) !== 0;
  const enough =
    (core.words[core.base + ARENA_WORD.spareCount] as number) >= TAGS_PER_OPERATION ||
    refillReserve(core, TAGS_PER_OPERATION);
  if (overlapped || !enough) {
    core.exit();
    returnInFlight(core.cores, core.thread.slot);
    if (overlapped) {
      fail('EINVAL', 'import', { arena: core.name, start, size }, 'the source gave a range that overlaps a span');
    }
    core.enter();
    return false;
  }
  insertSpan(core, start, size, TAG_KIND.spanImported);
  clearTransfer(core);
  core.count(ARENA_COUNTER.imports);
  if (VERIFY) faultPoint(core.thread, 'vmem.import.recorded');
  core.thread.commit();
  return true;
}
