/** What traces of the pagelock cache consist of: see test/golden/pcache/README.md. */

import type { TraceHeader } from './trace.ts';

/** A reclaim as traces record it. */
export type Reclaimed = readonly [
  tag: number,
  address: number,
  length: number,
  shadow: number,
  mode: string,
  async: number,
];

/** One line of a trace; which fields are there depends on `op`. */
export interface PcacheLine {
  readonly op: string;
  readonly id: number;
  readonly tag: number;
  readonly szc: number;
  readonly lbolt: number;
  readonly freemem: number;
  readonly lotsfree: number;
  readonly desfree: number;
  readonly needfree: number;
  readonly seg: number;
  readonly amp: number | null;
  readonly addr: number;
  readonly len: number;
  readonly wlen: number;
  readonly rw: 'r' | 'w';
  readonly flags: { readonly wired: boolean; readonly pshift: number | null };
  readonly pp: number | null;
  readonly rc: 'SUCCESS' | 'FAIL';
  readonly cached: boolean;
  readonly callbacks: readonly Reclaimed[];
  readonly unordered?: boolean;
  readonly locked?: readonly number[];
  readonly between?: readonly (PcacheLine & { readonly atDelay?: number })[];
  readonly delays: number;
  readonly disabled: number;
  readonly plocked?: number;
  readonly plockedWindow?: number;
  readonly active: number;
  readonly entries: readonly unknown[];
  readonly cur: number;
  readonly ahb: readonly (readonly number[])[];
  readonly chainsWin?: readonly (readonly number[])[];
  readonly chainsWired?: readonly (readonly (readonly number[])[])[];
}

/** The fields of the header that make the system. */
export interface PcacheHeader extends TraceHeader {
  readonly physmem: number;
  readonly availrmem: number;
  readonly availrmemInitial: number;
  readonly maxWindow: number | null;
  readonly hz: number;
  readonly hashsizeWin: number;
  readonly hashsizeWired: number;
  readonly shrinkShift: number;
  readonly maxApurgePages: number;
  readonly maxAgeTicks: number;
  readonly stallThreshold: number;
  readonly pageShifts: readonly number[];
  readonly freemem: number;
  readonly lotsfree: number;
  readonly desfree: number;
  readonly needfree: number;
  readonly lbolt: number;
}
