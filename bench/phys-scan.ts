/** What the phys bench is compared with: a search that looks at frame after frame, as the original does. */

/** Free frames as one byte each. */
export class FrameScan {
  readonly #free: Uint8Array;

  constructor(frames: number) {
    this.#free = new Uint8Array(frames);
  }

  /** Makes a frame free or not. */
  mark(first: number, count: number, free: boolean): void {
    this.#free.fill(free ? 1 : 0, first, first + count);
  }

  /** First frame of the lowest run of `count` free ones, now taken, or -1. Looks from each candidate's end backwards. */
  take(count: number): number {
    const free = this.#free;
    const end = free.length;
    for (let first = 0; first + count <= end; ) {
      let at = first + count - 1;
      while (at >= first && free[at] === 1) at--;
      if (at < first) {
        free.fill(0, first, first + count);
        return first;
      }
      first = at + 1;
    }
    return -1;
  }
}
