/**
 * What ended connections weigh, told to the garbage collector. Deno's QUIC holds some 35 kB of a connection outside
 * the heap until a full collection finds its JavaScript object, and V8 knows nothing of those: 40,000 connections that
 * came and went within half a minute left 1,000 MB before it saw a reason to look. Bytes of array buffers it counts,
 * and begins a (concurrent) full collection at 64 MB of new ones; so here are some, which no memory stands behind: the
 * pages of a grown buffer are the kernel's until they are written to.
 */

const CONNECTION_BYTES = 32 * 1024;
const BLOCK_CONNECTIONS = 32;
const BLOCK_BYTES = BLOCK_CONNECTIONS * CONNECTION_BYTES;
/** More than begins a collection. */
const BLOCKS_MAX = 80;

let connections = 0;
/** Kept, or the small collections would take them back at once. */
let blocks: ArrayBuffer[] = [];

/** A connection has ended. */
export function weighEndedConnection(): void {
  connections++;
  if (connections % BLOCK_CONNECTIONS !== 0) return;
  const block = new ArrayBuffer(0, { maxByteLength: BLOCK_BYTES });
  block.resize(BLOCK_BYTES);
  if (blocks.length === BLOCKS_MAX) blocks = [];
  blocks.push(block);
}
