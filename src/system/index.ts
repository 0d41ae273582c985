export * from './boot.ts';
export * from './handle.ts';
export * from './options.ts';
export * from './pagedaemon.ts';
export * from './slot-report.ts';
export * from './system-statistics.ts';
export * from './virtual-memory.ts';
