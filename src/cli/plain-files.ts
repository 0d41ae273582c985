/** Plain fs reads with a few descriptors kept open, as a careful program without Pagewright would do them. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

/** Descriptors that one thread keeps open; the oldest is closed for a new one. */
export class PlainFiles {
  readonly #open = new Map<string, number>();
  readonly #openMax: number;

  constructor(openMax: number) {
    this.#openMax = openMax;
  }

  /** Reads until `target` is full or the file ends; returns the bytes read. */
  read(path: string, offset: number, target: Uint8Array): number {
    const descriptor = this.#descriptor(path);
    let done = 0;
    while (done < target.length) {
      const got = readSync(descriptor, target, done, target.length - done, offset + done);
      if (got === 0) break;
      done += got;
    }
    return done;
  }

  /** Size and modification time as they are now, in the units of the list. */
  facts(path: string): { size: number; modified: number } {
    const { size, mtimeNs } = fstatSync(this.#descriptor(path), { bigint: true });
    return { size: Number(size), modified: Number(mtimeNs) };
  }

  /** Closes everything. */
  close(): void {
    for (const descriptor of this.#open.values()) closeSync(descriptor);
    this.#open.clear();
  }

  #descriptor(path: string): number {
    const known = this.#open.get(path);
    if (known !== undefined) return known;
    if (this.#open.size >= this.#openMax) {
      const [oldest, descriptor] = this.#open.entries().next().value as [string, number];
      this.#open.delete(oldest);
      closeSync(descriptor);
    }
    const descriptor = openSync(path, 'r');
    this.#open.set(path, descriptor);
    return descriptor;
  }
}
