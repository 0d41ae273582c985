import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { CancelToken } from './cancel.ts';
import { Mutex } from './mutex.ts';
import { poisonReason } from './poison.ts';
import { RANK } from './ranks.ts';
import { claimSlot, findSlotsByWatch, RECOVERING } from './slots.ts';
import { finishTakeover, releaseDead, takeOver } from './takeover.ts';
import { Thread } from './thread.ts';

function world() {
  const { region, thread } = testRegion();
  const victim = testThread(region);
  const { head } = region.tables.bucket;
  const lock = (owner: Thread, row: number) => new Mutex(owner, head.address(row), RANK.user);
  return { region, thread, victim, head, lock, claim: () => region.tables.slot.claim.get(victim.slot) };
}

describe('takeover', () => {
  it('undoes, frees, tells the rooms, and gives the slot back, in this order', () => {
    const { region, thread, victim, head, lock, claim } = world();
    const [first, second] = [lock(victim, 0), lock(victim, 1)];
    first.enter();
    second.enter();
    victim.journal.set(head, 5, 1);
    victim.journal.set(head, 6, 2);
    victim.publishWait(head.address(1));
    const generation = region.tables.slot.generation.get(victim.slot);
    const seen: unknown[] = [];
    const recoverer = (self: Thread, dead: number) => {
      seen.push(self.slot, dead, head.get(5), head.get(0), head.get(1), claim());
    };
    const report = takeOver(thread, victim.slot, [recoverer]);
    expect(report).toEqual({ slot: victim.slot, undone: 2, released: 2 });
    expect(seen).toEqual([thread.slot, victim.slot, 0, 0, 0, RECOVERING]);
    expect(claim()).toBe(0);
    expect(region.tables.slot.generation.get(victim.slot)).toBe(generation + 1);
    expect(region.tables.slot.recovered.get(victim.slot)).toBe(1);
    expect(region.tables.slot.waitAddress.get(victim.slot)).toBe(0);
    expect(victim.heldCount).toBe(0);
  });

  it('leaves locks alone that the dead slot only meant to take', () => {
    const { thread, victim, head, lock } = world();
    lock(thread, 0).enter();
    victim.pushHeld(head.address(0), 1, RANK.user, false);
    expect(takeOver(thread, victim.slot, [])?.released).toBe(0);
    expect(head.get(0)).toBe(thread.tag);
  });

  it('happens once, and only for the thread that it is meant for', () => {
    const { region, thread, victim, claim } = world();
    expect(() => takeOver(thread, thread.slot, [])).toThrow(/EINVAL: takeOver/);
    expect(takeOver(thread, victim.slot, [], claim() + 1)).toBe(null);
    expect(releaseDead(thread, victim.slot, claim())).not.toBe(null);
    expect(claim()).toBe(RECOVERING);
    expect(releaseDead(thread, victim.slot)).toBe(null);
    expect(takeOver(thread, victim.slot, [])).toBe(null);
    finishTakeover(thread, victim.slot, []);
    expect(claim()).toBe(0);
    expect(takeOver(thread, victim.slot, [])).toBe(null);
    expect(region.tables.slot.recovered.get(victim.slot)).toBe(1);
  });

  it('recovers a thread that died as soon as it had claimed its slot, or while it gave it back', () => {
    const { region, thread } = world();
    const slot = claimSlot(region, 1234);
    expect(findSlotsByWatch(region, 1234)).toEqual([slot]);
    expect(takeOver(thread, slot, [], 1234)).toEqual({ slot, undone: 0, released: 0 });
    expect(region.tables.slot.claim.get(slot)).toBe(0);
  });

  it('poisons the region when a room cannot recover', () => {
    const { region, thread, victim } = world();
    const recoverer = () => {
      throw new Error('cannot give it back');
    };
    expect(() => takeOver(thread, victim.slot, [recoverer])).toThrow('cannot give it back');
    expect(poisonReason(region)).toMatch(/recovery of slot 1 failed: cannot give it back/);
  });

  it('cancels the tokens of the dead slot', () => {
    const { thread, victim } = world();
    const token = CancelToken.create(victim);
    expect(token.cancelled).toBe(false);
    takeOver(thread, victim.slot, []);
    expect(token.cancelled).toBe(true);
  });

  it('does not recover on behalf of the next thread in the slot', () => {
    const { region, thread, victim, claim } = world();
    const old = claim();
    takeOver(thread, victim.slot, [], old);
    const next = new Thread(region, claimSlot(region, 99));
    expect(next.slot).toBe(victim.slot);
    expect(takeOver(thread, next.slot, [], old)).toBe(null);
    expect(claim()).toBe(99);
  });
});
