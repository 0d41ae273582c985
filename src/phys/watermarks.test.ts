import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { FRAME_USE, Frames } from './frames.ts';
import { defaultMarks } from './watermarks.ts';

describe('watermarks', () => {
  it('ascend, or are refused with nothing changed', () => {
    const { thread } = testRegion();
    const { watermarks } = new Frames(thread);
    watermarks.set({ freeMin: 10, freeTarget: 20, desiredFree: 30, lotsFree: 40 });
    for (const changes of [
      { freeMin: 21 },
      { freeTarget: 31 },
      { lotsFree: 29 },
      { kernelReserve: 11 },
      { freeMin: -1 },
    ]) {
      expect(() => watermarks.set(changes)).toThrow(/EINVAL/);
    }
    expect(() => watermarks.set({ low: 3 } as never)).toThrow(/low/);
    expect(watermarks.read()).toMatchObject({ freeMin: 10, freeTarget: 20, kernelReserve: 0 });
  });

  it('have defaults that ascend for every size', () => {
    const { thread } = testRegion({ frames: 1 << 20, bankFrames: 1 << 20 });
    const { watermarks } = new Frames(thread);
    for (const frames of [16, 63, 64, 100, 128, 256, 1000, 4096, 1 << 20]) {
      watermarks.set(defaultMarks(frames));
      expect(watermarks.problems()).toEqual([]);
    }
  });

  it('have defaults at which the pagedaemon works from 64 frames on, and stops a little above', () => {
    const marks = [48, 63, 64, 128, 255, 256, 1024, 2048, 1 << 20].map((frames) => {
      const { freeMin, freeTarget, kernelReserve, pagedaemonReserve } = defaultMarks(frames);
      expect([kernelReserve, pagedaemonReserve]).toEqual([0, 0]);
      return [frames, freeMin, freeTarget];
    });
    expect(marks).toEqual([
      [48, 0, 0],
      [63, 0, 0],
      [64, 2, 3],
      [128, 4, 5],
      [255, 4, 5],
      [256, 4, 5],
      [1024, 4, 5],
      [2048, 8, 10],
      [1 << 20, 4096, 5461],
    ]);
  });

  it('kick once when frames are low, and again after the pagedaemon has looked', async () => {
    const { region, thread } = testRegion({ frames: 64, bankFrames: 64 });
    const frames = new Frames(thread);
    frames.online(0, 64);
    frames.watermarks.set({ freeMin: 4, freeTarget: 8, desiredFree: 8, lotsFree: 8 });
    const { watermarks } = new Frames(testThread(region));
    for (let taken = 0; taken < 60; taken++) frames.tryTake(FRAME_USE.page);
    expect(watermarks.takeKick()).toBe(false);
    const waits = watermarks.waitForKickAsync(5000);
    expect(watermarks.waitForKick(0)).toBe(false);
    frames.tryTake(FRAME_USE.page);
    expect(await waits).toBe(true);
    expect(watermarks.isLow).toBe(true);
    expect(watermarks.missing).toBe(5);
    expect(watermarks.takeKick()).toBe(true);
    expect(watermarks.takeKick()).toBe(false);
    expect(frames.takeRun(2)).toBe(61);
    expect(watermarks.waitForKick(0)).toBe(true);
    frames.giveRun(61, 2);
    for (let frame = 0; frame < 20; frame++) frames.give(frame, FRAME_USE.page);
    expect(watermarks.missing).toBeLessThanOrEqual(0);
    expect(watermarks.isScarce).toBe(false);
  });
});
