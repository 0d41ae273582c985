export * from './descriptors.ts';
export * from './file-facts.ts';
export * from './path-heap.ts';
export * from './vnode-table.ts';
export * from './vnodes.ts';
