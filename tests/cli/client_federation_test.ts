/** People of two servers at the command line: user@domain wherever a user is named. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { ClientWorld } from "../support/client_world.ts";
import { twoServers } from "../support/two_servers.ts";

/** What `recv` shows until something with `text` has come: it comes from another server, so not at once. */
async function received(world: ClientWorld, user: string, text: string): Promise<Record<string, unknown>> {
  await using program = world.as(user, ["--json", "recv", "--follow", "--events"]);
  await program.printed(new RegExp(`${RegExp.escape(text)}.*\n`));
  program.signal("SIGINT");
  const { out } = await program.ended();
  const objects = out.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  return objects.find((object) => JSON.stringify(object).includes(text))!;
}

Deno.test("people of two servers message each other, share groups and files", async (t) => {
  const [here, there] = await twoServers();
  await using _here = here;
  await using _there = there;
  await here.register("alice");
  await there.register("bob");

  await t.step("whoami and register tell the whole address", async () => {
    assert.match((await here.succeedAs("alice", ["whoami"])).out, /^alice@a\.test\n/);
    const [me] = await there.jsonAs("bob", ["whoami"]);
    assert.deepEqual([me!["userName"], me!["domain"], me!["address"]], ["bob", "b.test", "bob@b.test"]);
  });
  await t.step("send bob@b.test, and the answer to alice@a.test", async () => {
    const [sent] = await here.jsonAs("alice", ["send", "bob@b.test", "Hello", "Bob"]);
    assert.deepEqual([sent!["devices"], sent!["failures"]], [1, []]);
    const got = await received(there, "bob", "Hello Bob");
    assert.deepEqual([got["from"], got["group"]], ["alice@a.test", "alice@a.test"]);
    await there.succeedAs("bob", ["send", "alice@a.test", "Fine!"]);
    assert.equal((await received(here, "alice", "Fine!"))["from"], "bob@b.test");
  });
  await t.step("both see the same safety number", async () => {
    const [seen] = await here.jsonAs("alice", ["verify", "bob@b.test"]);
    const [other] = await there.jsonAs("bob", ["verify", "alice@a.test"]);
    assert.equal(seen!["safetyNumber"], other!["safetyNumber"]);
    assert.equal(seen!["userName"], "bob@b.test");
  });
  await t.step("a group and a file in it", async () => {
    await here.succeedAs("alice", ["group", "create", "team", "bob@b.test"]);
    await received(there, "bob", "joined");
    const photo = join(here.folder.path, "photo.jpg");
    await Deno.writeFile(photo, crypto.getRandomValues(new Uint8Array(60_000)));
    await here.succeedAs("alice", ["file", "send", "team", photo]);
    const { file } = await received(there, "bob", "photo.jpg") as { file: { id: string } };
    const copy = join(there.folder.path, "copy.jpg");
    await there.succeedAs("bob", ["file", "get", file.id, "--out", copy]);
    assert.deepEqual(await Deno.readFile(copy), await Deno.readFile(photo));
    assert.match((await there.succeedAs("bob", ["group", "members", "team"])).out, /^alice@a\.test /m);
  });
  await t.step("who is not reachable by name or server is told", async () => {
    const none = await here.runAs("alice", ["send", "nobody@b.test", "x"]);
    assert.equal(none.code, 1);
    assert.match(none.err, /no user of that name/);
    const unknown = await here.runAs("alice", ["send", "bob@z.test", "x"]);
    assert.equal(unknown.code, 1);
    assert.match(unknown.err, /does not exchange messages with that domain/);
    const wrong = await here.runAs("alice", ["send", "bob@", "x"]);
    assert.match(wrong.err, /There is no group bob@ here/);
  });
  await t.step("a message reaches a server that was down when it is back", async () => {
    await there.restart(async () => {
      await here.succeedAs("alice", ["chat", "bob@b.test"], { input: "nobody there?\n" });
      await here.succeedAs("alice", ["send", "bob@b.test", "are you back?"]);
    });
    assert.equal((await received(there, "bob", "are you back?"))["from"], "alice@a.test");
  });
  await t.step(
    "a message reaches a server that was killed, although the link to it still looks alive",
    () => reachesAfterKill(here, there),
  );
});

/** Alice writes to Bob while his server is dead: he has it when that is back. */
async function reachesAfterKill(here: ClientWorld, there: ClientWorld): Promise<void> {
  await here.succeedAs("alice", ["send", "bob@b.test", "before"]);
  await received(there, "bob", "before");
  await there.restart(async () => {
    await here.succeedAs("alice", ["send", "bob@b.test", "while you were dead"]);
  }, "SIGKILL");
  assert.equal((await received(there, "bob", "while you were dead"))["from"], "alice@a.test");
}

Deno.test("engine quiche: a message reaches a server that was killed, although the link still looks alive", async () => {
  const [here, there] = await twoServers("quiche");
  await using _here = here;
  await using _there = there;
  await here.register("alice");
  await there.register("bob");
  await reachesAfterKill(here, there);
});
