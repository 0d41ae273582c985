/** How the page cache makes room at once for runs of frames. */

import { VmError } from '../base/errors.ts';
import type { PageStore, Pages } from '../page/index.ts';
import type { FrameIndex } from '../phys/index.ts';
import type { FrameRoom } from '../phys/pressure.ts';

/** Pages written back with one that is in the way, if they lie behind it in its file: one call of the store takes them all. */
const WRITES_BESIDE = 16;

/** Pages written back with one look at the modified ones. */
const WRITES = 64;

/** Clean pages leave as the replacement policy says; modified ones are written back, those first that were modified first. */
export class PageRoom implements FrameRoom {
  readonly #pages: Pages;
  readonly #store: PageStore;

  constructor(pages: Pages, store: PageStore) {
    this.#pages = pages;
    this.#store = store;
  }

  evict(frames: number): number {
    return this.#pages.freeSome(frames);
  }

  cleanFrame(frame: FrameIndex): boolean {
    try {
      return this.#pages.writeBackFrame(frame, WRITES_BESIDE, this.#store);
    } catch (error) {
      // The page stays as it is, and where it is; its openers hear of it from their next sync.
      if (error instanceof VmError) return false;
      throw error;
    }
  }

  clean(frames: number): number {
    let written = 0;
    while (written < frames) {
      const some = this.#pages.writeOldest(Math.min(WRITES, frames - written), this.#store);
      if (some === 0) break;
      written += some;
    }
    return written;
  }
}
