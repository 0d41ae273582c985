/** How the page cache makes room at once for runs of frames. */

import type { PageStore, Pages } from '../page/index.ts';
import type { FrameRoom } from '../phys/pressure.ts';

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
