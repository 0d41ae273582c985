/**
 * A thread ends at every single step of every operation on cached mappings. The takeover must leave a sound cache, entries
 * and pages of others as they were, and every page either in use, clean on the list, or modified.
 */

import { describe, expect, it } from 'vitest';
import { checkPages, recoverPages } from '../src/page/index.ts';
import type { Thread } from '../src/sync/index.ts';
import { CachedMappings, copyCached, recoverMappings, UserBytes } from '../src/vpm/index.ts';
import { dieAtEveryStep } from './support/deaths.ts';
import { endCached, moreCached, testCached } from './support/mapped-store.ts';
import { attachRooms } from './support/rooms.ts';

const PAGE = 4096;

const SMALL = {
  frames: 16,
  bankFrames: 16,
  mappingFrames: 16,
  tags: 256,
  tagBuckets: 256,
  slabs: 16,
  magazines: 16,
  pagelockBuckets: 16,
  pagelockEntries: 16,
  pagelockOwners: 8,
  pagelockPins: 16,
  pathBytes: 4096,
  journalLanes: 1024,
};

const OPERATIONS: readonly (readonly [string, (mappings: CachedMappings) => void])[] = [
  ['a hit', (m) => m.map(0, 0, PAGE).release()],
  ['a hit for writing', (m) => m.map(1, 0, PAGE, { access: 'write' }).release('write')],
  ['a mapping that is never released', (m) => void m.map(0, 0, 4 * PAGE, { access: 'write' })],
  ['a miss', (m) => m.map(2, 0, 3 * PAGE).release()],
  ['making pages', (m) => m.map(2, 5 * PAGE, 2 * PAGE, { access: 'write', fetch: false }).release('write')],
  ['making pages without an end', (m) => void m.map(2, 5 * PAGE, 2 * PAGE, { access: 'write', fetch: false })],
  ['a copy', (m) => void copyCached(m, 3, 100, 5000, new UserBytes(new Uint8Array(5000)), { access: 'write' })],
  ['writing back', (m) => void m.sync(1, 0, 8 * PAGE, { write: true })],
  ['freeing', (m) => void m.sync(1, 0, 8 * PAGE, { free: true })],
  ['invalidating', (m) => void m.sync(1, 0, 8 * PAGE, { invalidate: true })],
  ['destroying', (m) => void m.sync(1, 0, 8 * PAGE, { destroy: true })],
  ['taking the frames of others', (m) => m.map(3, 8 * PAGE, 9 * PAGE).release()],
];

describe.each(OPERATIONS)('a thread that ends during %s', (_name, operation) => {
  it('leaves nothing behind at any step', () => {
    const party = testCached(12, 2, SMALL);
    const other = moreCached(party);
    const victim = moreCached(party);
    const { region, banks, thread } = party.rooms;
    // Pages that are clean, modified, in use and made; entries on both lists.
    party.mappings.map(0, 0, 6 * PAGE).release();
    party.mappings.map(1, 0, 6 * PAGE, { access: 'write' }).release('write');
    const held = other.mappings.map(0, PAGE, 2 * PAGE);
    const entries = [...held.entries];
    const dirty = party.rooms.pages.modified;
    const steps = dieAtEveryStep({
      region,
      self: thread,
      victim: victim.rooms.thread,
      recoverers: [
        recoverPages,
        (_self: Thread, dead) => party.mappings.recover(dead),
        recoverMappings,
        (_self: Thread, dead) => party.rooms.frames.recover(dead),
      ],
      operation: () => {
        // What a thread counts for itself dies with it.
        const { frames, pages } = attachRooms(region, victim.rooms.thread, banks);
        operation(new CachedMappings(victim.rooms.thread, banks, frames, pages.holds, party.store));
      },
      verify: (step) => {
        const problems = [...party.mappings.check().problems, ...party.rooms.frames.check().problems];
        problems.push(...checkPages(thread).problems, ...straysOf(party.mappings, region.geometry.frames));
        if (problems.length > 0) throw new Error(`step ${step}: ${problems.join('; ')}`);
        expect([...held.entries]).toEqual(entries);
        for (const entry of entries) expect(party.mappings.pages.entries.pageOf(entry)?.vnode).toBe(0);
      },
    });
    console.log(`${_name}: ${steps} steps`);
    expect(steps).toBeGreaterThan(15);
    expect(party.rooms.pages.modified).toBe(dirty);
    held.release();
    endCached(party);
  });
});

/** Pages that are clean and that neither an entry nor the list knows. */
function straysOf({ pages }: CachedMappings, frames: number): string[] {
  const listed = new Set(pages.clean.frames());
  const strays: string[] = [];
  for (let frame = 0; frame < frames; frame++) {
    if (pages.isStray(frame) && !listed.has(frame)) strays.push(`frame ${frame} is lost`);
  }
  return strays;
}
