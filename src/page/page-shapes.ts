/**
 * Page shapes: how many frames a page of a vnode has.
 *
 * Most vnodes have pages of one frame. One may have large pages: runs of 2 to 16 adjacent frames, each of which keeps an
 * identity of its own, so that looking a page up costs the same; see large-pages.ts. The first frame of the run is its head.
 */

import type { BoundTables } from '../layout/region.ts';
import type { FrameIndex } from '../phys/banks.ts';
import type { Thread } from '../sync/thread.ts';
import type { VnodeIndex } from './page-hash.ts';

/** Most frames of one page. */
export const LARGE_PAGE_FRAMES_MAX = 16;

/** The shapes as one thread sees them. */
export class PageShapes {
  readonly #page: BoundTables['page'];
  readonly #shift: BoundTables['vnode']['pageShift'];

  constructor(thread: Thread) {
    this.#page = thread.region.tables.page;
    this.#shift = thread.region.tables.vnode.pageShift;
  }

  /** Frames of a page of the vnode: a power of two. */
  framesOf(vnode: VnodeIndex): number {
    return 1 << this.#shift.get(vnode);
  }

  /** Frames of the page that has this frame; 1 for a frame without an identity. A hint unless the frame is held. */
  framesAt(frame: FrameIndex): number {
    const vnode = this.#page.vnode.get(frame) - 1;
    return vnode < 0 ? 1 : 1 << this.#shift.get(vnode);
  }

  /** Which frame of its page this is, from 0. A hint unless the frame is held. */
  positionOf(frame: FrameIndex): number {
    return this.#page.index.get(frame) & (this.framesAt(frame) - 1);
  }

  /** The head of the page that has this frame, which is held; the frame itself when it has no identity. */
  headOf(frame: FrameIndex): FrameIndex {
    return frame - this.positionOf(frame);
  }
}
