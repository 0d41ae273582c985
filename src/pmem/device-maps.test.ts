import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { createOwner } from '../sync/index.ts';
import { CACHING, DEVICE_MAP_FLAG, DeviceMaps } from './device-maps.ts';
import { Pmem } from './pmem.ts';

const PAGE = 4096;
const FRAMES = 256;

describe('device maps', () => {
  function mapsOf(seed: boolean) {
    const { region, thread } = testRegion({ frames: FRAMES, bankFrames: FRAMES }, false, 32);
    region.tables.pmemPool.seed.put(0, seed ? 1 : 0);
    createOwner(region, 'default', {});
    const frames = new Frames(thread);
    const pmem = new Pmem(thread, new Banks([], FRAMES, FRAMES, PAGE), new PageLists(frames));
    frames.online(0, FRAMES);
    const maps = new DeviceMaps(thread);
    const cookie = pmem.alloc({ size: 4 * PAGE });
    const other = pmem.alloc({ size: 4 * PAGE });
    const map = maps.create({ protection: 1, originalMaxProtection: 3, maxProtection: 3 });
    const request = { cookie, offset: 0, length: 2 * PAGE, maxProtection: 3, flags: CACHING.uncached };
    return { maps, map, request, other, pmem };
  }

  it('of segments end once: neither twice, nor as the map that has the row next, nor by hand', () => {
    const { maps } = mapsOf(false);
    const map = maps.createForSegment({});
    maps.destroyUnnamed(map);
    // It is not a segment's yet.
    expect(maps.isLive(map)).toBe(true);
    maps.handOver(map);
    expect(() => maps.destroy(map)).toThrow(/EINVAL.*ends with it/);
    maps.destroyUnnamed(map);
    expect(maps.isLive(map)).toBe(false);
    expect(maps.createForSegment({})).toBe(map);
    maps.destroyUnnamed(map);
    expect(maps.isLive(map)).toBe(true);
    maps.destroy(map);
  });

  it('are set up once, after every check', () => {
    const { maps, map, request } = mapsOf(false);
    for (const wrong of [
      { cookie: null },
      { offset: PAGE * 3 },
      { maxProtection: 2 },
      { flags: CACHING.cached },
      { flags: 0 },
      { flags: CACHING.uncached | DEVICE_MAP_FLAG.mappingInvalid },
    ]) {
      expect(maps.setup(map, { ...request, ...wrong }), JSON.stringify(wrong)).toBe(false);
    }
    expect(maps.state(map).flags).toBe(0);
    expect(maps.setup(map, { ...request, offset: PAGE + 7, length: PAGE - 6 })).toBe(true);
    expect(maps.state(map)).toMatchObject({ offset: PAGE, length: 2 * PAGE, isPmem: true });
    expect(maps.setup(map, request)).toBe(false);
    maps.destroy(map);
    expect(() => maps.state(map)).toThrow(/EINVAL/);
  });

  it('can be remapped, which the seed never can', () => {
    for (const seed of [false, true]) {
      const { maps, map, request, other } = mapsOf(seed);
      expect(maps.setup(map, { ...request, flags: request.flags | DEVICE_MAP_FLAG.allowRemap })).toBe(true);
      let unloads = 0;
      const done = maps.remap(map, { ...request, cookie: other, offset: PAGE, flags: 0 }, () => {
        unloads++;
      });
      expect([done, unloads]).toEqual(seed ? [false, 0] : [true, 1]);
      if (!seed) expect(maps.state(map)).toMatchObject({ cookie: other, offset: PAGE, length: 2 * PAGE });
    }
  });

  it('refuse offsets below 0 and keep the last page, where the seed does neither', () => {
    for (const seed of [false, true]) {
      const { maps, map, request, pmem } = mapsOf(seed);
      const twin = maps.create({ protection: 1, originalMaxProtection: 3 });
      expect(maps.setup(twin, { ...request, offset: -PAGE })).toBe(seed);
      expect(maps.setup(map, { ...request, offset: PAGE - 1, length: 2 })).toBe(true);
      expect(maps.state(map).length).toBe(seed ? PAGE : 2 * PAGE);
      pmem.free(request.cookie);
      const late = maps.create({ protection: 1, originalMaxProtection: 3 });
      expect(maps.setup(late, request)).toBe(false);
    }
  });
});
