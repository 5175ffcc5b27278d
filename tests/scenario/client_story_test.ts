/** The whole way over real QUIC and the SQLCipher store: accounts, devices, a group, both ways, offline, removal, restart. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD, texts } from "../support/test_user.ts";

Deno.test("two users exchange messages both ways, in order", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  await using alice = await openClient(server, join(folder.path, "alice"));
  await using bob = await openClient(server, join(folder.path, "bob"));
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await alice.send("bob", "one");
  await alice.send("bob", "two");
  assert.deepEqual(await texts(bob), ["alice: one", "alice: two"]);
  await bob.send("alice", "three");
  assert.deepEqual(await texts(alice), ["bob: three"]);
  assert.deepEqual(await drain(bob), []);
});
