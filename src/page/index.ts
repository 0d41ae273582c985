export * from './cache-list.ts';
export * from './check.ts';
export * from './dirty-pages.ts';

export * from './known-pages.ts';
export * from './large-pages.ts';

export * from './page-counters.ts';
export { SHORTAGE_MS } from './page-fetches.ts';
export * from './page-hash.ts';
export * from './page-holds.ts';
export * from './page-shapes.ts';
export * from './page-store.ts';
export * from './page-writer.ts';
export * from './pages.ts';
export * from './recovery.ts';
export * from './replacement.ts';
export * from './replacement-policy.ts';
