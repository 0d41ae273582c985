import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { Callbacks } from '../sync/index.ts';
import { pause } from '../sync/pause.ts';
import type { CookieMove } from './kinds.ts';
import { REST_MAX_MS } from './mover-rests.ts';
import { Pmem } from './pmem.ts';

const PAGE = 4096;
const FRAMES = 64;

type Place = 'before' | 'after' | 'nowhere';

/** A cookie of four frames and one of one frame at frame 16, with nothing else in memory, and a mover that throws where it is told. */
function setUp(contiguous: boolean) {
  const { region, thread } = testRegion({ frames: FRAMES, bankFrames: FRAMES }, false, 1);
  const banks = Banks.create(FRAMES, FRAMES, PAGE);
  const callbacks = new Callbacks(region);
  const frames = new Frames(thread);
  frames.online(0, FRAMES);
  const lists = new PageLists(frames);
  const pmem = new Pmem(thread, banks, lists, callbacks);
  const state: { throws: Place; readonly ended: boolean[] } = { throws: 'nowhere', ended: [] };
  callbacks.register('mover', {
    before(_move: CookieMove) {
      if (state.throws === 'before') throw new Error('before is wrong');
      return true;
    },
    after(_move: CookieMove, moved: boolean) {
      state.ended.push(moved);
      if (state.throws === 'after') throw new Error('after is wrong');
    },
  });
  const movable = { export: 'mover' };
  const spacer = lists.alloc({ size: 16 * PAGE });
  const large = pmem.alloc({ size: 4 * PAGE, contiguous, movable });
  const small = pmem.alloc({ size: PAGE, movable });
  for (const [at, frame] of pmem.getPfns(large, 0, 4).entries()) banks.view(frame * PAGE, PAGE).fill(at + 1);
  lists.free(spacer);
  return { banks, frames, lists, pmem, state, large, small };
}

type Side = ReturnType<typeof setUp>;

/** Has somebody need the frames at which the cookies are; what that took is given back. */
const ASKERS: Readonly<Record<string, (side: Side) => void>> = {
  allocWait: ({ lists }) => lists.free(lists.allocWait({ size: 24 * PAGE, high: 24 * PAGE - 1 }, { timeoutMs: 100 })),
  takeRun: ({ frames }) => frames.giveRun(frames.takeRun(48), 48),
  compact: ({ frames }) => void frames.compact(),
  offline({ frames }) {
    frames.offline(0, 24, { timeoutMs: 50 });
    frames.online(0, 24);
  },
};

function ask(name: string, side: Side): void {
  try {
    ASKERS[name]?.(side);
  } catch (error) {
    expect(String(error)).toMatch(/ETIMEDOUT|ENOMEM|EBUSY/);
  }
}

function expectWhole({ banks, frames, pmem, large }: Side): void {
  expect(pmem.getPfns(large, 0, 4).map((frame) => banks.view(frame * PAGE, PAGE)[PAGE - 1])).toEqual([1, 2, 3, 4]);
  expect(frames.counts()).toMatchObject({ free: FRAMES - 5, list: 5, absent: 0 });
  expect([...frames.check().problems, ...pmem.check().problems]).toEqual([]);
}

describe('a mover that throws', () => {
  for (const name of Object.keys(ASKERS)) {
    for (const contiguous of [true, false]) {
      it(`before a move has refused it: ${name}, ${contiguous ? 'one run' : 'frame by frame'}`, () => {
        const side = setUp(contiguous);
        const { frames, lists, pmem, state, large, small } = side;
        const where = pmem.runs(large);
        state.throws = 'before';
        ask(name, side);
        expect(pmem.runs(large)).toEqual(where);
        expect(state.ended).toEqual([]);
        expect(pmem.moverFailure?.error).toMatchObject({ message: 'before is wrong' });
        expectWhole(side);
        // Later moves work.
        state.throws = 'nowhere';
        // It is left alone for a moment first.
        pause(side.frames.core.thread, REST_MAX_MS);
        ask(name, side);
        expect(state.ended.length).toBeGreaterThan(0);
        expect(state.ended).not.toContain(false);
        expectWhole(side);
        pmem.free(large);
        pmem.free(small);
        lists.free(lists.alloc({ size: FRAMES * PAGE }));
        expect(frames.counts().free).toBe(FRAMES);
      });

      it(`after a move has moved all the same: ${name}, ${contiguous ? 'one run' : 'frame by frame'}`, () => {
        const side = setUp(contiguous);
        const { lists, pmem, state, large, small } = side;
        state.throws = 'after';
        ask(name, side);
        expect(state.ended.length).toBeGreaterThan(0);
        expect(pmem.moverFailure).toMatchObject({ error: { message: 'after is wrong' }, times: state.ended.length });
        expectWhole(side);
        state.throws = 'nowhere';
        pmem.free(large);
        pmem.free(small);
        lists.free(lists.alloc({ size: FRAMES * PAGE }));
      });
    }
  }
});
