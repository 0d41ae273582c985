/**
 * Callbacks: functions that every thread can run.
 *
 * PROBLEM     Code does not cross threads, but a structure in shared memory may need a user's function (to import a
 *             span, to release it) in whichever thread happens to use the structure.
 * STRUCTURE   A callback is a pair (module URL, export name), interned in a table; its number goes into the structure. A
 *             thread that needs it loads the module on first use and keeps the export. A pair with an empty module is a
 *             name that threads register themselves, for functions that cannot be found through a module.
 * INVARIANTS  I1 a pair is stored once.  I2 a row that is ready never changes.
 * LOCKING     Rows go free -> writing -> ready by compare-and-swap; a row whose writer died stays unused.
 * COSTS       One map look-up once resolved.
 * FAILURE     `ENOENT` names module and export when they cannot be had in this thread.
 * REJECTED    Sending source text to threads: closures would be lost without a word.
 * REFERENCES  Node.js `require` of ECMAScript modules (20.19 and later), which loads without an `await`.
 */

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { fail, VmError } from '../base/errors.ts';
import { ByteColumn, type WordAddress } from '../layout/column.ts';
import type { Region } from '../layout/region.ts';
import { ALL_WAITERS, compareExchange, load, notify, store, wait } from './atomics.ts';

/** A function or object that threads find by module and export name. */
export interface CallbackReference {
  /** URL of the module (`import.meta.url` or `new URL(...)`); leave it out for a name given to `register`. */
  readonly module?: string | URL;
  /** Name of the export, or the registered name. */
  readonly export: string;
}

/** Number of a callback in the region. */
export type CallbackIndex = number & { readonly __unit?: 'callback' };

const STATE = { free: 0, writing: 1, ready: 2 } as const;

/** A row that is longer being written belongs to a thread that died. */
const WRITING_MS = 20;

/** One thread's view of the region's callbacks. */
export class Callbacks {
  readonly #region: Region;
  readonly #resolved = new Map<CallbackIndex, unknown>();
  readonly #registered = new Map<string, unknown>();

  constructor(region: Region) {
    this.#region = region;
  }

  /** Makes a name known in this thread. Every thread that may need it registers it for itself. */
  register(name: string, value: unknown): void {
    this.#registered.set(name, value);
    this.#resolved.clear();
  }

  /** What is known in this thread by a registered name; undefined for nothing. */
  registered(name: string): unknown {
    return this.#registered.get(name);
  }

  /** The number of a reference: the row that holds it, or a new one. Throws `ENOMEM` when the table is full. */
  intern(reference: CallbackReference): CallbackIndex {
    const { callback: table } = this.#region.tables;
    const { words } = this.#region;
    const module = reference.module === undefined ? '' : String(reference.module);
    if (
      ByteColumn.sizeOf(module) >= table.module.lanes ||
      ByteColumn.sizeOf(reference.export) >= table.exportName.lanes
    ) {
      fail('EINVAL', 'callbacks.intern', { module, export: reference.export }, 'module or export name is too long');
    }
    for (let row = 0; row < table.rowCount; row++) {
      const state = settledState(words, table.state.address(row));
      if (state === STATE.ready && this.#matches(row, module, reference.export)) return row;
      if (state !== STATE.free) continue;
      if (compareExchange(words, table.state.address(row), STATE.free, STATE.writing) !== STATE.free) {
        row--; // another thread took the row: see what it stores
        continue;
      }
      table.module.putText(row, module);
      table.exportName.putText(row, reference.export);
      store(words, table.state.address(row), STATE.ready);
      notify(words, table.state.address(row), ALL_WAITERS);
      return row;
    }
    return fail('ENOMEM', 'callbacks.intern', { module, export: reference.export }, 'boot with a larger `callbacks`');
  }

  /** The export itself, loaded on first use. Throws `ENOENT` with the cause. */
  resolve<Value>(index: CallbackIndex): Value {
    const known = this.#resolved.get(index);
    if (known !== undefined) return known as Value;
    const { callback: table } = this.#region.tables;
    const module = table.module.text(index);
    const name = table.exportName.text(index);
    const value = module === '' ? this.#registered.get(name) : loadExport(module, name);
    if (value === undefined || value === null) {
      const where = module === '' ? 'was not registered in this thread' : `is not exported by ${module}`;
      throw new VmError('ENOENT', `callback ${JSON.stringify(name)} ${where}`);
    }
    this.#resolved.set(index, value);
    return value as Value;
  }

  /** Module and export of a callback, for messages. The module is empty for a registered name. */
  describe(index: CallbackIndex): { readonly module: string; readonly name: string } {
    const { callback: table } = this.#region.tables;
    return { module: table.module.text(index), name: table.exportName.text(index) };
  }

  #matches(row: number, module: string, name: string): boolean {
    const { callback: table } = this.#region.tables;
    return table.exportName.text(row) === name && table.module.text(row) === module;
  }
}

/** State of a row; one that is being written is waited for, so that a pair is not stored twice. */
function settledState(words: Int32Array, address: WordAddress): number {
  const state = load(words, address);
  if (state !== STATE.writing) return state;
  wait(words, address, STATE.writing, WRITING_MS);
  return load(words, address);
}

function loadExport(module: string, name: string): unknown {
  try {
    const require = createRequire(import.meta.url);
    const target = module.startsWith('file:') ? fileURLToPath(module) : module;
    return (require(target) as Record<string, unknown>)[name];
  } catch (cause) {
    throw new VmError('ENOENT', `callback ${JSON.stringify(name)}: module ${module} cannot be loaded`, { cause });
  }
}
