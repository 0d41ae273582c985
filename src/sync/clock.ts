/**
 * The clock: the only place that reads time.
 *
 * Real mode counts milliseconds on a monotonic scale that all threads of the process share. Virtual mode is for tests
 * and replays: time stands in the region's header and moves only when `advance` is called.
 */

import { fail } from '../base/errors.ts';
import type { Region } from '../layout/region.ts';

const MODE_VIRTUAL = 1;

/** One thread's view of the region's time. */
export class Clock {
  readonly #region: Region;
  /** True when time moves only through `advance`. */
  readonly isVirtual: boolean;

  constructor(region: Region) {
    this.#region = region;
    this.isVirtual = region.tables.header.clockMode.get(0) === MODE_VIRTUAL;
  }

  /** Milliseconds, never going back. */
  now(): number {
    if (this.isVirtual) return this.#region.tables.header.virtualTime.get(0);
    return performance.timeOrigin + performance.now();
  }

  /** Moves virtual time. Throws `ENOTSUP` on a real clock. */
  advance(milliseconds: number): void {
    if (!this.isVirtual) fail('ENOTSUP', 'clock.advance', { milliseconds }, 'only a virtual clock can be advanced');
    if (!(milliseconds >= 0)) fail('EINVAL', 'clock.advance', { milliseconds }, 'time does not go back');
    const column = this.#region.tables.header.virtualTime;
    column.put(0, column.get(0) + milliseconds);
  }
}
