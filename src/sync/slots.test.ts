import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { CancelToken } from './cancel.ts';
import { Mutex } from './mutex.ts';
import { RANK } from './ranks.ts';
import { claimSlot, findSlotsByWatch, newWatchId, releaseSlot } from './slots.ts';
import { isAttached, slotOfAttachment, Thread } from './thread.ts';

describe('slots', () => {
  it('are claimed one by one until none is left', () => {
    const { region } = testRegion({ slots: 3 });
    expect([claimSlot(region, newWatchId(region)), claimSlot(region, newWatchId(region))]).toEqual([1, 2]);
    expect(() => claimSlot(region, newWatchId(region))).toThrow(/ENOMEM: attach: all 3 slots are taken.*`slots`/);
  });

  it('are given back clean and found by watch id', () => {
    const { region } = testRegion();
    const other = testThread(region);
    const watch = region.tables.slot.claim.get(other.slot);
    expect(findSlotsByWatch(region, watch)).toEqual([other.slot]);
    const token = CancelToken.create(other);
    other.publishWait(5);
    releaseSlot(other);
    expect(findSlotsByWatch(region, watch)).toEqual([]);
    expect(token.cancelled).toBe(true);
    expect(region.tables.slot.waitAddress.get(other.slot)).toBe(0);
    expect(claimSlot(region, newWatchId(region))).toBe(other.slot);
  });

  it('are not given back while locks are held', () => {
    const { region, thread } = testRegion();
    const mutex = new Mutex(thread, region.tables.bucket.head.address(0), RANK.user);
    mutex.enter();
    expect(() => releaseSlot(thread)).toThrow(/EBUSY: detach\(slot=0, locksHeld=1\)/);
    expect(mutex.held).toBe(true);
    mutex.exit();
    releaseSlot(thread);
    expect(region.tables.slot.claim.get(0)).toBe(0);
  });

  it('tell one stay of a thread from the next', () => {
    const { region } = testRegion();
    const first = testThread(region);
    expect(slotOfAttachment(first.attachment)).toBe(first.slot);
    expect(isAttached(region, first.attachment)).toBe(true);
    releaseSlot(first);
    expect(isAttached(region, first.attachment)).toBe(false);
    const second = new Thread(region, claimSlot(region, newWatchId(region)));
    expect(second.slot).toBe(first.slot);
    expect(isAttached(region, first.attachment)).toBe(false);
    expect(isAttached(region, second.attachment)).toBe(true);
  });
});
