export * from './column.ts';
export * from './geometry.ts';
export * from './quantum-tables.ts';
export * from './region.ts';
export * from './system-tables.ts';
export * from './table.ts';
export * from './tables.ts';
export * from './vmem-tables.ts';
