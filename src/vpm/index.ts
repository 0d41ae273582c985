export * from './file.ts';
export * from './locked-charge.ts';
export * from './mapping.ts';
export * from './page-mappings.ts';
export * from './page-writes.ts';
