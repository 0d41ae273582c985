/** What a request for a cookie came to, and what tests can make fail in it. */

import { rejectUnknownOptions, requireFunction, requireObject } from '../base/errors.ts';
import type { PmemFailure } from './kinds.ts';

/** What tests and replays can make fail; numbers count from 0 within one request. */
export interface PmemFaults {
  /** False: the large page with this number cannot be had. */
  largePage(number: number): boolean;
  /** False: the table row with this number cannot be had: 0 to 2 for the cookie, then two for each large page. */
  tableRow(number: number): boolean;
}

/** Throws `EINVAL` for what cannot be asked what fails. */
export function requireFaults(call: string, faults: PmemFaults): void {
  requireObject(call, 'faults', faults);
  rejectUnknownOptions(call, faults, ['largePage', 'tableRow']);
  requireFunction(call, 'faults.largePage', faults.largePage);
  requireFunction(call, 'faults.tableRow', faults.tableRow);
}

/** What a request came to, for whoever wants to know. */
export interface PmemReport {
  failure: PmemFailure | null;
  fromPool: number;
  newLarge: number;
  /** Large pages among them that were recorded. */
  recordedLarge: number;
  newSmall: number;
  /** First frames of large pages that went back whole. */
  freedLarge: number[];
  freedSmall: number;
}

/** An empty report. */
export function newReport(): PmemReport {
  return { failure: null, fromPool: 0, newLarge: 0, recordedLarge: 0, newSmall: 0, freedLarge: [], freedSmall: 0 };
}
