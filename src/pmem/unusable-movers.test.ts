/** Movers that cannot work: refused when that can be seen at once, and reported by the first move that needs them. */

import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { type CallbackReference, Callbacks } from '../sync/index.ts';
import { Pmem } from './pmem.ts';

const PAGE = 4096;
const FRAMES = 64;

function setUp() {
  const { region, thread } = testRegion({ frames: FRAMES, bankFrames: FRAMES, physSegments: 8 }, false, 1);
  const callbacks = new Callbacks(region);
  const frames = new Frames(thread);
  frames.online(0, FRAMES);
  const lists = new PageLists(frames);
  return { callbacks, frames, lists, pmem: new Pmem(thread, Banks.create(FRAMES, FRAMES, PAGE), lists, callbacks) };
}

type Side = ReturnType<typeof setUp>;

function expectAllFree({ frames, lists, pmem }: Side): void {
  expect([...frames.check().problems, ...pmem.check().problems]).toEqual([]);
  expect(pmem.statistics().cookies).toBe(0);
  lists.free(lists.alloc({ size: FRAMES * PAGE }));
}

describe('movers that cannot work', () => {
  it('are refused by each call at once when their name or their shape says so', async () => {
    const side = setUp();
    const { callbacks, pmem } = side;
    callbacks.register('half', { before: () => true });
    callbacks.register('whole', { before: () => true, after: () => {} });
    const cases: [unknown, RegExp][] = [
      [{ export: 'unheard of' }, /^ENOENT: CALL\(export="unheard of"\): no mover of this name is registered/],
      [{ export: 'half' }, /^EINVAL: CALL\(export="half"\): a mover has functions before and after/],
      [{ export: 'whole', modul: 'file:///x.mjs' }, /^EINVAL: CALL.*modul/],
      [{ export: '' }, /^EINVAL: CALL/],
      [{ export: 'whole', module: '' }, /^EINVAL: CALL.*module is a URL/],
      [{ export: 'whole', module: 5 }, /^EINVAL: CALL.*module is a URL/],
    ];
    for (const [movable, error] of cases) {
      const request = { size: PAGE, movable: movable as CallbackReference };
      const named = (call: string) => new RegExp(error.source.replace('CALL', call));
      expect(() => pmem.alloc(request)).toThrow(named('pmem.alloc'));
      expect(() => pmem.tryAlloc(request)).toThrow(named('pmem.tryAlloc'));
      await expect(pmem.allocAsync(request)).rejects.toThrow(named('pmem.allocAsync'));
    }
    expect(pmem.statistics()).toMatchObject({ cookies: 0, reserved: 0 });
    pmem.free(pmem.alloc({ size: PAGE, movable: { export: 'whole' } }));
    expectAllFree(side);
  });

  const NOWHERE = new URL('./nowhere.mjs', import.meta.url);
  const modules: [string, CallbackReference, RegExp][] = [
    [
      'no module',
      { module: NOWHERE, export: 'mover' },
      /ENOENT: callback "mover": module .*nowhere.mjs cannot be loaded/,
    ],
    ['no export', { module: 'node:path', export: 'mover' }, /ENOENT: callback "mover" is not exported by node:path/],
    ['no mover', { module: 'node:path', export: 'join' }, /EINVAL.*"?join"?.*a mover has functions before and after/],
  ];
  for (const contiguous of [false, true]) {
    it.each(modules)(
      `are reported by the first move, in which nothing moves: %s, contiguous ${contiguous}`,
      (_name, movable, error) => {
        const side = setUp();
        const { frames, lists, pmem } = side;
        const spacer = lists.alloc({ size: 16 * PAGE });
        const cookie = pmem.alloc({ size: 4 * PAGE, contiguous, movable });
        lists.free(spacer);
        const where = pmem.runs(cookie);
        expect(pmem.moverFailure).toBeNull();
        expect(frames.tryTakeRun(50)).toBe(-1);
        expect(pmem.moverFailure).toMatchObject({ move: { cookie } });
        expect(String(pmem.moverFailure?.error)).toMatch(error);
        let message = '';
        try {
          frames.offline(0, 32, { timeoutMs: 0 });
        } catch (caught) {
          message = (caught as Error).message;
        }
        expect(message).toMatch(/^EBUSY: frames.offline\(.*use="movable".*obstacle="cookie 0 with the mover/);
        expect(message.replaceAll('\\"', '"')).toMatch(error);
        expect(pmem.runs(cookie)).toEqual(where);
        expect([...frames.check().problems, ...pmem.check().problems]).toEqual([]);
        pmem.free(cookie);
        expectAllFree(side);
      },
    );
  }

  const answers: [string, unknown, RegExp][] = [
    [
      'a promise',
      Promise.resolve(true),
      /EINVAL: pmem.move\(.*"wrong", function="before"\): .*must not be asynchronous/,
    ],
    ['nothing', undefined, /EINVAL: pmem.move\(.*function="before"\): .*true or false, and this returned undefined/],
    ['a number', 1, /EINVAL: pmem.move\(.*function="before"\): .*true or false, and this returned number/],
  ];
  it.each(answers)('are reported, and nothing moves, when before returns %s', (_name, answer, error) => {
    const side = setUp();
    const { callbacks, frames, lists, pmem } = side;
    callbacks.register('wrong', { before: () => answer, after: () => expect.unreachable() });
    const spacer = lists.alloc({ size: 16 * PAGE });
    const cookie = pmem.alloc({ size: 4 * PAGE, contiguous: true, movable: { export: 'wrong' } });
    lists.free(spacer);
    const where = pmem.runs(cookie);
    expect(frames.tryTakeRun(50)).toBe(-1);
    expect(pmem.moverFailure).toMatchObject({ move: { cookie }, times: 1 });
    expect(String(pmem.moverFailure?.error)).toMatch(error);
    expect(pmem.runs(cookie)).toEqual(where);
    pmem.free(cookie);
    expectAllFree(side);
  });

  it('are reported when they are asynchronous, and what they reject with harms nobody', async () => {
    const side = setUp();
    const { callbacks, frames, lists, pmem } = side;
    const unhandled: unknown[] = [];
    const listener = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', listener);
    const rejects = () => Promise.reject(new Error('too late'));
    callbacks.register('refuses late', { before: rejects, after: () => {} });
    callbacks.register('ends late', { before: () => true, after: rejects });
    for (const [name, asked, moves] of [
      ['refuses late', 'before', false],
      ['ends late', 'after', true],
    ] as const) {
      const spacer = lists.alloc({ size: 12 * PAGE });
      const cookie = pmem.alloc({ size: 4 * PAGE, contiguous: true, movable: { export: name } });
      lists.free(spacer);
      const where = pmem.runs(cookie);
      const run = frames.tryTakeRun(50);
      expect(run >= 0).toBe(moves);
      expect(String(pmem.moverFailure?.error)).toMatch(new RegExp(`function="${asked}".*must not be asynchronous`));
      if (moves) expect(pmem.runs(cookie)).not.toEqual(where);
      else expect(pmem.runs(cookie)).toEqual(where);
      if (run >= 0) frames.giveRun(run, 50);
      pmem.free(cookie);
    }
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', listener);
    expect(unhandled).toEqual([]);
    expect(pmem.moverFailure?.times).toBeGreaterThan(1);
    expectAllFree(side);
  });

  it('say that they refused when memory is to go', () => {
    const side = setUp();
    const { callbacks, frames, lists, pmem } = side;
    callbacks.register('stubborn', { before: () => false, after: () => {} });
    const spacer = lists.alloc({ size: 16 * PAGE });
    const cookie = pmem.alloc({ size: PAGE, movable: { export: 'stubborn' } });
    lists.free(spacer);
    expect(() => frames.offline(0, 32, { timeoutMs: 0 })).toThrow(
      /EBUSY.*frame=16, use="movable".*obstacle="cookie 0 with the mover \\?"stubborn/,
    );
    pmem.free(cookie);
    expectAllFree(side);
  });
});
