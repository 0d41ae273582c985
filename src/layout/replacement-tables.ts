/** Tables of the replacement policies of `page/`: what they know of each frame, and of pages that have left. */

import type { GeometryKey } from './geometry.ts';
import { i32, table } from './table.ts';

/** Which policy chooses the pages that leave. */
export const REPLACEMENT = { clock: 0, s3fifo: 1, clockPro: 2, queues: 3 } as const;

/** Name of a policy. */
export type ReplacementName = keyof typeof REPLACEMENT;

type DerivedKey = Extract<GeometryKey, 'policyNodes' | 'policyQueues' | 'policyGhosts'>;

/** The capacities that a policy needs. `lists` are the lists of the policy `queues`. */
export function replacementGeometry(policy: number, frames: number, lists: number): Record<DerivedKey, number> {
  const ghosts = 2 ** Math.ceil(Math.log2(Math.max(2, 2 * frames)));
  if (policy === REPLACEMENT.s3fifo) return { policyNodes: frames, policyQueues: 2, policyGhosts: ghosts };
  if (policy === REPLACEMENT.clockPro) return { policyNodes: 2 * frames, policyQueues: 1, policyGhosts: ghosts };
  // Two queues for each list, and the clean pages.
  if (policy === REPLACEMENT.queues) return { policyNodes: frames, policyQueues: 2 * lists + 1, policyGhosts: 0 };
  return { policyNodes: 0, policyQueues: 0, policyGhosts: 0 };
}

/** The policy itself: one row. */
export const policyTable = table('policy', 1, 'columns', {
  kind: i32('c', 'REPLACEMENT'),
  lock: i32('A', 'mutex', { padded: true }),
  hands: i32('L', 'CLOCK-Pro: hot, cold and test hand, node + 1', { lanes: 3, padded: true }),
  counts: i32('L', 'CLOCK-Pro: nodes by kind', { lanes: 4 }),
  coldTarget: i32('L', 'CLOCK-Pro: cold pages aimed for'),
  freeGhosts: i32('L', 'CLOCK-Pro: first node of a page that left which is not in use, node + 1'),
  freshGhost: i32('L', 'CLOCK-Pro: such nodes that were never used begin here'),
  sequence: i32('L', 'S3-FIFO: pages that have left, modulo 2^32'),
  rotor: i32('L', 'queues: list that the next page goes to'),
});

/** Queues of frames. */
export const policyQueueTable = table('policyQueue', 'policyQueues', 'columns', {
  head: i32('L', 'node that leaves first, node + 1'),
  tail: i32('L', 'node that came last, node + 1'),
  count: i32('L', 'nodes'),
  allocate: i32('L', 'for the even queue of a list: 1 when the odd one gives out'),
});

/** Nodes: node f stands for frame f; those behind the frames for pages that have left. */
export const policyNodeTable = table('policyNode', 'policyNodes', 'records', {
  place: i32('L', 'queue + 1, or kind; 0 not linked'),
  next: i32('L', 'node + 1'),
  previous: i32('L', 'node + 1'),
  vnode: i32('L', 'vnode of a page that has left'),
  index: i32('L', 'index of a page that has left'),
});

/** Pages that have left, by hash. */
export const policyGhostTable = table('policyGhost', 'policyGhosts', 'records', {
  key: i32('L', 'fingerprint of the page, or node + 1'),
  sequence: i32('L', 'sequence number at which it left'),
});
