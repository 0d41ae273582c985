/**
 * Whether other threads see the plain stores of a thread in the order in which it made them.
 *
 * They do on x86, whose stores leave in order and whose atomic operations are full barriers; elsewhere a word that announces
 * others must be stored atomically. Compilers of JavaScript keep stores into shared views in order.
 */

const { process: host } = globalThis as { readonly process?: { readonly arch?: string } };

/** See the file's header. */
export const STORES_IN_ORDER: boolean = host?.arch === 'x64' || host?.arch === 'ia32';
