import { MessageChannel } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { RecoveryMail } from './recovery-mail.ts';

describe('recovery mail', () => {
  const channel = new MessageChannel();
  afterEach(() => channel.port1.close());

  it('is served in its order, at once or when it is delivered, and never twice', async () => {
    const recovered: number[] = [];
    const mail = new RecoveryMail(channel.port2, (slot) => recovered.push(slot));
    for (const recover of [4, 2, 9]) channel.port1.postMessage({ recover });
    channel.port1.postMessage('something else');
    // No turn of the event loop has passed.
    expect(mail.serveNow()).toBe(4);
    expect(recovered).toEqual([4, 2, 9]);
    expect(mail.serveNow()).toBe(0);
    channel.port1.postMessage({ recover: 5 });
    while (recovered.length < 4) await new Promise((resolve) => setImmediate(resolve));
    expect(recovered).toEqual([4, 2, 9, 5]);
  });
});
