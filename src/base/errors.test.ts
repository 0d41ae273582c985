import { expect, it } from 'vitest';
import { showCall } from './errors.ts';

it('shows short values whole, and of long ones how long they are or how they begin', () => {
  const values = {
    size: 0,
    name: 'a\nb',
    list: [1, 2],
    none: null,
    left: undefined,
    big: 1n,
    bytes: new Uint8Array(2),
  };
  expect(showCall('alloc', values)).toBe(
    'alloc(size=0, name="a\\nb", list=[1,2], none=null, left=undefined, big=1, bytes={"0":0,"1":0})',
  );
  expect(showCall('f', { a: new Uint8Array(1 << 20) })).toBe('f(a=Uint8Array of 1048576 bytes)');
  expect(showCall('f', { a: Array.from({ length: 100 }, () => 'x') })).toBe('f(a=Array of 100 elements)');
  for (const long of ['x'.repeat(1e6), { a: 'x'.repeat(1e6) }, Symbol('x'.repeat(1e6))]) {
    expect(showCall('f', { long }).length).toBeLessThan(320);
    expect(showCall('f', { long })).toMatch(/xxx\.\.\.\)$/);
  }
  const round: Record<string, unknown> = {};
  round.self = round;
  expect(showCall('f', { round })).toBe('f(round=[object Object])');
});
