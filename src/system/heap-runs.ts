/**
 * Which runs of frames can hold a request of the heap under its constraints.
 *
 * An address that is `phase` modulo `align` lies in one known frame of every group of `align` bytes when the alignment is above
 * the page, and can be had at `phase` in any frame when it is not. A boundary above the page is one between frames.
 */

import { ADDRESS_MAX, alignUp, crosses } from '../base/index.ts';
import type { RunPlace } from '../phys/run-hand.ts';
import type { Constraints } from '../vmem/index.ts';

/** A run to ask for. */
export interface RunAsk {
  readonly count: number;
  readonly place: RunPlace;
}

/** Runs to ask for in turn: if none can be had, no run can hold the request. */
export function* runsFor(
  size: number,
  { align, phase, nocross, min, max }: Constraints,
  pageSize: number,
  frames: number,
): Generator<RunAsk> {
  const alignment = Math.max(1, align / pageSize);
  const boundary = nocross > pageSize && nocross > align ? nocross / pageSize : 0;
  const lead = Math.floor(phase / pageSize);
  const offset = phase % pageSize;
  const last = Math.min(max, frames * pageSize - 1);
  // Lowest frame in which the request may begin at `phase`, and the highest.
  const lowest = Math.max(0, Math.ceil((min - offset) / pageSize));
  const highest = Math.floor((last + 1 - size - offset) / pageSize);
  const count = Math.ceil((offset + size) / pageSize);
  if (lead === 0) {
    yield { count, place: { alignment, boundary, low: lowest, high: highest + count } };
  } else {
    // The group's first frames come along where they are free; where not, each place is asked for by itself.
    const first = Math.max(0, lowest - lead);
    if (boundary === 0 || lead + count <= boundary) {
      yield { count: lead + count, place: { alignment, boundary, low: first, high: highest + count } };
    }
    for (let frame = alignUp(first, alignment) + lead; frame <= highest; frame += alignment) {
      if (boundary !== 0 && crosses(frame, frame + count - 1, boundary)) continue;
      yield { count, place: { alignment: 1, boundary: 0, low: frame, high: frame + count } };
    }
  }
  // Below `lowest` there may be room at a later place of the frame that `min` lies in.
  const address = lowestPlace(min, align, phase, nocross, size);
  if (align < pageSize && address + size - 1 <= last) {
    const low = Math.floor(address / pageSize);
    const high = Math.ceil((address + size) / pageSize);
    if (low < lowest) yield { count: high - low, place: { alignment: 1, boundary: 0, low, high } };
  }
}

/** The lowest address from `min` on that keeps the constraints. */
function lowestPlace(min: number, align: number, phase: number, nocross: number, size: number): number {
  const at = alignUp(Math.max(0, min - phase), align) + phase;
  if (nocross === 0 || Math.floor(at / nocross) === Math.floor((at + size - 1) / nocross) || at > ADDRESS_MAX)
    return at;
  return alignUp(at - phase, nocross) + phase;
}
