/**
 * An I/O worker: does what other threads cannot do or must not wait for; see vnode/io-requests.ts.
 *
 * PROBLEM     Synchronous readers need bytes that only an event loop can bring; event loops need pages without blocking.
 * STRUCTURE   One program, several workers. The bell rings -> every posted row is taken -> remote: a task for each, at the same
 *             time; pages: one after another; farPages: one after another in each of several workers, as far-turns.ts says
 *             -> answered.
 * INVARIANTS  I1 the remote worker waits for nothing but its event loop: it takes no page lock.
 *             I2 frames of others are written to in one go, and only while their holder waits.
 * LOCKING     A pages worker holds pages while it fetches, and a vnode open while it works on it.
 * COSTS       An idle worker sleeps.
 * FAILURE     What goes wrong is the answer. If the worker ends, its keeper answers in its place with `EIO`.
 * REJECTED    See vnode/io-requests.ts.
 * REFERENCES  docs/glossary.md: I/O worker.
 */

import { workerData } from 'node:worker_threads';
import { fail, VERIFY } from '../base/index.ts';
import { IO_LANES } from '../layout/index.ts';
import { FETCH_PAGES_MAX } from '../page/index.ts';
import type { PageStore } from '../page/page-store.ts';
import type { BringRequest } from '../seg/index.ts';
import { faultPoint, sleepAsync } from '../sync/index.ts';
import {
  checkedLook,
  copyFromFrames,
  copyToFrames,
  FarTurns,
  IO_OPERATION,
  IO_ROLE,
  type IoRequest,
  lookAt,
  noteLate,
  PutOrder,
  putLook,
  type RemoteFacts,
  readRange,
  splitProvided,
  UserStore,
  VNODE_KIND,
  type VnodeLook,
  type VnodeProvider,
  versionOf,
  withinLimit,
} from '../vnode/index.ts';
import { attachService } from './boot.ts';
import type { IoWorkerData } from './service-messages.ts';

const LOOK_MS = 1000;

/** Resources that the worker remembers. */
const KNOWN_MAX = 1024;

const data = workerData as IoWorkerData;
const vm = attachService(data);
const { ioRequest: request, vnode: vnodes } = vm.region.tables;
const users = new UserStore(vm.thread, vm.banks, vm.callbacks, vm.vnodes);
/** Versions of resources by address; looked at again when a vnode is of another version. */
const known = new Map<string, RemoteFacts>();

function remember(url: string, facts: RemoteFacts): RemoteFacts {
  known.delete(url);
  known.set(url, facts);
  for (const oldest of known.keys()) {
    if (known.size <= KNOWN_MAX) break;
    known.delete(oldest);
  }
  return facts;
}

/** What a vnode's resource was when it was opened. Throws `ESTALE` when it is something else by now. */
async function factsOf(vnode: number, url: string, signal?: AbortSignal): Promise<RemoteFacts> {
  const isRight = (facts: RemoteFacts) =>
    versionOf(url, facts).every((word, lane) => word === vnodes.stamp.at(vnode, lane));
  const remembered = known.get(url);
  if (remembered !== undefined && isRight(remembered)) return remembered;
  const facts = await lookAt(url, signal);
  if (!isRight(facts)) fail('ESTALE', 'io.fill', { url }, 'the resource has changed: open it again');
  return remember(url, facts);
}

/** The bytes of a range of a vnode, in private memory. */
async function bytesOf(vnode: number, start: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
  if (length <= 0) return new Uint8Array(0);
  if (vnodes.kind.get(vnode) === VNODE_KIND.remote) {
    const url = vm.vnodes.nameOf(vnode);
    return readRange(url, await factsOf(vnode, url, signal), start, start + length, signal);
  }
  const bytes = new Uint8Array(length);
  await users.provider(vnode).getPage(users.name(vnode), start, bytes, signal);
  return bytes;
}

/** The end of the worker, for tests. */
function endIfTold(): void {
  if (VERIFY && faultPoint(vm.thread, 'vnode.io.serving')) process.exit(1);
}

function framesOf(row: IoRequest, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, lane) => request.lanes.at(row, lane));
}

/** Size and version of a user's own vnode, or of a resource, by name. */
async function lookOf(text: string, signal?: AbortSignal): Promise<VnodeLook> {
  const own = splitProvided(text);
  if (own !== null) {
    const provider = vm.callbacks.resolve<VnodeProvider>(own.detail);
    const look = await provider.look?.(own.name, signal);
    return look === undefined ? fail('ENOTSUP', 'io.look', own, 'the provider cannot look') : checkedLook(look);
  }
  const facts = remember(text, await lookAt(text, signal));
  return { size: facts.size, stamp: versionOf(text, facts) };
}

const order = new PutOrder();

/** Gives bytes in private memory to a provider, which may still have them when its time is over. */
async function put(vnode: number, start: number, bytes: Uint8Array): Promise<void> {
  const name = users.name(vnode);
  const asked = { name, offset: start, length: bytes.length };
  await withinLimit('io.write', asked, vnodes.timeoutMs.get(vnode), async (signal) => {
    const begun = await order.begin(vm.vnodes.nameOf(vnode), start, start + bytes.length, signal, () =>
      users.provider(vnode).putPage?.(name, start, bytes, signal),
    );
    if (begun === null) return;
    signal?.addEventListener('abort', () => noteLate(vm.region, vnode, begun.answer));
    await begun.answer;
  });
}

/** Cuts what a provider has. Once begun there is no limit: a cut that came later would take what was written next. */
async function cut(vnode: number, size: number): Promise<void> {
  const name = users.name(vnode);
  const begun = await withinLimit('io.truncate', { name, size }, vnodes.timeoutMs.get(vnode), (signal) =>
    order.begin(vm.vnodes.nameOf(vnode), 0, Number.POSITIVE_INFINITY, signal, async () => {
      for (const step of users.cutSteps(vnode, size)) await step();
    }),
  );
  await begun?.answer;
}

async function serveRemote(row: IoRequest): Promise<void> {
  const vnode = request.vnode.get(row);
  const first = request.first.get(row);
  const count = Math.min(request.count.get(row), IO_LANES);
  const start = first * vm.banks.pageSize;
  const operation = request.operation.get(row);
  endIfTold();
  if (operation === IO_OPERATION.look) {
    const text = request.text.text(row);
    const { name = text } = splitProvided(text) ?? {};
    const look = await withinLimit('io.look', { name }, request.count.get(row), (signal) => lookOf(text, signal));
    putLook(look, (lane, word) => request.lanes.putAt(row, lane, word));
  } else if (operation === IO_OPERATION.fill) {
    const length = users.below(vnode, start, count);
    const asked = { name: users.name(vnode), offset: start, length };
    const bytes = await withinLimit('io.fill', asked, vnodes.timeoutMs.get(vnode), (signal) =>
      bytesOf(vnode, start, length, signal),
    );
    vm.io.copying(row, () => copyToFrames(vm.banks, bytes, framesOf(row, count), 0, count));
    request.lanes.putAt(row, 0, bytes.length);
  } else if (operation === IO_OPERATION.write) {
    // The asker holds the pages and waits; if it ends, the bytes are still those of pages that nobody has given up.
    const bytes = copyFromFrames(vm.banks, framesOf(row, count), 0, users.taken(vnode, start, count));
    if (bytes.length > 0) await put(vnode, start, bytes);
  } else if (operation === IO_OPERATION.storeSync) {
    const name = users.name(vnode);
    await withinLimit('io.sync', { name }, vnodes.timeoutMs.get(vnode), () => users.provider(vnode).sync?.(name));
  } else if (operation === IO_OPERATION.storeTruncate) {
    await cut(vnode, first * 2 ** 30 + request.count.get(row));
  } else {
    fail('EINVAL', 'io.serve', { operation }, 'the remote worker does not know it');
  }
}

const lanes = new Int32Array(FETCH_PAGES_MAX);
const store: PageStore = vm.vnodes;

/** Pages of a vnode that nobody here holds afterwards. */
function fetchPages(vnode: number, first: number, wanted: number): void {
  for (let done = 0; done < wanted; ) {
    const got = vm.pages.fetch(vnode, first + done, wanted - done, lanes, 0, store, false);
    for (let lane = 0; lane < got; lane++) vm.pages.release(lanes[lane] as number);
    done += got;
  }
}

function servePages(row: IoRequest): void {
  const vnode = request.vnode.get(row);
  const operation = request.operation.get(row);
  const first = request.first.get(row);
  const count = request.count.get(row);
  if (operation === IO_OPERATION.space) {
    endIfTold();
    vm.spaces.bring(JSON.parse(request.text.text(row)) as BringRequest);
    return;
  }
  // Closing it writes back what is modified, which nobody else has asked for.
  const writes = operation === IO_OPERATION.sync || operation === IO_OPERATION.flush;
  vm.vnodes.retain(vnode, request.generation.get(row), writes);
  try {
    endIfTold();
    if (operation === IO_OPERATION.sync) vm.vnodes.syncOpen(vnode, count === 1);
    else if (operation === IO_OPERATION.fetch) fetchPages(vnode, first, Math.min(count, FETCH_PAGES_MAX));
    else if (operation === IO_OPERATION.truncate) vm.vnodes.sizes.truncate(vnode, first * 2 ** 30 + count);
    else if (operation === IO_OPERATION.writeBehind) vm.mappings.writes.behind.keep(vnode);
    else if (operation === IO_OPERATION.settle) vm.vnodes.sizes.settle(vnode);
    else if (!writes) fail('EINVAL', 'io.serve', { operation }, 'a pages worker does not know it');
  } finally {
    vm.vnodes.close(vnode, writes);
  }
}

async function serve(row: IoRequest): Promise<void> {
  try {
    if (data.role === IO_ROLE.remote) await serveRemote(row);
    else servePages(row);
    vm.io.answer(row);
  } catch (error) {
    vm.io.answer(row, error ?? new Error('the store failed'));
  }
}

const turns = new FarTurns(vm.thread);

function next(): IoRequest {
  return data.role === IO_ROLE.farPages ? turns.next() : vm.io.next(data.role);
}

/** Takes what is posted until the system ends. */
async function serveForEver(): Promise<void> {
  for (;;) {
    const { address, rings } = vm.io.bell(data.role);
    for (let row = next(); row >= 0; row = next()) {
      const served = serve(row);
      if (data.role !== IO_ROLE.remote) await served;
    }
    await sleepAsync(vm.thread, address, rings, LOOK_MS);
  }
}

serveForEver().catch((error) => {
  if (vm.poisoned === null) throw error;
});
