/** Awaits a page list or a cookie with the event loop free, signs it, and gives it back when told. */

import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';

const port = parentPort as NonNullable<typeof parentPort>;
const { kind, frames } = workerData as { kind: 'list' | 'cookie'; frames: number };
const vm = attach(workerData.vm);
const wait = { timeoutMs: 120_000 };

port.on('message', (message) => {
  if (message === 'ping') port.postMessage('pong');
});

async function take(): Promise<{ readonly pages: readonly number[]; readonly free: () => void }> {
  if (kind === 'cookie') {
    const cookie = await vm.pmem.allocAsync({ size: frames * 4096 }, wait);
    return { pages: vm.pmem.getPfns(cookie, 0, frames), free: () => vm.pmem.free(cookie) };
  }
  const list = await vm.pageLists.allocAsync({ size: frames * 4096, segments: frames }, wait);
  const pages = list.runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at));
  return { pages, free: () => vm.pageLists.free(list) };
}

const taking = take();
port.postMessage({ slot: vm.slot });
const { pages, free } = await taking;
for (const page of pages) vm.banks.view(page * 4096, 4096).fill(vm.slot);
const told = once(port, 'message');
port.postMessage(pages);
await told;
for (const page of pages) {
  if (vm.banks.view(page * 4096, 4096).some((byte) => byte !== vm.slot)) throw new Error(`frame ${page} has two users`);
}
free();
vm.detach();
port.close();
