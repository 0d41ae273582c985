/** What `check()` of pmem looks at: that every frame which pmem has is in one place, and that counts and charges agree. */

import type { CheckReport } from '../base/check.ts';
import type { Region } from '../layout/region.ts';
import type { FrameIndex } from '../phys/index.ts';
import { chargeProblems } from './cookie-charges.ts';
import type { CookieWork } from './cookie-work.ts';
import { COOKIE_STATE, type CookieIndex, LARGE_STATE } from './kinds.ts';

/** Checks chains, pool, large pages and accounting; `outstanding`: frames in page lists. For quiet points. */
export function checkCookies(region: Region, work: CookieWork, outstanding: number): CheckReport {
  const { pmemCookie: cookies, pmemPool: pool } = region.tables;
  const { chains, large, seed } = work;
  const problems = [...large.problems(), ...chargeProblems(region, !seed)];
  let checked = 0;
  let held = 0;
  const seen = new Map<FrameIndex, number>();
  for (let row: CookieIndex = 0; row < pool.cookieFresh.get(0); row++) {
    const state = cookies.state.get(row);
    if (state === COOKIE_STATE.free) continue;
    checked++;
    if (state !== COOKIE_STATE.live) problems.push(`pmem/pmem I1: cookie ${row} is in state ${state}`);
    let frames = 0;
    for (const { first, count } of chains.list(work.chainOf(row))) {
      for (let at = 0; at < Math.abs(count); at++) {
        const frame = first + Math.sign(count) * at;
        const other = seen.get(frame);
        if (other !== undefined) problems.push(`pmem/cookie-work I1: frame ${frame} in cookies ${other}, ${row}`);
        seen.set(frame, row);
        if (!large.has(frame)) held++;
      }
      frames += Math.abs(count);
    }
    if (frames !== cookies.frames.get(row)) problems.push(`pmem/cookie-work I1: cookie ${row} has ${frames} frames`);
  }
  const reserved = pool.reserved.get(0);
  const largePages = pool.recordCount.get(0);
  if (!seed && reserved !== held + largePages * large.size) {
    problems.push(`pmem/cookie-work I2: ${reserved} reserved, ${held} small and ${largePages} large pages found`);
  }
  for (const [root] of large.snapshot()) {
    if (large.stateOf(large.of(root)) === LARGE_STATE.leaving) problems.push(`pmem/pool: ${root} is leaving`);
  }
  if (outstanding < seen.size) problems.push('pmem/cookie-work I1: more frames than are in lists');
  return { structure: 'pmem', checked, problems };
}
