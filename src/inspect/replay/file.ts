/**
 * Replays reads and writes of real programs on page caches of several sizes, once for each replacement policy: see
 * bench/traces/file/README.md for the format.
 *
 * Such a trace says which bytes a program touched and not what it got, so that nothing is compared but soundness; the
 * shares of touches that found their page in memory are reported. The bytes are not there: every page is empty.
 */

import { REPLACEMENT, type ReplacementName } from '../../layout/index.ts';
import type { PageStore } from '../../page/index.ts';
import { boot } from '../../system/boot.ts';
import type { Difference, Replay, Replayer } from './replay.ts';
import type { TraceHeader } from './trace.ts';

const TOUCH = 0;
const CUT = 1;

const PAGE_BYTES = 4096;

/** Sizes of the caches in percent of the pages that the program touched. */
const SHARES_PERCENT = [1, 5, 10, 25] as const;

const FRAMES_MIN = 16;

const POLICIES = Object.keys(REPLACEMENT) as ReplacementName[];

/** Brings nothing: what a page holds does not matter here. */
const EMPTY_STORE: PageStore = {
  fill: () => 0,
  write: () => undefined,
};

/** See the file's header. */
export const fileReplayer: Replayer = {
  kind: 'file',
  version: 1,
  start: (header) => new FileReplay(header),
};

class FileReplay implements Replay {
  readonly #files: number;
  /** Kind, file, first page, end: four numbers for each operation. */
  readonly #operations: number[] = [];
  readonly #ends: number[];
  readonly #touched = new Set<number>();
  #state = '';
  #summary = '';

  constructor(header: TraceHeader) {
    const files = header.files as readonly { readonly id: number; readonly size: number }[];
    this.#files = 1 + files.reduce((most, { id }) => Math.max(most, id), 0);
    this.#ends = new Array<number>(this.#files).fill(0);
    for (const { id, size } of files) this.#ends[id] = Math.ceil(size / PAGE_BYTES);
  }

  step(value: unknown): Difference | null {
    const [letter, file, offset = 0, length = 0] = value as [string, number, number?, number?];
    const end = this.#ends[file];
    if (end === undefined) return { expected: `files below ${this.#files}`, got: String(file) };
    if (letter === 'r' || letter === 'w') {
      const first = Math.floor(offset / PAGE_BYTES);
      const behind = Math.ceil((offset + length) / PAGE_BYTES);
      this.#operations.push(TOUCH, file, first, behind);
      for (let page = first; page < behind; page++) this.#touched.add(file * 2 ** 32 + page);
      this.#ends[file] = Math.max(end, behind);
    } else if (letter === 't') {
      const behind = Math.ceil(offset / PAGE_BYTES);
      if (behind < end) this.#operations.push(CUT, file, behind, end);
      this.#ends[file] = behind;
    } else if (letter !== 's') {
      return { expected: 'a known operation', got: letter };
    }
    return null;
  }

  finish(): Difference | null {
    const lines: string[] = [];
    for (const policy of POLICIES) {
      const rates: string[] = [];
      for (const share of SHARES_PERCENT) {
        const frames = Math.max(FRAMES_MIN, Math.ceil((this.#touched.size * share) / 100));
        const { hits, touches, problems } = this.#run(policy, frames);
        if (problems.length > 0) return { expected: 'a sound cache', got: problems.slice(0, 3).join('; ') };
        rates.push(((100 * hits) / Math.max(1, touches)).toFixed(1));
      }
      lines.push(`${policy} ${rates.join(' / ')}`);
    }
    const shares = SHARES_PERCENT.join(' / ');
    this.#summary = `hits in % with memory for ${shares} % of ${this.#touched.size} pages: ${lines.join(', ')}`;
    return null;
  }

  dump(): string {
    return this.#state;
  }

  summary(): string {
    return this.#summary;
  }

  close(): void {
    this.#operations.length = 0;
  }

  #run(replacement: ReplacementName, frames: number) {
    const memory = frames * PAGE_BYTES;
    using vm = boot({ memory, vnodes: this.#files, replacement, services: 'manual', clock: 'virtual' });
    const out = new Int32Array(1);
    let touches = 0;
    for (let at = 0; at < this.#operations.length; at += 4) {
      const [kind, file, first, end] = this.#operations.slice(at, at + 4) as [number, number, number, number];
      if (kind === CUT) {
        vm.pages.invalidate(file, first, end);
        continue;
      }
      for (let page = first; page < end; page++, touches++) {
        vm.pages.fetch(file, page, 1, out, 0, EMPTY_STORE, true);
        vm.pages.release(out[0] as number);
      }
    }
    const { hits, misses } = vm.statistics().pages;
    const problems = vm.check().flatMap((report) => report.problems);
    if (hits + misses !== touches) problems.push(`${hits} hits and ${misses} misses of ${touches} touches`);
    this.#state = `${replacement}, ${frames} frames: ${hits} of ${touches}`;
    return { hits, touches, problems };
  }
}
