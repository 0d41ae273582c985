/**
 * Search for page lists: which frames a request takes when nobody asks for the seed's ways.
 *
 * PROBLEM     Serve whatever can be served, say no without touching anything, leave large runs whole, and let the cost
 *             depend on what is found.
 * STRUCTURE   By shape of the request:
 *
 *               any frames   counted first; then the lowest ones, class by class
 *               one frame    the lowest, class by class: no tree is asked
 *               one run      the lowest that fits, class by class; then across classes where segments touch
 *               a few runs   the longest pieces there are: enumerated by falling length, so that only runs matter that are
 *                            long enough to be among the best
 *
 *             Runs lie in stretches: adjacent available ranges of one bank.
 * INVARIANTS  I1 a search that returns null has changed nothing but the run tree and the map's mark.
 * LOCKING     Under the frames' lock, with nothing logged.
 * COSTS       One run: see run-tree.ts. A few runs: the runs that are at least half as long as the shortest one chosen.
 * FAILURE     Null or -1.
 * REJECTED    Hints: next fit spreads allocations over all memory and makes large runs rare. Taking frames while counting:
 *             a failure would reorder free lists.
 * REFERENCES  Weaknesses of uvm_pglist.c in docs/differences.md; address-ordered first fit, Wilson et al. 1995.
 */

import type { FrameIndex } from './banks.ts';
import type { FrameCore } from './frame-core.ts';
import type { FrameRun } from './frame-runs.ts';
import type { FrameRequest } from './page-list-request.ts';
import type { Stretch } from './phys-segments.ts';
import { placeRun } from './run-tree.ts';

/** Pieces kept beyond those that can be chosen, before the worst are dropped. */
const PIECES_SLACK = 64;

/** The default search over one region's frames. */
export class FitSearch {
  readonly #core: FrameCore;
  readonly #classes: number;

  constructor(core: FrameCore) {
    this.#core = core;
    this.#classes = core.thread.region.geometry.frameClasses;
  }

  /** True when any frames in the range will do. */
  static isSimple(request: FrameRequest): boolean {
    return request.segments >= request.count && request.alignment === 1 && request.boundary === 0;
  }

  /** First frame of one run, or -1. Takes nothing. */
  oneRun(request: FrameRequest): FrameIndex {
    const { map } = this.#core;
    if (request.count === 1 && request.alignment === 1) return this.#oneFrame(request);
    map.tree.refresh();
    if (request.boundary !== 0 && request.count > request.boundary) return -1;
    for (let freeList = 0; freeList < this.#classes; freeList++) {
      const first = this.#runIn(this.#core.segments.stretches(freeList), request);
      if (first >= 0) return first;
    }
    return this.#classes === 1 ? -1 : this.#runIn(this.#core.segments.joined(), request);
  }

  /** Any free frames in the range, lowest first, class by class; null when there are not enough. Takes nothing. */
  anyFrames(request: FrameRequest): FrameRun[] | null {
    const { tree } = this.#core.map;
    tree.refresh();
    let free = 0;
    for (const { low, high } of this.#core.segments.joined()) {
      const from = Math.max(low, request.low);
      const limit = Math.min(high, request.high);
      if (from < limit) free += tree.countFree(from, limit, request.count - free);
    }
    if (free < request.count) return null;
    const runs: FrameRun[] = [];
    let missing = request.count;
    for (let freeList = 0; freeList < this.#classes && missing > 0; freeList++) {
      for (const { low, high } of this.#core.segments.stretches(freeList)) {
        missing = this.#framesOf(Math.max(low, request.low), Math.min(high, request.high), missing, runs);
        if (missing === 0) break;
      }
    }
    return runs;
  }

  /** At most `segments` runs that together have the frames; null when there are none. Takes nothing. */
  fewRuns(request: FrameRequest): FrameRun[] | null {
    const { tree } = this.#core.map;
    const { count, segments } = request;
    tree.refresh();
    const longest = Math.min(tree.longest(), request.boundary === 0 ? count : Math.min(count, request.boundary));
    if (longest * segments < count) return null;
    for (let least = 2 ** Math.floor(Math.log2(longest)); least >= 1; least /= 2) {
      const pieces = this.#pieces(request, least, (from, limit) => {
        const first = tree.next(from, least, limit);
        return first < 0 ? null : { first, count: tree.runEnd(first + least, limit) - first };
      });
      const chosen = choose(pieces, count, segments);
      if (chosen !== null) return chosen;
      // As many pieces as may be chosen are at least this long: shorter ones cannot do better.
      if (pieces.filter((piece) => piece.count >= least).length >= segments) return null;
    }
    return null;
  }

  /** True when the request could be served if every frame of the segments were free. */
  isPossible(request: FrameRequest): boolean {
    const { count, segments } = request;
    const whole: FrameRun[] = this.#pieces(request, 1, (from, limit) => ({ first: from, count: limit - from }));
    if (FitSearch.isSimple(request)) return whole.reduce((sum, piece) => sum + piece.count, 0) >= count;
    return choose(whole, count, segments) !== null;
  }

  #oneFrame(request: FrameRequest): FrameIndex {
    const { map, segments } = this.#core;
    for (let freeList = 0; freeList < this.#classes; freeList++) {
      for (const { low, high } of segments.stretches(freeList)) {
        const first = map.lowestFree(Math.max(low, request.low), Math.min(high, request.high));
        if (first >= 0) return first;
      }
    }
    return -1;
  }

  #runIn(stretches: readonly Stretch[], request: FrameRequest): FrameIndex {
    const { tree } = this.#core.map;
    for (const { low, high } of stretches) {
      const first = tree.find(request, Math.max(low, request.low), Math.min(high, request.high));
      if (first >= 0) return first;
    }
    return -1;
  }

  #framesOf(from: FrameIndex, limit: FrameIndex, count: number, runs: FrameRun[]): number {
    const { map } = this.#core;
    let missing = count;
    for (let at = from; missing > 0; ) {
      const first = map.nextFree(at, limit);
      if (first < 0) break;
      const end = map.tree.runEnd(first, Math.min(limit, first + missing));
      runs.push({ first, count: end - first });
      missing -= end - first;
      at = end;
    }
    return missing;
  }

  /** Pieces of runs that meet alignment and boundary, of all runs that `nextRun` reports; the longest if there are many. */
  #pieces(
    request: FrameRequest,
    least: number,
    nextRun: (from: FrameIndex, limit: FrameIndex) => FrameRun | null,
  ): FrameRun[] {
    const keep = request.segments + PIECES_SLACK;
    let pieces: FrameRun[] = [];
    for (const stretch of this.#core.segments.joined()) {
      const limit = Math.min(stretch.high, request.high);
      for (let at = Math.max(stretch.low, request.low); at + least <= limit; ) {
        const run = nextRun(at, limit);
        if (run === null) break;
        at = run.first + run.count + 1;
        cutRun(run, request, pieces);
        if (pieces.length > 4 * keep) pieces = longestOf(pieces, keep);
      }
    }
    return longestOf(pieces, keep);
  }
}

function longestOf(pieces: FrameRun[], keep: number): FrameRun[] {
  pieces.sort((a, b) => b.count - a.count || a.first - b.first);
  return pieces.slice(0, keep);
}

/** Cuts a run at boundaries into pieces that start aligned; stops when there are more whole ones than can be used. */
function cutRun(run: FrameRun, request: FrameRequest, out: FrameRun[]): void {
  const end = run.first + run.count;
  const { alignment, boundary, segments } = request;
  const one = { count: 1, alignment, boundary: 0 };
  let cuts = 0;
  for (let at = placeRun(run.first, one); at < end && cuts <= segments + 1; cuts++) {
    const cut = boundary === 0 ? end : Math.min(end, (Math.floor(at / boundary) + 1) * boundary);
    out.push({ first: at, count: cut - at });
    at = placeRun(cut, one);
  }
}

/** The longest pieces, at most `segments`, that have `count` frames; the last is cut to size; by address. */
function choose(pieces: readonly FrameRun[], count: number, segments: number): FrameRun[] | null {
  const chosen: FrameRun[] = [];
  let missing = count;
  for (const piece of pieces) {
    if (chosen.length === segments || missing === 0) break;
    const taken = Math.min(piece.count, missing);
    chosen.push({ first: piece.first, count: taken });
    missing -= taken;
  }
  return missing > 0 ? null : chosen.sort((a, b) => a.first - b.first);
}
