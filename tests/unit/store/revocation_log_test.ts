import assert from "node:assert/strict";
import { join } from "node:path";
import { openStore } from "../../../mod/store/open.ts";
import { parseRevocations, REVOCATIONS_LOG } from "../../../mod/store/revocation_log.ts";
import { World } from "../../contract/store/world.ts";

const open = (dataDir: string) => openStore({ backend: "file", dataDir, keys: ["key of tests"] });

async function logOf(world: World) {
  return parseRevocations(await Deno.readTextFile(join(world.dataDir, REVOCATIONS_LOG)));
}

Deno.test("each verb that takes something away leaves a line, once it answered; names are not in it", async () => {
  await using world = await World.make(open);
  const alice = await world.person({ userName: "alice-with-a-name" });
  const laptop = await world.device(alice);
  await world.store.revokeDevice(alice.accountId, laptop.deviceId, world.notice(), world.now);
  await world.store.setAccountEnabled(alice.accountId, false);
  await world.store.setAccountEnabled(alice.accountId, true);
  await world.store.deleteAccount(alice.accountId, world.now);
  const { revocations, damagedLines } = await logOf(world);
  assert.equal(damagedLines, 0);
  assert.deepEqual(revocations.map(({ kind }) => kind), [
    "deviceRevoked",
    "accountDisabled",
    "accountEnabled",
    "accountDeleted",
  ]);
  assert.deepEqual(revocations[0], {
    at: world.now,
    kind: "deviceRevoked",
    account: alice.accountId,
    device: laptop.deviceId,
  });
  const path = join(world.dataDir, REVOCATIONS_LOG);
  assert.ok(!(await Deno.readTextFile(path)).includes("alice"));
  if (Deno.build.os !== "windows") assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
});

Deno.test("what was refused leaves no line", async () => {
  await using world = await World.make(open);
  const [alice, bob] = [await world.person(), await world.person()];
  await world.store.deleteAccount(bob.accountId, world.now);
  await world.store.deleteAccount(bob.accountId, world.now);
  await world.store.revokeDevice(alice.accountId, bob.deviceId, world.notice(), world.now);
  await world.store.setAccountEnabled(bob.accountId, false);
  assert.equal((await logOf(world)).revocations.length, 1);
});

Deno.test("half a line that a crash has left swallows no other", async () => {
  await using world = await World.make(open);
  const [alice, bob] = [await world.person(), await world.person()];
  await world.store.deleteAccount(alice.accountId, world.now);
  const path = join(world.dataDir, REVOCATIONS_LOG);
  const text = await Deno.readTextFile(path);
  await Deno.writeTextFile(path, text + text.slice(0, 30));
  await world.store.deleteAccount(bob.accountId, world.now);
  const { revocations, damagedLines } = await logOf(world);
  assert.deepEqual([revocations.map(({ account }) => account), damagedLines], [
    [alice.accountId, bob.accountId],
    1,
  ]);
});

Deno.test("a log that cannot be written keeps nobody from revoking", async () => {
  await using world = await World.make(open);
  const alice = await world.person();
  await Deno.mkdir(join(world.dataDir, REVOCATIONS_LOG));
  assert.ok(await world.store.deleteAccount(alice.accountId, world.now));
});

Deno.test("parseRevocations() counts what is no line of the log", () => {
  const id = "ab".repeat(16);
  const good = JSON.stringify({ at: 1, kind: "accountDeleted", account: id });
  const bad = [
    "{",
    "null",
    "[]",
    JSON.stringify({ at: "1", kind: "accountDeleted", account: id }),
    JSON.stringify({ at: 1, kind: "accountAdored", account: id }),
    JSON.stringify({ at: 1, kind: "accountDeleted", account: "alice" }),
    JSON.stringify({ at: 1, kind: "deviceRevoked", account: id }),
  ];
  const { revocations, damagedLines } = parseRevocations([good, ...bad].join("\n"));
  assert.deepEqual([revocations.length, damagedLines], [1, bad.length]);
});
