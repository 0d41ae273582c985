/**
 * Replacement: which page has to leave when a frame is needed.
 *
 * PROBLEM     Choose a page that is not needed soon, without a list that every hit would have to change.
 * STRUCTURE   A clock over all frames. The shared hand moves in chunks; each thread then walks its chunk alone, so that
 *             the frames that it gains lie side by side and one vectored read fills them:
 *
 *               frames  |......|chunk of thread A|chunk of thread B|......
 *                                                                   ^ hand
 *
 *               1 skip frames without an identity, filling, modified, or held by anybody
 *               2 referenced: clear the mark and go on: a second chance
 *               3 lock it exclusively, if that can be had at once
 *               4 when as many as are wanted are locked: look at each again, and take the identities away, side by side in
 *                 one section: the frames are the caller's, exclusively held
 *
 *             Another policy may choose in place of steps 1 and 2: the one that the system was booted with names candidates,
 *             and the clock is asked only for what those leave open.
 *
 *             Large pages are known by their heads; when one leaves, its other frames become free (large-pages.ts).
 *
 * INVARIANTS  I1 a page is evicted only by a holder of its exclusive lock that found it valid and not modified.
 * LOCKING     The hand is atomic; the reference mark is a hint that any thread may store.
 * COSTS       One atomic addition per chunk, one record of 32 bytes per candidate; two rounds at most.
 * FAILURE     -1 after two rounds: every page is pinned, modified or being filled.
 * REJECTED    A list in order of use: every hit would take its lock.
 * REFERENCES  Corbato's CLOCK, 1968; second chance by reference bits as in the pagedaemons of both kernels.
 */

import type { CheckReport } from '../base/check.ts';
import { VERIFY } from '../base/verify.ts';
import type { BoundTables } from '../layout/region.ts';
import { REPLACEMENT } from '../layout/replacement-tables.ts';
import type { FrameIndex } from '../phys/banks.ts';
import { add, load } from '../sync/atomics.ts';
import { faultPoint } from '../sync/fault.ts';
import { sleepOn } from '../sync/sleep.ts';
import type { Thread } from '../sync/thread.ts';
import type { LargePages } from './large-pages.ts';
import type { PageHash, VnodeIndex } from './page-hash.ts';
import { PAGE_STATE } from './page-hash.ts';
import type { PageHolds } from './page-holds.ts';
import type { PageShapes } from './page-shapes.ts';
import { ClockPro } from './replacement-clock-pro.ts';
import type { ReplacementPolicy } from './replacement-policy.ts';
import { QueueReplacement } from './replacement-queues.ts';
import { S3Fifo } from './replacement-s3fifo.ts';

/** How long `pause` sleeps unless the hand moves. */
const PAUSE_MS = 1;

/** Frames that a thread walks between two moves of the shared hand. */
const CHUNK_FRAMES = 32;

/** Candidates of a policy that are tried in vain before the clock is asked. */
const CANDIDATES_MAX = 64;

/** Most pages that are evicted at once. */
export const EVICT_PAGES_MAX = 32;

/** Replacement as one thread sees it. */
export class Replacement {
  /** Up to how many hits the mark of a page counts. */
  readonly markMax: number;
  /** The mark of a page that has just come. */
  readonly firstMark: number;
  readonly #policy: ReplacementPolicy | null;
  readonly #thread: Thread;
  readonly #page: BoundTables['page'];
  readonly #hand: number;
  readonly #hash: PageHash;
  readonly #holds: PageHolds;
  readonly #frames: number;
  readonly #large: LargePages;
  readonly #shapes: PageShapes;
  readonly #named = new Int32Array(EVICT_PAGES_MAX);
  readonly #vnodes = new Int32Array(EVICT_PAGES_MAX);
  readonly #indices = new Int32Array(EVICT_PAGES_MAX);
  readonly #divided = new Int32Array(EVICT_PAGES_MAX);
  readonly #single = new Int32Array(1);
  #next = 0;
  #left = 0;

  constructor(thread: Thread, hash: PageHash, holds: PageHolds, large: LargePages, shapes: PageShapes) {
    this.#thread = thread;
    this.#page = thread.region.tables.page;
    this.#hand = thread.region.tables.pageClock.hand.address(0);
    this.#hash = hash;
    this.#holds = holds;
    this.#frames = thread.region.geometry.frames;
    this.#large = large;
    this.#shapes = shapes;
    this.#policy = policyOf(thread);
    this.markMax = this.#policy?.markMax ?? 1;
    this.firstMark = this.#policy === null ? 1 : 0;
  }

  /** Pages are coming into frames: before they are valid. */
  inserted(vnode: VnodeIndex, index: number, frames: Int32Array, at: number, count: number): void {
    this.#policy?.inserted(vnode, index, frames, at, count);
  }

  /** A page is in another frame now. */
  relocated(from: FrameIndex, to: FrameIndex): void {
    this.#policy?.relocated(from, to);
  }

  /**
   * Steps 1 to 3: up to `count` pages (at most 32) that should leave, held exclusively, their frames in `out` from lane `at`
   * on; returns how many.
   */
  claim(count: number, out: Int32Array, at: number): number {
    let claimed = this.#policy === null ? 0 : this.#claimNamed(this.#policy, count, out, at);
    for (let steps = 2 * this.#frames + CHUNK_FRAMES; claimed < count && steps > 0; steps--) {
      const frame = this.advance();
      if (!this.#mayLeave(frame) || this.#shapes.positionOf(frame) !== 0) continue;
      if (this.#page.referenced.get(frame) !== 0) this.#page.referenced.put(frame, 0);
      else if (!this.#isUsedElsewhere(frame) && this.#holds.tryExclusive(frame)) out[at + claimed++] = frame;
    }
    return claimed;
  }

  /** Step 4 for the frames in `count` lanes, which are held exclusively: those whose pages could leave come first; returns how many. */
  evictClaimed(frames: Int32Array, at: number, count: number): number {
    const page = this.#page;
    let leaving = 0;
    let large = 0;
    for (let lane = at; lane < at + count; lane++) {
      const frame = frames[lane] as number;
      if (!this.#mayLeave(frame) || (VERIFY && faultPoint(this.#thread, 'page.evict.claimed'))) {
        this.#holds.releaseExclusive(frame);
      } else if (this.#shapes.framesAt(frame) > 1) {
        this.#divided[large++] = frame;
      } else {
        this.#vnodes[leaving] = page.vnode.get(frame) - 1;
        this.#indices[leaving] = page.index.get(frame);
        frames[at + leaving++] = frame;
      }
    }
    if (leaving > 0) {
      this.#hash.removeSeveral(frames, at, leaving);
      if (VERIFY) faultPoint(this.#thread, 'page.evict.unhashed');
      this.#policy?.evicted(frames, at, leaving, this.#vnodes, this.#indices);
    }
    for (let lane = 0; lane < large; lane++) {
      const frame = this.#divided[lane] as number;
      if (this.#evictLarge(frame)) frames[at + leaving++] = frame;
    }
    return leaving;
  }

  /** Evicts the page of one certain frame, referenced or not; true when the frame is now exclusively held and empty. */
  evict(frame: FrameIndex): boolean {
    if (!this.#mayLeave(frame) || !this.#holds.tryExclusive(frame)) return false;
    return this.evictHeld(frame);
  }

  /** Evicts the page of a frame that is held exclusively; gives the hold back when it cannot leave. */
  evictHeld(frame: FrameIndex): boolean {
    this.#single[0] = frame;
    return this.evictClaimed(this.#single, 0, 1) === 1;
  }

  /** The next frame under the hand. */
  advance(): FrameIndex {
    if (this.#left === 0) {
      this.#next = (add(this.#thread.words, this.#hand, CHUNK_FRAMES) >>> 0) % this.#frames;
      this.#left = CHUNK_FRAMES;
    }
    this.#left--;
    const frame = this.#next;
    this.#next = frame + 1 === this.#frames ? 0 : frame + 1;
    return frame;
  }

  /** Lets others run for a moment, when all frames are on their way from one of them to another. */
  pause(): void {
    const { words } = this.#thread;
    sleepOn(this.#thread, this.#hand, load(words, this.#hand), PAUSE_MS);
    this.#thread.clearWait();
  }

  /** True when frames of a large page other than its head were used: the head counts as used then. */
  #isUsedElsewhere(frame: FrameIndex): boolean {
    return this.#shapes.framesAt(frame) > 1 && this.#large.gatherMarks(frame);
  }

  /** Evicts the large page of a frame that is held exclusively; its other frames become free. */
  #evictLarge(frame: FrameIndex): boolean {
    const position = this.#shapes.positionOf(frame);
    const vnode = this.#page.vnode.get(frame) - 1;
    const index = this.#page.index.get(frame);
    if (!this.#large.evict(frame)) return false;
    if (VERIFY) faultPoint(this.#thread, 'page.evict.unhashed');
    this.#single[0] = frame - position;
    this.#vnodes[0] = vnode;
    this.#indices[0] = index - position;
    this.#policy?.evicted(this.#single, 0, 1, this.#vnodes, this.#indices);
    return true;
  }

  /** Pages that a policy names, held exclusively; returns how many. */
  #claimNamed(policy: ReplacementPolicy, count: number, out: Int32Array, at: number): number {
    const named = this.#named;
    let claimed = 0;
    for (let tries = CANDIDATES_MAX; claimed < count && tries > 0; ) {
      const candidates = policy.candidates(named, count - claimed);
      if (candidates === 0) break;
      for (let lane = 0; lane < candidates; lane++) {
        const frame = named[lane] as number;
        if (this.#mayLeave(frame) && !this.#isUsedElsewhere(frame) && this.#holds.tryExclusive(frame)) {
          out[at + claimed++] = frame;
        } else {
          tries--;
        }
      }
    }
    return claimed;
  }

  #mayLeave(frame: FrameIndex): boolean {
    const page = this.#page;
    return page.vnode.get(frame) !== 0 && page.state.get(frame) === PAGE_STATE.valid && page.modified.get(frame) === 0;
  }
}

/** The policy that the system was booted with; null for the clock. */
export function policyOf(thread: Thread): ReplacementPolicy | null {
  switch (thread.region.tables.policy.kind.get(0)) {
    case REPLACEMENT.s3fifo:
      return new S3Fifo(thread);
    case REPLACEMENT.clockPro:
      return new ClockPro(thread);
    case REPLACEMENT.queues:
      return new QueueReplacement(thread);
    default:
      return null;
  }
}

/** Compares the queues of the policy. For quiet points. */
export function checkReplacement(thread: Thread): CheckReport {
  const problems = policyOf(thread)?.problems() ?? [];
  return { structure: 'page/replacement', checked: thread.region.geometry.policyNodes, problems };
}
