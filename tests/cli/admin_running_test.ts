/** Operators' commands against a running server: control socket, exit codes, what goes where. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Program } from "../support/program.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { tempFolder } from "../support/temp_folder.ts";

/** A server in a folder of its own, and commands run there. */
async function startServer(options: { dataDir?: string } = {}) {
  const folder = await tempFolder();
  const port = freeUdpPort();
  const env = { QPQ_LOG_FORMAT: "json", ...(options.dataDir ? { QPQ_DATA_DIR: options.dataDir } : {}) };
  const words = ["serve", "--listen", `127.0.0.1:${port}`, "--opaque-workers", "1"];
  const server = new Program(words, { cwd: folder.path, env });
  await server.logged(/"msg":"listening"/);
  return {
    server,
    port,
    cwd: folder.path,
    run: (...args: string[]) => Program.run(args, { cwd: folder.path, env }),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

Deno.test("status, health and rotate status tell of the running server, and that it was asked", async () => {
  await using world = await startServer();
  const status = await world.run("status", "--json");
  assert.equal(status.code, 0, status.err);
  assert.equal(status.err, "");
  const shown = JSON.parse(status.out);
  assert.deepEqual([shown.via, shown.running, shown.listen], ["running", true, `127.0.0.1:${world.port}`]);
  assert.match(shown.certificate.fingerprint, /^[0-9a-f]{64}$/);
  const people = await world.run("status");
  assert.match(people.out, /^connections +0$/m);
  assert.match(people.err, /done by the running server/);
  const health = await world.run("health");
  assert.equal(health.code, 0);
  assert.match(health.out, /^ok +store$/m);
  const rotations = await world.run("rotate", "status");
  assert.match(rotations.out, /^auth-token version +1$/m);
});

Deno.test("drain: health stays 0 for what an operator wanted, and is 1 with --ready", async () => {
  await using world = await startServer();
  assert.equal((await world.run("drain")).code, 0);
  assert.equal((await world.run("health")).code, 0);
  assert.equal((await world.run("health", "--ready")).code, 1);
  await world.run("drain", "--undo");
  assert.equal((await world.run("health", "--ready")).code, 0);
});

Deno.test("log-level changes what the server logs; a filter that cannot be used changes nothing", async () => {
  await using world = await startServer();
  const shown = await world.run("log-level");
  assert.equal(shown.out, "info\n");
  const refused = await world.run("log-level", "loud");
  assert.equal(refused.code, 1);
  assert.match(refused.err, /error: The log filter stays info/);
  assert.equal((await world.run("log-level", "info,qpq::delivery=debug")).code, 0);
  assert.equal((await world.run("log-level")).out, "info,qpq::delivery=debug\n");
});

Deno.test("reload prints why it was refused, and what it applied", async () => {
  await using world = await startServer();
  const config = join(world.cwd, "qpq-server.toml");
  await Deno.writeTextFile(config, "[limits]\ndevice_max = 4\n");
  const refused = await world.run("reload");
  assert.equal(refused.code, 1);
  assert.match(refused.err, /old configuration stays.*device_max.*did you mean limits.devices_max/s);
  await Deno.writeTextFile(config, "[limits]\ndevices_max = 4\n");
  const applied = await world.run("reload", "--json");
  assert.deepEqual(JSON.parse(applied.out), {
    via: "running",
    applied: ["limits.devices_max"],
    restart: [],
    notes: [],
  });
});

Deno.test("expiry resume and limits top answer", async () => {
  await using world = await startServer();
  assert.match((await world.run("expiry", "resume")).out, /Expiry was not paused/);
  assert.match((await world.run("limits", "top")).out, /Nobody has used a limit/);
  assert.equal((await world.run("limits", "top", "--count", "many")).code, 2);
});

Deno.test("wrong flags and arguments are wrong usage, and change nothing", async () => {
  await using world = await startServer();
  const token = await Deno.readTextFile(join(world.cwd, "data/secrets/auth-token"));
  const wrong = [
    ["rotate", "auth-token", "--overlap", "soon"],
    ["rotate", "auth-token", "--overlap", "1000d"],
    ["rotate", "auth-token", "--bogus"],
    ["rotate", "tls", "--cert", "only.pem"],
    ["rotate", "tls", "--cert", "gone.pem", "--key", "gone.key"],
    ["rotate", "tls", "--renew", "--cert", "a", "--key", "b"],
    ["rotate", "federation", "--cert", "a"],
    ["rotate"],
    ["status", "now"],
  ];
  const codes = await Promise.all(wrong.map(async (words) => (await world.run(...words)).code));
  assert.deepEqual(codes, wrong.map(() => 2));
  assert.equal(await Deno.readTextFile(join(world.cwd, "data/secrets/auth-token")), token);
});

Deno.test("the socket is for its owner alone, and the audit log holds who did what, without secrets", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using world = await startServer();
  const data = join(world.cwd, "data");
  assert.equal((await Deno.stat(join(data, "control.sock"))).mode! & 0o777, 0o600);
  assert.equal((await world.run("rotate", "auth-token", "--dry-run")).code, 0);
  assert.equal((await world.run("rotate", "auth-token", "--overlap", "0")).code, 0);
  await world.run("log-level", "loud");
  const audit = join(data, "audit.log");
  assert.equal((await Deno.stat(audit)).mode! & 0o777, 0o600);
  const text = await Deno.readTextFile(audit);
  const lines = text.trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(lines.map(({ operation, outcome }) => [operation, outcome]), [
    ["rotate auth-token", "begun"],
    ["rotate auth-token", "done"],
    ["log-level", "begun"],
    ["log-level", "failed"],
  ]);
  assert.deepEqual([lines[0].via, lines[0].input], ["running", { dryRun: false, overlapMs: 0 }]);
  const token = (await Deno.readTextFile(join(data, "secrets/auth-token"))).trim();
  assert.ok(!text.includes(token) && !world.server.err.includes(token));
});

Deno.test("a data folder whose path is too long for a socket: the server warns, and commands reach it", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "long".repeat(30), "data");
  await Deno.mkdir(dataDir, { recursive: true });
  await using world = await startServer({ dataDir });
  await world.server.logged(/path is too long for a socket: the control socket is \/tmp\/qpq-/);
  const status = await world.run("status", "--json");
  assert.equal(JSON.parse(status.out).via, "running");
  world.server.signal("SIGTERM");
  assert.equal((await world.server.ended()).code, 0);
  assert.equal(JSON.parse((await world.run("status", "--json")).out).via, "stopped");
});
