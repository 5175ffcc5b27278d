/** Accounts and devices from the command line: registering, logging in and out, passwords, deletion. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ClientWorld, PASSWORD } from "../support/client_world.ts";
import type { Program } from "../support/program.ts";

/** Waits for a question on a terminal, and answers it. */
async function answer(program: Program, question: RegExp, text: string): Promise<void> {
  await program.printed(question);
  await program.type(`${text}\r`);
}

Deno.test("register, whoami, logout and login; the state remembers the server and not the token", async (t) => {
  await using world = await ClientWorld.start();

  await t.step("register leaves logged in", async () => {
    const [me] = await world.jsonAs("alice", [...world.serverFlags, "register", "Alice"]);
    assert.equal(me!["userName"], "alice");
    assert.equal(me!["loggedIn"], true);
    const { out } = await world.succeedAs("alice", ["whoami"]);
    assert.match(out, /^alice\n {2}server {3}127\.0\.0\.1:\d+\n {2}device /);
  });
  await t.step("a login stands in for the token of ping, and no flag is needed any more", async () => {
    const [pong] = await world.jsonAs("alice", ["ping"]);
    assert.equal(pong!["server"], world.address);
  });
  await t.step("a second account in the same folder is refused", async () => {
    const { code, err } = await world.runAs("alice", [...world.serverFlags, "register", "bob"]);
    assert.equal(code, 1);
    assert.match(err, /belongs to alice.*--state/s);
  });
  await t.step("a name that is taken is refused", async () => {
    const { code, err } = await world.runAs("mallory", [...world.serverFlags, "register", "alice"]);
    assert.equal(code, 1);
    assert.match(err, /name is taken/);
  });
  await t.step("a name that is none is refused before a password is asked for", async () => {
    for (const word of ["register", "login"]) {
      const words = ["--state", world.stateOf("mallory"), ...world.serverFlags, word, "no name"];
      const { code, err } = await world.run(words);
      assert.equal(code, 2);
      assert.match(err, /no name is no user name\n.*a-z 0-9/);
    }
  });
  await t.step("the token was not kept: ping needs it again after logout", async () => {
    await world.succeedAs("alice", ["logout"]);
    const { code, err } = await world.runAs("alice", ["ping"]);
    assert.equal(code, 1);
    assert.match(err, /--auth-token-file/);
    await world.succeedAs("alice", ["ping", "--auth-token-file", world.tokenFile]);
    await world.succeedAs("alice", ["login", "alice"]);
  });
  await t.step("logout ends the session, and what needs one says how to log in", async () => {
    await world.succeedAs("alice", ["logout"]);
    assert.match((await world.succeedAs("alice", ["whoami"])).out, /^alice \(logged out\)/);
    const { code, err } = await world.runAs("alice", ["devices", "list"]);
    assert.equal(code, 1);
    assert.match(err, /client --state \S+ login USER/);
  });
  await t.step("login as the same device, with a password file", async () => {
    const file = join(world.folder.path, "password");
    await Deno.writeTextFile(file, `${PASSWORD}\n`);
    const run = { env: { QPQ_PASSWORD: "" } };
    await world.succeedAs("alice", ["login", "alice", "--password-file", file], run);
    const [{ devices }] = await world.jsonAs("alice", ["devices", "list"]) as [{ devices: unknown[] }];
    assert.equal(devices.length, 1);
  });
  await t.step("a wrong password and an unknown user get the same answer", async () => {
    const wrong = await world.runAs("x", [...world.serverFlags, "login", "alice"], {
      env: { QPQ_PASSWORD: "no" },
    });
    const unknown = await world.runAs("y", [...world.serverFlags, "login", "nobody"]);
    assert.deepEqual([wrong.code, unknown.code], [1, 1]);
    assert.match(wrong.err, /user name or the password is wrong/);
    assert.equal(unknown.err, wrong.err);
  });
  await t.step("a folder without an account says what to do", async () => {
    const { code, err } = await world.runAs("nobody", ["whoami"]);
    assert.equal(code, 1);
    assert.match(err, /There is no account in .*register USER/s);
  });
});

Deno.test("the password is asked for without echo, twice for a new one", async (t) => {
  await using world = await ClientWorld.start();
  const flags = ["--state", world.stateOf("alice")];

  await t.step("register", async () => {
    const words = [...flags, ...world.serverFlags, "register", "alice"];
    await using program = world.client(words, { on: "terminal" });
    await answer(program, /Password for alice: $/, "hunter2-hunter2");
    await answer(program, /Password for alice, again: $/, "hunter2-hunter2");
    const { code, out } = await program.ended();
    assert.equal(code, 0, out);
    assert.match(out, /Registered alice/);
    assert.doesNotMatch(out, /hunter2/);
  });
  await t.step("login", async () => {
    await using program = world.client([...flags, "login", "alice"], { on: "terminal" });
    await answer(program, /Password for alice: $/, "hunter2-hunter2");
    const { code, out } = await program.ended();
    assert.equal(code, 0, out);
    assert.doesNotMatch(out, /hunter2/);
  });
  await t.step("two that differ change nothing", async () => {
    const words = ["--state", world.stateOf("bob"), ...world.serverFlags, "register", "bob"];
    await using program = world.client(words, { on: "terminal" });
    await answer(program, /Password for bob: $/, "one");
    await answer(program, /Password for bob, again: $/, "other");
    const { code, out } = await program.ended();
    assert.equal(code, 1);
    assert.match(out, /passwords differ/);
  });
  await t.step("Ctrl-C gives up", async () => {
    await using program = world.client([...flags, "login", "alice"], { on: "terminal" });
    await program.printed(/Password for alice: $/);
    await program.type("half\x03");
    const { code, out } = await program.ended();
    assert.equal(code, 1);
    assert.match(out, /Cancelled/);
  });
  await t.step("without a terminal it is an error that says what to give", async () => {
    const { code, err } = await world.client([...flags, "login", "alice"]).ended();
    assert.equal(code, 2);
    assert.match(err, /--password-file FILE or set QPQ_PASSWORD/);
  });
});

Deno.test("passwd needs the present password, and the new one is the right one afterwards", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  const wrong = await world.runAs("alice", ["passwd"], {
    env: { QPQ_PASSWORD: "no", QPQ_NEW_PASSWORD: "new one" },
  });
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /password is wrong/);
  await world.succeedAs("alice", ["passwd"], { env: { QPQ_NEW_PASSWORD: "new one" } });
  await world.succeedAs("alice", ["devices", "list"]);
  assert.equal((await world.runAs("a2", [...world.serverFlags, "login", "alice"])).code, 1);
  await world.succeedAs("a2", [...world.serverFlags, "login", "alice"], { env: { QPQ_PASSWORD: "new one" } });
});

Deno.test("devices are listed and revoked; a revoked one is told so", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  await world.succeedAs("a2", [...world.serverFlags, "login", "alice", "--device-name", "phone"]);
  const { out } = await world.succeedAs("alice", ["devices", "list"]);
  const phone = /^([0-9a-f]{32}) {2}phone /m.exec(out)![1]!;
  const own = /^([0-9a-f]{32}) .*this device$/m.exec(out)![1]!;

  assert.match((await world.runAs("alice", ["devices", "revoke", own])).err, /revoke it from another one/);
  assert.match((await world.runAs("alice", ["devices", "revoke", "zz"])).err, /no device zz/);
  const wrong = await world.runAs("alice", ["devices", "revoke", phone], { env: { QPQ_PASSWORD: "no" } });
  assert.equal(wrong.code, 1);
  await world.succeedAs("alice", ["devices", "revoke", phone.slice(0, 8)]);
  const [{ devices }] = await world.jsonAs("alice", ["devices", "list"]) as [
    { devices: { deviceId: string }[] },
  ];
  assert.deepEqual(devices.map((device) => device.deviceId), [own]);
  const revoked = await world.runAs("a2", ["recv"]);
  assert.equal(revoked.code, 1);
  assert.match(revoked.err, /revoked/);
});

Deno.test("account delete asks, needs the password, and leaves nothing", async (t) => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  const flags = ["--state", world.stateOf("alice")];

  await t.step("without a terminal it wants --yes", async () => {
    const { code, err } = await world.runAs("alice", ["account", "delete"]);
    assert.equal(code, 2);
    assert.match(err, /--yes/);
  });
  await t.step("another answer than the name changes nothing", async () => {
    await using program = world.client([...flags, "account", "delete"], { on: "terminal" });
    await answer(program, /Type alice to go on: $/, "yes");
    assert.equal((await program.ended()).code, 1);
    await world.succeedAs("alice", ["devices", "list"]);
  });
  await t.step("a wrong password changes nothing", async () => {
    const { code } = await world.runAs("alice", ["account", "delete", "--yes"], {
      env: { QPQ_PASSWORD: "no" },
    });
    assert.equal(code, 1);
    await world.succeedAs("alice", ["devices", "list"]);
  });
  await t.step("the name and the password delete it", async () => {
    await using program = world.client([...flags, "account", "delete"], { on: "terminal" });
    await answer(program, /Type alice to go on: $/, "alice");
    await answer(program, /Password for alice: $/, PASSWORD);
    const { code, out } = await program.ended();
    assert.equal(code, 0, out);
    assert.match(out, /is deleted/);
  });
  await t.step("nobody can log in or register with the name any more", async () => {
    assert.equal((await world.runAs("alice", ["whoami"])).code, 1);
    assert.equal((await world.runAs("x", [...world.serverFlags, "login", "alice"])).code, 1);
    assert.match((await world.runAs("y", [...world.serverFlags, "register", "alice"])).err, /taken/);
  });
});

Deno.test("an invitation admits to one registration without the access token", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  const refused = await world.runAs("alice", ["invite"]);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /--auth-token-file/);
  const words = ["invite", "--hours", "1", "--auth-token-file", world.tokenFile];
  const { out } = await world.succeedAs("alice", words);
  const register = ["--server", world.address, "--ca", world.caFile, "register"];
  await world.succeedAs("bob", [...register, "bob", "--invitation", out.trim()]);
  const again = await world.runAs("carol", [...register, "carol", "--invitation", out.trim()]);
  assert.equal(again.code, 1);
  assert.match(again.err, /new invitation/);
});

Deno.test("a second client on one state folder is told which process has it", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  await using first = world.as("alice", ["recv", "--follow"]);
  await first.logged(/Connected/);
  const { code, err } = await world.runAs("alice", ["whoami"]);
  assert.equal(code, 1);
  assert.match(err, new RegExp(`in use by process ${first.pid}\\b`));
});

Deno.test("a changed certificate is refused with an explanation, and accepted by its fingerprint", async () => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  await world.restartWithNewCertificate();
  const refused = await world.runAs("alice", ["devices", "list"]);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /certificate of 127\.0\.0\.1:\d+ (has changed|was refused)/);
  assert.match(refused.err, /expected fingerprint: [0-9a-f]{64}/);
  assert.match(refused.err, /--fingerprint/);
  await world.succeedAs("alice", ["--fingerprint", world.server.fingerprint, "devices", "list"]);
  await world.succeedAs("alice", ["devices", "list"]);
});

Deno.test("a state folder can be locked with a passphrase", async (t) => {
  await using world = await ClientWorld.start();
  await world.register("alice");
  await world.succeedAs("alice", ["passphrase"], { env: { QPQ_NEW_PASSPHRASE: "open sesame" } });

  await t.step("without it, and with another one, nothing opens", async () => {
    const without = await world.runAs("alice", ["whoami"]);
    assert.equal(without.code, 2);
    assert.match(without.err, /--passphrase-file FILE or set QPQ_PASSPHRASE/);
    const wrong = await world.runAs("alice", ["whoami"], { env: { QPQ_PASSPHRASE: "open barley" } });
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /passphrase is wrong/);
  });
  await t.step("it is asked for on a terminal, once, and giving up is no damage", async () => {
    await using program = world.client(["--state", world.stateOf("alice"), "whoami"], { on: "terminal" });
    await answer(program, /Passphrase of .*: $/, "open sesame");
    const { code, out } = await program.ended();
    assert.equal(code, 0, out);
    assert.doesNotMatch(out, /sesame/);
    await using given = world.client(["--state", world.stateOf("alice"), "whoami"], { on: "terminal" });
    await given.printed(/Passphrase of .*: $/);
    await given.type("\x03");
    assert.match((await given.ended()).out, /Cancelled/);
  });
  await t.step("--remove takes it away", async () => {
    await world.succeedAs("alice", ["passphrase", "--remove"], { env: { QPQ_PASSPHRASE: "open sesame" } });
    await world.succeedAs("alice", ["whoami"]);
  });
});
