/** Waits for a run of frames, says where it is, and gives it back. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from 'pagewright';

const vm = attach(workerData.vm);
parentPort?.postMessage({ slot: vm.slot });
const list = vm.pageLists.alloc({ size: workerData.size as number, wait: { timeoutMs: 100_000 } });
parentPort?.postMessage({ first: list.runs[0]?.first, slept: vm.region.tables.slot.slept.get(vm.slot) });
vm.pageLists.free(list);
vm.detach();
