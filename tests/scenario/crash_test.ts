/**
 * kill -9 under load: what was acknowledged is there after the restart, in order, once. The number of rounds is
 * CRASH_ROUNDS; the seed of the moments is printed and can be given as CRASH_SEED.
 */
import assert from "node:assert/strict";
import { hex, randomBytes } from "../../mod/base/bytes.ts";
import { prng } from "../support/prng.ts";
import { freeUdpPort, ServerProcess } from "../support/server_process.ts";
import { newAccount, newDevice, type TestClient } from "../support/test_client.ts";

const ROUNDS = Number(Deno.env.get("CRASH_ROUNDS") ?? 20);
const SENDERS = 8;

/** What one receiving device must hold, in the order of acknowledgement by each sender. */
interface Ledger {
  /** Payload hex of acknowledged messages, by sender task. */
  readonly acked: string[][];
  /** Payload hex of messages whose fate is unknown: the server died before it answered. */
  readonly unknown: Set<string>;
}

for (const backend of ["sqlcipher", "file"]) {
  Deno.test(`kill -9 under load at ${ROUNDS} random moments loses nothing acknowledged (${backend})`, async () => {
    const seed = Number(Deno.env.get("CRASH_SEED") ?? Math.floor(Math.random() * 2 ** 31));
    console.log(`seed ${seed}`);
    const random = prng(seed);
    const dataDir = await Deno.makeTempDir({ prefix: "qpq-crash-" });
    const port = freeUdpPort();
    const start = () => ServerProcess.start({ dataDir, port, flags: ["--store-backend", backend] });
    try {
      let server = await start();
      let sender = await newAccount(server, "sender");
      let receiver = await newDevice(server, "sender");
      let clearedThrough = 0n;
      for (let round = 0; round < ROUNDS; round++) {
        const ledger: Ledger = { acked: Array.from({ length: SENDERS }, () => []), unknown: new Set() };
        const ackedBefore = Math.floor(random() * 400);
        await sendUntilKilled({ server, sender, receiver, ledger, ackedBefore });
        await Promise.all([sender, receiver].map((client) => client[Symbol.asyncDispose]()));
        server = await start();
        sender = await sender.again(server);
        receiver = await receiver.again(server);
        clearedThrough = await checkAndClear(receiver, { ledger, clearedThrough });
      }
      await Promise.all([sender, receiver].map((client) => client[Symbol.asyncDispose]()));
      assert.equal(await server.end("SIGTERM"), 0);
    } finally {
      await Deno.remove(dataDir, { recursive: true });
    }
  });
}

/** Senders go on until the server is gone, which is as soon as `ackedBefore` messages were acknowledged. */
async function sendUntilKilled(
  run: {
    server: ServerProcess;
    sender: TestClient;
    receiver: TestClient;
    ledger: Ledger;
    ackedBefore: number;
  },
): Promise<void> {
  const { server, sender, receiver, ledger } = run;
  let acked = 0;
  let killed: Promise<void> | undefined;
  // Without the close each open call would wait for the idle timeout of a peer that is gone.
  const kill = async () => {
    await server.end("SIGKILL");
    sender.link.transport.close(0, "the server is gone");
  };
  await Promise.all(ledger.acked.map(async (mine, task) => {
    for (let n = 0;; n++) {
      const payload = new Uint8Array([task, n >> 8, n & 255, ...randomBytes(200)]);
      try {
        await sender.enqueue([receiver.deviceId], { payload });
        mine.push(hex(payload));
        if (++acked > run.ackedBefore) killed ??= kill();
      } catch {
        ledger.unknown.add(hex(payload));
        killed ??= kill();
        return;
      }
    }
  }));
  await killed;
}

/** Reads the whole queue, checks it against the ledger, acknowledges it. */
async function checkAndClear(
  receiver: TestClient,
  expected: { ledger: Ledger; clearedThrough: bigint },
): Promise<bigint> {
  const found: string[] = [];
  let after = expected.clearedThrough;
  for (let empty = false; !empty;) {
    const reply = await receiver.connection.call("fetch", { after });
    for (const entry of reply.entries) {
      assert.ok(entry.seq > after, "sequence numbers rise");
      after = entry.seq;
      found.push(hex(entry.payload));
    }
    empty = reply.empty;
  }
  const { acked, unknown } = expected.ledger;
  assert.equal(new Set(found).size, found.length, "nothing is there twice");
  const position = new Map(found.map((payload, i) => [payload, i]));
  for (const mine of acked) {
    const positions = mine.map((payload) =>
      position.get(payload) ?? assert.fail("an acknowledged message is gone")
    );
    assert.ok(positions.every((p, i) => i === 0 || positions[i - 1]! < p), "in the order of acknowledgement");
  }
  const wanted = new Set(acked.flat());
  for (const payload of found) {
    assert.ok(wanted.has(payload) || unknown.has(payload), "nothing else is there");
  }
  await receiver.connection.call("ack", { through: after });
  return after;
}
