/** Promising frames to an owner: pages are given up for it, or it waits. See frame-reservations.ts. */

import { fail, failMisuse, requireInteger } from '../base/errors.ts';
import { isOwnerLasting, isOwnerStill, limitOf, OWNER_RESOURCE, type OwnerIndex, ownerNameOf } from '../sync/owners.ts';
import { type FrameWaitOptions, requireWaitOptions, waitForFrames } from './frame-waiting.ts';
import type { Frames } from './frames.ts';
import { ListHand } from './list-hand.ts';
import { RunAssembly } from './run-assembly.ts';

const CALL = 'frames.reserveFor';

/** Does what `Frames.reserveFor` says. */
export function reserveFrames(
  all: Frames,
  owner: OwnerIndex | string,
  frames: number,
  options: FrameWaitOptions,
): void {
  requireWaitOptions(CALL, options);
  const { core } = all;
  const { region } = core.thread;
  requireInteger(CALL, 'frames', frames, 0, region.geometry.frames);
  const { owner: row, name } = core.reservations.of(owner);
  const limit = limitOf(region, row, OWNER_RESOURCE.frames);
  if (frames > limit) failMisuse(CALL, { owner: name, frames, limit }, "the owner's limit of frames must allow it");
  // The row may come to another owner until something is promised to it.
  const whom = typeof owner === 'string' ? owner : name;
  const attempt = () => tryReserve(all, row, whom, frames);
  const press = () => makeRoom(all, row, frames);
  const { timeoutMs = 0, cancel } = options;
  if (timeoutMs > 0 || cancel !== undefined) {
    const possible = () => frames <= core.online - all.systemReserve;
    const values = { owner: name, frames };
    waitForFrames({ call: CALL, core, count: Math.max(1, frames), values, possible, attempt, press }, options);
  } else if (attempt() === null && !(press() && attempt() !== null)) {
    const values = { owner: name, frames, free: core.free, keptForOthers: core.reservations.others(row) };
    fail('ENOMEM', CALL, values, 'so many frames are not free and cannot be had now');
  }
}

/** Null when too few frames are free. Less than before can always be promised. Throws `ENOENT` when the owner is gone. */
function tryReserve(all: Frames, owner: OwnerIndex, name: string, frames: number): true | null {
  const { thread } = all.core;
  while (isOwnerLasting(thread, owner) && ownerNameOf(thread.region, owner) === name) {
    const isPromised = tryPromise(all, owner, name, frames);
    if (isPromised !== undefined) return isPromised ? true : null;
  }
  return fail('ENOENT', CALL, { owner: name, frames }, 'the owner was removed');
}

/** Undefined, and nothing promised, when somebody looks whether the owner may go, or when it has gone. */
function tryPromise(
  { core, systemReserve }: Frames,
  owner: OwnerIndex,
  name: string,
  frames: number,
): boolean | undefined {
  const { mutex, reservations, queue } = core;
  const { region } = core.thread;
  mutex.enter();
  const before = reservations.promised(owner);
  const isNamed = () => ownerNameOf(region, owner) === name;
  const isLess = frames <= before;
  const fits = isLess || core.free >= systemReserve + reservations.needed(owner, frames);
  // What is promised keeps the owner, and with it the name: so the look comes before less is promised, and after more.
  let isThere = !isLess || isNamed();
  if (fits && isThere) reservations.change(owner, frames);
  // In this order: see sync/owner-changes.ts.
  if (fits && !isLess) isThere = isOwnerStill(region, owner) && isNamed();
  if (fits && !isThere) reservations.change(owner, before);
  // Whoever waits may have what was kept.
  else if (fits) queue.tell(core.free);
  mutex.exit();
  return isThere ? fits : undefined;
}

/** Has pages given up, modified ones once they are written, until as many frames are free as a reservation needs. True when that may have helped. */
function makeRoom(all: Frames, owner: OwnerIndex, frames: number): boolean {
  const { core, evacuation } = all;
  all.watermarks.kick();
  const pressed = all.press();
  const missing = core.reservations.needed(owner, frames) + all.systemReserve - core.free;
  if (missing <= 0) return true;
  const assembly = new RunAssembly(core, new ListHand(core), evacuation);
  const freed = all.caches.paused(() => {
    const first = assembly.freeSome(missing);
    const left = missing - first;
    return left > 0 && all.room.clean(left) ? first + assembly.freeSome(left) : first;
  });
  return freed > 0 || pressed;
}
