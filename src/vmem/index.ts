export * from './arena.ts';
export * from './arena-options.ts';
export * from './arenas.ts';
export type { ConstraintOptions } from './fit.ts';
export type { ArenaIndex, Strategy } from './kinds.ts';
export type { QuantumCacheStatistics } from './quantum-caches.ts';
export type { ArenaSnapshot, Segment, SegmentKind } from './snapshot.ts';
export type { ArenaCounts, ArenaStatistics } from './statistics.ts';
export type { SpanSource } from './transfer.ts';
