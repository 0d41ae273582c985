export * from './assert.ts';
export * from './check.ts';
export * from './errors.ts';
export * from './exact.ts';
export * from './prng.ts';
export * from './units.ts';
export * from './verify.ts';
