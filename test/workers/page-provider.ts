/** Users' own vnodes for tests: bytes that follow from name and offset, in an array of the thread that serves them. */

import {
  appendFileSync,
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import type { ProvidedLook, VnodeProvider } from 'pagewright/vnode';

const held = new Map<string, Uint8Array>();

function bytesOf(name: string): Uint8Array {
  let bytes = held.get(name);
  if (bytes === undefined) {
    bytes = Uint8Array.from({ length: 50_000 }, (_, i) => (i * 3 + name.length) & 255);
    held.set(name, bytes);
  }
  return bytes;
}

/** Served where it is needed. */
export const plain: VnodeProvider = {
  size: () => 50_000,
  getPage(name, offset, bytes) {
    if (name === 'broken') throw new Error('this one is broken');
    bytes.set(bytesOf(name).subarray(offset, offset + bytes.length));
  },
};

/** Takes whole pages and cannot cut. */
export const keeper: VnodeProvider = {
  size: () => 0,
  getPage(name, offset, bytes) {
    bytes.set(bytesOf(name).subarray(offset, offset + bytes.length));
  },
  putPage(name, offset, bytes) {
    bytesOf(name).set(bytes, offset);
  },
};

/** The same in the I/O worker. */
export const slowKeeper: VnodeProvider = {
  ...keeper,
  isAsync: true,
  async putPage(name, offset, bytes) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    bytesOf(name).set(bytes, offset);
  },
};

/** Cuts, and counts on being told. */
export const cutter: VnodeProvider = {
  ...keeper,
  truncate(name, size) {
    bytesOf(name).fill(0, size);
  },
};

/** The same in the I/O worker. */
export const slowCutter: VnodeProvider = {
  ...cutter,
  isAsync: true,
  async truncate(name, size) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    bytesOf(name).fill(0, size);
  },
};

/** Served by the I/O worker. */
export const slow: VnodeProvider = {
  isAsync: true,
  size: () => 50_000,
  async getPage(name, offset, bytes) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    if (name === 'broken') throw new Error('this one is broken');
    bytes.set(bytesOf(name).subarray(offset, offset + bytes.length));
  },
  async putPage(name, offset, bytes) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    if (name === 'full') throw new Error('this one is full');
    bytesOf(name).set(bytes, offset);
  },
  async sync() {
    await new Promise((resolve) => setTimeout(resolve, 2));
  },
};

/** What `laggard` waits for the end of: a file beside the one that its vnode is named after. */
export const holdOf = (name: string) => `${name}.hold`;

/** So long at most: whoever keeps the event loop from ending the hold is found out then. */
const HOLD_MS = 60_000;

async function lag(name: string): Promise<void> {
  const end = performance.now() + HOLD_MS;
  do await new Promise((resolve) => setTimeout(resolve, 1));
  while (existsSync(holdOf(name)) && performance.now() < end);
}

/** Does everything in the I/O worker, and nothing while it is held. */
export const laggard: VnodeProvider = {
  ...cutter,
  isAsync: true,
  async getPage(name, offset, bytes) {
    await lag(name);
    keeper.getPage(name, offset, bytes);
  },
  async putPage(name, offset, bytes) {
    await lag(name);
    keeper.putPage?.(name, offset, bytes);
  },
  async truncate(name, size) {
    await lag(name);
    cutter.truncate?.(name, size);
  },
  sync: (name) => lag(name),
};

const uncut = new Uint8Array(400_000);

/** Refuses cuts, and takes its time. */
export const stubborn: VnodeProvider = {
  isAsync: true,
  size: () => 0,
  async getPage(_name, offset, bytes) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    bytes.set(uncut.subarray(offset, offset + bytes.length));
  },
  async putPage(_name, offset, bytes) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    uncut.set(bytes, offset);
  },
  async truncate() {
    await new Promise((resolve) => setTimeout(resolve, 1));
    throw Object.assign(new Error('not a byte less'), { code: 'ENOSPC' });
  },
};

/** A file whose version stands in another one: `name` is its path. */
export const versioned: VnodeProvider = {
  size: () => fail('size'),
  look: (name) => ({ size: statSync(name).size, version: readFileSync(`${name}.version`, 'utf8') }),
  getPage(name, offset, bytes) {
    bytes.set(readFileSync(name).subarray(offset, offset + bytes.length));
  },
  putPage(name, offset, bytes) {
    const descriptor = openSync(name, 'r+');
    writeSync(descriptor, bytes, 0, bytes.length, offset);
    closeSync(descriptor);
    appendFileSync(`${name}.version`, '+');
  },
  truncate(name, size) {
    truncateSync(name, size);
    appendFileSync(`${name}.version`, '+');
  },
};

/** The same in the I/O worker. */
export const slowVersioned: VnodeProvider = {
  ...versioned,
  isAsync: true,
  async look(name) {
    await lag(name);
    return versioned.look?.(name) as ProvidedLook;
  },
};

/** Brings nothing, ever. */
export const silent: VnodeProvider = { isAsync: true, size: () => 50_000, getPage: () => new Promise(() => undefined) };

/** Others of the kind. */
export const silentToo: VnodeProvider = { ...silent };
export const silentAsWell: VnodeProvider = { ...silent };

/** How long `tardy` takes for its first answer. */
export const TARDY_MS = 1000;

let tardyCalls = 0;

/** Fills the first page that it is asked for with junk, late; the next ones rightly, and at once. */
export const tardy: VnodeProvider = {
  isAsync: true,
  size: () => 50_000,
  async getPage(name, offset, bytes) {
    const isFirst = tardyCalls++ === 0 && name === 'tardy';
    if (isFirst || name === 'x') await new Promise((resolve) => setTimeout(resolve, TARDY_MS));
    if (isFirst) bytes.fill(255);
    else bytes.set(bytesOf(name).subarray(offset, offset + bytes.length));
  },
};

/** Never says what there is, and brings it at once. */
export const unseen: VnodeProvider = {
  ...keeper,
  isAsync: true,
  look: () => new Promise(() => undefined),
};

let signalsSeen = 0;

/** Waits for the signal, the first time; then brings how many there were. */
export const told: VnodeProvider = {
  isAsync: true,
  size: () => 100,
  getPage(_name, _offset, bytes, signal) {
    bytes.fill(signalsSeen);
    if (signalsSeen > 0) return undefined;
    return new Promise((_, reject) => {
      signal?.addEventListener('abort', () => {
        signalsSeen++;
        reject(signal.reason);
      });
    });
  },
};

/** Takes pages and never says so. Brings none of `exit`: the I/O worker ends. */
export const mute: VnodeProvider = {
  ...keeper,
  isAsync: true,
  getPage(name, offset, bytes) {
    if (name === 'exit') process.exit(7);
    return keeper.getPage(name, offset, bytes);
  },
  putPage: () => new Promise(() => undefined),
};

/** Takes no page before there is a file `NAME.go`; what it does, and with which bytes, stands in `NAME.log`. */
export const gated: VnodeProvider = {
  ...keeper,
  isAsync: true,
  async putPage(name, offset, bytes) {
    const note = (what: string) => appendFileSync(`${name}.log`, `${what} ${offset} ${bytes[0]}\n`);
    note('begins');
    while (!existsSync(`${name}.go`)) await new Promise((resolve) => setTimeout(resolve, 5));
    keeper.putPage?.(name, offset, bytes);
    note('ends');
  },
  async truncate(name, size) {
    appendFileSync(`${name}.log`, `cuts ${size}\n`);
    cutter.truncate?.(name, size);
  },
  async sync(name) {
    if (name.endsWith('unsynced')) await new Promise(() => undefined);
  },
};

/** Stores what it is given when there is a file `NAME.go`, unless the signal came before: then never. */
export const retracting: VnodeProvider = {
  ...keeper,
  isAsync: true,
  putPage(name, offset, bytes, signal) {
    if (existsSync(`${name}.go`)) return keeper.putPage?.(name, offset, bytes);
    return new Promise((_, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason));
    });
  },
};

/** Has no room. */
export const crammed: VnodeProvider = {
  ...keeper,
  putPage: () => {
    throw Object.assign(new Error('not a byte more'), { code: 'ENOSPC' });
  },
};

/** The same in the I/O worker. */
export const slowCrammed: VnodeProvider = {
  ...crammed,
  isAsync: true,
  putPage: async () => crammed.putPage?.('', 0, new Uint8Array(0)),
};

/** No providers, and one that does not know. */
export const five = 5;
export const getless = { size: () => 5 };
export const sizeless = { getPage: () => undefined };
export const sizeThrows: VnodeProvider = { ...plain, size: () => fail('size') };

/** Ends the I/O worker: by an error that nobody catches, or at once. */
export const fatal: VnodeProvider = {
  isAsync: true,
  size: () => 50_000,
  getPage(name) {
    if (name === 'exit') process.exit(7);
    setTimeout(() => fail('this'), 1);
    return new Promise(() => undefined);
  },
};

/** Says nonsense. */
export const nonsense: VnodeProvider = { ...versioned, look: () => ({ size: -1, version: 1 }) };

function fail(what: string): never {
  throw new Error(`nobody asks for ${what}`);
}
