/** Sets of pages, named by what they are pages of: pages that are added twice count once. */

/** Pages `[first, end)`. */
interface PageRange {
  readonly first: number;
  readonly end: number;
}

/** A set of pages in ranges. */
export class PageRanges {
  private readonly ranges = new Map<string, PageRange[]>();

  /** Adds pages of something that has a name of its own. */
  add(of: string, first: number, count: number): void {
    const known = this.ranges.get(of);
    const range = { first, end: first + count };
    if (known === undefined) this.ranges.set(of, [range]);
    else known.push(range);
  }

  /** How many there are, each counted once. */
  get count(): number {
    let count = 0;
    for (const ranges of this.ranges.values()) {
      ranges.sort((one, other) => one.first - other.first);
      let counted = 0;
      for (const { first, end } of ranges) {
        count += Math.max(0, end - Math.max(first, counted));
        counted = Math.max(counted, end);
      }
    }
    return count;
  }
}
