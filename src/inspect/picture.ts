/** A small picture of memory: one character for a group of frames. */

import { FRAME_USE } from '../phys/index.ts';
import type { VirtualMemory } from '../system/index.ts';

/** Characters of the picture, in the order of the legend. */
const SIGNS = [
  { use: [FRAME_USE.free], sign: '.', name: 'free' },
  { use: [FRAME_USE.page], sign: '#', name: 'file pages' },
  { use: [FRAME_USE.run, FRAME_USE.runRest], sign: 'A', name: 'arenas' },
  { use: [FRAME_USE.absent], sign: ' ', name: 'not online' },
] as const;

/** A picture and what its characters mean. */
export interface MemoryPicture {
  readonly lines: readonly string[];
  readonly legend: string;
  /** Frames behind one character. */
  readonly framesPerSign: number;
}

/** Draws the frames of a system, `columns` by at most `rows` characters: each shows what most of its frames hold. */
export function memoryPicture(vm: VirtualMemory, columns = 64, rows = 8): MemoryPicture {
  const { frames } = vm.region.geometry;
  const framesPerSign = Math.max(1, Math.ceil(frames / (columns * rows)));
  let signs = '';
  for (let first = 0; first < frames; first += framesPerSign) {
    signs += signOf(vm, first, Math.min(frames, first + framesPerSign));
  }
  const lines: string[] = [];
  for (let at = 0; at < signs.length; at += columns) lines.push(signs.slice(at, at + columns));
  const shown = SIGNS.filter(({ sign }) => signs.includes(sign));
  return { lines, legend: shown.map(({ sign, name }) => `${sign} ${name}`).join('   '), framesPerSign };
}

function signOf(vm: VirtualMemory, from: number, to: number): string {
  const counts = SIGNS.map(() => 0);
  for (let frame = from; frame < to; frame++) {
    const use = vm.frames.useOf(frame);
    const index = SIGNS.findIndex((entry) => (entry.use as readonly number[]).includes(use));
    counts[index] = (counts[index] ?? 0) + 1;
  }
  let best = 0;
  counts.forEach((count, index) => {
    if (count > (counts[best] as number)) best = index;
  });
  return (SIGNS[best] as { sign: string }).sign;
}
