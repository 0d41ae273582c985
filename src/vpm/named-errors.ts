/** Errors of the rooms below as the calls of a file or a space show them: with the name of the call, and the file's path. */

import { showCall, VmError } from '../base/errors.ts';

/** What a call of a file does through others, as their messages begin. */
const INNER = /^(?:(?:vnodes|pages|file)\.\w+|map|mapInto|tryMap|copyOut|copyUpTo|tryCopyUpTo)\(/;

/** The same where no values are named. */
const UNVALUED = /^vnodes\.\w+: /;

/** What errors say of a file: its path, as a rule. Nothing when it is closed. */
export type Place = Readonly<Record<string, string>>;

/** What errors say of a space: a range, or an address. */
export type Stretch = Readonly<Record<string, number>>;

/** An error that names the call and the file. Only its message is another one. */
export function namedError(name: string, error: unknown, place: Place | Stretch = {}): unknown {
  if (!(error instanceof VmError)) return error;
  const text = error.message.slice(error.code.length + 2);
  const [inner] = INNER.exec(text) ?? [];
  const named = inner === undefined ? outside(name, text, place) : inside(name, text.slice(inner.length), place);
  if (named === text) return error;
  return new VmError(error.code, named, { cause: error.cause ?? error });
}

/** The values of an inner call are those of this one. */
function inside(name: string, values: string, place: Place | Stretch): string {
  const [key] = Object.keys(place);
  if (key === undefined || values.startsWith(`${key}=`)) return `${name}(${values}`;
  return `${showCall(name, place).slice(0, -1)}${values.startsWith(')') ? '' : ', '}${values}`;
}

function outside(name: string, text: string, place: Place | Stretch): string {
  if (text.startsWith(name)) return text;
  // A misspelt option, say.
  if (UNVALUED.test(text)) return text.replace(UNVALUED, `${name}: `);
  return `${Object.keys(place).length === 0 ? name : showCall(name, place)}: ${text}`;
}
