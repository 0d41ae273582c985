import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { FRAME_USE, Frames } from './frames.ts';
import { PageLists } from './page-lists.ts';

const PAGE = 4096;
const NEVER = /EINVAL.*memory is not made that way/;

function setUp(count = 128) {
  const { region, thread } = testRegion({ frames: count, bankFrames: count, physSegments: 16 });
  const frames = new Frames(thread);
  frames.online(0, count);
  return { region, frames, lists: new PageLists(frames) };
}

describe('those who wait when memory goes offline', () => {
  it('are refused without waiting further when no memory is left that could serve them', async () => {
    const { region, frames, lists } = setUp();
    const held = lists.alloc({ size: 80 * PAGE });
    const waits = [
      lists.allocAsync({ size: 100 * PAGE }),
      lists.allocAsync({ size: 90 * PAGE, segments: 90 }),
      frames.takeRunAsync(100),
      lists.allocAsync({ size: 65 * PAGE, high: 65 * PAGE - 1 }),
    ];
    const served = lists.allocAsync({ size: 60 * PAGE, segments: 60 });
    const ends = Promise.all(waits.map((wait) => expect(wait).rejects.toThrow(NEVER)));
    const other = new Frames(testThread(region));
    await Promise.resolve();
    expect(frames.core.queue.count).toBe(5);
    lists.free(held);
    other.offline(64, 64);
    await ends;
    const list = await served;
    expect(list.frameCount).toBe(60);
    lists.free(list);
    expect(frames.core.queue.count).toBe(0);
    expect(frames.check().problems).toEqual([]);
  });

  it('are refused when they block their thread', () => {
    const { region, frames, lists } = setUp();
    const other = new Frames(testThread(region));
    const held = lists.alloc({ size: 40 * PAGE });
    // Whoever is asked for frames while this thread waits is a place at which memory can go.
    let looks = 0;
    frames.onShortage(() => {
      if (++looks === 2) other.offline(100, 28);
    });
    expect(() => lists.allocWait({ size: 110 * PAGE })).toThrow(NEVER);
    expect(looks).toBe(2);
    expect(() => frames.takeRunWait(101)).toThrow(NEVER);
    lists.free(held);
    expect(frames.takeRunWait(100)).toBe(0);
  });

  it('are refused for a single frame when none is left online', async () => {
    const { region, frames } = setUp(16);
    for (let taken = 0; taken < 16; taken++) frames.tryTake(FRAME_USE.page);
    const wait = frames.takeAsync(FRAME_USE.page);
    const end = expect(wait).rejects.toThrow(NEVER);
    const other = new Frames(testThread(region));
    other.setReclaimer({
      reclaim(frame, use) {
        other.convert(frame, FRAME_USE.page, use);
        return true;
      },
    });
    other.offline(0, 16);
    await end;
    expect(frames.counts().absent).toBe(16);
    expect(frames.check().problems).toEqual([]);
  });
});
