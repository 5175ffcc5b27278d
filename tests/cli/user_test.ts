/** `user`, `device` and `queue` as an operator types them: output, exit codes, questions, running and stopped. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ClientWorld } from "../support/client_world.ts";
import { type Ended, Program } from "../support/program.ts";

/** A run of the server's program beside the world's server. */
async function operator(world: ClientWorld, ...words: string[]): Promise<Ended> {
  return await Program.run(words, { cwd: world.folder.path, env: { QPQ_LOG_FORMAT: "json" } });
}

async function json(world: ClientWorld, ...words: string[]) {
  const { code, out, err } = await operator(world, ...words, "--json");
  assert.equal(code, 0, err);
  return JSON.parse(out);
}

Deno.test("users of a running server: list, show, disable, enable, delete with and without --yes", async (t) => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");

  await t.step("list and show", async () => {
    const table = await operator(world, "user", "list");
    assert.match(table.out, /^name +devices +waiting +last seen +setup\nalice +1 /);
    assert.match(table.err, /done by the running server/);
    const shown = await operator(world, "user", "show", "alice");
    assert.match(shown.out, /^user name +alice\n/);
    assert.match(shown.out, /^device +name +waiting +size +last seen$/m);
    assert.equal((await json(world, "user", "show", "alice")).devices.length, 1);
  });
  await t.step("disable, and what the user then sees", async () => {
    assert.equal(
      (await operator(world, "user", "disable", "alice", "--dry-run")).out,
      "alice would be disabled.\n",
    );
    assert.equal((await operator(world, "user", "disable", "alice")).out, "alice is disabled.\n");
    const { code, err } = await world.runAs("alice", ["devices", "list"]);
    assert.equal(code, 1);
    assert.match(err, /disabled/);
    assert.equal((await operator(world, "user", "disable", "alice")).out, "alice is disabled already.\n");
    assert.equal((await operator(world, "user", "enable", "alice")).out, "alice is enabled.\n");
    await world.succeedAs("alice", ["login", "alice"]);
  });
  await t.step("a delete without a terminal needs --yes, and says what it would do", async () => {
    const refused = await operator(world, "user", "delete", "bob");
    assert.equal(refused.code, 2);
    assert.match(refused.err, /bob with 1 device and everything .* deleted for good\. Add --yes/);
    assert.match((await operator(world, "user", "delete", "bob", "--dry-run")).out, /would be deleted/);
    assert.equal((await json(world, "user", "list")).users.length, 2);
    const deleted = await operator(world, "user", "delete", "bob", "--yes");
    assert.match(deleted.out, /^bob \([0-9a-f]{32}, 1 device\) was deleted\.\n$/);
    assert.equal((await json(world, "user", "list")).users.length, 1);
  });
  await t.step("unknown users and wrong usage", async () => {
    const unknown = await operator(world, "user", "show", "nobody");
    assert.equal(unknown.code, 1);
    assert.match(unknown.err, /There is no user nobody: `qpq-server user list` shows all/);
    assert.equal((await operator(world, "user", "show")).code, 2);
    assert.equal((await operator(world, "user", "list", "--limit", "0")).code, 2);
    assert.equal((await operator(world, "user", "invite", "--ttl", "soon")).code, 2);
  });
  await t.step("the audit log has what was done, and no invitation", async () => {
    const { invitation } = await json(world, "user", "invite", "--ttl", "1h");
    const audit = await Deno.readTextFile(join(world.server.dataDir, "audit.log"));
    const done = audit.trim().split("\n").map((line) => JSON.parse(line)).filter(({ outcome }) =>
      outcome === "begun"
    );
    const named = done.map(({ operation, input }) => `${operation} ${input.user ?? ""}`.trim());
    assert.ok(named.includes("user disable alice") && named.includes("user delete bob"), audit);
    assert.ok(!audit.includes(invitation));
  });
});

Deno.test("a forgotten password: reset on a stopped server, used when it runs again", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  const before = await json(world, "user", "show", "alice");
  let invitation = "";
  await world.restart(async () => {
    const reset = await operator(world, "user", "reset", "alice", "--ttl", "1d");
    assert.equal(reset.code, 0, reset.err);
    assert.match(reset.err, /no server runs on .*: worked on its data folder/);
    invitation = /^[0-9A-Z]{4}(-[0-9A-Z]{4})+$/m.exec(reset.out)![0];
    assert.match(reset.out, /devices, what waits for them and its key go/);
  });
  const flags = ["--server", world.address, "--ca", world.caFile];
  await world.succeedAs("alice-again", [...flags, "register", "alice", "--invitation", invitation], {
    env: { QPQ_PASSWORD: "another one" },
  });
  const after = await json(world, "user", "show", "alice");
  assert.equal(after.accountId, before.accountId);
  assert.equal(after.devices.length, 1);
  assert.notEqual(after.devices[0].deviceId, before.devices[0].deviceId);
});

Deno.test("devices and queues: list, stats, purge and revoke by the beginning of an id", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");
  await world.succeedAs("bob", ["send", "alice", "hello"]);
  const { devices } = await json(world, "device", "list", "alice");
  const short = devices[0].deviceId.slice(0, 10);
  assert.match((await operator(world, "device", "list", "alice")).out, /^device +name +waiting/);
  const stats = await operator(world, "queue", "stats");
  assert.match(stats.out, /^device +user +waiting +size +oldest\n[0-9a-f]{32} +alice /m);
  const waiting = (await json(world, "queue", "stats", short)).entries;
  assert.ok(waiting > 0);
  const refused = await operator(world, "queue", "purge", short);
  assert.equal(refused.code, 2);
  assert.match(refused.err, /messages? for [0-9a-f]{32} of alice will be deleted.*--yes/);
  const purged = await operator(world, "queue", "purge", short, "--yes");
  assert.match(
    purged.out,
    new RegExp(`^${waiting} messages? for ${devices[0].deviceId} of alice deleted\\.\n$`),
  );
  assert.match((await operator(world, "queue", "stats")).out, /Nothing waits|bob/);
  const revoked = await operator(world, "device", "revoke", short, "--yes");
  assert.match(revoked.out, /of alice was revoked\. It can still read its groups until a member removes it/);
  const { code, err } = await world.runAs("alice", ["devices", "list"]);
  assert.equal(code, 1);
  assert.match(err, /revoked/);
});
