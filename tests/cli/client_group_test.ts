/** Groups and files from the command line. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ClientWorld } from "../support/client_world.ts";

Deno.test("a group's life: made, joined, written to, left by one who cannot read on, made anew", async (t) => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob", "carol");
  const texts = async (user: string) => (await world.jsonAs(user, ["recv"])).map((one) => one["text"]);
  const groups = async (user: string) => {
    const [{ groups }] = await world.jsonAs(user, ["group", "list"]) as [
      { groups: Record<string, unknown>[] },
    ];
    return Object.fromEntries(groups.map((group) => [group["name"], group]));
  };

  await t.step("create with members", async () => {
    const { err } = await world.succeedAs("alice", ["group", "create", "family", "bob"]);
    assert.match(err, /Made the group family with bob/);
    assert.deepEqual((await groups("bob"))["family"]!["members"], ["bob", "alice"]);
  });
  await t.step("add, and everybody gets what is said", async () => {
    await world.succeedAs("bob", ["group", "add", "family", "carol"]);
    await world.succeedAs("carol", ["send", "family", "hi all"]);
    assert.deepEqual(await texts("alice"), ["hi all"]);
    assert.deepEqual(await texts("bob"), ["hi all"]);
  });
  await t.step("members lists users and devices", async () => {
    const { out } = await world.succeedAs("alice", ["group", "members", "family"]);
    assert.match(out, /^user .*\nalice \(you\) +[0-9a-f]{32}\nbob +[0-9a-f]{32}\ncarol +[0-9a-f]{32}\n$/);
  });
  await t.step("remove: the removed one cannot read on", async () => {
    await world.succeedAs("alice", ["group", "remove", "family", "carol"]);
    await world.succeedAs("bob", ["send", "family", "without carol"]);
    assert.deepEqual(await texts("alice"), ["without carol"]);
    const { out, err } = await world.succeedAs("carol", ["recv"]);
    assert.equal(out, "");
    assert.match(err, /alice removed this device from family/);
    assert.equal((await groups("carol"))["family"]!["status"], "removed");
    assert.equal((await world.runAs("carol", ["send", "family", "still here?"])).code, 1);
  });
  await t.step("forget drops a group that one was removed from, and no other", async () => {
    await world.succeedAs("carol", ["group", "forget", "family"]);
    assert.deepEqual(Object.keys(await groups("carol")), []);
    assert.equal((await world.runAs("alice", ["group", "forget", "family"])).code, 1);
  });
  await t.step("recreate makes one with the same members", async () => {
    const { err } = await world.succeedAs("alice", ["group", "recreate", "family"]);
    assert.match(err, /Made family \(2\) with bob/);
    await world.succeedAs("alice", ["send", "family (2)", "anew"]);
    assert.deepEqual(await texts("bob"), ["anew"]);
  });
  await t.step("leave: another member's client completes it", async () => {
    await world.succeedAs("bob", ["group", "leave", "family (2)"]);
    await world.succeedAs("alice", ["recv"]);
    assert.deepEqual((await groups("alice"))["family (2)"]!["members"], ["alice"]);
    assert.equal((await groups("bob"))["family (2)"]!["status"], "removed");
  });
  await t.step(
    "leave a group that nobody else is in: it is gone, and what came from it still has a name",
    async () => {
      await world.succeedAs("alice", ["group", "create", "attic", "bob"]);
      await world.succeedAs("bob", ["send", "attic", "still there?"]);
      await world.succeedAs("alice", ["group", "remove", "attic", "bob"]);
      const { err } = await world.succeedAs("alice", ["group", "leave", "attic"]);
      assert.match(err, /Left attic; nobody else was in it/);
      assert.match(
        (await world.succeedAs("alice", ["recv"])).out,
        /\[group-[0-9a-f]{8}\] bob: still there\?/,
      );
    },
  );
  await t.step("a post-quantum group works, and says that it is one", async () => {
    await world.succeedAs("alice", ["group", "create", "vault", "bob", "--suite", "xwing"]);
    await world.succeedAs("alice", ["send", "vault", "harvest this"]);
    assert.deepEqual(await texts("bob"), ["harvest this"]);
    assert.match((await world.succeedAs("alice", ["group", "list"])).out, /^vault +group +active, xwing/m);
  });
  await t.step("mistakes are told", async () => {
    const cases: [words: string[], said: RegExp, code: number][] = [
      [["group", "create", "vault"], /group called vault already/, 1],
      [["group", "create", "x", "--suite", "rsa"], /x25519 or xwing/, 2],
      [["group", "add", "nowhere", "bob"], /no group nowhere/, 1],
      [["group", "add", "vault", "nobody"], /does not exist/, 1],
      [["group", "remove", "vault", "carol"], /carol is not in this group/, 1],
      [["group", "remove", "vault", "alice"], /leave the group/, 1],
    ];
    for (const [words, said, code] of cases) {
      const ended = await world.runAs("alice", words);
      assert.match(ended.err, said);
      assert.equal(ended.code, code, words.join(" "));
    }
  });
});

Deno.test("a file goes from one to the other whole, and replaces nothing", async (t) => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");
  const bytes = new Uint8Array(700_000).map((_, index) => index * 7 + (index >> 8));
  const path = join(world.folder.path, "photo of us.jpg");
  await Deno.writeFile(path, bytes);
  const out = join(world.folder.path, "got");
  await Deno.mkdir(out);
  let id = "";

  await t.step("send; recv says how to get it", async () => {
    await world.succeedAs("alice", ["file", "send", "bob", path]);
    const { out } = await world.succeedAs("bob", ["recv"]);
    id = /alice sent photo of us\.jpg \(683\.6 KiB\); to get it: .* file get ([0-9a-f]{12})\n/.exec(out)![1]!;
  });
  await t.step("it is listed", async () => {
    assert.match(
      (await world.succeedAs("bob", ["file", "list"])).out,
      new RegExp(`${id}.*photo of us\\.jpg`),
    );
  });
  await t.step("get writes it into a folder, under its name", async () => {
    const { out: printed } = await world.succeedAs("bob", ["file", "get", id, "--out", out]);
    assert.equal(printed, `${join(out, "photo of us.jpg")}\n`);
    assert.deepEqual(await Deno.readFile(join(out, "photo of us.jpg")), bytes);
  });
  await t.step("a folder that is not there is named", async () => {
    const { code, err } = await world.runAs("bob", [
      "file",
      "get",
      id,
      "--out",
      join(out, "none", "photo.jpg"),
    ]);
    assert.equal(code, 1);
    assert.match(err, /Cannot write .*none.photo\.jpg as its folder does not exist/);
  });
  await t.step("again is refused", async () => {
    const { code, err } = await world.runAs("bob", ["file", "get", id, "--out", out]);
    assert.equal(code, 1);
    assert.match(err, /exists.*--out/s);
  });
  await t.step("on a terminal a bar shows how far it is; in a pipe there is none", async () => {
    const target = join(out, "again.jpg");
    await using program = world.as("bob", ["file", "get", id.slice(0, 6), "--out", target], {
      on: "terminal",
    });
    const { code, out: shown } = await program.ended();
    assert.equal(code, 0, shown);
    assert.match(shown, /photo of us\.jpg {2}\[#+\] +100 % {2}683\.6 KiB of 683\.6 KiB/);
    const piped = await world.succeedAs("alice", ["file", "send", "bob", path, "--name", "other.jpg"]);
    assert.doesNotMatch(piped.err, /#/);
    assert.match((await world.succeedAs("bob", ["recv"])).out, /sent other\.jpg/);
  });
  await t.step("a path that is no file is told before anything is sent", async () => {
    for (const wrong of [join(world.folder.path, "nothing"), world.folder.path]) {
      const { code, err } = await world.runAs("alice", ["file", "send", "bob", wrong]);
      assert.equal(code, 1);
      assert.match(err, /Cannot send/);
    }
    assert.match((await world.runAs("bob", ["file", "get", "ffffffffffff"])).err, /no file ffffffffffff/);
  });
});
