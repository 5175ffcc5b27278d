/** KeyPackage upkeep: refilled when the server says that they run low, the last resort renewed in time. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { MLS_SUITE_X25519, MLS_SUITE_XWING } from "../../mod/base/mls_suites.ts";
import type { Client } from "../../mod/client/mod.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { newAccount } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD } from "../support/test_user.ts";

const DAY_MS = 86_400_000;

function countsOf(server: TestServer, client: Client) {
  const { store, clock } = server.server.context;
  return store.countKeyPackages(client.whoami()!.deviceId, clock.now());
}

Deno.test("register() uploads KeyPackages of every suite, and a last resort", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  await using alice = await openClient(server, join(folder.path, "alice"));
  await alice.register({ userName: "alice", password: PASSWORD });
  const counts = await countsOf(server, alice);
  assert.deepEqual(counts.map(({ suite, count }) => [suite, count]).sort(), [
    [MLS_SUITE_X25519, 20],
    [MLS_SUITE_XWING, 6],
  ]);
  assert.ok(counts.every((one) => one.lastResortNotAfter !== null));
});

Deno.test("KeyPackages are refilled when the server says that they run low", async () => {
  await using server = await startTestServer({ flags: { "limits-claim-rate": "100" } });
  await using folder = await tempFolder();
  await using alice = await openClient(server, join(folder.path, "alice"));
  await alice.register({ userName: "alice", password: PASSWORD });
  await using claimer = await newAccount(server, "claimer");
  const supply = async () =>
    (await countsOf(server, alice)).find((one) => one.suite === MLS_SUITE_X25519)!.count;
  for (let claims = 0; claims < 15; claims++) {
    await claimer.connection.call("fetchKeyPackages", { userName: "alice", suite: MLS_SUITE_X25519 });
  }
  assert.ok(await supply() < 10, `${await supply()} are left`);
  assert.deepEqual(await drain(alice), []);
  assert.equal(await supply(), 20);
});

Deno.test("the last-resort KeyPackage is renewed before it expires", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock });
  await using folder = await tempFolder();
  await using alice = await openClient(server, join(folder.path, "alice"), { clock });
  await alice.register({ userName: "alice", password: PASSWORD });
  const until = async () => (await countsOf(server, alice)).map((one) => one.lastResortNotAfter!);
  const before = await until();
  clock.jumpWall(50 * DAY_MS);
  await alice.upkeep();
  assert.deepEqual(await until(), before); // not yet
  clock.jumpWall(11 * DAY_MS);
  await alice.upkeep();
  const after = await until();
  assert.ok(after.every((time, index) => time > before[index]!), `${before} ${after}`);
});
