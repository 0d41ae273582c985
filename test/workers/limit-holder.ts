/** Has a page list charged to an owner with a limit, or waits for one, and gives it back when told. */

import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';

const port = parentPort as NonNullable<typeof parentPort>;
const { owner, frames, waits } = workerData as { owner: string; frames: number; waits: boolean };
const vm = attach(workerData.vm);
vm.chargeTo(owner);
const size = frames * 4096;
const told = once(port, 'message');
if (waits) port.postMessage({ slot: vm.slot });
const list = waits
  ? vm.pageLists.allocWait({ size, segments: frames }, { timeoutMs: 60_000 })
  : vm.pageLists.alloc({ size, segments: frames });
port.postMessage({ slot: vm.slot, attachment: vm.thread.attachment, served: list.frameCount });
await told;
vm.pageLists.free(list);
vm.detach();
port.close();
