export * from './picture.ts';
export * from './replay/replay.ts';
export * from './replay/trace.ts';
