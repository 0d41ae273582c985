import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { Pmem } from './pmem.ts';

describe('misuse of pmem', () => {
  it('is EINVAL, and changes nothing', () => {
    const { thread } = testRegion({ frames: 64, bankFrames: 64 });
    const frames = new Frames(thread);
    frames.online(0, 64);
    const pmem = new Pmem(thread, Banks.create(64, 64, 4096), new PageLists(frames));
    const size = 4096;
    const movers = [{}, 5, null, 'name', { export: '' }, { export: 5 }, { export: 'x', module: 5 }];
    const requests = [
      undefined,
      null,
      5,
      {},
      { size: '1' },
      { size, contiguous: 1 },
      ...[5, 'x', null].map((wait) => ({ size, wait })),
    ];
    for (const request of [...requests, ...movers.map((movable) => ({ size, movable }))]) {
      expect(() => pmem.alloc(request as never)).toThrow(/^EINVAL: pmem.alloc/);
    }
    for (const cookie of [undefined, null, 5, {}, { cookie: -1 }, { cookie: 0.5, generation: 0, frames: 1 }]) {
      expect(() => pmem.free(cookie as never)).toThrow(/^EINVAL: pmem.free/);
      expect(() => pmem.view(cookie as never)).toThrow(/^EINVAL: pmem.runs/);
      expect(() => pmem.getPfns(cookie as never, 0, 1)).toThrow(/^EINVAL: pmem.getPfns/);
    }
    for (const garbage of [undefined, 5, 'x', {}, []]) {
      expect(() => pmem.setUnload(garbage as never)).toThrow(/^EINVAL: pmem.setUnload\(.*unload must be a function/);
      expect(() => pmem.setPinners(garbage as never)).toThrow(/^EINVAL: pmem.setPinners\(/);
      expect(() => pmem.setFaults(garbage as never)).toThrow(
        /^EINVAL: pmem.setFaults\(.*must be a(n object| function)$/,
      );
    }
    expect(pmem.statistics()).toEqual({ cookies: 0, poolFrames: 0, largePages: 0, reserved: 0 });
    expect(frames.counts().free).toBe(64);
    expect([...frames.check().problems, ...pmem.check().problems]).toEqual([]);
  });
});
