/** What page lists that wait for frames can do about it in this system. */

import type { PageStore, Pages } from '../page/index.ts';
import type { Frames, PageListPressure } from '../phys/index.ts';

/** Pages written back at a time. */
const WRITES = 32;

/** Looks at modified pages that are left out after the store has refused some. */
const REST_LOOKS = 20;

/** Whole large pages of the pool first, then modified pages, which can be dropped once they are written back. */
export class ListPressure implements PageListPressure {
  readonly #frames: Frames;
  readonly #pages: Pages;
  readonly #store: PageStore;
  readonly #pool: PageListPressure;
  #rest = 0;

  constructor(frames: Frames, pages: Pages, store: PageStore, pool: PageListPressure) {
    this.#frames = frames;
    this.#pages = pages;
    this.#store = store;
    this.#pool = pool;
  }

  reclaimable(): boolean {
    if (this.#pool.reclaimable()) return true;
    if (this.#rest > 0) this.#rest--;
    return this.#rest === 0 && this.#pages.modified > 0;
  }

  reclaim(): void {
    if (this.#pool.reclaimable()) this.#pool.reclaim();
    else if (this.#pages.writeOldest(WRITES, this.#store) === 0) this.#rest = REST_LOOKS;
  }

  kick(): void {
    this.#frames.watermarks.kick();
  }
}
