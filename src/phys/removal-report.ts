/** Why memory could not be taken offline: what stayed, who holds it, and, when nothing is free elsewhere, who has the rest. */

import { fail } from '../base/errors.ts';
import type { FrameIndex } from './banks.ts';
import type { Evacuation } from './evacuation.ts';
import type { FrameCore } from './frame-core.ts';
import { FRAME_USE } from './frame-uses.ts';

/** Holders of memory named in a message: the largest come first. */
const HOLDERS_MAX = 8;

/** What uses are called in messages, by value; those that are not here are nobody's. */
const USE_NAMES: readonly (readonly [use: number, name: string])[] = [
  [FRAME_USE.page, 'pages'],
  [FRAME_USE.run, 'runs'],
  [FRAME_USE.runRest, 'runs'],
  [FRAME_USE.list, 'lists'],
  [FRAME_USE.listTaking, 'lists'],
  [FRAME_USE.listGiving, 'lists'],
  [FRAME_USE.movable, 'movable cookies'],
  [FRAME_USE.spare, 'caches'],
];

/** Throws `EBUSY` for a removal of `[first, first + count)`, whose other frames were taken, and in which `frame` stays. */
export function failRemoval(
  core: FrameCore,
  evacuation: Evacuation,
  first: FrameIndex,
  count: number,
  frame: FrameIndex,
): never {
  const word = core.useOf(frame);
  const use = Object.entries(FRAME_USE).find(([, value]) => value === word)?.[0];
  const user = evacuation.of(word);
  const holders = user?.holders?.(frame) ?? [];
  const heldBy = holders.length === 0 ? {} : { heldBySlots: holders.join(' ') };
  const taken = { first, count, frame, use, takenBy: core.takerOf(frame), ...heldBy };
  const obstacle = user?.obstacle?.(frame) ?? '';
  const values = { ...taken, ...(obstacle === '' ? {} : { obstacle }), ...evacuation.nameOf(frame) };
  const reserve = evacuation.floor();
  if (core.free > reserve) {
    fail('EBUSY', 'frames.offline', values, 'the frame is neither moved nor given up by whoever uses it');
  }
  const rest = { ...values, free: core.free, reserve, elsewhere: holdersElsewhere(core, evacuation, first, count) };
  fail('EBUSY', 'frames.offline', rest, 'no frame is free elsewhere to move it to, and it is not given up');
}

/** Who has the frames outside a range, as a text: the uses with the slots that took them, and of pages how many somebody holds. */
function holdersElsewhere(core: FrameCore, evacuation: Evacuation, first: FrameIndex, count: number): string {
  const names = new Map(USE_NAMES);
  const found = new Map<string, number>();
  const add = (holder: string) => found.set(holder, (found.get(holder) ?? 0) + 1);
  for (let frame = 0; frame < core.thread.region.geometry.frames; frame++) {
    const use = core.useOf(frame);
    const name = names.get(use);
    if (name === undefined || core.source.has(frame) || (frame >= first && frame < first + count)) continue;
    if (use !== FRAME_USE.page) {
      add(`${name} of slot ${core.takerOf(frame)}`);
      continue;
    }
    const slots = evacuation.of(use)?.holders?.(frame) ?? [];
    add(slots.length === 0 ? name : `${name} held by slot ${slots.join(' and ')}`);
  }
  const largest = [...found].sort(([, one], [, other]) => other - one).slice(0, HOLDERS_MAX);
  const others = found.size - largest.length;
  const text = largest.map(([holder, frames]) => `${frames} in ${holder}`).join(', ');
  return others > 0 ? `${text}, and ${others} others` : text;
}
