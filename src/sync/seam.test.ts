import { expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { add, and, compareExchange, exchange, load, notify, or, store, wait, waitAsync } from './atomics.ts';
import { setSeam } from './seam.ts';

it('sees every shared operation of this thread, with its word, before it happens', () => {
  const { region } = testRegion();
  const { words } = region;
  const { head } = region.tables.bucket;
  const address = head.address(3);
  const seen: unknown[] = [];
  const before = setSeam((operation, word) => seen.push(operation, word - address, head.get(3)));
  store(words, address, 4);
  expect(add(words, address, 3)).toBe(4);
  expect(or(words, address, 8)).toBe(7);
  expect(and(words, address, 12)).toBe(15);
  expect(exchange(words, address, 1)).toBe(12);
  expect(compareExchange(words, address, 1, 2)).toBe(1);
  expect(load(words, address)).toBe(2);
  expect(wait(words, address, 0, 0)).toBe('not-equal');
  expect(waitAsync(words, address, 0, 0)).toBe('not-equal');
  expect(notify(words, address, 1)).toBe(0);
  expect(setSeam(before)).toBeTypeOf('function');
  load(words, address);
  const names = seen.filter((value) => typeof value === 'string');
  const all = 'store add or and exchange compareExchange load wait waitAsync notify';
  expect(names.join(' ')).toBe(all);
  expect(seen.slice(0, 6)).toEqual(['store', 0, 0, 'add', 0, 4]);
});
