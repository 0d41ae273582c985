export * from './check.ts';
export * from './page-counters.ts';
export * from './page-hash.ts';
export * from './page-holds.ts';
export * from './pages.ts';
export * from './recovery.ts';
export * from './replacement.ts';
