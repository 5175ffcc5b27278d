/** What a client notices when the server, or somebody in its place, is not to be trusted. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { AccountKeyChangedError, type Client, ServerIdentityError } from "../../mod/client/mod.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD, texts } from "../support/test_user.ts";

async function aliceAndBob(server: TestServer, folder: string): Promise<{ alice: Client; bob: Client }> {
  const alice = await openClient(server, join(folder, "alice"));
  const bob = await openClient(server, join(folder, "bob"));
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await alice.send("bob", "hello");
  await drain(bob);
  return { alice, bob };
}

/** Bob's account is registered again by an operator's invitation: same account, another account key. */
async function resetBob(server: TestServer, folder: string): Promise<Client> {
  const { code } = await server.server.context.authenticator.inviteToReset("bob", 60_000);
  const bob = await openClient(server, join(folder, "new-bob"), { accessToken: "" });
  await bob.register({ userName: "bob", password: "another password", invitation: code });
  return bob;
}

Deno.test("a changed account key is announced, refused, and accepted when it is trusted", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const { alice, bob } = await aliceAndBob(server, folder.path);
  await bob.close();
  const newBob = await resetBob(server, folder.path);
  const before = await alice.verify("bob");
  assert.equal(before.changed, true);
  await assert.rejects(
    alice.addMember((await alice.createGroup("team")).groupId, "bob"),
    AccountKeyChangedError,
  );
  assert.deepEqual((await drain(alice)).map((one) => one.kind), ["accountKeyChanged"]);
  // Both sides see the same number.
  await newBob.send("alice", "it is me");
  assert.equal((await newBob.verify("alice")).safetyNumber, before.safetyNumber);
  // What comes from the new key waits until it is trusted.
  assert.deepEqual(await texts(alice), []);
  assert.equal(await alice.trust("bob"), true);
  assert.deepEqual(await texts(alice), ["bob: it is me"]);
  await alice.send("bob", "welcome back");
  assert.deepEqual(await texts(newBob), ["alice: welcome back"]);
  await Promise.all([alice.close(), newBob.close()]);
});

Deno.test("sending to somebody who registered again says so", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const { alice, bob } = await aliceAndBob(server, folder.path);
  await bob.close();
  const newBob = await resetBob(server, folder.path);
  const sent = await alice.send("bob", "are you there?");
  assert.deepEqual(sent.failures.map(({ user, reason }) => ({ user, reason })), [
    { user: "bob", reason: "unknownDevice" },
  ]);
  assert.deepEqual((await drain(alice)).map((one) => one.kind), ["accountKeyChanged"]);
  await assert.rejects(alice.send("bob", "and now?"), AccountKeyChangedError);
  await alice.trust("bob");
  await alice.send("bob", "now I know");
  assert.deepEqual(await texts(newBob), ["alice: now I know"]);
  await Promise.all([alice.close(), newBob.close()]);
});

Deno.test("a safety number is the same on both sides and stays verified", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const { alice, bob } = await aliceAndBob(server, folder.path);
  const mine = await alice.verify("bob");
  assert.match(mine.safetyNumber, /^(\d{5} ){11}\d{5}$/);
  assert.equal((await bob.verify("alice")).safetyNumber, mine.safetyNumber);
  assert.equal(mine.verified, false);
  await alice.markVerified("bob");
  assert.equal((await alice.verify("bob")).verified, true);
  await Promise.all([alice.close(), bob.close()]);
});

for (const kind of ["ca", "fingerprint"] as const) {
  Deno.test(`a server with other certificates is refused by a client that knows its ${kind}`, async () => {
    await using folder = await tempFolder();
    const dataDir = await Deno.makeTempDir({ dir: folder.path });
    const first = await startTestServer({ dataDir });
    const identity = kind === "ca" ? { ca: first.caPem } : { fingerprint: first.fingerprint };
    const state = join(folder.path, "alice");
    const alice = await openClient(first, state, { identity });
    await alice.register({ userName: "alice", password: PASSWORD });
    await alice.close();
    await first.stop();
    await Deno.remove(join(dataDir, "tls"), { recursive: true });
    await using second = await startTestServer({ dataDir });
    await using again = await openClient(second, state, { identity });
    await assert.rejects(again.ping(), (error) => {
      assert(error instanceof ServerIdentityError, String(error));
      assert.deepEqual(error.expected, [first.fingerprint]);
      assert.match(error.message, /has changed and was refused/);
      assert.match(error.message, /not signed by a CA that is trusted here/);
      assert.match(error.message, /Ask the operator/);
      return true;
    });
    // Told the new fingerprint, it goes on: the account is the same.
    await again.close();
    await using told = await openClient(second, state, { identity: { fingerprint: second.fingerprint } });
    await told.ping();
    assert.equal((await told.devices()).length, 1);
  });
}

Deno.test("a mistyped fingerprint does not say that the certificate has changed", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const identity = { fingerprint: "ab".repeat(32) };
  await using client = await openClient(server, join(folder.path, "alice"), { identity });
  await assert.rejects(client.ping(), {
    name: "ServerIdentityError",
    message: /is not the expected one and was/,
  });
});

Deno.test("ping() without a CA or fingerprint says what is missing", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  await using client = await openClient(server, join(folder.path, "alice"), { identity: undefined! });
  await assert.rejects(client.ping(), { name: "ServerIdentityError", message: /--ca.*--fingerprint/ });
});
