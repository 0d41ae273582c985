/** Segments and spaces for people. */

import { formatSize } from '../base/units.ts';
import type { AddressSpaceId } from './address-space.ts';
import type { SpaceCore } from './space-core.ts';
import { ADVICE, type Advice, DRIVER_NAMES, type Protection, SEGMENT_FLAG, type SegmentIndex } from './space-kinds.ts';

/** A segment as it was when it was looked at. */
export interface SegmentInfo {
  readonly segment: SegmentIndex;
  readonly base: number;
  readonly size: number;
  readonly driver: (typeof DRIVER_NAMES)[number];
  readonly protection: Protection;
  readonly maxProtection: Protection;
  readonly shared: boolean;
  readonly pageSizeCode: number;
  readonly advice: Advice;
  /** Bytes of swap that it has reserved by itself. */
  readonly reserved: number;
  /** Anon map, or -1. */
  readonly map: number;
  /** Vnode, or -1. */
  readonly vnode: number;
  /** First page of the vnode or of the anon map, or first physical address. */
  readonly backing: number;
}

/** What is known of a segment. The caller holds its space. */
export function segmentInfo(core: SpaceCore, segment: SegmentIndex): SegmentInfo {
  const { segments, pageSize } = core;
  const advice = segments.advice.get(segment);
  return {
    segment,
    base: segments.base.get(segment),
    size: segments.size.get(segment),
    driver: DRIVER_NAMES[segments.driver.get(segment)] ?? 'none',
    protection: protectionOf(segments.protection.get(segment)),
    maxProtection: protectionOf(segments.maxProtection.get(segment)),
    shared: (segments.flags.get(segment) & SEGMENT_FLAG.shared) !== 0,
    pageSizeCode: segments.sizeCode.get(segment),
    advice: (Object.keys(ADVICE) as Advice[]).find((name) => ADVICE[name] === advice) ?? 'normal',
    reserved: segments.reserved.get(segment) * pageSize,
    map: segments.map.get(segment) - 1,
    vnode: segments.vnode.get(segment) - 1,
    backing:
      segments.vnode.get(segment) === 0 && segments.map.get(segment) !== 0
        ? segments.mapPage.get(segment)
        : segments.backing.get(segment),
  };
}

/** A space as text. */
export function dumpSpace(id: AddressSpaceId, segments: readonly SegmentInfo[]): string {
  const total = segments.reduce((sum, { size }) => sum + size, 0);
  const lines = segments.map((segment) => {
    const from = segment.base.toString(16).padStart(12, '0');
    const to = (segment.base + segment.size).toString(16).padStart(12, '0');
    const rights = { none: '--', read: 'r-', write: 'rw' }[segment.protection];
    const what = [
      segment.map < 0 ? '' : ` map ${segment.map}`,
      segment.vnode < 0 ? '' : ` vnode ${segment.vnode}`,
      segment.reserved === 0 ? '' : ` reserves ${formatSize(segment.reserved)}`,
    ].join('');
    const size = formatSize(segment.size).padStart(10);
    return `  ${from}-${to} ${size} ${rights}${segment.shared ? 's' : 'p'} ${segment.driver}${what}`;
  });
  return [`space ${id.space}.${id.generation}: ${segments.length} segments, ${formatSize(total)}`, ...lines].join('\n');
}

function protectionOf(bits: number): Protection {
  if ((bits & 2) !== 0) return 'write';
  return (bits & 1) !== 0 ? 'read' : 'none';
}
