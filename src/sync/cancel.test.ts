import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { CancelToken } from './cancel.ts';
import { releaseSlot } from './slots.ts';

describe('cancel token', () => {
  it('is cancelled once, and stays so for everybody', () => {
    const { region, thread } = testRegion();
    const token = CancelToken.create(thread);
    const elsewhere = CancelToken.from(region, structuredClone(token.handle()));
    token.throwIfCancelled('wait');
    elsewhere.cancel();
    elsewhere.cancel();
    expect(token.cancelled).toBe(true);
    expect(() => token.throwIfCancelled('wait')).toThrow(/ECANCELED: wait: the wait was cancelled/);
  });

  it('is over when it was released, also for whoever still has it', () => {
    const { region, thread } = testRegion();
    const other = testThread(region);
    const token = CancelToken.create(thread);
    expect(() => token.release(other)).toThrow(/EINVAL: CancelToken.release/);
    expect(token.cancelled).toBe(false);
    token.release(thread);
    token.release(thread);
    expect(token.cancelled).toBe(true);
    const next = CancelToken.create(thread);
    expect(next.number).toBe(token.number);
    token.cancel();
    expect(next.cancelled).toBe(false);
    expect(CancelToken.from(region, token.handle()).cancelled).toBe(true);
  });

  it('runs out at 64 a thread, and starts again after a release', () => {
    const { thread } = testRegion();
    const tokens = Array.from({ length: 64 }, () => CancelToken.create(thread));
    expect(() => CancelToken.create(thread)).toThrow(/ENOMEM: locks.cancelToken.*at most 64/);
    tokens[9]?.release(thread);
    expect(CancelToken.create(thread).number).toBe(9);
  });

  it('ends with the slot that made it', () => {
    const { region } = testRegion();
    const other = testThread(region);
    const tokens = [CancelToken.create(other), CancelToken.create(other)];
    releaseSlot(other);
    expect(tokens.map((token) => token.cancelled)).toEqual([true, true]);
    expect(region.tables.cancel.inUse.get(other.slot)).toBe(0);
  });

  it('refuses what is no handle', () => {
    const { region } = testRegion();
    for (const token of [-1, 0.5, 1e6, Number.NaN]) {
      expect(() => CancelToken.from(region, { token, state: 5 })).toThrow(/EINVAL: locks.cancelToken/);
    }
  });
});
