/**
 * The peer that maps files: a binding of mmap, if one is installed.
 *
 * It is no dependency: it compiles at installation, or downloads what others have compiled. Whoever wants the comparison
 * installs it elsewhere and says where:
 *
 *   mkdir /tmp/peer && cd /tmp/peer && npm init -y && npm install --build-from-source @riaskov/mmap-io
 *   PAGEWRIGHT_MMAP=/tmp/peer npm run bench -- vpm
 */

import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const PACKAGE = '@riaskov/mmap-io';

/** What the cases call the peer. */
export const MMAP_PEER = 'mmap-io';

/** What is used of the binding. */
interface Binding {
  map(size: number, protection: number, flags: number, descriptor: number, offset?: number): Buffer;
  sync(buffer: Buffer, offset: number, size: number, blocking: boolean, invalidate: boolean): void;
  readonly PROT_READ: number;
  readonly PROT_WRITE: number;
  readonly MAP_SHARED: number;
}

/** Files that are mapped by the operating system. */
export interface MmapPeer {
  /** All of a file, mapped shared; writable if its descriptor is. */
  map(descriptor: number, bytes: number, writable: boolean): Buffer;
  /** Makes a range durable. */
  sync(mapped: Buffer, offset: number, bytes: number): void;
}

/** The peer, or why there is none. */
export async function loadMmap(): Promise<MmapPeer | string> {
  const folder = resolve(process.env.PAGEWRIGHT_MMAP ?? '.');
  let path: string;
  try {
    path = createRequire(join(folder, 'package.json')).resolve(PACKAGE);
  } catch {
    return `No ${PACKAGE} in ${folder}: mapping by the system is not compared; see bench/vpm-mmap.ts for how to install it.`;
  }
  try {
    const { default: binding } = (await import(pathToFileURL(path).href)) as { default: Binding };
    return {
      map: (descriptor, bytes, writable) => {
        const protection = writable ? binding.PROT_READ | binding.PROT_WRITE : binding.PROT_READ;
        return binding.map(bytes, protection, binding.MAP_SHARED, descriptor, 0);
      },
      sync: (mapped, offset, bytes) => binding.sync(mapped, offset, bytes, true, false),
    };
  } catch (error) {
    return `${PACKAGE} cannot be loaded: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
  }
}
