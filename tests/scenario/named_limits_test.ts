/** Bounds that are kept outside the buckets: each has a name, counts, and says when to come back. */
import assert from "node:assert/strict";
import { randomBytes, sha256, utf8 } from "../../mod/base/bytes.ts";
import { encodeFrame } from "../../mod/protocol/frame.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { limitHits } from "../support/limit_hits.ts";
import { RawStream, requestFrame } from "../support/raw_stream.ts";
import { newAccount, type TestClient } from "../support/test_client.ts";
import { startTestServer } from "../support/test_server.ts";

/** What a refused call rejects with. */
async function refusal(call: Promise<unknown>): Promise<{ code: string; retryAfterMs: number }> {
  const error = await call.then(() => assert.fail("it was accepted"), (error) => error);
  return { code: error.code, retryAfterMs: error.details.retryAfterMs };
}

/** An upload that has a place, and brings half of what it announced. */
async function halfUpload(client: TestClient, announced: { sha256: Uint8Array; size: bigint }) {
  const raw = await client.rawStream();
  await raw.write(requestFrame(1, "putBlob", announced), randomBytes(10));
  return raw;
}

Deno.test("uploads at once are limited for an account and for all, by name, with a time to come back", async () => {
  await using server = await startTestServer({ flags: { "limits-blob-uploads-max": "2" } });
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  await using carol = await newAccount(server, "carol");
  const { blobs } = server.server.context;
  const bytes = randomBytes(1000);
  const announced = { sha256: await sha256(bytes), size: 1000n };
  const put = (client: TestClient) =>
    client.connection.putBlob(
      announced,
      (async function* () {
        yield bytes;
      })(),
    );
  await halfUpload(alice, announced);
  while (blobs.uploadCount < 1) await bob.connection.call("ping", {});
  assert.deepEqual(await refusal(put(alice)), { code: "rateLimited", retryAfterMs: 1000 });
  await halfUpload(bob, announced);
  while (blobs.uploadCount < 2) await carol.connection.call("ping", {});
  assert.deepEqual(await refusal(put(carol)), { code: "overloaded", retryAfterMs: 1000 });
  assert.deepEqual(await limitHits(server), { total: 2, blobUploads: 1, blobUploadsAccount: 1 });
});

Deno.test("open invitations are limited by name, with a time to come back", async () => {
  await using server = await startTestServer({
    flags: { "limits-invitations-open-max": "1", "limits-invitation-ttl": "1h" },
  });
  await using alice = await newAccount(server, "alice");
  await alice.connection.call("createInvitation", {});
  const second = await refusal(alice.connection.call("createInvitation", {}));
  assert.deepEqual(second, { code: "rateLimited", retryAfterMs: 3_600_000 });
  assert.deepEqual(await limitHits(server), { total: 1, invitationsOpen: 1 });
});

Deno.test("a connection of bad requests is read more slowly, and nobody else is", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock, flags: { "limits-malformed-rate": "10" } });
  await using alice = await newAccount(server, "alice");
  await using raw = await RawStream.afterHello(server);
  const bad = (first: number) =>
    Array.from({ length: 60 }, (_, i) => encodeFrame(first + i, 9999, new Uint8Array()));
  await raw.write(...bad(1));
  await raw.outcomes(60);
  await raw.write(requestFrame(100, "ping", {}));
  const held = raw.reply();
  while (!(await limitHits(server)).malformedRate) await alice.connection.call("ping", {});
  let answered = false;
  held.then(() => answered = true);
  for (let i = 0; i < 20; i++) await alice.enqueue([alice.deviceId], { payload: utf8("not held") });
  assert.equal(answered, false);
  await clock.advance(1_000);
  assert.equal((await held).outcome, "ok");
  assert.deepEqual(await limitHits(server), { total: 1, malformedRate: 1 });
});

Deno.test("a held connection that goes away leaves nothing behind", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock, flags: { "limits-malformed-rate": "1" } });
  await using alice = await newAccount(server, "alice");
  const raw = await RawStream.afterHello(server);
  await raw.write(...Array.from({ length: 60 }, (_, i) => encodeFrame(i, 9999, new Uint8Array())));
  await raw.outcomes(60);
  await raw.write(requestFrame(100, "ping", {}));
  while (!(await limitHits(server)).malformedRate) await alice.connection.call("ping", {});
  await raw[Symbol.asyncDispose]();
  while (server.server.context.registry.count > 1) await alice.connection.call("ping", {});
});
