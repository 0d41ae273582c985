/** Tables of the I/O workers: what threads ask of them, and whether they are there. */

import { bytes, i32, table } from './table.ts';

/** Frames that one request can name, and numbers that an answer can hold. */
export const IO_LANES = 32;

/** Bytes of text in a request or an answer. */
export const IO_TEXT_BYTES = 1024;

/** Requests to the I/O workers. */
export const ioRequestTable = table('ioRequest', 'ioRequests', 'columns', {
  state: i32('A', 'IO_STATE', { padded: true }),
  slot: i32('W', 'slot that asks'),
  role: i32('W', 'IO_ROLE that is asked'),
  operation: i32('W', 'IO_OPERATION'),
  vnode: i32('W', 'vnode'),
  generation: i32('W', 'generation of the row of the vnode'),
  first: i32('W', 'first page'),
  count: i32('W', 'pages, or a flag'),
  server: i32('W', 'slot + 1 of the worker that serves it'),
  lanes: i32('W', 'frames of the request; numbers of the answer', { lanes: IO_LANES }),
  text: bytes('W', 'text of the request; words of an error', IO_TEXT_BYTES),
  ticket: i32('W', 'order of the requests for pages of asynchronous vnodes, modulo 2^32'),
  source: i32('W', 'what stands for the server or provider behind the vnode'),
});

/** The I/O workers: a lane for each IO_ROLE. */
export const ioServiceTable = table('ioService', 1, 'columns', {
  bell: i32('A', 'rings: requests posted, modulo 2^32', { lanes: 3, padded: true }),
  keeper: i32('A', 'slot + 1 of the thread that starts workers, 0 none', { padded: true }),
  worker: i32('A', 'slot + 1 of the worker that was started last, 0 none', { lanes: 3 }),
  starts: i32('A', 'workers started so far', { lanes: 3 }),
  choosing: i32('A', 'slot + 1 of the worker that chooses a request for far pages, 0 none'),
  tickets: i32('A', 'tickets given so far, modulo 2^32'),
});
