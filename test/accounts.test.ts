/** The accounts of memory, added up anew: wrong ones are found. */

import { describe, expect, it } from 'vitest';
import { FRAME_ORDER } from '../src/layout/index.ts';
import { Banks, FRAME_USE, Frames, PageLists } from '../src/phys/index.ts';
import { Pmem } from '../src/pmem/index.ts';
import { createOwner, OWNER_RESOURCE } from '../src/sync/index.ts';
import { accountProblems } from './support/accounts.ts';
import { pageRooms } from './support/page-room.ts';
import { leaveUnbalanced, testRegion } from './support/region.ts';

function setUp() {
  const { region, thread } = testRegion({ linkFrames: 256 });
  region.tables.frameOrder.source.put(0, FRAME_ORDER.lastIn);
  createOwner(region, 'default');
  const frames = new Frames(thread);
  frames.online(0, 256);
  const lists = new PageLists(frames);
  const pmem = new Pmem(thread, Banks.create(256, 256, 4096), lists);
  lists.alloc({ size: 40 * 4096 });
  pmem.alloc({ size: 50 * 4096 });
  expect(accountProblems(region)).toEqual([]);
  return { region, tables: region.tables };
}

type Tables = ReturnType<typeof setUp>['tables'];

const ERRORS: [string, RegExp, (tables: Tables) => void][] = [
  [
    'a count of frames',
    /frames of use list: kept 105, found 104/,
    ({ framePool: { counts } }) => counts.putAt(0, FRAME_USE.list, 105),
  ],
  ['the use of a frame', /free in the map or by their use alone/, ({ frame: { use } }) => use.put(200, FRAME_USE.page)],
  [
    'the map',
    /free in the map or by their use alone: kept 0, found 1/,
    ({ frameMap: { free } }) => free.put(6, free.get(6) & ~4),
  ],
  [
    'a charge of lists',
    /owner 0: frames of lists charged: kept 41, found 40/,
    ({ owner: { used } }) => used.putAt(0, OWNER_RESOURCE.frames, 41),
  ],
  [
    'a note of a charge',
    /owner 0: frames of cookies charged: kept 50, found 49/,
    ({ pmemCookie }) => pmemCookie.framesCharged.put(0, 49),
  ],
  [
    'a note of locked frames',
    /locked frames of cookies charged: kept 50/,
    ({ pmemCookie }) => pmemCookie.charged.put(0, 0),
  ],
  [
    'what a slot has paid ahead',
    /locked frames of mappings charged: kept 0, found 3/,
    ({ mapSlot }) => mapSlot.prepaid.put(0, 3),
  ],
  ['the reservation', /frames reserved by pmem: kept 60, found 64/, ({ pmemPool }) => pmemPool.reserved.put(0, 60)],
  ['the pool', /frames in the pool of pmem: kept 14, found 13/, ({ largePage }) => largePage.free.put(3, 13)],
  [
    'a run of a cookie',
    /frames of cookie 0: kept 50, found 49/,
    ({ pmemRun }) => pmemRun.count.put(0, pmemRun.count.get(0) - 1),
  ],
  ['a list of free frames', /frames on free lists: kept 3, found/, ({ frameList }) => frameList.count.put(0, 3)],
  ['a stack of a slot', /frames on stacks of slots: kept 2, found 0/, ({ frameCache }) => frameCache.count.put(1, 2)],
];

describe('accounts of memory', () => {
  it.each(ERRORS)('show an error in %s', (_name, message, spoil) => {
    const { region, tables } = setUp();
    leaveUnbalanced();
    spoil(tables);
    expect(accountProblems(region).join('\n')).toMatch(message);
  });

  it('show errors in identities, states and modified words of pages', () => {
    const { region, pages } = pageRooms(16);
    leaveUnbalanced();
    const { page } = region.tables;
    expect(accountProblems(region)).toEqual([]);
    page.vnode.put(3, 8);
    page.state.put(3, 3);
    page.modified.put(3, 1);
    const problems = accountProblems(region).join('\n');
    expect(problems).toMatch(/identity in frames of another use: kept 0, found 1/);
    expect(problems).toMatch(/chains of the hash: kept 0, found 1/);
    expect(problems).toMatch(/modified pages on lists: kept 0, found 1/);
    expect(problems).toMatch(/cache list: kept 0, found 1/);
    expect(pages.modified).toBe(0);
  });
});
