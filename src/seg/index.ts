export * from './cache-snapshot.ts';
export * from './pagelock-cache.ts';
export * from './pagelock-kinds.ts';
export * from './pagelock-options.ts';
