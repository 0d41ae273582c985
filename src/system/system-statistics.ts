/** What `VirtualMemory.statistics` reports. */

import { type PageCounter, pageStatistics } from '../page/index.ts';
import type { FrameCounts } from '../phys/index.ts';
import type { CacheStatistics } from '../seg/index.ts';
import { type OwnerUsage, ownerUsage } from '../sync/index.ts';
import type { PagedaemonStatistics } from './pagedaemon.ts';
import { describeSlots, type SlotReport } from './slot-report.ts';
import type { VirtualMemory } from './virtual-memory.ts';

/** Numbers about the whole system. */
export interface SystemStatistics {
  readonly slots: readonly SlotReport[];
  readonly owners: readonly OwnerUsage[];
  /** Frames by what they are used for. */
  readonly frames: FrameCounts;
  /** What all slots together did with pages. */
  readonly pages: Readonly<Record<PageCounter, number>>;
  /** The pagelock cache. */
  readonly pagelock: CacheStatistics;
  /** The rounds of the pagedaemon. */
  readonly pagedaemon: PagedaemonStatistics;
}

/** Reads the numbers. */
export function readSystem(vm: VirtualMemory): SystemStatistics {
  const { region } = vm;
  return {
    slots: describeSlots(region),
    owners: ownerUsage(region),
    frames: vm.frames.counts(),
    pages: pageStatistics(region),
    pagelock: vm.pagelock.statistics(),
    pagedaemon: vm.pagedaemon.statistics(),
  };
}
