/**
 * The accounts of memory, added up anew: what every frame and page says of itself against every count that is kept.
 *
 * Nothing here asks a room. The words of the tables are read and summed, so that a room whose check shares a mistake with its
 * counts is found out. For quiet points: no operation is under way, and whoever died is recovered.
 */

import type { Region } from '../../src/layout/region.ts';
import { PAGE_STATE } from '../../src/page/page-hash.ts';
import { countLane, FRAME_USE, OWNER_MASK, OWNER_SHIFT, USE_MASK } from '../../src/phys/frame-uses.ts';
import { COOKIE_STATE, LARGE_STATE } from '../../src/pmem/kinds.ts';
import { OWNER_RESOURCE, UNDER_LOCK } from '../../src/sync/owners.ts';

/** Compares two numbers. */
type Compare = (what: string, kept: number, found: number) => void;

/** Everything in which kept counts differ from what is there; empty when the accounts are right. */
export function accountProblems(region: Region): string[] {
  const problems: string[] = [];
  const compare: Compare = (what, kept, found) => {
    if (kept !== found) problems.push(`accounts: ${what}: kept ${kept}, found ${found}`);
  };
  const charged = frameAccounts(region, compare);
  const held = cookieAccounts(region, compare, charged);
  ownerAccounts(region, compare, charged, held);
  pageAccounts(region, compare);
  return problems;
}

/** Uses against counts, map, lists and slots' stacks. Returns the frames charged by their words, by owner. */
function frameAccounts({ tables, geometry }: Region, compare: Compare): number[] {
  const { frame, frameMap, framePool, frameList, frameCache } = tables;
  const found = new Array<number>(framePool.counts.stride).fill(0);
  const charged = new Array<number>(geometry.owners).fill(0);
  let spare = 0;
  let strangers = 0;
  let misplaced = 0;
  for (let at = 0; at < geometry.frames; at++) {
    const word = frame.use.get(at);
    const use = word & USE_MASK;
    const lane = countLane(use);
    found[lane] = (found[lane] ?? 0) + 1;
    if (use === FRAME_USE.spare) spare++;
    if (use === FRAME_USE.listTaking || use === FRAME_USE.listGiving) strangers++;
    const owner = ((word & OWNER_MASK) >>> OWNER_SHIFT) - 1;
    if (owner >= 0) charged[owner] = (charged[owner] ?? 0) + 1;
    if (owner >= 0 && lane !== FRAME_USE.list) strangers++;
    const inMap = (frameMap.free.get(at >>> 5) & (1 << (at & 31))) !== 0;
    if (inMap !== (use === FRAME_USE.free)) misplaced++;
  }
  let sum = found[FRAME_USE.absent] ?? 0;
  for (const [name, use] of Object.entries(FRAME_USE)) {
    if (use === FRAME_USE.absent || countLane(use) !== use) continue;
    compare(`frames of use ${name}`, framePool.counts.at(0, use), found[use] ?? 0);
    sum += framePool.counts.at(0, use);
  }
  compare('frames of all uses', sum, geometry.frames);
  compare('frames that are free in the map or by their use alone', 0, misplaced);
  compare('frames in nobody’s list that are charged, or on their way', 0, strangers);
  let onStacks = 0;
  for (let slot = 0; slot < frameCache.rowCount; slot++) onStacks += frameCache.count.get(slot);
  compare('frames on stacks of slots', onStacks, spare);
  if (geometry.linkFrames > 0) {
    let listed = 0;
    for (let row = 0; row < frameList.rowCount; row++) listed += frameList.count.get(row);
    compare('frames on free lists', listed, found[FRAME_USE.free] ?? 0);
  }
  return charged;
}

/** Frames of cookies and of pmem's pool against lists, reservation and rows. Returns frames of cookies by owner. */
function cookieAccounts({ tables }: Region, compare: Compare, charged: readonly number[]) {
  const { pmemPool, pmemCookie, pmemRun, largePage, framePool } = tables;
  const held = { frames: charged.map(() => 0), locked: charged.map(() => 0) };
  const size = pmemPool.largeFrames.get(0);
  const isLarge = (frame: number) => size > 1 && largePage.state.get(Math.floor(frame / size)) !== LARGE_STATE.none;
  let small = 0;
  let all = 0;
  let cookies = 0;
  for (let row = 0; row < pmemPool.cookieFresh.get(0); row++) {
    if (pmemCookie.state.get(row) === COOKIE_STATE.free) continue;
    cookies++;
    let frames = 0;
    for (let run = pmemCookie.head.get(row) - 1; run >= 0; run = pmemRun.next.get(run) - 1) {
      const count = pmemRun.count.get(run);
      frames += Math.abs(count);
      for (let at = 0; at < Math.abs(count); at++) {
        const frame = pmemRun.first.get(run) + Math.sign(count) * at;
        if (!isLarge(frame)) small++;
        compare(`frame ${frame} of cookie ${row} in lists`, framePoolLane(tables, frame), FRAME_USE.list);
      }
    }
    compare(`frames of cookie ${row}`, pmemCookie.frames.get(row), frames);
    all += frames;
    const owner = pmemCookie.owner.get(row);
    held.frames[owner] = (held.frames[owner] ?? 0) + pmemCookie.framesCharged.get(row);
    held.locked[owner] = (held.locked[owner] ?? 0) + pmemCookie.charged.get(row);
  }
  let pooled = 0;
  let large = 0;
  for (let row = 0; row < largePage.rowCount; row++) {
    if (largePage.state.get(row) === LARGE_STATE.none) continue;
    large++;
    pooled += largePage.free.get(row);
  }
  compare('cookies', pmemPool.cookieCount.get(0), cookies);
  compare('large pages of pmem', pmemPool.recordCount.get(0), large);
  compare('frames in the pool of pmem', pmemPool.poolFrames.get(0), pooled);
  if (all + pooled > framePool.counts.at(0, FRAME_USE.list)) compare('frames of pmem within those of lists', 0, 1);
  if (pmemPool.seed.get(0) === 0) {
    compare('frames reserved by pmem', pmemPool.reserved.get(0), small + large * size);
    compare('frames of cookies and pool', small + large * size, all + pooled);
  }
  return held;
}

function framePoolLane({ frame }: Region['tables'], at: number): number {
  return countLane(frame.use.get(at) & USE_MASK);
}

/** Charges against what frames, cookies and slots say they are for. */
function ownerAccounts(
  { tables, geometry }: Region,
  compare: Compare,
  charged: readonly number[],
  held: { readonly frames: readonly number[]; readonly locked: readonly number[] },
): void {
  const { owner, mapSlot, pmemPool, frameReservation, frameReserve, framePool } = tables;
  let promised = 0;
  let kept = 0;
  for (let row = 0; row < geometry.owners; row++) {
    const frames = frameReservation.frames.get(row);
    promised += frames;
    kept += Math.max(0, frames - (charged[row] ?? 0));
  }
  compare('frames promised to owners', frameReserve.promised.get(0), promised);
  const free = framePool.counts.at(0, FRAME_USE.free);
  if (free < kept) compare('free frames that are kept for owners', free, kept);
  const paid = charged.map(() => 0);
  for (let slot = 0; slot < mapSlot.rowCount; slot++) {
    for (let row = 0; row < geometry.owners; row++) paid[row] = (paid[row] ?? 0) + mapSlot.prepaid.at(slot, row);
  }
  for (let row = 0; row < geometry.owners; row++) {
    const used = (resource: number) => owner.used.at(row, resource);
    compare(`owner ${row}: frames of lists charged`, used(OWNER_RESOURCE.frames), charged[row] ?? 0);
    compare(`owner ${row}: frames of cookies charged`, used(OWNER_RESOURCE.frames + UNDER_LOCK), held.frames[row] ?? 0);
    compare(`owner ${row}: locked frames of mappings charged`, used(OWNER_RESOURCE.lockedFrames), paid[row] ?? 0);
    if (pmemPool.seed.get(0) === 1) continue;
    const locked = used(OWNER_RESOURCE.lockedFrames + UNDER_LOCK);
    compare(`owner ${row}: locked frames of cookies charged`, locked, held.locked[row] ?? 0);
  }
}

/** Identities, states and modified words against chains, lists and their counts. */
function pageAccounts({ tables, geometry }: Region, compare: Compare): void {
  const { page, pageBucket, pageDirty, pageDirtyStripe, pageCacheList, pageLink, frame } = tables;
  let identities = 0;
  let cached = 0;
  let modified = 0;
  let elsewhere = 0;
  for (let at = 0; at < geometry.frames; at++) {
    const has = page.vnode.get(at) !== 0;
    if (has) identities++;
    if (has && (frame.use.get(at) & USE_MASK) !== FRAME_USE.page) elsewhere++;
    if (page.state.get(at) === PAGE_STATE.cached) cached++;
    if (page.modified.get(at) !== 0) modified++;
  }
  let chained = 0;
  for (let bucket = 0; bucket < pageBucket.rowCount; bucket++) {
    for (let at = pageBucket.head.get(bucket) - 1; at >= 0 && chained <= geometry.frames; ) {
      chained++;
      at = page.next.get(at) - 1;
    }
  }
  let listed = 0;
  let counted = 0;
  for (let vnode = 0; vnode < pageDirty.rowCount; vnode++) {
    counted += pageDirty.count.get(vnode);
    for (let at = pageDirty.head.get(vnode) - 1; at >= 0 && listed <= geometry.frames; ) {
      listed++;
      at = pageLink.next.get(at) - 1;
    }
  }
  let striped = 0;
  for (let stripe = 0; stripe < pageDirtyStripe.rowCount; stripe++) striped += pageDirtyStripe.count.get(stripe);
  compare('pages with an identity in frames of another use', 0, elsewhere);
  compare('pages in chains of the hash', chained, identities);
  compare('modified pages on lists', listed, modified);
  compare('modified pages by vnode', counted, modified);
  compare('modified pages by stripe', striped, modified);
  compare('pages on the cache list', pageCacheList.count.get(0), cached);
}
