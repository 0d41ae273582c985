/**
 * The heap: the arena from which programs allocate memory that all threads can reach.
 *
 * Its addresses are physical byte addresses. It begins empty and imports runs of frames when a request does not fit; a
 * run goes back when all of it is free again. For a constrained request it asks for a run that can hold it. Constrained and large requests therefore compete with the page cache, whose
 * pages give way.
 */

import { alignUp } from '../base/exact.ts';
import type { Frames } from '../phys/frames.ts';
import { ANYWHERE } from '../phys/run-hand.ts';
import type { CallbackReference, Callbacks } from '../sync/index.ts';
import type { ArenaOptions, Constraints, SpanSource } from '../vmem/index.ts';
import { HEAP_NAME } from '../vmem/kinds.ts';
import { runsFor } from './heap-runs.ts';

/** Name of the heap's arena. Programs cannot end it, nor change its spans. */
export const HEAP = HEAP_NAME;

/** Smallest piece of the heap: a cache line, so that two allocations never share one. */
export const HEAP_QUANTUM_BYTES = 64;

/** Largest amount that the heap asks for at a time when less was needed. */
const IMPORT_BYTES_MAX = 256 * 1024;

const SOURCE: CallbackReference = { export: 'vm.heap' };

/** Options of the heap's arena for a memory of so many frames. */
export function heapOptions(frames: number, pageSize: number): ArenaOptions {
  const share = alignUp(Math.ceil((frames * pageSize) / 64), pageSize);
  const roundTo = Math.max(pageSize, Math.min(IMPORT_BYTES_MAX, share));
  return { quantum: HEAP_QUANTUM_BYTES, import: { from: SOURCE, roundTo } };
}

/** Makes this thread's frames known as the heap's source. */
export function registerHeap(callbacks: Callbacks, frames: Frames, pageSize: number): void {
  const source: SpanSource = {
    import(sizeBytes, constraints, neededBytes = sizeBytes) {
      if (constraints !== undefined) return importPlaced(frames, pageSize, neededBytes, constraints);
      const least = Math.ceil(neededBytes / pageSize);
      const wished = Math.ceil(sizeBytes / pageSize);
      // What goes beyond the request is worth no writing.
      const more = least < wished ? frames.tryTakeRun(wished, ANYWHERE, false) : -1;
      if (more >= 0) return { start: more * pageSize, size: wished * pageSize };
      const first = frames.tryTakeRun(least);
      return first < 0 ? -1 : { start: first * pageSize, size: least * pageSize };
    },
    recorded: () => frames.settleInSection(),
    releasing: (startBytes, sizeBytes) => frames.giveInSection(startBytes / pageSize, sizeBytes / pageSize),
    release(startBytes, sizeBytes) {
      frames.giveRun(startBytes / pageSize, sizeBytes / pageSize);
    },
  };
  callbacks.register(SOURCE.export, source);
}

/** A run that can hold a request under its constraints, no longer than that takes. */
function importPlaced(frames: Frames, pageSize: number, sizeBytes: number, constraints: Constraints) {
  const total = frames.core.thread.region.geometry.frames;
  for (const { count, place } of runsFor(sizeBytes, constraints, pageSize, total)) {
    const first = frames.tryTakeRun(count, place);
    if (first >= 0) return { start: first * pageSize, size: count * pageSize };
  }
  return -1;
}
