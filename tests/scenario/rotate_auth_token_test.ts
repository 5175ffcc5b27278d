/** The access token is rotated under a running server: who is logged in notices nothing. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { FakeClock } from "../support/fake_clock.ts";
import { control, SteadyClients } from "../support/steady_clients.ts";
import { connectTo, newAccount } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { tempFolder } from "../support/temp_folder.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

async function tokenLines(dataDir: string): Promise<string[]> {
  return (await Deno.readTextFile(join(dataDir, "secrets", "auth-token"))).trim().split("\n");
}

async function isAdmitted(server: TestServer, accessToken: string): Promise<boolean> {
  try {
    const link = await connectTo(server, { accessToken });
    await link.connection[Symbol.asyncDispose]();
    return true;
  } catch (error) {
    assert.equal((error as { code?: string }).code, "invalidToken");
    return false;
  }
}

Deno.test("rotate auth-token: clients stay; the old token admits until its end and goes from the file", async () => {
  const clock = new FakeClock({ now: Date.now() });
  await using server = await startTestServer({ clock });
  const { dataDir, accessToken: old } = server;
  await using clients = await SteadyClients.start(server, "alice");
  await clients.send("before");
  const answer = await control(dataDir, "rotate auth-token", { overlapMs: 2 * MINUTE_MS });
  await clients.send("after");
  assert.deepEqual([answer["version"], answer["accepted"]], [2, 2]);
  const [wanted, second] = await tokenLines(dataDir);
  assert.equal(second, old);
  assert.ok(await isAdmitted(server, wanted!));
  assert.ok(await isAdmitted(server, old));
  await using bob = await newAccount({ ...server, accessToken: wanted! }, "bob");
  assert.ok(bob);
  await clock.advance(2 * MINUTE_MS);
  assert.equal(await isAdmitted(server, old), false);
  assert.ok(await isAdmitted(server, wanted!));
  // The tidying up reads files, which no fake time waits for: it comes round every minute.
  while ((await tokenLines(dataDir)).length > 1) await clock.advance(MINUTE_MS);
  assert.deepEqual(await tokenLines(dataDir), [wanted]);
});

Deno.test("rotate auth-token: a parked wait and a subscription lose nothing", async () => {
  await using server = await startTestServer();
  await using clients = await SteadyClients.start(server, "alice");
  await clients.send("before");
  await control(server.dataDir, "rotate auth-token", { overlapMs: 0 });
  await clients.send("after");
  await clients.lostNothing();
});

Deno.test("rotate auth-token without overlap refuses the old token at once", async () => {
  await using server = await startTestServer();
  await control(server.dataDir, "rotate auth-token", { overlapMs: HOUR_MS });
  const [leaked] = await tokenLines(server.dataDir);
  await control(server.dataDir, "rotate auth-token", { overlapMs: 0 });
  assert.equal(await isAdmitted(server, leaked!), false);
  assert.equal(await isAdmitted(server, server.accessToken), false);
  const [wanted, ...others] = await tokenLines(server.dataDir);
  assert.deepEqual(others, []);
  assert.ok(await isAdmitted(server, wanted!));
});

Deno.test("rotate auth-token: the end of the overlap survives a restart", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  const clock = new FakeClock({ now: Date.now() });
  const first = await startTestServer({ dataDir, clock });
  await control(dataDir, "rotate auth-token", { overlapMs: HOUR_MS });
  await first.stop();
  await clock.advance(HOUR_MS / 2);
  {
    await using server = await startTestServer({ dataDir, clock });
    assert.ok(await isAdmitted(server, first.accessToken));
  }
  await clock.advance(HOUR_MS);
  await using server = await startTestServer({ dataDir, clock });
  assert.equal(await isAdmitted(server, first.accessToken), false);
  assert.ok(await isAdmitted(server, server.accessToken));
});

Deno.test("rotate auth-token --dry-run tells the same steps and changes nothing", async () => {
  await using server = await startTestServer();
  const { dataDir } = server;
  const would = await control(dataDir, "rotate auth-token", { overlapMs: 0, dryRun: true });
  assert.deepEqual(await tokenLines(dataDir), [server.accessToken]);
  await assert.rejects(Deno.stat(join(dataDir, "rotations.json")), Deno.errors.NotFound);
  await assert.rejects(Deno.stat(join(dataDir, "audit.log")), Deno.errors.NotFound);
  const did = await control(dataDir, "rotate auth-token", { overlapMs: 0 });
  assert.deepEqual(would["steps"], did["steps"]);
});

Deno.test("rotate auth-token refuses an emptied file and says what to do; the service is as it was", async () => {
  await using server = await startTestServer();
  const path = join(server.dataDir, "secrets", "auth-token");
  await Deno.writeTextFile(path, "\n");
  await assert.rejects(
    control(server.dataDir, "rotate auth-token"),
    /auth-token .*empty.*write the token into it, or remove it/s,
  );
  assert.equal(await Deno.readTextFile(path), "\n");
  assert.ok(await isAdmitted(server, server.accessToken));
});

Deno.test("rotate auth-token warns when others could read the file, and closes it", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using server = await startTestServer();
  const path = join(server.dataDir, "secrets", "auth-token");
  await Deno.chmod(path, 0o644);
  const { notes } = await control(server.dataDir, "rotate auth-token");
  assert.match((notes as string[]).join("\n"), /Others could read .*0644.*--overlap 0/);
  assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
});

Deno.test("rotate auth-token of the operator's own file says which line to add, and takes it up", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "token");
  await Deno.writeTextFile(path, "first-token-of-the-operator\n", { mode: 0o600 });
  const dataDir = join(folder.path, "data");
  await Deno.mkdir(join(dataDir, "secrets"), { recursive: true });
  // What the test server shows as its own token.
  await Deno.writeTextFile(join(dataDir, "secrets", "auth-token"), "unused", { mode: 0o600 });
  await using server = await startTestServer({ dataDir, flags: { "auth-token-file": path } });
  const advice = await control(dataDir, "rotate auth-token");
  assert.equal(advice["changes"], false);
  assert.match((advice["notes"] as string[]).join("\n"), /write the line below above the others/);
  await Deno.writeTextFile(path, `${advice["line"]}\nfirst-token-of-the-operator\n`, { mode: 0o600 });
  assert.equal(await isAdmitted(server, String(advice["line"])), false);
  const answer = await control(dataDir, "rotate auth-token");
  assert.deepEqual([answer["changes"], answer["version"]], [true, 2]);
  assert.ok(await isAdmitted(server, String(advice["line"])));
  assert.ok(await isAdmitted(server, "first-token-of-the-operator"));
});

Deno.test("rotations are counted and dated in the metrics, and in rotate status", async () => {
  await using server = await startTestServer();
  await control(server.dataDir, "rotate auth-token");
  const { body } = await server.server.context.metrics.expose();
  assert.match(body, /^qpq_rotations_total\{key="auth-token"\} 1$/m);
  assert.match(body, /^qpq_rotations_total\{key="tls"\} 0$/m);
  assert.match(body, /^qpq_rotation_timestamp_seconds\{key="auth-token"\} 1[\d.]+/m);
  const { keys } = await control(server.dataDir, "rotate status") as {
    keys: Record<string, { version: number }>;
  };
  assert.deepEqual([keys["auth-token"]!.version, keys["tls"]!.version], [2, 1]);
});
