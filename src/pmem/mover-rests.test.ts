import { describe, expect, it } from 'vitest';
import { testRegion } from '../../test/support/region.ts';
import { Banks, Frames, PageLists } from '../phys/index.ts';
import { Callbacks } from '../sync/index.ts';
import { REST_FIRST_MS, REST_MAX_MS } from './mover-rests.ts';
import { Pmem } from './pmem.ts';

const PAGE = 4096;
const FRAMES = 64;
const PLACE = { alignment: 1, boundary: 0, low: 0, high: 32 };

/** Cookies in frames 8 and 16, in the way of every run of 16 frames below 32, and movers that count how often they are asked. */
function setUp() {
  const { region, thread } = testRegion({ frames: FRAMES, bankFrames: FRAMES }, true, 1);
  const banks = Banks.create(FRAMES, FRAMES, PAGE);
  const callbacks = new Callbacks(region);
  const frames = new Frames(thread);
  frames.online(0, FRAMES);
  const lists = new PageLists(frames);
  const pmem = new Pmem(thread, banks, lists, callbacks);
  const mover = { asked: 0, willing: false, throws: false };
  callbacks.register('mover', {
    before() {
      mover.asked++;
      if (mover.throws) throw new Error('no');
      return mover.willing;
    },
    after: () => undefined,
  });
  const spacers = [8, 7].map((count) => {
    const spacer = lists.alloc({ size: count * PAGE });
    const cookie = pmem.alloc({ size: PAGE, movable: { export: 'mover' } });
    return { spacer, cookie };
  });
  for (const { spacer } of spacers) lists.free(spacer);
  expect(spacers.map(({ cookie }) => pmem.getPfns(cookie, 0, 1)[0])).toEqual([8, 16]);
  return { clock: thread.clock, frames, lists, pmem, mover, cookies: spacers.map(({ cookie }) => cookie) };
}

describe('a mover that refuses', () => {
  it.each([false, true])('is asked seldom, however often its frame is wanted; throws: %s', (throws) => {
    const s = setUp();
    s.mover.throws = throws;
    for (let times = 0; times < 100; times++) expect(s.frames.tryTakeRun(16, PLACE)).toBe(-1);
    // One of the two is in the way of each window.
    expect(s.mover.asked).toBeLessThanOrEqual(2);
    expect(s.mover.asked).toBeGreaterThan(0);
  });

  it('rests twice as long after each refusal, and not any more after it has moved', () => {
    const s = setUp();
    const askedAt: number[] = [];
    for (let now = 0; now < 63 + 3 * REST_MAX_MS; now++) {
      const before = s.mover.asked;
      s.frames.tryTakeRun(9, { ...PLACE, high: 9 });
      if (s.mover.asked > before) askedAt.push(now);
      s.clock.advance(1);
    }
    const gaps = askedAt.slice(1).map((now, at) => now - (askedAt[at] as number));
    expect(gaps).toEqual([REST_FIRST_MS, 4, 8, 16, 32, REST_MAX_MS, REST_MAX_MS, REST_MAX_MS]);
    s.mover.willing = true;
    s.clock.advance(REST_MAX_MS);
    expect(s.frames.tryTakeRun(16, { ...PLACE, high: 16 })).toBe(0);
    s.frames.giveRun(0, 16);
    // It refuses again, and rests as after a first time.
    s.mover.willing = false;
    const [cookie] = s.cookies;
    const at = s.pmem.getPfns(cookie as never, 0, 1)[0] as number;
    const there = { ...PLACE, low: at, high: at + 1 };
    expect(s.frames.tryTakeRun(1, there)).toBe(-1);
    s.mover.willing = true;
    expect(s.frames.tryTakeRun(1, there)).toBe(-1);
    s.clock.advance(REST_FIRST_MS);
    expect(s.frames.tryTakeRun(1, there)).toBe(at);
    s.frames.giveRun(at, 1);
    for (const one of s.cookies) s.pmem.free(one);
    expect(s.frames.takeRun(FRAMES)).toBe(0);
    expect([...s.pmem.check().problems, ...s.frames.check().problems]).toEqual([]);
  });
});
