/** Arguments that are bytes: checked before anything is held, and taken by their bytes whatever the elements are. */

import { fail, failMisuse } from '../base/errors.ts';

/** The bytes of a typed array, a `Buffer` or a `DataView`. Throws `EINVAL` for anything else. */
export function bytesOf(call: string, name: string, value: ArrayBufferView): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return failMisuse(call, { [name]: value }, `${name} must be a Buffer, a typed array or a DataView`);
}

/** The bytes of each of several. Throws `EINVAL` that says which one is none. */
export function bytesOfAll(call: string, name: string, values: readonly ArrayBufferView[]): Uint8Array[] {
  if (!Array.isArray(values)) failMisuse(call, { [name]: values }, `${name} must be an array of typed arrays`);
  return Array.from(values, (value, at) => bytesOf(call, `${name}[${at}]`, value));
}

/** A new array. Throws `ENOMEM` when there is none of so many bytes. */
export function newBytes(call: string, length: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch {
    return fail('ENOMEM', call, { length }, 'there is no array of so many bytes; read less at a time');
  }
}
