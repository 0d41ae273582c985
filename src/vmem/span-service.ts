/**
 * Asynchronous imports: spans from sources that answer later.
 *
 * PROBLEM     A remote source (a server that leases identifiers, a device) returns a promise, and the thread that needs the
 *             span may be blocked, or may not have the function.
 * STRUCTURE   One request per arena that all its waiters share:
 *
 *               idle --- a waiter finds nothing ---> wanted --- a thread that has the function ---> running --- answer ---> idle
 *                                                      ^------------- that thread died ---------------'
 *
 *             Who runs it: a thread that waits with `allocAsync` and has the function, a thread that called
 *             `arenas.serveImports`, or the daemon for functions of modules. Who waits sleeps in the queue of space-queue.ts
 *             and is told when the span is there.
 *             `alloc` and `tryAlloc` do not import here: they say at once whether something is free.
 * INVARIANTS  I1 at most one import of an arena is running, and the row names who runs it.
 *             I2 a waiter that joined before an import failed learns of it.
 * LOCKING     The arena's lock for the row; no lock is held while the function runs or its promise is awaited.
 * COSTS       Arenas with another source, or none: a test of a constant where a request fails.
 * FAILURE     An error of the function, garbage for an answer, a limit that has passed, or a module or export that does not
 *             exist ends the waits of all who share the request: `EIO` with the function and the error. -1 means that there is
 *             nothing at present: they go on waiting, and the source is asked again after a pause (import-pauses.ts).
 *             An import may have a time limit of its own, beside those of its waiters: waiters and threads that
 *             serve see that it has passed. What comes late becomes a span all the same.
 *             The function may run twice for one request when the thread that ran it died. A range that it had returned to
 *             the dead thread, but that was not yet noted, is the source's to take back: leases should expire. Once it is
 *             noted, whoever recovers the slot releases it: the daemon can for functions of modules, but not for those that
 *             are registered by name, which other threads do not have; such a range, too, is the source's to take back.
 * REJECTED    An import per waiter: ten waiters for one identifier each would lease ten blocks. Running it in a blocked thread.
 * REFERENCES  docs/locking.md: rules beside the ranks.
 */

import { fail, InvariantError, VERIFY, VmError } from '../base/index.ts';
import {
  ALL_WAITERS,
  add,
  FOREVER,
  faultPoint,
  isShutDown,
  load,
  notify,
  type SlotIndex,
  sleepAsync,
} from '../sync/index.ts';
import type { ArenaCore } from './arena-core.ts';
import type { ArenaCores } from './arena-cores.ts';
import type { Constraints } from './fit.ts';
import { type Ask, asksFor, isOverLimit, isRange, recordAnswer, recordSpan, roomFor } from './import.ts';
import { endPauses, missesOf, noteMiss, pauseOf } from './import-pauses.ts';
import { FLAG_ASYNC_IMPORT, STATE_READY, STRATEGY_INSTANT } from './kinds.ts';
import { announceSpace } from './space-queue.ts';
import { seemsSpanned } from './spans.ts';
import { type AsyncSpanSource, returnInFlight } from './transfer.ts';

/** States of an arena's request. */
export const SPAN_REQUEST = { idle: 0, wanted: 1, running: 2 } as const;

/** How long a server of imports may sleep before it looks by itself. */
const LOOK_MS = 1000;

const ERROR_BYTES_MAX = 200;

/** The functions of an asynchronous source, or null when this thread does not have them. */
export function asyncSourceOf(core: ArenaCore): AsyncSpanSource | null {
  try {
    return core.cores.callbacks.resolve<AsyncSpanSource>(core.importCallback);
  } catch (error) {
    if (error instanceof VmError && error.code === 'ENOENT') return null;
    throw error;
  }
}

/** The arena with an asynchronous source that a request depends on: itself or one that it imports from, or null. */
function asyncAncestor(core: ArenaCore): ArenaCore | null {
  let at = core;
  while (!at.asyncImports && at.importArena >= 0) at = at.cores.at(at.importArena);
  return at.asyncImports ? at : null;
}

/** Says that a request of this size found nothing. Called without a lock. `here`: this thread may run the import. */
export function requestSpan(from: ArenaCore, size: number, constraints: Constraints | null, here: boolean): void {
  const core = asyncAncestor(from);
  if (core === null) return;
  const { spanRequest: request, spanService } = core.tables;
  const { journal, row, thread } = core;
  const rounded = roundUp(core, size);
  const place = core === from ? constraints : null;
  // Whoever finds that an import has taken too long learns of it next, and wants nothing more.
  if (expireImport(core)) return;
  core.enter();
  const state = request.state.get(row);
  // Also instead of one that has to pause when this one need not.
  const paused = state === SPAN_REQUEST.wanted && pauseMs(core) > 0 && pauseOf(core, rounded, place) === 0;
  const noted = state === SPAN_REQUEST.idle || paused;
  if (noted) {
    journal.setDouble(request.size, row, rounded);
    journal.set(request.constrained, row, place === null ? 0 : 1);
    for (const key of ['align', 'phase', 'nocross', 'min', 'max'] as const) {
      if (place !== null) journal.setDouble(request[key], row, place[key]);
    }
    journal.set(request.state, row, SPAN_REQUEST.wanted);
  } else if (state === SPAN_REQUEST.wanted && place === null && request.constrained.get(row) === 0) {
    journal.setDouble(request.size, row, Math.max(request.size.get(row), rounded));
  }
  core.exit();
  if (VERIFY) faultPoint(thread, 'vmem.asyncImport.wanted');
  if (here) startImport(core);
  if (!noted || request.state.get(row) !== SPAN_REQUEST.wanted) return;
  const wanted = spanService.wanted.address(0);
  add(thread.words, wanted, 1);
  notify(thread.words, wanted, ALL_WAITERS);
}

/** Imports that failed so far: a waiter compares, see `failIfImportFailed`. */
export function importFailures(from: ArenaCore): number {
  const core = asyncAncestor(from);
  return core === null ? 0 : load(core.words, core.tables.spanRequest.failures.address(core.row));
}

/** Throws `EIO` when an import failed since `noted` was read. */
export function failIfImportFailed(from: ArenaCore, call: string, size: number, noted: number): void {
  const core = asyncAncestor(from);
  if (core === null || importFailures(core) === noted) return;
  const { name, module } = core.cores.callbacks.describe(core.importCallback);
  const place = module === '' ? '' : ` of module ${module}`;
  const text = core.tables.spanRequest.errorText.text(core.row);
  fail(
    'EIO',
    call,
    { arena: from.name, size },
    `import function ${name}${place} of arena ${JSON.stringify(core.name)}: ${text}`,
  );
}

/** Why an import that is wanted has not begun, as the end of a sentence; '' for no such reason. A look. */
export function importInTheWay(from: ArenaCore): string {
  const core = asyncAncestor(from);
  if (core === null || core.tables.spanRequest.state.get(core.row) !== SPAN_REQUEST.wanted) return '';
  if (pauseMs(core) > 0 || asyncSourceOf(core) !== null) return '';
  const { name } = core.cores.callbacks.describe(core.importCallback);
  return `; no thread runs its import function ${name}: register it here, or call \`serveImports\` in one that has it`;
}

/** Runs the request of an arena if it is wanted and this thread has the function. True when it does. */
function startImport(core: ArenaCore): boolean {
  if (core.tables.spanRequest.state.get(core.row) !== SPAN_REQUEST.wanted || pauseMs(core) > 0) return false;
  const source = asyncSourceOf(core);
  // A name may be registered in another thread; what a module does not export is nowhere.
  const missing = source === null && core.cores.callbacks.describe(core.importCallback).module !== '';
  if (source === null && !missing) return false;
  const ask = claim(core);
  if (ask === null) return false;
  if (source === null) {
    finish(core, 'no such module, or no such export of it', ask.run);
    return true;
  }
  void runImport(core, source, ask);
  return true;
}

interface SpanAsk {
  readonly wanted: number;
  readonly size: number;
  readonly constraints: Constraints | null;
  /** Number of the import. */
  readonly run: number;
}

/** Makes this thread the one that runs the request; null when there is none, or the arena's limit forbids it. */
function claim(core: ArenaCore): SpanAsk | null {
  const { spanRequest: request } = core.tables;
  const { row, journal } = core;
  core.enter();
  let ask: SpanAsk | null = null;
  if (request.state.get(row) === SPAN_REQUEST.wanted && pauseMs(core) === 0) {
    const size = request.size.get(row);
    const constraints = wantedPlace(core);
    // Every other time after one that did not help: the source may not look at constraints.
    const wide =
      constraints !== null && missesOf(core, constraints) % 2 === 1 ? [roomFor(core, size, constraints)] : [];
    const wanted = [...wide, ...asksFor(core, size, constraints)].find((candidate) => !isOverLimit(core, candidate));
    const run = (request.run.get(row) + 1) | 0;
    if (wanted !== undefined) ask = { wanted, size, constraints, run };
    const limit = request.timeoutMs.get(row);
    journal.set(request.run, row, run);
    journal.setDouble(request.deadline, row, limit === 0 ? FOREVER : core.thread.clock.now() + limit);
    journal.set(request.state, row, ask === null ? SPAN_REQUEST.idle : SPAN_REQUEST.running);
    journal.set(request.runner, row, core.thread.tag);
  }
  core.exit();
  if (VERIFY) faultPoint(core.thread, 'vmem.asyncImport.claimed');
  return ask;
}

/** Gives up an import that has taken too long: its waiters learn of it as of a failure. Called without a lock. */
function expireImport(core: ArenaCore): boolean {
  const { spanRequest: request } = core.tables;
  const { row, journal, thread } = core;
  const isLate = () =>
    request.state.get(row) === SPAN_REQUEST.running && request.deadline.get(row) <= thread.clock.now();
  if (!isLate()) return false;
  core.enter();
  const late = isLate();
  if (late) {
    noteFailure(core, `no answer within ${request.timeoutMs.get(row)} ms`);
    journal.set(request.state, row, SPAN_REQUEST.idle);
    journal.set(request.runner, row, 0);
  }
  core.exit();
  if (late) announceSpace(core);
  return late;
}

/** Under the lock. */
function noteFailure(core: ArenaCore, text: string): void {
  const { failures, errorText } = core.tables.spanRequest;
  errorText.putText(core.row, text.slice(0, ERROR_BYTES_MAX));
  core.journal.set(failures, core.row, (failures.get(core.row) + 1) | 0);
}

/** Milliseconds for which the source is not asked for what is wanted. A look. */
function pauseMs(core: ArenaCore): number {
  return pauseOf(core, core.tables.spanRequest.size.get(core.row), wantedPlace(core));
}

/** Constraints of what is wanted, or null. */
function wantedPlace(core: ArenaCore): Constraints | null {
  const { constrained, align, phase, nocross, min, max } = core.tables.spanRequest;
  const { row } = core;
  if (constrained.get(row) === 0) return null;
  return {
    align: align.get(row),
    phase: phase.get(row),
    nocross: nocross.get(row),
    min: min.get(row),
    max: max.get(row),
  };
}

/**
 * Milliseconds after which who waits for this looks whether its import, or the one that is wanted, may be asked for. A look.
 */
export function importQuietMs(from: ArenaCore, size: number, constraints: Constraints | null): number {
  const core = asyncAncestor(from);
  if (core === null) return FOREVER;
  const own = pauseOf(core, roundUp(core, size), core === from ? constraints : null);
  return Math.min(quietMs(core), Math.ceil(own) || FOREVER);
}

function quietMs(core: ArenaCore): number {
  const state = core.tables.spanRequest.state.get(core.row);
  return state === SPAN_REQUEST.running ? FOREVER : Math.ceil(pauseMs(core)) || FOREVER;
}

/** In whole quanta of the arena that is asked. */
function roundUp(core: ArenaCore, size: number): number {
  return Math.ceil(size * core.inverseQuantum) * core.quantum;
}

async function runImport(core: ArenaCore, source: AsyncSpanSource, ask: SpanAsk): Promise<void> {
  const { wanted, size, constraints } = ask;
  let failure: string | null = null;
  let helped = false;
  try {
    if (typeof source.importAsync !== 'function') throw new TypeError('must be an object with `importAsync`');
    const answer = constraints === null ? source.importAsync(wanted) : source.importAsync(wanted, constraints, size);
    const range: unknown = await answer;
    if (VERIFY) faultPoint(core.thread, 'vmem.asyncImport.answered');
    // From here to the end of the section there is no await.
    if (core.thread.ended) {
      giveBackLate(core, source, range, wanted);
      return;
    }
    const start = recordAnswer(core, source, range, wanted, constraints === null ? wanted : size);
    if (start >= 0)
      helped = record(core, start, { wanted, strategy: STRATEGY_INSTANT, place: null, size, constraints });
  } catch (error) {
    if (error instanceof InvariantError || core.thread.ended) return;
    failure = error instanceof Error ? error.message : String(error);
  }
  try {
    finish(core, failure, ask.run, failure !== null || helped ? null : ask);
  } catch (error) {
    // Destroyed or poisoned meanwhile: whoever waits finds out by itself.
    if (!(error instanceof VmError)) throw error;
  }
}

/** Makes a span of the range in flight, if that helps. Called without the lock. */
function record(core: ArenaCore, start: number, ask: Ask): boolean {
  try {
    core.enter();
  } catch (error) {
    returnInFlight(core.cores, core.thread.slot);
    throw error;
  }
  const helped = recordSpan(core, start, core.tables.transfer.size.get(core.thread.slot), ask);
  core.exit();
  return helped;
}

/**
 * The thread detached while it waited: another one runs the request, and what came goes back, unless the source has given
 * the same to that one.
 */
function giveBackLate(core: ArenaCore, source: AsyncSpanSource, range: unknown, wanted: number): void {
  const isObject = typeof range === 'object' && range !== null;
  const { start, size } = (isObject ? range : { start: range, size: wanted }) as { start: number; size: number };
  if (isRange(start, size) && !seemsSpanned(core, start, size)) source.release?.(start, size);
}

/** An import is over, well or not, or `missed`: tells who waits. One that was given up is over already. */
function finish(core: ArenaCore, failure: string | null, run: number, missed: SpanAsk | null = null): void {
  const { spanRequest: request } = core.tables;
  const { row, journal, thread } = core;
  core.enter();
  if (request.runner.get(row) === thread.tag && request.run.get(row) === run) {
    if (failure !== null) noteFailure(core, failure);
    if (missed === null) endPauses(core);
    else noteMiss(core, missed.size, missed.constraints);
    journal.set(request.state, row, SPAN_REQUEST.idle);
    journal.set(request.runner, row, 0);
  }
  core.exit();
  if (VERIFY) faultPoint(thread, 'vmem.asyncImport.finished');
  announceSpace(core);
}

/** Runs imports that other threads wait for, until one of the regular ends. See `Arenas`. */
export async function serveImports(cores: ArenaCores, signal: AbortSignal | undefined): Promise<void> {
  const { thread } = cores;
  try {
    await serveWhileAttached(cores, signal);
  } catch (error) {
    const isEnd = thread.ended || isShutDown(thread.region);
    if (!isEnd || !(error instanceof VmError)) throw error;
  }
}

async function serveWhileAttached(cores: ArenaCores, signal: AbortSignal | undefined): Promise<void> {
  const { arena, spanRequest: request, spanService } = cores.thread.region.tables;
  const { thread } = cores;
  const wanted = spanService.wanted.address(0);
  while (signal?.aborted !== true && !thread.ended) {
    const seen = load(thread.words, wanted);
    let quiet = LOOK_MS;
    for (let row = 0; row < arena.rowCount; row++) {
      if (request.state.get(row) === SPAN_REQUEST.idle || arena.state.get(row) !== STATE_READY) continue;
      if ((arena.flags.get(row) & FLAG_ASYNC_IMPORT) !== 0) quiet = Math.min(quiet, serveQuietly(cores.at(row)));
    }
    await sleepAsync(thread, wanted, seen, quiet, signal);
  }
}

/** The arena may be destroyed at any moment: then there is nothing to serve. Milliseconds until it may be served. */
function serveQuietly(core: ArenaCore): number {
  try {
    expireImport(core);
    startImport(core);
    return quietMs(core);
  } catch (error) {
    if (!(error instanceof VmError) || error.code === 'EPOISONED') throw error;
    return LOOK_MS;
  }
}

/** Lets others run what a slot ran whose thread has ended or detaches. Called without a lock. */
export function abandonImports(cores: ArenaCores, slot: SlotIndex): void {
  const { thread } = cores;
  const { arena, spanRequest: request, spanService } = thread.region.tables;
  let abandoned = false;
  for (let row = 0; row < arena.rowCount; row++) {
    if (request.runner.get(row) !== slot + 1) continue;
    const core = cores.at(row);
    core.enterAnyway();
    if (request.runner.get(row) === slot + 1) {
      const running = request.state.get(row) === SPAN_REQUEST.running;
      if (running) core.journal.set(request.state, row, SPAN_REQUEST.wanted);
      core.journal.set(request.runner, row, 0);
      abandoned ||= running;
    }
    core.exit();
  }
  if (!abandoned) return;
  add(thread.words, spanService.wanted.address(0), 1);
  notify(thread.words, spanService.wanted.address(0), ALL_WAITERS);
}
