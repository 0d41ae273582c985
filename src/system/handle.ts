/**
 * The handle: everything a thread needs in order to attach, as one structured-cloneable object.
 *
 * A handle without `watch` can be given to any number of threads. One with `watch` is for one thread: it carries the
 * message port whose closing tells the monitor that the thread has ended.
 */

import type { MessagePort } from 'node:worker_threads';
import { VmError } from '../base/errors.ts';

/** What ties a thread to the monitor. */
export interface Watch {
  /** Unique in the region; stored in the claim of the thread's slot. */
  readonly id: number;
  /** The thread's end; its peer is with the monitor. */
  readonly port: MessagePort;
}

/** What `attach` takes. */
export interface Handle {
  readonly pagewright: 'handle';
  /** All metadata. */
  readonly region: SharedArrayBuffer;
  /** The banks. */
  readonly memories: readonly WebAssembly.Memory[];
  /** Present in handles made by `spawn` and `adopt`. */
  readonly watch?: Watch;
}

/** What `adopt` posts to a worker. */
export interface AdoptMessage {
  readonly pagewright: 'adopt';
  readonly handle: Handle;
}

/** The handle in whatever a thread was given: a handle, or the message that `adopt` posts. Throws `EINVAL`. */
export function unwrapHandle(given: unknown): Handle {
  const kind = typeof given === 'object' && given !== null ? (given as { pagewright?: unknown }).pagewright : undefined;
  if (kind === 'handle') return requireWhole(given as Handle);
  if (kind === 'adopt') return unwrapHandle((given as AdoptMessage).handle);
  throw new VmError(
    'EINVAL',
    `attach: expected a handle (from vm.handle(), workerData.vm of a spawned worker, or the message of vm.adopt), got ${
      given === null ? 'null' : typeof given
    }`,
  );
}

/** Refuses a handle with parts missing: what `attach` needs must be there before it claims a slot. */
function requireWhole(handle: Handle): Handle {
  const { memories, watch } = handle;
  const buffers = Array.isArray(memories) && memories.every((memory) => memory?.buffer instanceof SharedArrayBuffer);
  if (!buffers) throw new VmError('EINVAL', 'attach: the handle holds no list of shared WebAssembly memories');
  if (watch !== undefined && (!Number.isInteger(watch?.id) || typeof watch?.port?.postMessage !== 'function')) {
    throw new VmError('EINVAL', 'attach: the watch of the handle holds no id and message port');
  }
  return handle;
}
