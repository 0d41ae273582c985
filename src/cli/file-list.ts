/** Lists the regular files under some paths, without blocking, and counts what is left out. */

import { constants, type Dirent } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { firstLine, UsageError } from './usage.ts';

/** A file to read, as it was when it was listed. */
export interface ListedFile {
  readonly path: string;
  readonly size: number;
  /** Modification time in nanoseconds, as exact as a double is: only compared with itself. */
  readonly modified: number;
}

/** Files found, and how many entries of other kinds were met. */
export interface FileList {
  readonly files: ListedFile[];
  readonly skipped: {
    /** Symbolic links below the paths: what they point to is read where it lies. */
    links: number;
    /** Sockets, devices, pipes. */
    special: number;
    /** Files and folders that may not be read, or went away while they were listed. */
    unreadable: number;
  };
}

const LOOKS_AT_ONCE = 64;

/** Finds all regular files under `paths`, in order. Throws `UsageError` for a path that does not exist. */
export async function listFiles(paths: readonly string[]): Promise<FileList> {
  const list: FileList = { files: [], skipped: { links: 0, special: 0, unreadable: 0 } };
  for (const path of paths) {
    let kind: Awaited<ReturnType<typeof stat>>;
    try {
      kind = await stat(path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const why = code === 'ENOENT' ? 'there is no such file or folder' : firstLine(error);
      throw new UsageError(`pagewright run: ${path}: ${why}`);
    }
    if (kind.isDirectory()) await listFolder(path, list);
    else if (kind.isFile()) await listFile(path, list);
    else list.skipped.special++;
  }
  // Files of one folder are looked at together and arrive in any order: a seed must mean the same files every time.
  list.files.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  return list;
}

async function listFolder(root: string, list: FileList): Promise<void> {
  const folders = [root];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    let entries: Dirent[];
    try {
      entries = await readdir(folder, { withFileTypes: true });
    } catch {
      list.skipped.unreadable++;
      continue;
    }
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    const files: Promise<void>[] = [];
    for (const entry of entries) {
      const path = join(folder, entry.name);
      if (entry.isFile()) files.push(listFile(path, list));
      else if (entry.isDirectory()) folders.push(path);
      else if (entry.isSymbolicLink()) list.skipped.links++;
      else list.skipped.special++;
    }
    await Promise.all(files);
  }
}

async function listFile(path: string, list: FileList): Promise<void> {
  try {
    await access(path, constants.R_OK);
    const { size, mtimeNs } = await stat(path, { bigint: true });
    list.files.push({ path, size: Number(size), modified: Number(mtimeNs) });
  } catch {
    list.skipped.unreadable++;
  }
}

/** Positions of the listed files that are not what they were when they were listed: gone, or of another size or time. */
export async function findChanged(files: readonly ListedFile[]): Promise<number[]> {
  const changed: number[] = [];
  for (let from = 0; from < files.length; from += LOOKS_AT_ONCE) {
    const looks = files.slice(from, from + LOOKS_AT_ONCE).map(async (file, index) => {
      const now = await stat(file.path, { bigint: true }).catch(() => null);
      const same = now !== null && Number(now.size) === file.size && Number(now.mtimeNs) === file.modified;
      if (!same) changed.push(from + index);
    });
    await Promise.all(looks);
  }
  return changed;
}
