import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Prng } from '../base/index.ts';
import { undoJournal } from '../sync/index.ts';
import { cellsFor, PATH_BYTES_MAX, PathHeap } from './path-heap.ts';

const encode = (text: string) => new TextEncoder().encode(text);

describe('path heap', () => {
  it('keeps texts of every length apart, gives every cell back, and undoes what was not committed', () => {
    const random = new Prng(8);
    const { region, thread } = testRegion({ pathBytes: 20_000 });
    const heap = new PathHeap(thread);
    const all = heap.free;
    const live: [number, string][] = [];
    for (let step = 0; step < 3000; step++) {
      if (random.chance(0.55)) {
        const length = random.chance(0.1) ? random.between(1, PATH_BYTES_MAX) : random.between(0, 200);
        const text = Array.from({ length }, () => String.fromCharCode(97 + random.below(26))).join('');
        const before = heap.free;
        const first = heap.store(encode(text));
        if (first < 0) {
          expect(cellsFor(length)).toBeGreaterThan(before);
        } else if (random.chance(0.2)) {
          undoJournal(region, thread.slot);
          expect(heap.free).toBe(before);
        } else {
          live.push([first, text]);
        }
      } else if (live.length > 0) {
        const [first, text] = live[random.below(live.length)] as [number, string];
        heap.release(first, text.length);
        if (random.chance(0.2)) undoJournal(region, thread.slot);
        else
          live.splice(
            live.findIndex(([cell]) => cell === first),
            1,
          );
      }
      thread.commit();
      expect(heap.countFree()).toBe(heap.free);
      for (const [first, text] of live.slice(0, 5)) expect(heap.read(first, text.length)).toBe(text);
    }
    for (const [first, text] of live) {
      expect(heap.read(first, text.length)).toBe(text);
      heap.release(first, text.length);
    }
    thread.commit();
    expect(heap.free).toBe(all);
  });

  it('stores text that is not ASCII', () => {
    const { thread } = testRegion();
    const heap = new PathHeap(thread);
    const bytes = encode('/データ/ünïcödé/'.repeat(20));
    expect(heap.read(heap.store(bytes), bytes.length)).toBe('/データ/ünïcödé/'.repeat(20));
  });
});
