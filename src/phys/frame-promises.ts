/** Promising frames to an owner: pages are given up for it, or it waits. See frame-reservations.ts. */

import { fail, failMisuse, requireInteger } from '../base/errors.ts';
import { isOwner, isOwnerStill, limitOf, OWNER_RESOURCE, type OwnerIndex } from '../sync/owners.ts';
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
  const attempt = () => tryReserve(all, row, frames);
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

/** Null when too few frames are free. Less than before can always be promised. */
function tryReserve({ core, systemReserve }: Frames, owner: OwnerIndex, frames: number): true | null {
  const { mutex, reservations, queue } = core;
  const { region } = core.thread;
  mutex.enter();
  if (!isOwner(region, owner)) {
    mutex.exit();
    return failGone(owner, frames);
  }
  const before = reservations.of(owner).frames;
  const isLess = frames <= before;
  const fits = isLess || core.free >= systemReserve + reservations.needed(owner, frames);
  if (fits) reservations.change(owner, frames);
  if (fits && !isOwnerStill(region, owner)) {
    reservations.change(owner, before);
    mutex.exit();
    return failGone(owner, frames);
  }
  // Whoever waits may have what was kept.
  if (fits) queue.tell(core.free);
  mutex.exit();
  return fits ? true : null;
}

function failGone(owner: OwnerIndex, frames: number): never {
  fail('ENOENT', CALL, { owner, frames }, 'the owner was removed');
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
