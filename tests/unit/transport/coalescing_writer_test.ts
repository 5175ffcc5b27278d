import assert from "node:assert/strict";
import { concat, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { CoalescingWriter, StuckPeerError } from "../../../mod/transport/coalescing_writer.ts";
import type { Stream } from "../../../mod/transport/transport.ts";

/** A stream whose writes wait until the test lets them through. */
class HeldStream implements Stream {
  readonly writes: Uint8Array[] = [];
  #held: { resolve: () => void; reject: (error: Error) => void }[] = [];
  hold = false;
  ended: "open" | "closed" | "aborted" = "open";

  write(bytes: Uint8Array): Promise<void> {
    this.writes.push(bytes);
    if (!this.hold) return Promise.resolve();
    return new Promise((resolve, reject) => this.#held.push({ resolve, reject }));
  }

  /** Lets the oldest held write through, or makes it fail. */
  release(error?: Error): void {
    const write = this.#held.shift()!;
    if (error) write.reject(error);
    else write.resolve();
  }

  read(): Promise<null> {
    return Promise.resolve(null);
  }

  stopReading(): void {}

  closeWrite(): Promise<void> {
    this.ended = "closed";
    return Promise.resolve();
  }

  abort(): void {
    this.ended = "aborted";
  }
}

/** A writer over a held stream, with the failures that it reported. */
function setUp(options: { queuedBytesMax?: number; highWaterBytes?: number; hold?: boolean } = {}) {
  const stream = new HeldStream();
  stream.hold = options.hold ?? false;
  const failures: unknown[] = [];
  const queued = { bytes: 0 };
  const writer = new CoalescingWriter(stream, {
    queuedBytesMax: options.queuedBytesMax ?? 1_000_000,
    highWaterBytes: options.highWaterBytes ?? 1_000,
    onFailure: (error) => failures.push(error),
    onQueued: (bytes) => queued.bytes += bytes,
  });
  return { stream, failures, writer, queued };
}

Deno.test("write() sends what one turn queued at once, in order", async () => {
  const { stream, writer, queued } = setUp();
  for (const part of ["a", "bc", "", "def"]) writer.write(utf8(part));
  assert.equal(stream.writes.length, 0);
  assert.deepEqual([writer.queuedBytes, queued.bytes], [6, 6]);
  await writer.flush();
  assert.equal(queued.bytes, 0);
  assert.deepEqual(stream.writes.map(utf8Text), ["abcdef"]);
  assert.equal(writer.queuedBytes, 0);
});

Deno.test("write() joins what comes while a write is under way", async () => {
  const { stream, writer } = setUp({ hold: true });
  writer.write(utf8("1"));
  await Promise.resolve();
  for (const part of ["2", "3", "4"]) writer.write(utf8(part));
  const flushed = writer.flush();
  stream.release();
  stream.hold = false;
  await flushed;
  assert.deepEqual(stream.writes.map(utf8Text), ["1", "234"]);
});

Deno.test("write() hands large chunks over uncopied and keeps the order", async () => {
  const { stream, writer } = setUp();
  const large = new Uint8Array(64 * 1024).fill(9);
  for (const chunk of [utf8("a"), utf8("b"), large, utf8("c"), utf8("d")]) writer.write(chunk);
  await writer.flush();
  assert.equal(stream.writes.length, 3);
  assert.equal(stream.writes[1], large);
  assert.deepEqual([stream.writes[0]!, stream.writes[2]!].map(utf8Text), ["ab", "cd"]);
});

Deno.test("joined buffers stay bounded however long the queue is", async () => {
  const { stream, writer } = setUp({ queuedBytesMax: 10_000_000 });
  const chunk = new Uint8Array(50_000);
  for (let index = 0; index < 40; index++) writer.write(chunk);
  await writer.flush();
  assert.equal(concat(...stream.writes).length, 2_000_000);
  assert.ok(stream.writes.every((write) => write.length <= 256 * 1024));
});

Deno.test("drained() waits until the queue is below the high-water mark", async () => {
  const { stream, writer } = setUp({ hold: true, highWaterBytes: 10 });
  await writer.drained();
  writer.write(new Uint8Array(6));
  await Promise.resolve();
  writer.write(new Uint8Array(6));
  let drained = false;
  const waiting = writer.drained().then(() => drained = true);
  await Promise.resolve();
  assert.equal(drained, false);
  stream.release();
  await waiting;
  assert.equal(writer.queuedBytes, 6);
});

Deno.test("a peer that leaves more than queuedBytesMax unread is cut off, once", async () => {
  const { stream, writer, failures } = setUp({ hold: true, queuedBytesMax: 100 });
  writer.write(new Uint8Array(60));
  writer.write(new Uint8Array(41));
  assert.ok(failures[0] instanceof StuckPeerError);
  writer.write(new Uint8Array(500));
  assert.equal(failures.length, 1);
  assert.equal(writer.queuedBytes, 0);
  assert.equal(writer.failed, true);
  assert.equal(stream.ended, "aborted");
  await Promise.all([writer.drained(), writer.flush(), writer.close()]);
});

Deno.test("a failed write is reported once, wakes all waiters and drops the rest", async () => {
  const { stream, writer, failures, queued } = setUp({ hold: true, highWaterBytes: 1 });
  writer.write(utf8("a"));
  await Promise.resolve();
  writer.write(utf8("b"));
  assert.equal(queued.bytes, 2);
  const waiting = Promise.all([writer.drained(), writer.flush(), writer.close()]);
  const gone = new Error("gone");
  stream.release(gone);
  await waiting;
  writer.write(utf8("c"));
  await writer.flush();
  assert.deepEqual(failures, [gone]);
  assert.equal(queued.bytes, 0);
  assert.equal(stream.writes.length, 1);
  assert.equal(stream.ended, "aborted");
});

Deno.test("close() sends what is queued, then ends the stream; later writes are dropped", async () => {
  const { stream, writer } = setUp();
  writer.write(utf8("last"));
  const closed = writer.close();
  writer.write(utf8("too late"));
  await closed;
  assert.deepEqual(stream.writes.map(utf8Text), ["last"]);
  assert.equal(stream.ended, "closed");
});
