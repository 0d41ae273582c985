/** Tests that block in vain fail where they do, and those who wait for a worker that failed hear of it. */

import { Worker } from 'node:worker_threads';
import { wait } from 'pagewright/sync';
import { expect, it } from 'vitest';
import { nextMessage, watch } from './support/chaos.ts';
import { takeFailures, until } from './support/until.ts';
import { limitWaits } from './support/wait-limit.ts';

const words = new Int32Array(new SharedArrayBuffer(4));

it('a thread that blocks for too long without a turn of its event loop is told', async () => {
  const undo = limitWaits(50);
  try {
    let error: unknown;
    for (let waits = 0; waits < 1000 && error === undefined; waits++) {
      try {
        wait(words, 0, 0, Number.POSITIVE_INFINITY);
      } catch (thrown) {
        error = thrown;
      }
    }
    expect(error).toMatchObject({ cause: { message: expect.stringContaining('blocked for 50 ms') } });
    // A turn later it may wait again.
    await until(() => {
      try {
        return wait(words, 0, 0, 1) === 'timed-out';
      } catch {
        return false;
      }
    }, 'waits go on');
  } finally {
    undo();
  }
  expect(wait(words, 0, 0, 1)).toBe('timed-out');
});

it('what a worker throws ends whoever waits for something else', async () => {
  watch(new Worker(`throw new Error('broken')`, { eval: true }));
  await expect(until(() => false, 'it works')).rejects.toMatchObject({
    message: 'a worker has failed while this waits: it works',
    cause: { message: 'broken' },
  });
  expect(takeFailures()).toHaveLength(1);
  await expect(nextMessage(new Worker(`throw new Error('broken')`, { eval: true }))).rejects.toThrow('broken');
});

it('a worker that ends and has said nothing is not waited for', async () => {
  await expect(nextMessage(new Worker('', { eval: true }))).rejects.toThrow(/ended with code 0 and has said nothing/);
});
