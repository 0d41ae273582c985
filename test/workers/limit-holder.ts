/** Has a page list or a cookie charged to an owner with a limit, or waits for one, and gives it back when told. */

import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';

const port = parentPort as NonNullable<typeof parentPort>;
const {
  owner,
  frames,
  waits,
  cookie = false,
} = workerData as {
  owner: string;
  frames: number;
  waits: boolean;
  cookie?: boolean;
};
const vm = attach(workerData.vm);
vm.chargeTo(owner);
const size = frames * 4096;
const told = once(port, 'message');
if (waits) port.postMessage({ slot: vm.slot });
const free = take();
port.postMessage({ slot: vm.slot, attachment: vm.thread.attachment, served: frames });
await told;
free();
vm.detach();
port.close();

/** Takes the frames; returns what gives them back. */
function take(): () => void {
  const wait = { timeoutMs: 60_000 };
  if (cookie) {
    const taken = vm.pmem.alloc(waits ? { size, wait } : { size });
    if (taken.frames !== frames) throw new Error(`the cookie has ${taken.frames} frames, not ${frames}`);
    return () => vm.pmem.free(taken);
  }
  const request = { size, segments: frames };
  const list = waits ? vm.pageLists.allocWait(request, wait) : vm.pageLists.alloc(request);
  if (list.frameCount !== frames) throw new Error(`the list has ${list.frameCount} frames, not ${frames}`);
  return () => vm.pageLists.free(list);
}
