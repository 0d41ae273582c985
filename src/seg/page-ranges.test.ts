import { expect, it } from 'vitest';
import { testSeed } from '../../test/support/seed.ts';
import { Prng } from '../base/index.ts';
import { PageRanges } from './page-ranges.ts';

it('counts pages that are added several times once', () => {
  const ranges = new PageRanges();
  expect(ranges.count).toBe(0);
  ranges.add('a', 2 ** 40, 2 ** 30);
  ranges.add('a', 2 ** 40 + 5, 10);
  ranges.add('b', 2 ** 40, 3);
  ranges.add('a', 2 ** 40 + 2 ** 30, 1);
  expect(ranges.count).toBe(2 ** 30 + 4);
});

it('counts what a set of single pages counts', () => {
  const prng = new Prng(testSeed('page ranges', 7));
  for (let round = 0; round < 200; round++) {
    const ranges = new PageRanges();
    const pages = new Set<string>();
    for (let adds = prng.below(12); adds > 0; adds--) {
      const [of, first, count] = [`map ${prng.below(3)}`, prng.below(40), prng.below(20)];
      ranges.add(of, first, count);
      for (let page = first; page < first + count; page++) pages.add(`${of} ${page}`);
    }
    expect(ranges.count).toBe(pages.size);
  }
});
