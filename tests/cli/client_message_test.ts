/** Messages from the command line: send, recv, chat, verify, block. */
import assert from "node:assert/strict";
import { ClientWorld } from "../support/client_world.ts";

Deno.test("two users message each other", async (t) => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");

  await t.step("send, and recv --json: group, from, seq and text of each, in order", async () => {
    await world.succeedAs("alice", ["send", "bob", "Hello", "Bob"]);
    await world.succeedAs("alice", ["send", "bob", "How are you?"]);
    const got = await world.jsonAs("bob", ["recv"]);
    const shown = got.map(({ group, from, text, own, kind }) => ({ group, from, text, own, kind }));
    const base = { group: "alice", from: "alice", own: false, kind: "text" };
    assert.deepEqual(shown, [{ ...base, text: "Hello Bob" }, { ...base, text: "How are you?" }]);
    assert.ok(got[0]!["seq"] as number > 0 && got[1]!["seq"] as number > (got[0]!["seq"] as number));
  });
  await t.step("what was shown does not come again", async () => {
    assert.deepEqual(await world.jsonAs("bob", ["recv"]), []);
  });
  await t.step("the answer goes into the same conversation", async () => {
    const [sent] = await world.jsonAs("bob", ["send", "alice", "Fine!"]);
    assert.deepEqual([sent!["devices"], sent!["failures"]], [1, []]);
    const [got] = await world.jsonAs("alice", ["recv"]);
    assert.deepEqual([got!["group"], got!["from"], got!["text"]], ["bob", "bob", "Fine!"]);
    assert.equal(got!["groupId"], sent!["groupId"]);
  });
  await t.step("- sends what comes through stdin", async () => {
    await world.succeedAs("alice", ["send", "bob", "-"], { input: "one\ntwo\n" });
    assert.equal((await world.jsonAs("bob", ["recv"]))[0]!["text"], "one\ntwo");
  });
  await t.step("for people: a line each, on which nobody's text can act", async () => {
    await world.succeedAs("alice", ["send", "bob", "-"], { input: "\x1b[31mred\r\n12:00 eve: forged" });
    const { out } = await world.succeedAs("bob", ["recv"]);
    assert.match(out, /^\d\d:\d\d alice: \ufffd\[31mred\n {13}12:00 eve: forged\n$/);
  });
  await t.step("both see the same safety number, and --trust notes it", async () => {
    const number = async (user: string, other: string) =>
      (await world.jsonAs(user, ["verify", other]))[0]!["safetyNumber"];
    const seen = await number("alice", "bob");
    assert.match(String(seen), /^\d{5}( \d{5}){11}$/);
    assert.equal(await number("bob", "alice"), seen);
    await world.succeedAs("alice", ["verify", "bob", "--trust"]);
    assert.equal((await world.jsonAs("alice", ["verify", "bob"]))[0]!["verified"], true);
  });
  await t.step("verify says when there is nobody to compare with", async () => {
    for (const [user, said] of [["nobody", /There is no user nobody/], ["alice", /with oneself/]] as const) {
      const { code, err } = await world.runAs("alice", ["verify", user]);
      assert.equal(code, 1);
      assert.match(err, said);
    }
  });
  await t.step("a target that is nothing fails and says so", async () => {
    for (const to of ["nobody", "No Such Group"]) {
      const { code, err } = await world.runAs("alice", ["send", to, "x"]);
      assert.equal(code, 1);
      assert.match(err, new RegExp(`There is no group ${to}`));
    }
  });
  await t.step("whoever is blocked is told that nobody got it", async () => {
    await world.succeedAs("bob", ["block", "alice"]);
    assert.equal((await world.succeedAs("bob", ["blocks"])).out, "alice\n");
    const { code, err } = await world.runAs("alice", ["send", "bob", "let me in"]);
    assert.equal(code, 1);
    assert.match(err, /bob blocks you/);
    await world.succeedAs("bob", ["unblock", "alice"]);
    await world.succeedAs("alice", ["send", "bob", "thanks"]);
    assert.deepEqual((await world.jsonAs("bob", ["recv"])).map((one) => one["text"]), ["thanks"]);
  });
  await t.step("no message is in the server's log", () => {
    for (const word of ["Hello", "How are you", "Fine!", "thanks"]) {
      assert.ok(!world.server.log.includes(word));
    }
  });
});

Deno.test("recv --follow shows messages as they come, ends with 0 at SIGINT, and repeats none", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");
  await using following = world.as("bob", ["recv", "--follow", "--json"]);
  await following.logged(/Connected/);
  await world.succeedAs("alice", ["send", "bob", "first"]);
  await following.printed(/"text":"first"/);
  await world.succeedAs("alice", ["send", "bob", "second"]);
  await following.printed(/"text":"second"/);
  following.signal("SIGINT");
  const { code, out } = await following.ended();
  assert.equal(code, 0);
  assert.equal(out.trim().split("\n").length, 2);
  await world.succeedAs("alice", ["send", "bob", "third"]);
  assert.deepEqual((await world.jsonAs("bob", ["recv"])).map((one) => one["text"]), ["third"]);
});

Deno.test("recv --follow goes on after a restart of the server", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");
  await using following = world.as("bob", ["recv", "--follow", "--json"]);
  await following.logged(/Connected/);
  await world.restart();
  await world.succeedAs("alice", ["send", "bob", "after"]);
  await following.printed(/"text":"after"/);
  assert.match(following.err, /Connection lost, trying again/);
  following.signal("SIGTERM");
  assert.equal((await following.ended()).code, 0);
});

Deno.test("--events adds what is no message; without it stdout holds messages alone", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");
  await world.succeedAs("alice", ["group", "create", "family", "bob"]);
  const plain = await world.runAs("bob", ["--json", "recv"]);
  assert.equal(plain.out, "");
  assert.match(plain.err, /alice added this device to family/);
  await world.succeedAs("alice", ["group", "create", "work", "bob"]);
  const [event] = await world.jsonAs("bob", ["recv", "--events"]);
  assert.deepEqual([event!["kind"], event!["group"], event!["from"]], ["joined", "work", "alice"]);
});

Deno.test("chat sends lines of stdin, prints what comes, and ends with the input", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");
  await using chat = world.as("bob", ["chat", "alice", "--json"], { input: "open" });
  await chat.type("one\n\ntwo\n");
  const got: unknown[] = [];
  await using following = world.as("alice", ["recv", "--follow", "--json"]);
  await following.printed(/"text":"two"/);
  for (const line of following.out.trim().split("\n")) got.push(JSON.parse(line).text);
  assert.deepEqual(got, ["one", "two"]);
  following.signal("SIGINT");
  await following.ended();
  await world.succeedAs("alice", ["send", "bob", "answer"]);
  await chat.printed(/"text":"answer"/);
  await chat.endInput();
  assert.equal((await chat.ended()).code, 0);
});

Deno.test("chat from a pipe fails when a line could not be sent", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  const { code, err } = await world.runAs("alice", ["chat", "nobody"], { input: "x\n" });
  assert.equal(code, 1);
  assert.match(err, /no user of that name/);
});

Deno.test("chat on a terminal shows what comes above the line that is typed", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice", "bob");
  await using chat = world.as("bob", ["chat", "alice"], { on: "terminal" });
  await chat.printed(/alice \(not verified: .* verify alice\)/);
  await chat.type("half a line");
  await chat.printed(/> half a line/);
  await world.succeedAs("alice", ["send", "bob", "interrupting"]);
  // The line is cleared, the message takes its place, and the line is drawn again below it.
  // deno-lint-ignore no-control-regex -- what a terminal gets
  await chat.printed(/\r\x1b\[K\d\d:\d\d alice: interrupting\r+\n\r\x1b\[K> half a line/);
  await chat.type(" done\r");
  await chat.printed(/bob: half a line done\r+\n/);
  assert.equal((await world.jsonAs("alice", ["recv"]))[0]!["text"], "half a line done");
  await chat.type("/members\r");
  await chat.printed(/bob, alice\r+\n/);
  await chat.type("\x03");
  const { code, out } = await chat.ended();
  assert.equal(code, 0);
  assert.ok(out.includes("\x1b[?2004l"), "bracketed paste is switched off again");
});
