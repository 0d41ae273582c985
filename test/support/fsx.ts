/**
 * One file under random operations, with a plain model beside it: the exerciser in the manner of fsx.
 *
 * With a share of asynchronous operations, so many of them use the forms that await, and several at a time.
 *
 * The model is an array of bytes and a size; it may lie in shared memory, so that threads take turns on one file. After a
 * sync the real file, read with plain fs, must equal the model byte for byte.
 */

import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import type { Prng } from 'pagewright/base';
import type { File, Mapping } from 'pagewright/vpm';

/** What a file should hold. */
export interface Model {
  readonly bytes: Uint8Array;
  /** Word 0: the size. */
  readonly size: Int32Array;
}

/** A model of a file of at most `maxBytes`. With `shared` it can go to other threads. */
export function emptyModel(maxBytes: number, shared: boolean): Model {
  const buffer = shared ? new SharedArrayBuffer(maxBytes) : new ArrayBuffer(maxBytes);
  return {
    bytes: new Uint8Array(buffer),
    size: new Int32Array(shared ? new SharedArrayBuffer(4) : new ArrayBuffer(4)),
  };
}

/** Names of the operations, for the tally. */
export const OPERATIONS = [
  'read',
  'tryRead',
  'readv',
  'readTo',
  'write',
  'writev',
  'writeFrom',
  'append',
  'mapRead',
  'mapWrite',
  'cut',
  'lengthen',
  'sync',
  'reopen',
  'outside',
  'flight',
] as const;

const PAGE_BYTES = 4096;
/** A mapping covers at most so much, counted from the page in which it begins. */
const MAP_BYTES_MAX = 32 * PAGE_BYTES;

/** Bytes of the banks that an exerciser may use: for reads to them and writes from them. */
export interface BankRoom {
  readonly address: number;
  readonly bytes: Uint8Array;
}

/** How a file is opened, and how often it is used by asynchronous forms. */
export interface Opener {
  open(): File;
  openAsync(): Promise<File>;
  /** Chance of an asynchronous form, 0 to 1. */
  readonly asyncShare: number;
}

/** Drives one file. */
export class Exerciser {
  /** Operations done, by name. */
  readonly tally: Record<string, number> = {};
  readonly #opener: Opener;
  readonly #path: string;
  readonly #model: Model;
  readonly #random: Prng;
  readonly #bytes: Uint8Array;
  readonly #bank: BankRoom;
  readonly #pageSize: number;
  #file: File;

  /** @param opener opens the file at `path` for writing. */
  constructor(opener: Opener, path: string, model: Model, random: Prng, bank: BankRoom, pageSize: number = PAGE_BYTES) {
    this.#opener = opener;
    this.#bank = bank;
    this.#pageSize = pageSize;
    this.#path = path;
    this.#model = model;
    this.#random = random;
    this.#bytes = model.bytes;
    this.#file = opener.open();
  }

  /** One random operation. Throws when anything differs. */
  async step(): Promise<void> {
    const random = this.#random;
    const awaits = this.#opener.asyncShare > 0 && random.chance(this.#opener.asyncShare);
    const choice = random.below(1000);
    if (choice < 280) await (awaits && choice < 40 ? this.#flight() : this.#read(awaits));
    else if (choice < 340) this.#tryRead();
    else if (choice < 370) await this.#readv(awaits);
    else if (choice < 390) this.#readTo();
    else if (choice < 620) await this.#write(awaits);
    else if (choice < 660) await this.#writev(awaits);
    else if (choice < 680) this.#writeFrom();
    else if (choice < 740) await this.#append(awaits);
    else if (choice < 820) await this.#map('read', awaits);
    else if (choice < 900) await this.#map('write', awaits);
    else if (choice < 940) await this.#truncate(this.#cutSize(), 'cut', awaits);
    else if (choice < 970) await this.#truncate(this.#size + random.below(this.#room + 1), 'lengthen', awaits);
    else if (choice < 983) await this.sync(awaits);
    else if (choice < 997) await this.#reopen(awaits);
    else await this.#outside(awaits);
  }

  /** Syncs and compares the real file with the model. */
  async sync(awaits = false): Promise<void> {
    this.#count('sync', awaits);
    const file = this.#file;
    if (this.#random.chance(0.3)) await (awaits ? file.datasyncAsync() : file.datasync());
    else if (this.#random.chance(0.1)) await (awaits ? file.barrierAsync() : file.barrier());
    else await (awaits ? file.syncAsync() : file.sync());
    this.#compare('the file', readFileSync(this.#path), 0, this.#size);
  }

  /** Syncs, compares, closes. */
  async end(): Promise<void> {
    await this.sync();
    this.#file.close();
  }

  get #size(): number {
    return this.#model.size[0] as number;
  }

  get #room(): number {
    return Math.min(200_000, this.#bytes.length - this.#size);
  }

  #length(): number {
    const random = this.#random;
    if (random.chance(0.02)) return random.below(140_000);
    return random.chance(0.2) ? PAGE_BYTES * random.between(1, 4) : random.below(6000);
  }

  /** Mostly a little less than now, sometimes anything. */
  #cutSize(): number {
    const random = this.#random;
    return random.chance(0.1)
      ? random.below(this.#size + 1)
      : this.#size - random.below(Math.min(this.#size, 30_000) + 1);
  }

  /** An offset, often at the edge of a page or at the end. */
  #offset(max: number): number {
    const random = this.#random;
    const offset = random.below(max + 1);
    return random.chance(0.3) ? offset - (offset % PAGE_BYTES) : offset;
  }

  #fresh(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let value = this.#random.next();
    for (let i = 0; i < length; i++) {
      bytes[i] = value;
      value = (value + 37 + (i >> 6)) & 255;
    }
    return bytes;
  }

  #compare(what: string, got: Uint8Array, offset: number, length: number): void {
    if (this.#file.size !== this.#size) throw new Error(`${what}: size ${this.#file.size}, expected ${this.#size}`);
    if (got.length !== length) throw new Error(`${what}: ${got.length} bytes at ${offset}, expected ${length}`);
    if (Buffer.compare(got, this.#bytes.subarray(offset, offset + length)) === 0) return;
    const wrong = got.findIndex((byte, i) => byte !== this.#bytes[offset + i]);
    const value = `${got[wrong]}, expected ${this.#bytes[offset + wrong]}`;
    throw new Error(`${what}: byte ${offset + wrong} of ${this.#size} is ${value} (${length} bytes at ${offset})`);
  }

  async #read(awaits: boolean): Promise<void> {
    this.#count('read', awaits);
    const offset = this.#offset(this.#size + 5000);
    const length = this.#length();
    const got = awaits ? await this.#file.readAsync(offset, length) : this.#file.read(offset, length);
    this.#compare('read', got, offset, this.#clip(offset, length));
  }

  /** Several at a time: reads, and writes inside the size to other places. */
  async #flight(): Promise<void> {
    this.#count('flight', true);
    const random = this.#random;
    const part = Math.floor(this.#size / random.between(2, 12));
    if (part === 0) return;
    const under: Promise<() => void>[] = [];
    for (let start = 0; start + part <= this.#size; start += part) {
      const offset = start + random.below(part);
      const length = random.between(1, Math.min(start + part - offset, 20_000));
      if (random.chance(0.5)) {
        under.push(
          this.#file.readAsync(offset, length).then((got) => () => this.#compare('flight', got, offset, length)),
        );
        continue;
      }
      const bytes = this.#fresh(length);
      under.push(
        this.#file.writeAsync(offset, bytes).then((took) => () => {
          if (took !== length) throw new Error('a write in flight was short');
          this.#put(offset, bytes);
        }),
      );
    }
    for (const check of await Promise.all(under)) check();
  }

  #tryRead(): void {
    this.#count('tryRead');
    const offset = this.#offset(this.#size);
    const length = this.#length();
    const got = this.#file.tryRead(offset, length);
    if (got !== null) this.#compare('tryRead', got, offset, this.#clip(offset, length));
  }

  async #readv(awaits: boolean): Promise<void> {
    this.#count('readv', awaits);
    const offset = this.#offset(this.#size);
    const targets = [0, 1, 2].map(() => new Uint8Array(this.#random.below(5000)));
    const got = await (awaits ? this.#file.readvAsync(offset, targets) : this.#file.readv(offset, targets));
    this.#compare('readv', Buffer.concat(targets).subarray(0, got), offset, this.#clip(offset, total(targets)));
  }

  #readTo(): void {
    this.#count('readTo');
    const { address, bytes } = this.#bank;
    const offset = this.#offset(this.#size);
    const length = this.#random.below(bytes.length + 1);
    const got = this.#file.readTo(offset, address, length);
    this.#compare('readTo', bytes.subarray(0, got), offset, this.#clip(offset, length));
  }

  async #write(awaits: boolean): Promise<void> {
    this.#count('write', awaits);
    const offset = this.#offset(Math.min(this.#size + 9000, this.#bytes.length - 1));
    const bytes = this.#fresh(Math.min(this.#length(), this.#bytes.length - offset));
    const took = await (awaits ? this.#file.writeAsync(offset, bytes) : this.#file.write(offset, bytes));
    if (took !== bytes.length) throw new Error('a write was short');
    this.#put(offset, bytes);
  }

  async #writev(awaits: boolean): Promise<void> {
    this.#count('writev', awaits);
    const offset = this.#offset(Math.min(this.#size, this.#bytes.length - 15_000));
    const pieces = [0, 1, 2].map(() => this.#fresh(this.#random.below(5000)));
    const took = await (awaits ? this.#file.writevAsync(offset, pieces) : this.#file.writev(offset, pieces));
    if (took !== total(pieces)) throw new Error('a writev was short');
    this.#put(offset, Buffer.concat(pieces));
  }

  #writeFrom(): void {
    this.#count('writeFrom');
    const { address, bytes } = this.#bank;
    const offset = this.#offset(Math.min(this.#size, this.#bytes.length - bytes.length));
    const length = this.#random.below(bytes.length + 1);
    bytes.set(this.#fresh(length));
    if (this.#file.writeFrom(offset, address, length) !== length) throw new Error('a writeFrom was short');
    this.#put(offset, bytes.subarray(0, length));
  }

  async #append(awaits: boolean): Promise<void> {
    this.#count('append', awaits);
    const bytes = this.#fresh(Math.min(this.#length(), this.#room));
    const before = this.#size;
    const offset = await (awaits ? this.#file.appendAsync(bytes) : this.#file.append(bytes));
    if (offset !== before) throw new Error(`appended at ${offset}, expected ${before}`);
    this.#put(offset, bytes);
  }

  async #map(access: 'read' | 'write', awaits: boolean): Promise<void> {
    this.#count(access === 'read' ? 'mapRead' : 'mapWrite', awaits);
    if (this.#size === 0) return;
    const offset = this.#offset(this.#size - 1);
    const lengthMax = offset - (offset % this.#pageSize) + MAP_BYTES_MAX - offset;
    const length = Math.min(1 + this.#length(), lengthMax, this.#size - offset);
    const mapping: Mapping = awaits
      ? await this.#file.mapAsync(offset, length, access)
      : this.#file.map(offset, length, access);
    try {
      this.#compare(`map ${access}`, Buffer.concat(mapping.views()), offset, length);
      if (access === 'read') return;
      const bytes = this.#fresh(length);
      let done = 0;
      for (const view of mapping.views()) {
        view.set(bytes.subarray(done, done + view.length));
        done += view.length;
      }
      this.#put(offset, bytes);
      if (this.#random.chance(0.1)) {
        mapping.modified();
        await this.sync(awaits);
      }
    } finally {
      mapping.release();
    }
  }

  async #truncate(size: number, what: 'cut' | 'lengthen', awaits: boolean): Promise<void> {
    this.#count(what, awaits);
    const before = this.#size;
    await (awaits ? this.#file.truncateAsync(size) : this.#file.truncate(size));
    this.#bytes.fill(0, Math.min(size, before), Math.max(size, before));
    this.#model.size[0] = size;
  }

  async #reopen(awaits: boolean): Promise<void> {
    this.#count('reopen', awaits);
    await (awaits ? this.#file.closeAsync() : this.#file.close());
    if (this.#random.chance(0.5)) this.#compareClosed();
    this.#file = awaits ? await this.#opener.openAsync() : this.#opener.open();
  }

  /** Somebody else changes the file with plain fs while everything is written back; `revalidate` shows it. */
  async #outside(awaits: boolean): Promise<void> {
    this.#count('outside', awaits);
    await this.sync(awaits);
    const descriptor = openSync(this.#path, 'r+');
    try {
      if (this.#random.chance(0.3)) {
        const size = this.#cutSize();
        ftruncateSync(descriptor, size);
        this.#bytes.fill(0, size, this.#size);
        this.#model.size[0] = size;
      } else {
        const offset = this.#offset(this.#size);
        const bytes = this.#fresh(Math.min(this.#length(), this.#bytes.length - offset));
        if (writeSync(descriptor, bytes, 0, bytes.length, offset) !== bytes.length) throw new Error('fs wrote short');
        this.#put(offset, bytes);
      }
    } finally {
      closeSync(descriptor);
    }
    await (awaits ? this.#file.revalidateAsync() : this.#file.revalidate());
    this.#compare('revalidated', this.#file.read(0, this.#size), 0, this.#size);
  }

  /** A close writes everything to the file system. */
  #compareClosed(): void {
    const real = readFileSync(this.#path);
    // What lies behind the last byte that was ever written may be missing until a sync.
    const rest = this.#bytes.subarray(real.length, this.#size);
    const same = Buffer.compare(real, this.#bytes.subarray(0, Math.min(real.length, this.#size))) === 0;
    if (real.length > this.#size || !same || rest.some((byte) => byte !== 0))
      throw new Error('closed: the file differs');
  }

  #put(offset: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#bytes.set(bytes, offset);
    if (offset + bytes.length > this.#size) this.#model.size[0] = offset + bytes.length;
  }

  #clip(offset: number, length: number): number {
    return Math.max(0, Math.min(length, this.#size - offset));
  }

  #count(name: (typeof OPERATIONS)[number], awaits = false): void {
    const counted = awaits ? `${name}Async` : name;
    this.tally[counted] = (this.tally[counted] ?? 0) + 1;
  }
}

function total(arrays: readonly Uint8Array[]): number {
  return arrays.reduce((sum, { length }) => sum + length, 0);
}
