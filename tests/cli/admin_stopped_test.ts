/** Operators' commands on the folder of a stopped server, of one that was killed, and where there is none. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { chainDerOf, makeCrl } from "../support/certificates.ts";
import { authority, pemsFor } from "../support/peer_world.ts";
import { Program } from "../support/program.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { tempFolder } from "../support/temp_folder.ts";

const ENV = { QPQ_LOG_FORMAT: "json" };

function serveWords(): string[] {
  return ["serve", "--listen", `127.0.0.1:${freeUdpPort()}`, "--opaque-workers", "1"];
}

Deno.test("a stale socket of a killed server: commands work on the folder and say so; the next start replaces it", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const run = (...words: string[]) => Program.run(words, { cwd, env: ENV });
  {
    await using killed = new Program(serveWords(), { cwd, env: ENV });
    await killed.logged(/"msg":"listening"/);
    killed.signal("SIGKILL");
    await killed.ended();
  }
  assert.ok((await Deno.lstat(join(cwd, "data/control.sock"))).isSocket);
  const status = await run("status", "--json");
  assert.deepEqual([JSON.parse(status.out).via, JSON.parse(status.out).running], ["stopped", false]);
  const before = (await Deno.readTextFile(join(cwd, "data/secrets/auth-token"))).trim();
  const rotated = await run("rotate", "auth-token");
  assert.equal(rotated.code, 0, rotated.err);
  assert.match(rotated.err, /no server runs on .*data: worked on its data folder/);
  assert.match(rotated.out, /counts from the next start/);
  const lines = (await Deno.readTextFile(join(cwd, "data/secrets/auth-token"))).trim().split("\n");
  assert.deepEqual([lines.length, lines[1]], [2, before]);
  for (const words of [["reload"], ["drain"], ["health"], ["log-level", "debug"], ["expiry", "resume"]]) {
    const refused = await run(...words);
    assert.equal(refused.code, 1);
    assert.match(refused.err, /No server runs on the data folder .*: start it first/);
  }
  await using server = new Program(serveWords(), { cwd, env: ENV });
  await server.logged(/"msg":"listening"/);
  const running = await run("status", "--json");
  assert.equal(running.code, 0, running.err);
  assert.equal(JSON.parse(running.out).via, "running");
});

Deno.test("rotate status of a stopped server says what only the running one can tell", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  assert.equal((await Program.run(["init"], { cwd, env: ENV })).code, 0);
  const { out } = await Program.run(["rotate", "status", "--json"], { cwd, env: ENV });
  const { keys } = JSON.parse(out);
  for (const key of ["db-key", "opaque"]) {
    assert.deepEqual(keys[key].pending, ["only the running server tells: the database was not opened"]);
  }
});

Deno.test("rotations of a stopped server: tls and federation, seen by the next start", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const run = (...words: string[]) => Program.run(words, { cwd, env: ENV });
  assert.equal((await run("init")).code, 0);
  const tls = JSON.parse((await run("rotate", "tls", "--now", "--json")).out);
  assert.deepEqual([tls.via, tls.version], ["stopped", 2]);
  const data = join(cwd, "data");
  const federation = await run(
    ...["rotate", "federation", "--cert", join(data, "tls/server.pem")],
    ...["--key", join(data, "tls/server.key"), "--ca", join(data, "tls/ca.pem"), "--json"],
  );
  assert.equal(federation.code, 0, federation.err);
  assert.equal(await Deno.readTextFile(join(data, "tls/federation/current")), "v1\n");
  const wrong = await run(
    ...["rotate", "federation", "--cert", join(data, "tls/server.pem")],
    ...["--key", join(data, "tls/ca.key"), "--ca", join(data, "tls/server.pem")],
  );
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /does not belong to the certificate.*is no CA certificate/s);
  const { keys } = JSON.parse((await run("rotate", "status", "--json")).out);
  assert.deepEqual([keys.tls.version, keys.federation.version, keys.federation.fingerprint], [
    2,
    1,
    tls.fingerprint,
  ]);
  await using server = new Program(serveWords(), { cwd, env: ENV });
  await server.logged(/"msg":"listening"/);
  const status = JSON.parse((await run("status", "--json")).out);
  assert.equal(status.certificate.fingerprint, tls.fingerprint);
});

Deno.test("rotate federation --crl takes lists of its own CA only, and none drops them", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const file = async (name: string, text: string) => {
    await Deno.writeTextFile(join(cwd, name), text, { mode: 0o600 });
    return name;
  };
  const run = (...words: string[]) => Program.run(words, { cwd, env: ENV });
  assert.equal((await run("init")).code, 0);
  const [ca, other] = await Promise.all([authority(), authority("Other CA")]);
  const pems = await pemsFor(ca, "a.example");
  const revoked = chainDerOf((await pemsFor(ca, "m.example")).certificatePem);
  const list = (by: typeof ca) =>
    makeCrl({ ca: by, revokedDer: revoked, now: Date.now(), lifeMs: 86_400_000 });
  const [good, foreign] = [await list(ca), await list(other)];
  const words = [
    ...["rotate", "federation", "--cert", await file("cert.pem", pems.certificatePem)],
    ...["--key", await file("key.pem", pems.privateKeyPem), "--ca", await file("ca.pem", pems.caPem)],
  ];
  const version = (name: string) => join(cwd, "data/tls/federation", name);
  const refused = await run(...words, "--crl", await file("foreign.pem", foreign));
  assert.equal(refused.code, 1);
  assert.match(refused.err, /revocation list of CN=Other CA is not signed by a CA of the set/);
  await assert.rejects(Deno.stat(version("v1")), Deno.errors.NotFound);
  const taken = await run(...words, "--crl", await file("crl.pem", good));
  assert.equal(taken.code, 0, taken.err);
  assert.equal(await Deno.readTextFile(version("v1/crl.pem")), good);
  const kept = await run(...words);
  assert.match(kept.out, /former revocation lists stay; --crl none drops them/);
  assert.equal(await Deno.readTextFile(version("v2/crl.pem")), good);
  assert.equal((await run(...words, "--crl", "none")).code, 0);
  assert.equal((await Deno.readTextFile(version("current"))).trim(), "v3");
  await assert.rejects(Deno.stat(version("v3/crl.pem")), Deno.errors.NotFound);
});

Deno.test("a folder that a server holds without a socket is not touched", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  await using server = new Program(serveWords(), { cwd, env: ENV });
  await server.logged(/"msg":"listening"/);
  await Deno.remove(join(cwd, "data/control.sock"));
  const token = await Deno.readTextFile(join(cwd, "data/secrets/auth-token"));
  const refused = await Program.run(["rotate", "auth-token"], { cwd, env: ENV });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /in use by process \d+/);
  assert.equal(await Deno.readTextFile(join(cwd, "data/secrets/auth-token")), token);
});

Deno.test("without a data folder, or with an empty or unreadable token, the command says what to do", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const run = (...words: string[]) => Program.run(words, { cwd, env: ENV });
  const nothing = await run("rotate", "auth-token");
  assert.equal(nothing.code, 1);
  assert.match(nothing.err, /There is no data folder .*qpq-server init/);
  assert.equal((await run("init")).code, 0);
  const path = join(cwd, "data/secrets/auth-token");
  await Deno.writeTextFile(path, "");
  const empty = await run("rotate", "auth-token");
  assert.equal(empty.code, 2);
  assert.match(empty.err, /auth-token is empty|auth-token.*empty/);
  assert.equal(await Deno.readTextFile(path), "");
});

Deno.test("a token from the environment: rotate says what to set, and changes nothing", async () => {
  await using folder = await tempFolder();
  const env = { ...ENV, QPQ_AUTH_TOKEN: "a-token-of-the-environment" };
  assert.equal((await Program.run(["init"], { cwd: folder.path, env })).code, 0);
  const advice = await Program.run(["rotate", "auth-token"], { cwd: folder.path, env });
  assert.equal(advice.code, 0, advice.err);
  assert.match(advice.out, /nothing to change\n\n {2}[\w-]{43}\n\n \* .*QPQ_AUTH_TOKEN.*\n \* Then restart/);
  assert.ok(!advice.out.includes("a-token-of-the-environment"));
});
