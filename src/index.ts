export { InvariantError, VmError, type VmErrorCode } from './base/index.ts';
export * from './system/index.ts';
