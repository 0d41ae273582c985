/** What others do in front of each step of an operation, in turn. */

import { setSeam } from '../../src/sync/seam.ts';

/** Runs `operation` once for each of its steps, with `others` in front of that one, and once with nobody in between. */
export function beforeEveryStep(others: (step: number) => void, operation: () => void): void {
  for (let stop = 0, more = true; more; stop++) {
    let step = 0;
    more = false;
    setSeam(() => {
      if (step++ !== stop) return;
      setSeam(undefined);
      more = true;
      others(stop);
    });
    try {
      operation();
    } finally {
      setSeam(undefined);
    }
  }
}
