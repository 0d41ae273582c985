/** Frames, page lists and pmem as one thread has them. */

import { type Banks, Frames, PageLists } from '../../src/phys/index.ts';
import { Pmem } from '../../src/pmem/pmem.ts';
import type { Thread } from '../../src/sync/thread.ts';

/** The rooms of a thread. */
export function pmemSide(thread: Thread, banks: Banks) {
  const frames = new Frames(thread);
  const lists = new PageLists(frames);
  return { thread, frames, lists, pmem: new Pmem(thread, banks, lists) };
}
