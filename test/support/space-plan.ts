/** Where things lie in the address space that workers churn, and in the words that they share with the test. */

export const PAGE = 4096;
/** Workers that can take part. */
export const WORKERS_MAX = 3;
/** Pages that each worker writes alone, in each of the regions where it does. */
export const OWN_PAGES = 16;
/** Distance of the cells of a worker in pages: in chunks of their own. */
export const CELL_PAGES = 70;
/** Places that all workers map and unmap. */
export const PLACES = 4;

const region = (number: number) => 2 ** 24 * number;

/** First addresses of the regions. */
export const AT = {
  own: region(1),
  pinned: region(2),
  scratch: region(3),
  cells: region(4),
  shared: region(5),
  file: region(6),
  places: region(7),
  /** From here on, mappings lie where there is room. */
  free: region(8),
} as const;

/** Words of a published fork: its row + 1 or -1, its generation, and two cells for each worker. */
export const FORK_WORDS = 2 + 2 * WORKERS_MAX;

/** First words of what the control words hold. */
export const WORD = {
  stop: 0,
  swapsTried: 1,
  swapsDone: 2,
  steps: 4,
  forks: 8,
  versions: 8 + 4 * FORK_WORDS,
  end: 8 + 4 * FORK_WORDS + WORKERS_MAX * OWN_PAGES,
} as const;
