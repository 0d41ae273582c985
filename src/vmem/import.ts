/**
 * Importing spans from the arena's source.
 *
 * PROBLEM     An arena without a free segment for a request gets one from its source: an amount that makes the next imports
 *             rarer, at a place that satisfies the request, and without draining the source for requests that cannot be
 *             satisfied.
 * STRUCTURE   plain request         16 times the size if that is wished, else or then the size; of another arena in whole
 *                                   quanta of that arena, which gives no less anyway
 *             constrained request   every range of the source's quanta that just covers a place for the request, as
 *                                   constraints on that range: import-places.ts; then, if a function is asked, a range
 *                                   with room for any place
 *             rounded sizes         the same, each range enlarged to whole units; then another arena, but no function, is
 *                                   asked for the ranges as they are
 *
 *             Each ask: 1 leave the lock, ask   2 take the lock, make a span of the answer, or give it back when it does
 *             not help. When the source is out of space, it takes back what its importers keep idle.
 * INVARIANTS  I1 at every moment the range is recorded: see transfer.ts.
 *             I2 a range that cannot hold the request never becomes a span.
 * LOCKING     Entered and left with the arena's lock; dropped while the source is asked.
 * COSTS       Two asks of the source at most; under constraints one if `align` is at least the source's quantum, else up to
 *             six, each for ranges that the others do not have, and two more of a function; with sizes that are rounded up
 *             each of another arena once more as it is.
 * FAILURE     False: the source has nothing, or there is no tag for the span. Throws `ESTALE` without the lock when the
 *             arena was destroyed meanwhile, `EINVAL` for a span that a function should not have returned. With
 *             `compat: 'seed'` constrained requests do not import, `min` and `max` do not count, and there is no second ask.
 * REJECTED    Trying larger and larger imports for a constrained request: it empties the source for nothing.
 * REFERENCES  docs/differences.md: imports.
 */

import { ADDRESS_MAX, alignDown, alignUp, crosses, fail, failMisuse, VERIFY } from '../base/index.ts';
import {
  ARENA_IDLE_HEAD,
  ARENA_SIZE_TOTAL,
  ARENA_SPARE_COUNT,
  TAG_BIN_NEXT,
  TAG_DOUBLE_SHIFT,
  TAG_SHIFT,
  TAG_SIZE,
  TAG_START,
} from '../layout/index.ts';
import { faultPoint } from '../sync/index.ts';
import { allocate } from './allocate.ts';
import type { ArenaCore } from './arena-core.ts';
import { type Constraints, fitSegment } from './fit.ts';
import { idleInsert } from './idle-spans.ts';
import { importPlaces, lastOfUnit } from './import-places.ts';
import {
  COUNT_IMPORT_FAILURES,
  COUNT_IMPORTS,
  COUNT_REFUSALS,
  FLAG_LARGE_IMPORT,
  KIND_SPAN_IMPORTED,
  LARGE_IMPORT_FACTOR,
  REFUSED_BY,
  STATE_READY,
  STRATEGY_BEST,
  STRATEGY_INSTANT,
} from './kinds.ts';
import { releaseIdleSpan } from './release.ts';
import { isAwaited } from './space-queue.ts';
import { spanOverlap } from './span-tree.ts';
import { insertSpan, saveHeader } from './spans.ts';
import { refillReserve } from './tag-arena.ts';
import { TAGS_PER_OPERATION } from './tag-pool.ts';
import { clearTransfer, recordFunctionImport, returnInFlight, type SpanSource, spanSource } from './transfer.ts';

/** Imports that one request may make: more than one only when other threads take what it imported. */
const ATTEMPTS_MAX = 4;

/** Sizes that a source is asked for, the best first: a constrained request asks an asynchronous one only. */
export function asksFor(core: ArenaCore, size: number, constraints: Constraints | null): number[] {
  const large = (core.flags & FLAG_LARGE_IMPORT) !== 0 && constraints === null && !core.seed;
  const asks = large ? [inUnits(core, size * LARGE_IMPORT_FACTOR), inUnits(core, size)] : [inUnits(core, size)];
  if (core.importArena < 0 || core.seed) return asks;
  // What the source gives in whole quanta becomes a span in whole quanta, unless only less than that is allowed.
  const unit = core.cores.at(core.importArena).quantum;
  const whole = [...asks, size].map((ask) => alignUp(ask, unit));
  return [...new Set(core.limit === Number.POSITIVE_INFINITY ? whole : [...whole, size])];
}

/** What is asked of the source, and for which request. */
export interface Ask {
  /** Size of the range. */
  readonly wanted: number;
  readonly strategy: number;
  /** What the source must keep to. */
  readonly place: Constraints | null;
  /** The request that the range must be able to hold. */
  readonly size: number;
  readonly constraints: Constraints | null;
}

type ConstrainedRequest = Pick<Ask, 'strategy' | 'size'> & { readonly constraints: Constraints };

/** Brings in a span for a request of `size`. See the file's header. */
export function importSpan(
  core: ArenaCore,
  size: number,
  strategy: number,
  constraints: Constraints | null,
  attempt: number,
): boolean {
  if (!core.imports) return false;
  if (core.asyncImports) {
    if (exceedsLimit(core, Math.min(...asksFor(core, size, null)))) core.refusedBy = REFUSED_BY.arena;
    return false;
  }
  const large = (core.flags & FLAG_LARGE_IMPORT) !== 0;
  const rounds = core.importUnit !== 0;
  const plain = { strategy: rounds ? STRATEGY_INSTANT : strategy, place: null, size, constraints: null };
  if (core.seed) {
    if (constraints !== null && !onlyLimits(core, constraints)) return false;
    return importRange(core, { ...plain, wanted: inUnits(core, large ? size * LARGE_IMPORT_FACTOR : size) });
  }
  if (attempt >= ATTEMPTS_MAX) return false;
  if (constraints !== null) {
    const request = { ...plain, constraints };
    const exact = rounds && core.importArena >= 0;
    return importConstrained(core, request, false) || (exact && importConstrained(core, request, true));
  }
  return asksFor(core, size, null).some((wanted) => importRange(core, { ...plain, wanted }));
}

/** True for constraints that the original source lets import: `min` and `max`. */
function onlyLimits(core: ArenaCore, constraints: Constraints): boolean {
  return constraints.align === core.quantum && constraints.phase === 0 && constraints.nocross === 0;
}

function inUnits(core: ArenaCore, size: number): number {
  return core.importUnit === 0 ? size : Math.ceil(size / core.importUnit) * core.importUnit;
}

/** Asks for the ranges that just cover a place: rounded up, or `exact`, which leaves out those that rounding does not change. */
function importConstrained(core: ArenaCore, request: ConstrainedRequest, exact: boolean): boolean {
  const { size, constraints } = request;
  const unit = core.importArena >= 0 ? core.cores.at(core.importArena).quantum : core.quantum;
  for (const { size: covered, place } of importPlaces(size, constraints, unit)) {
    const rounded = alignUp(inUnits(core, covered), unit);
    const more = rounded - covered;
    if (exact) {
      if (more !== 0 && importRange(core, { ...request, wanted: covered, place })) return true;
      continue;
    }
    const wide =
      more === 0 ? place : { ...place, ...enlarged(place, rounded), max: Math.min(ADDRESS_MAX, place.max + more) };
    if (importRange(core, { ...request, wanted: rounded, place: wide })) return true;
  }
  return core.importArena < 0 && importFromFunction(core, request);
}

/** The boundary for a range that is larger than what must not cross it: none where the alignment, or nothing, keeps to it. */
function enlarged({ align, phase, nocross }: Constraints, rounded: number): Pick<Constraints, 'nocross'> {
  const keeps = align < nocross && nocross >= rounded && !crosses(phase, phase + rounded - 1, nocross);
  return { nocross: keeps ? nocross : 0 };
}

/** A function may choose places of its own: asks for what could hold the request, and for what holds it wherever it lies. */
function importFromFunction(core: ArenaCore, request: ConstrainedRequest): boolean {
  const { align, nocross, min, max } = request.constraints;
  const unit = core.quantum;
  // Without a cut unit, or a boundary, all has been asked for.
  const cut = min % unit !== 0 || (max + 1) % unit !== 0;
  if (!cut && align <= unit && nocross <= unit) return false;
  const place = { align: unit, phase: 0, nocross: 0, min: alignDown(min, unit), max: lastOfUnit(max, unit) };
  const wanted = inUnits(core, request.size);
  const room = roomFor(core, request.size, request.constraints);
  return (
    (cut && wanted !== room && importRange(core, { ...request, wanted, place })) ||
    importRange(core, { ...request, wanted: room, place })
  );
}

/** Size of a range that has a place for a constrained request wherever it lies, as far as `min` and `max` allow. */
export function roomFor(core: ArenaCore, size: number, { align, nocross }: Constraints): number {
  return inUnits(core, size + align + (nocross > core.quantum ? nocross : 0));
}

/** True when a span of this size would take the arena above its limit. Only certain under the lock. */
export function exceedsLimit(core: ArenaCore, size: number): boolean {
  return (core.doubles[core.baseDouble + ARENA_SIZE_TOTAL] as number) + size > core.limit;
}

/** The same, and counted. Under the lock. */
export function isOverLimit(core: ArenaCore, size: number): boolean {
  if (!exceedsLimit(core, size)) return false;
  core.count(COUNT_REFUSALS);
  return true;
}

/** Asks once. `core.refusedBy` is what the last ask of a request says. */
function importRange(core: ArenaCore, ask: Ask): boolean {
  if (ask.wanted > ADDRESS_MAX) return false;
  if (isOverLimit(core, ask.wanted)) {
    core.refusedBy = REFUSED_BY.arena;
    return false;
  }
  // 1.
  core.exit();
  if (VERIFY && faultPoint(core.thread, 'vmem.import.start')) {
    core.enter();
    return false;
  }
  const start = core.importArena >= 0 ? askArena(core, ask) : askFunction(core, ask);
  const received = core.importArena >= 0 ? ask.wanted : core.tables.transfer.size.get(core.thread.slot);
  if (VERIFY) faultPoint(core.thread, 'vmem.import.received');
  // 2.
  try {
    core.enter();
  } catch (error) {
    returnInFlight(core.cores, core.thread.slot);
    throw error;
  }
  core.refusedBy = REFUSED_BY.none;
  if (start < 0) {
    core.count(COUNT_IMPORT_FAILURES);
    return false;
  }
  return recordSpan(core, start, received, ask);
}

function askArena(core: ArenaCore, ask: Ask): number {
  const source = core.cores.at(core.importArena);
  const rounded = Math.ceil(ask.wanted / source.quantum) * source.quantum;
  if (rounded > ADDRESS_MAX) return -1;
  // Exact and next fit are a matter of this arena; the source chooses in its own way.
  const own = ask.strategy !== STRATEGY_INSTANT && ask.strategy !== STRATEGY_BEST;
  return allocate(source, rounded, own ? source.strategy : ask.strategy, ask.place, core.row);
}

function askFunction(core: ArenaCore, ask: Ask): number {
  const { wanted } = ask;
  const source = spanSource(core.cores, core);
  if (typeof source.import !== 'function') failSource(core, { export: source }, 'must be an object with `import`');
  const { constraints, size } = ask;
  if (core.seed) return recordAnswer(core, source, source.import(wanted), wanted);
  return recordAnswer(core, source, source.import(wanted, constraints ?? undefined, size), wanted, size);
}

/** Looks at what an import function returned and puts it in flight. The range's start, or -1 for none. */
export function recordAnswer(
  core: ArenaCore,
  source: Pick<SpanSource, 'release'>,
  answer: unknown,
  wanted: number,
  least = wanted,
): number {
  if (answer === -1) return -1;
  const range = typeof answer === 'object' && answer !== null ? (answer as { start?: unknown; size?: unknown }) : null;
  const start = range === null ? answer : range.start;
  const size = range === null ? wanted : range.size;
  if (typeof start !== 'number' || typeof size !== 'number') {
    failSource(core, { wanted, returned: answer }, 'must return -1, an address, or { start, size }');
  }
  if (start === -1) return -1;
  const { quantum } = core;
  const whole = Number.isSafeInteger(start) && start >= 0 && start % quantum === 0 && size % quantum === 0;
  if (!whole || !Number.isSafeInteger(size) || size < least || start > ADDRESS_MAX - size) {
    if (mayGoBack(core, start, size)) source.release?.(start, size);
    failSource(
      core,
      { wanted, start, size, quantum },
      'must return -1 or a range of whole quanta that is large enough',
    );
  }
  recordFunctionImport(core, start, size);
  return start;
}

/** True for what could be a range. */
export function isRange(start: number, size: number): boolean {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(size)) return false;
  return start >= 0 && size > 0 && start <= ADDRESS_MAX - size;
}

/**
 * True for a range that no span has a part of: what does not help goes back, what is in use must not. Without the lock. An
 * arena that was destroyed meanwhile has no spans.
 */
function mayGoBack(core: ArenaCore, start: number, size: number): boolean {
  if (!isRange(start, size)) return false;
  core.enterAnyway();
  const free = core.words[core.generationAddress] !== core.generation || spanOverlap(core, start, size) === 0;
  core.exit();
  return free;
}

function failSource(core: ArenaCore, values: Readonly<Record<string, unknown>>, rule: string): never {
  const { module, name } = core.cores.callbacks.describe(core.importCallback);
  const where = module === '' ? name : `${name} of ${module}`;
  failMisuse(`import function ${where} of arena ${JSON.stringify(core.name)}`, values, rule);
}

/**
 * Makes a span of the range in flight, or gives it back unless a span of the arena has a part of it. Entered and left with the
 * lock, which it leaves to throw.
 */
export function recordSpan(core: ArenaCore, start: number, size: number, ask: Ask): boolean {
  const overlapped = spanOverlap(core, start, size) !== 0;
  const allowed = !isOverLimit(core, size);
  const helps = ask.constraints === null || fitSegment(start, size, ask.size, ask.constraints) >= 0;
  const enough =
    (core.words[core.base + ARENA_SPARE_COUNT] as number) >= TAGS_PER_OPERATION ||
    refillReserve(core, TAGS_PER_OPERATION);
  if (overlapped || !enough || !helps || !allowed) {
    // A function that gives a range twice would take away what is in use.
    if (overlapped && core.importCallback >= 0) clearTransfer(core);
    core.exit();
    returnInFlight(core.cores, core.thread.slot);
    if (overlapped) {
      fail('EINVAL', 'import', { arena: core.name, start, size }, 'the source gave a range that overlaps a span');
    }
    core.enter();
    if (!allowed) core.refusedBy = REFUSED_BY.arena;
    return false;
  }
  const span = insertSpan(core, start, size, KIND_SPAN_IMPORTED);
  if (core.releases && !core.seed) idleInsert(core, span);
  clearTransfer(core);
  if (core.importCallback >= 0 && !core.asyncImports) spanSource(core.cores, core).recorded?.();
  core.count(COUNT_IMPORTS);
  if (VERIFY) faultPoint(core.thread, 'vmem.import.recorded');
  core.thread.commit();
  return true;
}

/**
 * Gives the spans that an arena keeps idle back to its source, but those that requests wait for if `unwanted`. False when
 * there are none. Called without the lock.
 */
export function releaseIdle(core: ArenaCore, unwanted = false): boolean {
  const { words, doubles, base } = core;
  if (!core.canRelease) return false;
  let released = false;
  for (;;) {
    core.enterAnyway();
    let span = words[base + ARENA_IDLE_HEAD] as number;
    while (unwanted && span !== 0) {
      const at = span << TAG_DOUBLE_SHIFT;
      if (!isAwaited(core, doubles[at + TAG_START] as number, doubles[at + TAG_SIZE] as number)) break;
      span = words[(span << TAG_SHIFT) + TAG_BIN_NEXT] as number;
    }
    // The row may serve another arena by now.
    if (span === 0 || words[core.generationAddress] !== core.generation) break;
    saveHeader(core);
    releaseIdleSpan(core, span);
    core.exit();
    returnInFlight(core.cores, core.thread.slot);
    released = true;
  }
  core.exit();
  return released;
}

/** Takes back what the importers of this arena keep idle. Entered and left with the lock. */
export function reclaimIdle(core: ArenaCore, size: number, attempt: number): boolean {
  const { arena } = core.tables;
  if (core.seed || attempt >= ATTEMPTS_MAX) return false;
  // What it got from a function and keeps idle itself: given back, it may come again as part of something larger.
  // From one that answers later only when the limit is in the way, and not what came for another request just now.
  const total = core.doubles[core.baseDouble + ARENA_SIZE_TOTAL] as number;
  // From an arena, which takes it back itself: only where a limit may have kept that from being asked.
  const limited = core.limit !== Number.POSITIVE_INFINITY;
  const returns = core.importCallback >= 0 ? !core.asyncImports || total + size > core.limit : limited;
  const own = returns && core.words[core.base + ARENA_IDLE_HEAD] !== 0;
  let importers = 0;
  for (let row = 0; row < arena.rowCount; row++) if (arena.importArena.get(row) === core.row + 1) importers++;
  if (importers === 0 && !own) return false;
  core.exit();
  const released = own && releaseIdle(core, core.asyncImports);
  const reclaimed = reclaimBelow(core) || released;
  core.enter();
  return reclaimed;
}

/** The same without the lock: importers of importers first, so that what they release can move up. */
function reclaimBelow(core: ArenaCore): boolean {
  const { arena, arenaState } = core.tables;
  let reclaimed = false;
  for (let row = 0; row < arena.rowCount; row++) {
    if (arena.importArena.get(row) !== core.row + 1 || arena.state.get(row) !== STATE_READY) continue;
    const importer = core.cores.at(row);
    // The row may serve another arena by now.
    if (importer.importArena !== core.row || !importer.current) continue;
    reclaimed = reclaimBelow(importer) || reclaimed;
    reclaimed = importer.caches?.drainAll() || reclaimed;
    if (arenaState.idleHead.get(row) !== 0) reclaimed = releaseIdle(importer) || reclaimed;
  }
  return reclaimed;
}
