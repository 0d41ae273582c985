import { describe, expect, it } from 'vitest';
import { testRegion, testThread } from '../../test/support/region.ts';
import { Callbacks } from '../sync/index.ts';
import { Arenas } from './index.ts';

function makeArenas(overrides = {}) {
  const { region, thread, callbacks } = testRegion(overrides);
  return { region, arenas: new Arenas(thread, callbacks) };
}

describe('an arena', () => {
  it('is left out of lists when it goes while they are made, and what is said of all comes of the others', () => {
    const { region, arenas } = makeArenas();
    const staying = arenas.create('staying', { size: 100 });
    const going = arenas.create('going', { base: 0, size: 100 });
    const other = new Arenas(testThread(region), new Callbacks(region));
    const listed = other.list();
    // As if it went between the list and the look at it.
    other.list = () => listed;
    going.destroy();
    expect(() => listed.map((arena) => arena.stats())).toThrow(/ESTALE/);
    expect(other.stats().arenas.map(({ name }) => name)).toEqual(['staying', 'vm.tags']);
    expect(other.check().map(({ structure }) => structure)).not.toContain('vmem/arena going');
    expect(other.whatis(10).map(({ arena }) => arena)).toEqual(['staying']);
    other.drain();
    other.leave();
    staying.destroy();
  });

  it('is checked with more free segments than a call takes arguments', () => {
    const { arenas } = makeArenas({ tags: 1 << 19 });
    const arena = arenas.create('holes', { size: 300_000 });
    for (let address = 0; address < 300_000; address++) arena.alloc(1);
    for (const { address } of arena.allocations()) if (address % 2 === 1) arena.free(address, 1);
    expect(arena.check().problems).toEqual([]);
    expect(arena.alloc(1)).toBeGreaterThanOrEqual(0);
  });
});
