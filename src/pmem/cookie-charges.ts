/**
 * Charges of cookies: their frames, and, unless these may move, that they are locked. Under the pmem lock; journaled, so that
 * a charge and the note of it in the cookie's row come and go together.
 */

import type { Region } from '../layout/region.ts';
import {
  chargedUnderLock,
  isRegistered,
  limitOf,
  OWNER_RESOURCE,
  ownerOf,
  tryChargeUnderLock,
  unchargeUnderLock,
} from '../sync/owners.ts';
import type { Thread } from '../sync/thread.ts';
import type { CookieIndex, PmemFailure } from './kinds.ts';

/**
 * Charges a cookie's owner; what stopped it, or null. The seed knows no limit of frames. Under the frames' lock as well: who takes
 * page lists looks at the limit and charges in one section of it.
 */
export function chargeCookie(thread: Thread, row: CookieIndex, seed: boolean): PmemFailure | null {
  const { journal } = thread;
  const cookies = thread.region.tables.pmemCookie;
  const owner = cookies.owner.get(row);
  const frames = cookies.frames.get(row);
  if (!seed && isRegistered(thread.region, owner)) {
    if (!tryChargeUnderLock(thread, owner, OWNER_RESOURCE.frames, frames)) {
      // What the limit of locked frames never allows is not waited for.
      const isLocked = cookies.mover.get(row) === 0;
      return isLocked && frames > limitOf(thread.region, owner, OWNER_RESOURCE.lockedFrames) ? 'locked' : 'quota';
    }
    journal.set(cookies.framesCharged, row, frames);
  }
  // What moves when asked to is not locked.
  if (cookies.mover.get(row) !== 0) return null;
  if (!tryChargeUnderLock(thread, owner, OWNER_RESOURCE.lockedFrames, frames)) return 'locked';
  journal.set(cookies.charged, row, frames);
  return null;
}

/** True when only what this thread's owner has now kept a request from its frames: when it has given some back they can be had. */
export function isHeldUp(thread: Thread, failure: PmemFailure | null, frames: number): boolean {
  return failure === 'quota' && frames <= limitOf(thread.region, ownerOf(thread), OWNER_RESOURCE.frames);
}

/** Takes the charges of a cookie back; that of locked frames only with `locked`. */
export function unchargeCookie(thread: Thread, row: CookieIndex, locked: boolean): void {
  const { journal } = thread;
  const cookies = thread.region.tables.pmemCookie;
  const owner = cookies.owner.get(row);
  const charged = cookies.charged.get(row);
  const frames = cookies.framesCharged.get(row);
  journal.set(cookies.charged, row, 0);
  journal.set(cookies.framesCharged, row, 0);
  if (locked && charged > 0) unchargeUnderLock(thread, owner, OWNER_RESOURCE.lockedFrames, charged);
  if (frames > 0) unchargeUnderLock(thread, owner, OWNER_RESOURCE.frames, frames);
}

/** Compares what owners are charged with what the cookies' rows say. For quiet points. */
export function chargeProblems(region: Region, locked: boolean): string[] {
  const { owner, framesCharged, charged } = region.tables.pmemCookie;
  const problems: string[] = [];
  const compare = (resource: number, column: typeof charged, name: string) => {
    const sums = new Array<number>(region.geometry.owners).fill(0);
    for (let row = 0; row < region.tables.pmemPool.cookieFresh.get(0); row++) {
      const at = owner.get(row);
      sums[at] = (sums[at] ?? 0) + column.get(row);
    }
    for (const [at, sum] of sums.entries()) {
      const used = chargedUnderLock(region, at, resource);
      if (used !== sum)
        problems.push(`pmem/cookie-work I4: owner ${at} is charged ${used} ${name}, cookies have ${sum}`);
    }
  };
  compare(OWNER_RESOURCE.frames, framesCharged, 'frames');
  if (locked) compare(OWNER_RESOURCE.lockedFrames, charged, 'locked frames');
  return problems;
}
