/** A server of resources in a thread of its own, as tests talk to it: see workers/http-origin.ts. */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { OriginSettings } from '../workers/http-origin.ts';

/** What holds in every test that does not say otherwise. */
const PLAIN = { noRanges: false, failures: 0, breaks: 0, delayMs: 0, shortRanges: false, tag: '"1"' };

/** The server, and how often it was asked since it was last told what to do. */
export class Origin {
  readonly port: number;
  requests = 0;
  readonly #worker: Worker;

  private constructor(worker: Worker, port: number) {
    this.#worker = worker;
    this.port = port;
    worker.on('message', (message) => {
      if (message.requests !== undefined) this.requests = message.requests;
      else if (message.set) this.requests = 0;
    });
  }

  /** Starts one; `secure`: for HTTPS. */
  static async start(secure = false): Promise<Origin> {
    const worker = new Worker(new URL('../../build/test/workers/http-origin.js', import.meta.url), {
      workerData: { secure },
    });
    const [{ port }] = (await once(worker, 'message')) as [{ port: number }];
    return new Origin(worker, port);
  }

  /** Says what it serves, and waits until it does. */
  async set(settings: Partial<OriginSettings>): Promise<void> {
    const isSet = new Promise<void>((resolve) => {
      const look = (message: { set?: true }) => {
        // Counts of requests that came before are on their way as well.
        if (message.set === undefined) return;
        this.#worker.off('message', look);
        resolve();
      };
      this.#worker.on('message', look);
    });
    this.#worker.postMessage({ ...PLAIN, changesAfter: Number.POSITIVE_INFINITY, ...settings });
    await isSet;
  }

  /** Ends it. */
  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}
