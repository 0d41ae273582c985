import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { layoutOf, Region } from './region.ts';

describe('region', () => {
  it('places tables one after another, columns inside their table and apart from each other', () => {
    const { geometry } = testRegion().region;
    const layout = layoutOf(geometry);
    let endBytes = 0;
    for (const place of Object.values(layout.places)) {
      expect(place.startBytes).toBeGreaterThanOrEqual(endBytes);
      endBytes = place.endBytes;
    }
    expect(layout.sizeBytes).toBeGreaterThanOrEqual(endBytes);
  });

  it('is found again by attaching to the buffer alone', () => {
    const { region } = testRegion({ tags: 1234 });
    const again = Region.attach(region.buffer);
    expect(again.geometry).toEqual(region.geometry);
    region.tables.arenaState.sizeTotal.put(3, 2 ** 52 + 1);
    expect(again.tables.arenaState.sizeTotal.get(3)).toBe(2 ** 52 + 1);
  });

  it('refuses to be larger than words can be counted', () => {
    const { geometry } = testRegion().region;
    const large = { ...geometry, tags: 2 ** 28 };
    expect(() => Region.create(large, { spinLimit: 1, virtualClock: false })).toThrow(
      /EINVAL: boot: the options ask for \d+ bytes of metadata; a region has at most \d+: fewer tags/,
    );
  });

  it('refuses a buffer that holds no region, and a region of another layout', () => {
    expect(() => Region.attach({})).toThrow(/holds no SharedArrayBuffer/);
    expect(() => Region.attach(new SharedArrayBuffer(64))).toThrow(/too small for a region/);
    expect(() => Region.attach(new SharedArrayBuffer(1 << 20))).toThrow(/magic number/);
    const { region } = testRegion();
    const { header } = region.tables;
    header.version.put(0, header.version.get(0) + 1);
    expect(() => Region.attach(region.buffer)).toThrow(/layout version/);
    header.version.put(0, header.version.get(0) - 1);
    header.layoutHash.put(0, header.layoutHash.get(0) + 1);
    expect(() => Region.attach(region.buffer)).toThrow(/different build of the same version/);
  });
});
