import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Touches } from '../../test/support/touches.ts';
import { Frames } from './frames.ts';
import { PageLists } from './page-lists.ts';

const PAGE = 4096;

/** Memory of which every second frame is taken; what touches frames, their map and its summaries is counted. */
function everySecondTaken(frames: number) {
  const { region, thread } = testRegion({ frames, bankFrames: frames });
  const { frame, frameMap, frameGroup, runNode, runDirty, runDirtyGroup, physSegment } = region.tables;
  const touches = new Touches([frame, frameMap, frameGroup, runNode, runDirty, runDirtyGroup, physSegment]);
  const rooms = new Frames(thread);
  rooms.online(0, frames);
  const lists = new PageLists(rooms);
  lists.alloc({ size: frames * PAGE });
  for (let at = 1; at < frames; at += 2) lists.giveFrame(at);
  return { lists, touches };
}

describe('steps of page lists', () => {
  it.each([2, 16, 512])(
    'that refuse a run of %i frames, longer than any, are few, and as many in 2^16 frames as in 2^12',
    (count) => {
      const refuse = (frames: number) => {
        const { lists, touches } = everySecondTaken(frames);
        const request = { size: count * PAGE };
        // The summaries are brought up to date once.
        expect(lists.tryAlloc(request)).toBeNull();
        const again = touches.by(() => expect(lists.tryAlloc(request)).toBeNull());
        // One frame changes: no more than what is above it is looked at.
        lists.giveFrame(lists.tryTakeFrame());
        const after = touches.by(() => expect(lists.tryAlloc(request)).toBeNull());
        return [again, after] as [number, number];
      };
      const [few, fewAfter] = refuse(2 ** 12);
      const [many, manyAfter] = refuse(2 ** 16);
      console.log(`${count} frames: ${few} and ${many} touches, ${fewAfter} and ${manyAfter} after a change`);
      expect(few).toBeGreaterThan(0);
      expect(few).toBeLessThan(10);
      expect(many).toBe(few);
      expect(fewAfter).toBeLessThan(100);
      expect(manyAfter).toBe(fewAfter);
    },
  );
});
