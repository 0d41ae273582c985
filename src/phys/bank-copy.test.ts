import { describe, expect, it } from 'vitest';
import { Prng } from '../base/index.ts';
import { Banks } from './banks.ts';

describe('copying in a bank', () => {
  it('does what copyWithin does, in every bank, overlapping or not', () => {
    const random = new Prng(3);
    const banks = Banks.create(64, 32, 4096);
    for (let step = 0; step < 300; step++) {
      const bank = random.below(2);
      const bytes = banks.views[bank] as Uint8Array;
      for (let i = 0; i < 64; i++) bytes[random.below(bytes.length)] = random.below(256);
      const expected = Uint8Array.from(bytes);
      const length = random.below(9000);
      const to = random.below(bytes.length - length);
      const from = random.chance(0.3)
        ? Math.max(0, Math.min(bytes.length - length, to + random.below(100) - 50))
        : random.below(bytes.length - length);
      expected.copyWithin(to, from, from + length);
      banks.copyInBank(bank, to, from, length);
      expect(Buffer.compare(bytes, expected)).toBe(0);
    }
    expect(() => banks.copyInBank(0, 32 * 4096, 0, 1)).toThrow(WebAssembly.RuntimeError);
  });
});
