export * from './cookie-moves.ts';
export * from './cookie-work.ts';
export * from './device-maps.ts';
export * from './kinds.ts';
export * from './pmem.ts';
export type { PmemRequest } from './pmem-request.ts';
export * from './report.ts';
export type { OrderedRun } from './run-chains.ts';
export * from './statistics.ts';
