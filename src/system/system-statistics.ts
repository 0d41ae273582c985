/** What `VirtualMemory.statistics` reports. */

import { type Geometry, layoutOf } from '../layout/index.ts';
import { type PageCounter, pageStatistics } from '../page/index.ts';
import type { FrameCounts, FrameReservation } from '../phys/index.ts';
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
  /** Frames promised to owners. */
  readonly reservations: readonly FrameReservation[];
  /** What all slots together did with pages. */
  readonly pages: Readonly<Record<PageCounter, number>>;
  /** The pagelock cache. */
  readonly pagelock: CacheStatistics;
  /** The rounds of the pagedaemon. */
  readonly pagedaemon: PagedaemonStatistics;
  /** What the tables behind everything come to. */
  readonly metadata: MetadataReport;
}

/** Bytes set aside for metadata; the operating system gives those that are never used no memory. */
export interface MetadataReport {
  readonly bytes: number;
  /** Bytes for each frame of the memory that can be online. */
  readonly perFrame: number;
  /** Bytes by table, the largest first. */
  readonly tables: Readonly<Record<string, number>>;
}

function metadataOf(geometry: Geometry): MetadataReport {
  const { places, sizeBytes } = layoutOf(geometry);
  const sizes = Object.values(places).map(({ name, startBytes, endBytes }): [string, number] => [
    name,
    endBytes - startBytes,
  ]);
  sizes.sort((a, b) => b[1] - a[1]);
  return { bytes: sizeBytes, perFrame: sizeBytes / geometry.frames, tables: Object.fromEntries(sizes) };
}

/** Reads the numbers. */
export function readSystem(vm: VirtualMemory): SystemStatistics {
  const { region } = vm;
  return {
    slots: describeSlots(region),
    owners: ownerUsage(region),
    frames: vm.frames.counts(),
    reservations: vm.frames.core.reservations.list(),
    pages: pageStatistics(region),
    pagelock: vm.pagelock.statistics(),
    pagedaemon: vm.pagedaemon.statistics(),
    metadata: metadataOf(region.geometry),
  };
}
