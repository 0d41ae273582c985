/** What `VirtualMemory.statistics` reports. */

import { layoutOf, type Region, tagChunkShift } from '../layout/index.ts';
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

/**
 * Bytes of metadata; the operating system gives those that are never used no memory. Of boundary tags, and what goes with
 * them, it counts as many as were in use at a time: room for far more is set aside.
 */
export interface MetadataReport {
  readonly bytes: number;
  /** Bytes of addresses that are set aside, used or not. */
  readonly reserved: number;
  /** Bytes for each frame of the memory that can be online. */
  readonly perFrame: number;
  /** Bytes by table, the largest first. */
  readonly tables: Readonly<Record<string, number>>;
}

function metadataOf({ geometry, tables }: Region): MetadataReport {
  const { places, sizeBytes } = layoutOf(geometry);
  const tags = tables.tagPool.chunksPeak.get(0) * 2 ** tagChunkShift(geometry.tags);
  const used: Readonly<Record<string, number>> = {
    tag: tags,
    tagPlace: tags,
    bucket: tables.tagPool.extentFresh.get(0),
  };
  let bytes = sizeBytes;
  const sizes = Object.values(places).map(({ name, rowCount, startBytes, endBytes }): [string, number] => {
    const reserved = endBytes - startBytes;
    const size = Math.ceil((reserved * Math.min(rowCount, used[name] ?? rowCount)) / Math.max(1, rowCount));
    bytes -= reserved - size;
    return [name, size];
  });
  sizes.sort((a, b) => b[1] - a[1]);
  return { bytes, reserved: sizeBytes, perFrame: bytes / geometry.frames, tables: Object.fromEntries(sizes) };
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
    metadata: metadataOf(region),
  };
}
