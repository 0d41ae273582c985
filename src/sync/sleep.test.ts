import { afterEach, describe, expect, it, vi } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { add } from './atomics.ts';
import { CancelToken } from './cancel.ts';
import { Mutex } from './mutex.ts';
import { poisonReason } from './poison.ts';
import { RANK } from './ranks.ts';
import { setSeam } from './seam.ts';
import { deadlineOf, remainingMs, requireTimeout, sleepOn } from './sleep.ts';
import { claimSlot, newWatchId } from './slots.ts';
import { Thread } from './thread.ts';

/** A thread whose sleeps last a millisecond at most, so that slices come often. */
function world() {
  const { region } = testRegion();
  const thread = new Thread(region, claimSlot(region, newWatchId(region)), 1);
  const { head } = region.tables.bucket;
  const { slot: slots, header } = region.tables;
  return { region, thread, head, slots, header, address: head.address(0) };
}

afterEach(() => {
  setSeam(undefined);
  vi.restoreAllMocks();
});

describe('a sleep', () => {
  it('publishes its word until it is taken back', () => {
    const { thread, slots, address } = world();
    expect(sleepOn(thread, address, 5, 10)).toBe('not-equal');
    expect(slots.waitAddress.get(thread.slot)).toBe(address + 1);
    thread.clearWait();
    expect(slots.waitAddress.get(thread.slot)).toBe(0);
    expect(slots.slept.get(thread.slot)).toBe(1);
  });

  it('ends after its time, in one piece or in slices', () => {
    const { thread, address } = world();
    const from = performance.now();
    expect(sleepOn(thread, address, 0, 1)).toBe('timed-out');
    expect(sleepOn(thread, address, 0, 6)).toBe('timed-out');
    expect(performance.now() - from).toBeGreaterThanOrEqual(6);
  });

  it('finds a monitor that has gone silent, but does not miss one that never was', () => {
    const { region, thread, header, address } = world();
    expect(sleepOn(thread, address, 0, 20)).toBe('timed-out');
    header.heartbeat.put(0, 7);
    expect(() => sleepOn(thread, address, 0, 60_000)).toThrow(/EPOISONED.*the monitor has stopped/);
    expect(poisonReason(region)).toMatch(/the monitor has stopped/);
  });

  it('goes on while the monitor beats', () => {
    const { region, thread, header, address } = world();
    header.heartbeat.put(0, 7);
    setSeam((operation) => {
      if (operation === 'wait') header.heartbeat.put(0, header.heartbeat.get(0) + 1);
    });
    expect(sleepOn(thread, address, 0, 30)).toBe('timed-out');
    expect(poisonReason(region)).toBe(null);
  });

  it('publishes a token, looks at it between slices, and ends when it is cancelled', () => {
    const { thread, slots, address } = world();
    const token = CancelToken.create(thread);
    let slices = 0;
    setSeam((operation) => {
      if (operation !== 'wait' || ++slices !== 3) return;
      expect(slots.waitToken.get(thread.slot)).toBe(token.number + 1);
      setSeam(undefined);
      token.cancel();
    });
    expect(sleepOn(thread, address, 0, 60_000, token)).toBe('cancelled');
    thread.clearWait();
    expect(slots.waitToken.get(thread.slot)).toBe(0);
  });

  it('says what to do on a thread that must not block, and leaves no record', () => {
    const { region, thread, address, head } = world();
    const other = new Thread(region, claimSlot(region, newWatchId(region)));
    vi.spyOn(Atomics, 'wait').mockImplementation(() => {
      throw new TypeError('Atomics.wait cannot be called in this context');
    });
    expect(() => sleepOn(thread, address, 0, 1)).toThrow(/EWOULDBLOCK: this thread must not block/);
    thread.clearWait();
    new Mutex(other, address, RANK.user).enter();
    expect(() => new Mutex(thread, address, RANK.user).enter()).toThrow(/EWOULDBLOCK/);
    expect(thread.heldCount).toBe(0);
    expect(head.get(0) & 0xff).toBe(other.tag);
  });

  it('does not fall asleep on a word that has changed meanwhile', () => {
    const { region, thread, head, address } = world();
    setSeam((operation) => {
      if (operation === 'wait') add(region.words, head.address(0), 1);
    });
    expect(sleepOn(thread, address, 0, 60_000)).toBe('not-equal');
  });
});

describe('timeouts and deadlines', () => {
  it('are numbers of milliseconds, without a limit if infinite', () => {
    const { thread } = world();
    expect(deadlineOf(thread, Number.POSITIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
    expect(remainingMs(thread, Number.POSITIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
    expect(remainingMs(thread, deadlineOf(thread, 50))).toBeGreaterThan(40);
    expect(remainingMs(thread, deadlineOf(thread, 0))).toBeLessThanOrEqual(0);
    requireTimeout('wait', 0);
    requireTimeout('wait', Number.POSITIVE_INFINITY);
    for (const bad of [-1, Number.NaN]) expect(() => requireTimeout('wait', bad)).toThrow(/EINVAL: wait\(timeoutMs/);
  });
});
