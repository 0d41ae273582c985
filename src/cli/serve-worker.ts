/** A worker of `serve`: opens files, fills pages and pins them while the main thread sends them. */

import { realpathSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { attach, type VirtualMemory } from '../system/index.ts';
import type { File, Mapping } from '../vpm/index.ts';
import type { ServedFile, ServeReply, ServeRequest } from './serve-messages.ts';
import { firstLine } from './usage.ts';

/** One request that is being answered. */
interface Served {
  readonly file: File;
  mapping: Mapping | null;
}

/** What the pages of a vnode are a version of: the row's identity, size and times. */
function describe(vm: VirtualMemory, file: File): ServedFile {
  const { vnode: rows } = vm.region.tables;
  const words = (column: typeof rows.stamp) => [0, 1, 2, 3].map((lane) => column.at(file.vnode, lane) >>> 0);
  const stamp = words(rows.stamp);
  const modified = (BigInt(stamp[1] as number) << 32n) | BigInt(stamp[0] as number);
  const parts = [...words(rows.identity), ...stamp].map((word) => word.toString(16));
  return {
    size: file.size,
    modified: Number(modified / 1_000_000n),
    tag: `"${parts.join('')}-${file.size.toString(16)}"`,
  };
}

if (parentPort !== null) {
  const port = parentPort;
  const vm = attach((workerData as { vm: unknown }).vm);
  const open = new Map<number, Served>();
  const reply = (message: ServeReply) => port.postMessage(message);
  const handle = (request: ServeRequest): void => {
    if (request.kind === 'open') {
      const file = vm.open(request.path);
      open.set(request.id, { file, mapping: null });
      // The path was looked at before it was opened: what it names must not have become a link since.
      if (realpathSync(request.path) !== request.path)
        throw Object.assign(new Error('it is a link'), { code: 'EACCES' });
      reply({ kind: 'opened', id: request.id, file: describe(vm, file) });
      return;
    }
    const served = open.get(request.id);
    if (served === undefined) return;
    if (request.kind === 'pin') {
      served.mapping = served.file.map(request.offset, request.length);
      // All bytes of an answer are of the version that its tag names.
      if (served.file.isChanged()) throw Object.assign(new Error('the file was changed'), { code: 'ESTALE' });
      const pieces = new Float64Array(
        served.mapping.pieces.flatMap(({ bank, offset, length }) => [bank, offset, length]),
      );
      reply({ kind: 'pinned', id: request.id, pieces });
    } else {
      served.mapping?.release();
      served.mapping = null;
      if (request.kind === 'close') {
        open.delete(request.id);
        served.file.close();
      }
    }
  };
  port.on('message', (request: ServeRequest) => {
    try {
      handle(request);
    } catch (error) {
      const code = String((error as NodeJS.ErrnoException).code ?? 'EIO');
      reply({ kind: 'failed', id: request.id, code, text: firstLine(error) });
    }
  });
  reply({ kind: 'ready' });
}
