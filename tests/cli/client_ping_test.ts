/** The connection test, and what a command line that cannot be meant gets. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ClientWorld } from "../support/client_world.ts";
import { Program } from "../support/program.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { tempFolder } from "../support/temp_folder.ts";

Deno.test("--ping finds the server, and refuses a wrong token, a wrong certificate and an unknown one", async (t) => {
  await using world = await ClientWorld.start();
  await using elsewhere = await tempFolder();
  const token = world.server.accessToken;
  const server = ["--server", world.address];

  await t.step("with the token alone, the CA of the data folder here is used, and that is said", async () => {
    const { code, out, err } = await world.run([...server, "--auth-token", token, "--ping"]);
    assert.equal(code, 0, err);
    assert.match(out, /^127\.0\.0\.1:\d+ answers: round trip [\d.]+ ms, server version \d+\.\d+\.\d+\n$/);
    assert.match(err, /data\/tls\/ca\.pem to recognise the server/);
  });
  await t.step("QPQ_DATA_DIR says where that folder is", async () => {
    const env = { QPQ_DATA_DIR: world.server.dataDir, QPQ_AUTH_TOKEN: token };
    const { code, err } = await world.run([...server, "ping"], { cwd: elsewhere.path, env });
    assert.equal(code, 0, err);
  });
  await t.step("with a CA file, as JSON; flags may follow the command", async () => {
    const words = ["ping", ...server, "--auth-token-file", world.tokenFile, "--ca", world.caFile, "--json"];
    const { code, out, err } = await world.run(words, { cwd: elsewhere.path });
    assert.equal(code, 0, err);
    const answer = JSON.parse(out);
    assert.equal(answer.server, world.address);
    assert.ok(answer.roundTripMs > 0);
    assert.equal(err, "");
  });
  await t.step("with the fingerprint that the server prints", async () => {
    const words = [...server, "--fingerprint", world.server.fingerprint, "--auth-token", token, "--ping"];
    assert.equal((await world.run(words, { cwd: elsewhere.path })).code, 0);
  });
  await t.step("makes no state folder", async () => {
    await assert.rejects(() => Deno.stat(join(world.folder.path, "home")), Deno.errors.NotFound);
  });
  await t.step("without anything that vouches it fails and says what to give", async () => {
    const { code, err } = await world.run([...server, "--auth-token", token, "--ping"], {
      cwd: elsewhere.path,
    });
    assert.equal(code, 1);
    assert.match(err, /--ca.*--fingerprint/s);
  });
  await t.step("another fingerprint is refused, and the token is not sent", async () => {
    const words = [...server, "--fingerprint", "ab".repeat(32), "--auth-token", token, "--ping"];
    const { code, err } = await world.run(words);
    assert.equal(code, 1);
    assert.match(err, /nothing was sent to that server/);
    assert.match(err, /expected fingerprint: (ab){32}/);
  });
  await t.step("a wrong token fails, and is not shown", async () => {
    const { code, out, err } = await world.run([...server, "--auth-token", "not-the-token", "--ping"]);
    assert.equal(code, 1);
    assert.equal(out, "");
    assert.match(err, /token is not valid/);
    assert.doesNotMatch(err, /not-the-token/);
  });
  await t.step("no token fails and says so", async () => {
    const { code, err } = await world.run([...server, "--ping"]);
    assert.equal(code, 1);
    assert.match(err, /--auth-token-file/);
  });
});

Deno.test("--ping fails when nobody answers, and says where to look", async () => {
  await using folder = await tempFolder();
  const address = `127.0.0.1:${freeUdpPort()}`;
  const { code, err } = await Program.run(["client", "--server", address, "--auth-token", "t", "--ping"], {
    cwd: folder.path,
    env: { XDG_STATE_HOME: folder.path },
  });
  assert.equal(code, 1);
  assert.match(err, /^No answer yet from 127\.0\.0\.1:\d+; still trying\n.*Nobody answers at/);
  assert.match(err, /--server HOST:PORT/);
});

Deno.test("wrong usage ends with 2 and says what is wrong", async (t) => {
  await using folder = await tempFolder();
  const cases: [words: string[], said: RegExp][] = [
    [[], /Usage: .* client \[options\] \[command\]/],
    [["--ping"], /--server HOST:PORT/],
    [["whoamii"], /did you mean whoami/],
    [["whoami", "--nonsense"], /unknown option '--nonsense'/],
    [["whoami", "extra"], /too many arguments/],
    [["send", "bob"], /missing required argument 'text'/],
    [["--ca", "a", "--fingerprint", "b", "ping"], /cannot be used with/],
    [["--server", "x:7000", "--fingerprint", "12", "ping"], /64 hex digits/],
    [["--server", "x:99999", "ping"], /no port/],
    [["--server", "x:7000", "--ca", "missing.pem", "ping"], /Cannot read missing\.pem/],
    [["--server", "x:7000", "--auth-token-file", "missing", "register", "a"], /Cannot read missing/],
    [["login", "alice"], /--server HOST:PORT/],
    [["group"], /Usage: .* client group/],
    [["group", "cretae"], /Did you mean create/],
    [["--log", "loud", "whoami"], /\(--log\)/],
  ];
  for (const [words, said] of cases) {
    await t.step(["client", ...words].join(" "), async () => {
      const env = { XDG_STATE_HOME: folder.path };
      const { code, out, err } = await Program.run(["client", ...words], { cwd: folder.path, env });
      assert.match(err, said);
      assert.equal(code, 2);
      assert.equal(out, "");
    });
  }
});
