export * from './banks.ts';
export * from './frame-map.ts';
export * from './frame-source.ts';
export * from './frames.ts';
