/** Replays traces of the sizing rules of the pagelock cache. */

import { sizePagelock } from '../../seg/index.ts';
import { compare } from './compare.ts';
import type { Replayer } from './replay.ts';

/** One line of a trace of the sizing rules. */
interface InitLine {
  readonly op: string;
  readonly physmem: number;
  readonly availrmem: number;
  readonly tuneHashWin: number;
  readonly tuneHashWired: number;
  readonly tuneMaxWindow: number;
  readonly hashsizeWin: number;
  readonly hashsizeWired: number;
  readonly maxWindow: number | null;
}

/** See the file's header. */
export const pcacheInitReplayer: Replayer = {
  kind: 'pcache-init',
  version: 1,
  start: () => ({
    step(value) {
      const line = value as InitLine;
      const { windowBuckets, wiredBuckets, maxWindow } = sizePagelock(line.physmem, line.availrmem, {
        windowBuckets: line.tuneHashWin,
        wiredBuckets: line.tuneHashWired,
        maxWindow: line.tuneMaxWindow,
      });
      const got = [windowBuckets, wiredBuckets, Number.isFinite(maxWindow) ? maxWindow : null];
      return compare([line.hashsizeWin, line.hashsizeWired, line.maxWindow], got);
    },
    dump: () => 'no state',
    close() {},
  }),
};
