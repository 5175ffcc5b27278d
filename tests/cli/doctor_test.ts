/** `doctor` as an operator runs it: table, exit code, on a running server, a stopped one, and where nothing is yet. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Program } from "../support/program.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { tempFolder } from "../support/temp_folder.ts";

const ENV = { QPQ_LOG_FORMAT: "json" };

type Row = { name: string; status: string; found: string; remedy?: string };

function rowOf(out: string, name: string): Row {
  return (JSON.parse(out).checks as Row[]).find((row) => row.name === name)!;
}

Deno.test("doctor before the first start: nothing is broken, exit code 0, and what to do next", async () => {
  await using folder = await tempFolder();
  const { code, out } = await Program.run(["doctor"], { cwd: folder.path, env: ENV });
  assert.equal(code, 0, out);
  assert.match(out, /^WARN {2}data folder +\.\/data does not exist yet\n +→ .*qpq-server init/m);
  assert.match(out, /\d+ ok, \d+ to improve, 0 broken/);
  await assert.rejects(Deno.stat(join(folder.path, "data")), Deno.errors.NotFound);
});

Deno.test("doctor of a running server, then of the stopped one", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const run = (...words: string[]) => Program.run(["doctor", ...words], { cwd, env: ENV });
  {
    await using server = new Program(["serve", "--listen", `127.0.0.1:${freeUdpPort()}`], { cwd, env: ENV });
    await server.logged(/"msg":"listening"/);
    const running = await run("--json");
    assert.equal(running.err, "");
    assert.equal(JSON.parse(running.out).via, "running");
    assert.equal(rowOf(running.out, "server").found, "it runs and answers on its control socket");
    assert.match(rowOf(running.out, "database").found, /all of it is sound/);
    await Deno.writeTextFile(join(cwd, "qpq-server.toml"), "lissten = 1\n");
    const broken = await run("--quick", "--json");
    assert.equal(broken.code, 1);
    assert.match(rowOf(broken.out, "configuration").found, /lissten.*did you mean listen/);
    await Deno.remove(join(cwd, "qpq-server.toml"));
    server.signal("SIGKILL");
    await server.ended();
  }
  const stopped = await run("--json");
  assert.equal(JSON.parse(stopped.out).via, "stopped");
  assert.match(rowOf(stopped.out, "server").found, /it was killed/);
  assert.match(rowOf(stopped.out, "database").found, /all of it is sound/);
});

Deno.test("doctor's exit code is 1 when the configuration cannot be used, and the other checks still run", async () => {
  await using folder = await tempFolder();
  await Deno.writeTextFile(join(folder.path, "qpq-server.toml"), 'listen = "nowhere"\nlog = "loud"\n');
  const { code, out } = await Program.run(["doctor", "--json"], { cwd: folder.path, env: ENV });
  assert.equal(code, 1);
  assert.match(rowOf(out, "configuration").found, /listen .*; log /);
  assert.ok(rowOf(out, "clock"));
});

Deno.test("doctor tells of a server that holds the folder and does not answer", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  await using server = new Program(["serve", "--listen", `127.0.0.1:${freeUdpPort()}`], { cwd, env: ENV });
  await server.logged(/"msg":"listening"/);
  await Deno.remove(join(cwd, "data", "control.sock"));
  const { code, out } = await Program.run(["doctor", "--json"], { cwd, env: ENV });
  assert.equal(code, 1);
  assert.match(rowOf(out, "database").found, /in use by process \d+/);
});

Deno.test("doctor finds a wrong database key", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  {
    await using server = new Program(["serve", "--listen", `127.0.0.1:${freeUdpPort()}`], { cwd, env: ENV });
    await server.logged(/"msg":"listening"/);
    server.signal("SIGTERM");
    await server.ended();
  }
  await Deno.writeTextFile(join(cwd, "data/secrets/db-key"), `${"0123456789abcdef".repeat(4)}\n`);
  const { code, out } = await Program.run(["doctor"], { cwd, env: ENV });
  assert.equal(code, 1);
  assert.match(out, /^FAIL {2}database +Cannot open .*qpq\.db with any of the 1 DB keys/m);
});
