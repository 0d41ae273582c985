import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Prng } from '../base/index.ts';
import { undoJournal } from '../sync/index.ts';
import { FRAME_USE, type FrameReclaimer, Frames, HAND_STAGE } from './frames.ts';

function setUp(frames = 256, bankFrames = 256) {
  const { region, thread } = testRegion({ frames, bankFrames });
  const room = new Frames(thread);
  room.online(0, frames);
  return { region, thread, frames: room };
}

function expectSound(frames: Frames): void {
  expect(frames.check().problems).toEqual([]);
}

describe('frames', () => {
  it('start absent, come online free, and are given out lowest first', () => {
    const { region, thread } = testRegion({ frames: 100, bankFrames: 64 });
    const frames = new Frames(thread);
    expect(frames.counts()).toEqual({ total: 100, absent: 100, free: 0, page: 0, run: 0, list: 0 });
    expect(frames.tryTake(FRAME_USE.page)).toBe(-1);
    frames.online(0, 40);
    expect(frames.counts()).toEqual({ total: 100, absent: 60, free: 40, page: 0, run: 0, list: 0 });
    expect([0, 1, 2].map(() => frames.tryTake(FRAME_USE.page))).toEqual([0, 1, 2]);
    frames.give(1, FRAME_USE.page);
    expect(frames.tryTake(FRAME_USE.page)).toBe(1);
    expect(frames.takerOf(1)).toBe(thread.slot);
    expectSound(frames);
    expect(region.geometry.frames).toBe(100);
    expect(() => frames.online(0, 1)).toThrow(
      /frames.online\(first=0, count=1\): frames are online already, in segment 0/,
    );
  });

  it('finds runs inside banks and never across them', () => {
    const { frames } = setUp(256, 64);
    expect(frames.tryTakeRun(65)).toBe(-1);
    expect(frames.takeRun(40)).toBe(0);
    expect(frames.takeRun(40)).toBe(64);
    expect(frames.takeRun(24)).toBe(40);
    expect(frames.takeRun(64)).toBe(128);
    expect(frames.takeRun(64)).toBe(192);
    expect(frames.tryTakeRun(25)).toBe(-1);
    expect(() => frames.takeRun(25)).toThrow(/ENOMEM/);
    expect(frames.takeRun(24)).toBe(104);
    frames.settle();
    expectSound(frames);
    frames.giveRun(64, 40);
    expect(frames.takeRun(40)).toBe(64);
  });

  it('refuses runs that are not runs, and changes nothing', () => {
    const { frames } = setUp();
    const first = frames.takeRun(10);
    const other = frames.takeRun(5);
    for (const [start, count] of [
      [first, 9],
      [first, 11],
      [first + 1, 9],
      [first, 15],
      [200, 1],
    ] as const) {
      expect(() => frames.giveRun(start, count)).toThrow(/EINVAL/);
    }
    frames.giveRun(first, 10);
    expect(() => frames.giveRun(first, 10)).toThrow(/EINVAL/);
    frames.giveRun(other, 5);
    expect(frames.counts().free).toBe(256);
    expectSound(frames);
  });

  it('takes and gives runs longer than the journal', () => {
    const { frames } = setUp(4096, 4096);
    expect(frames.takeRun(4096)).toBe(0);
    expectSound(frames);
    frames.giveRun(0, 4096);
    expect(frames.counts().free).toBe(4096);
    expectSound(frames);
  });

  it('puts a run together from free frames and from pages that are given up', () => {
    const { frames } = setUp(64, 64);
    for (let i = 0; i < 64; i++) frames.tryTake(FRAME_USE.page);
    const stubborn = new Set([5, 20]);
    const reclaimer: FrameReclaimer = {
      reclaim(frame, use) {
        if (stubborn.has(frame)) return false;
        frames.convert(frame, FRAME_USE.page, use);
        return true;
      },
    };
    expect(frames.tryTakeRun(30)).toBe(-1);
    frames.setReclaimer(reclaimer);
    expect(frames.tryTakeRun(44)).toBe(-1);
    expectSound(frames);
    expect(frames.takeRun(30)).toBe(21);
    frames.settle();
    expectSound(frames);
  });

  it('gives back what a dead slot had in hand, at every stage', () => {
    const { region, thread, frames } = setUp(64, 64);
    const victim = testThread(region);
    const other = new Frames(victim);
    // Taken, and written down or not.
    other.takeRun(8);
    other.settle();
    frames.recover(victim.slot);
    expect(frames.counts().run).toBe(8);
    other.giveRun(0, 8);
    other.takeRun(8);
    frames.recover(victim.slot);
    expect(frames.counts().run).toBe(0);
    other.takeRun(8);
    other.settleInSection();
    undoJournal(region, victim.slot);
    frames.recover(victim.slot);
    expect(frames.counts().run).toBe(0);
    // Half marked, then half given.
    for (const stage of [HAND_STAGE.marking, HAND_STAGE.giving]) {
      expect(frames.takeRun(8)).toBe(0);
      frames.settle();
      const { frameHand } = region.tables;
      frameHand.first.put(victim.slot, 0);
      frameHand.count.put(victim.slot, 8);
      frameHand.stage.put(victim.slot, stage);
      if (stage === HAND_STAGE.giving) {
        for (let frame = 0; frame < 8; frame++) other.convert(frame, other.useOf(frame), FRAME_USE.runRest);
      }
      frames.recover(victim.slot);
      expect(frames.counts().run).toBe(0);
      expectSound(frames);
    }
    expect(thread.journal.length).toBe(0);
  });

  it('keeps in step with a naive model, with deaths in the middle of critical sections', () => {
    const seed = 20240917;
    const random = new Prng(seed);
    const total = 300;
    const bank = 128;
    const { region, thread, frames } = setUp(total, bank);
    const taken = new Map<number, number>();
    const singles = new Set<number>();
    const freeInModel = (frame: number) => frame < total && !taken.has(frame);
    const modelRun = (count: number) => {
      for (let low = 0; low < total; low += bank) {
        for (let first = low; first + count <= Math.min(low + bank, total); first++) {
          let fits = true;
          for (let frame = first; frame < first + count; frame++) fits &&= freeInModel(frame);
          if (fits) return first;
        }
      }
      return -1;
    };
    const runs: [number, number][] = [];
    for (let step = 0; step < 6000; step++) {
      const choice = random.below(6);
      if (choice <= 1) {
        let lowest = 0;
        while (lowest < total && !freeInModel(lowest)) lowest++;
        const frame = frames.tryTake(FRAME_USE.page);
        expect(frame).toBe(lowest < total ? lowest : -1);
        if (frame >= 0) {
          taken.set(frame, FRAME_USE.page);
          singles.add(frame);
        }
      } else if (choice === 2 && singles.size > 0) {
        const frame = random.pick([...singles]);
        singles.delete(frame);
        taken.delete(frame);
        frames.give(frame, FRAME_USE.page);
      } else if (choice === 3) {
        const count = random.between(1, random.chance(0.2) ? 140 : 40);
        const first = frames.tryTakeRun(count);
        expect(first).toBe(count > bank ? -1 : modelRun(count));
        if (first < 0) continue;
        runs.push([first, count]);
        for (let frame = first; frame < first + count; frame++) taken.set(frame, FRAME_USE.run);
      } else if (choice === 4 && runs.length > 0) {
        const [[first, count]] = runs.splice(random.below(runs.length), 1) as [[number, number]];
        frames.giveRun(first, count);
        for (let frame = first; frame < first + count; frame++) taken.delete(frame);
      } else if (choice === 5) {
        // Die in the middle: what was journaled is undone, nothing has happened.
        const victim = testThread(region);
        const { free } = frames.counts();
        const words = region.tables.frameMap.free;
        victim.journal.set(words, 0, ~words.get(0));
        victim.journal.setAt(region.tables.framePool.counts, 0, FRAME_USE.free, 7);
        undoJournal(region, victim.slot);
        region.tables.slot.claim.put(victim.slot, 0);
        expect(frames.counts().free).toBe(free);
      }
      if (step % 100 === 0) expectSound(frames);
    }
    for (const frame of singles) frames.give(frame, FRAME_USE.page);
    for (const [first, count] of runs) frames.giveRun(first, count);
    expectSound(frames);
    for (let low = 0; low < total; low += bank) expect(frames.takeRun(Math.min(bank, total - low))).toBe(low);
    expect(thread.journal.length).toBe(0);
  });
});
