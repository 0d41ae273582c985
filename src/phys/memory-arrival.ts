/** Memory arrival: frames that were absent come online as a segment. The other way: memory-removal.ts. */

import type { FrameCore } from './frame-core.ts';
import { ListHand } from './list-hand.ts';
import type { MemoryListener } from './memory-removal.ts';
import type { PhysSegmentOptions } from './phys-segments.ts';

/** Adds a segment: the frames of its available range become free, all of them also if this thread dies. Listeners are told. */
export function addMemory(
  core: FrameCore,
  listeners: readonly MemoryListener[],
  options: PhysSegmentOptions,
  call: 'frames.online' | 'physSegments.add' = 'physSegments.add',
): void {
  const { mutex, segments, thread } = core;
  const hand = new ListHand(core);
  mutex.enter();
  try {
    const row = segments.add(options, call);
    const first = segments.rows.availableStart.get(row);
    const count = segments.rows.availableEnd.get(row) - first;
    hand.admitInSection(first, count);
    thread.commit();
    hand.admit(first, count);
  } finally {
    mutex.exit();
  }
  for (const listener of listeners) listener.added?.(options.start, options.end - options.start);
}
