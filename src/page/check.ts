/** Checks of the page room at quiet points: hash against identities, states against locks. */

import type { CheckReport } from '../base/check.ts';
import { FRAME_USE, Frames } from '../phys/frames.ts';
import { LOCK_OWNER } from '../sync/mutex.ts';
import type { Thread } from '../sync/thread.ts';
import { CacheList } from './cache-list.ts';
import { DirtyPages } from './dirty-pages.ts';
import { largePageProblems } from './large-pages.ts';
import { hasBytes, PAGE_STATE, PageHash } from './page-hash.ts';
import { PageHolds } from './page-holds.ts';
import { PageShapes } from './page-shapes.ts';

/** Looks at every frame and every chain. Pages that are being filled meanwhile are allowed; moving chains are not. */
export function checkPages(thread: Thread): CheckReport {
  const { region } = thread;
  const { page, pageBucket } = region.tables;
  const frames = new Frames(thread);
  const hash = new PageHash(thread);
  const problems: string[] = [];
  const seen = new Uint8Array(page.rowCount);
  const identities = new Set<string>();
  for (let bucket = 0; bucket < pageBucket.rowCount; bucket++) {
    const chain = hash.chain(bucket, page.rowCount + 1);
    if (chain.length > page.rowCount) problems.push(`page/page-hash I1: the chain of bucket ${bucket} is a circle`);
    for (const frame of chain.slice(0, page.rowCount)) {
      const vnode = page.vnode.get(frame) - 1;
      const index = page.index.get(frame);
      const identity = `${vnode}:${index}`;
      if (seen[frame]++ > 0) problems.push(`page/page-hash I1: frame ${frame} is in a chain twice`);
      if (vnode < 0) problems.push(`page/page-hash I1: frame ${frame} in bucket ${bucket} has no identity`);
      else if (hash.bucketOf(vnode, index) !== bucket) problems.push(`page/page-hash I1: frame ${frame} is misplaced`);
      if (identities.has(identity)) problems.push(`page/page-hash I2: ${identity} is in frame ${frame} and another`);
      identities.add(identity);
    }
  }
  for (let frame = 0; frame < page.rowCount; frame++) {
    const has = page.vnode.get(frame) !== 0;
    const state = page.state.get(frame);
    const owner = page.lock.get(frame) & LOCK_OWNER;
    const use = frames.useOf(frame);
    if (has && seen[frame] === 0) problems.push(`page/page-hash I1: frame ${frame} has an identity and no chain`);
    if (has && use !== FRAME_USE.page) problems.push(`page/pages I2: frame ${frame} has an identity and use ${use}`);
    if (!has && use === FRAME_USE.page && owner === 0) problems.push(`page/pages I2: frame ${frame} is lost`);
    if (has === (state !== PAGE_STATE.filling && !hasBytes(state)))
      problems.push(`page/pages: frame ${frame} has state ${state}`);
    if (state === PAGE_STATE.filling && owner === 0) problems.push(`page/pages I3: frame ${frame} has no filler`);
  }
  problems.push(...new DirtyPages(thread).problems());
  problems.push(...new CacheList(thread, new PageHolds(thread)).problems());
  problems.push(...largePageProblems(page, new PageShapes(thread), region.geometry.bankFrames));
  return { structure: 'page/pages', checked: page.rowCount, problems };
}
