/**
 * Idle spans and those who wait for them elsewhere.
 *
 * An importer keeps a span that became idle, for the next load. But while somebody waits in an arena that it imports from, or
 * in another importer, the span may be what they wait for: it goes back at once, and that tells them. They take back what
 * is idle before they sleep, and say before that they wait; a span that becomes idle meanwhile is seen here or there.
 */

import { ARENA_IDLE_HEAD } from '../layout/index.ts';
import type { ArenaCore } from './arena-core.ts';
import { releaseIdle } from './import.ts';
import { announceSpace, sourceIsWaitedFor } from './space-queue.ts';

/** Space came back, with nothing in flight: tells those who wait for it here, and those who wait elsewhere. */
export function announceFreed(core: ArenaCore): void {
  announceSpace(core);
  shareIdle(core);
}

/** After something was freed, with nothing in flight. Called without a lock; one load when nobody waits. */
export function shareIdle(core: ArenaCore): void {
  if (core.words[core.waitersAt] === 0 || !core.releases || core.seed) return;
  if (core.words[core.base + ARENA_IDLE_HEAD] !== 0 && sourceIsWaitedFor(core)) releaseIdle(core);
}
