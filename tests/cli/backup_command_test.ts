/** `qpq-server backup …` as operators run it: what it prints, exit codes, a running server and a stopped one. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type Ended, Program } from "../support/program.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { tempFolder } from "../support/temp_folder.ts";

const ENV = { QPQ_LOG_FORMAT: "json" };

Deno.test("a running server is backed up, and the stopped one restored from that", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const run = (...words: string[]) => Program.run(words, { cwd, env: ENV });
  const listen = ["--listen", `127.0.0.1:${freeUdpPort()}`, "--opaque-workers", "1"];
  {
    await using server = new Program(["serve", ...listen], { cwd, env: ENV });
    await server.logged(/"msg":"listening"/);
    // A path means the operator's folder, not the server's.
    const made = good(await run("backup", "create", "--to", "elsewhere", "--json"));
    assert.deepEqual([made["via"], made["accounts"]], ["running", 0]);
    assert.equal(made["path"], join(await Deno.realPath(cwd), "elsewhere", String(made["id"])));
    const shown = await run("backup", "create");
    assert.match(shown.out, /^id {2,}\S+Z-[0-9a-f]{6}$/m);
    assert.match(shown.err, /done by the running server/);
    const verified = await run("backup", "verify");
    assert.deepEqual([verified.code, verified.out.includes("is good")], [0, true]);
    const over = await run("backup", "restore", "elsewhere/" + made["id"], "--to", "data", "--force");
    assert.equal(over.code, 1);
    assert.match(over.err, /The data folder .*data is in use by process \d+: stop that server first/);
    const live = await run("restored");
    assert.match(live.err, /Stop the server first/);
    server.signal("SIGTERM");
    await server.ended();
  }
  const { backups } = good(await run("backup", "list", "--json"));
  const [{ id }] = backups as [{ id: string }];
  const refused = await run("backup", "restore", id, "--to", "data");
  assert.equal(refused.code, 1);
  assert.match(refused.err, /is not empty: it holds .*--force/);
  const restored = await run("backup", "restore", id, "--to", "data", "--force");
  assert.equal(restored.code, 0, restored.err);
  assert.match(restored.out, /To know and to do:/);
  await using again = new Program(["serve", ...listen], { cwd, env: ENV });
  await again.logged(/"msg":"listening"/);
});

function good({ code, out, err }: Ended): Record<string, unknown> {
  assert.equal(code, 0, err);
  return JSON.parse(out);
}

Deno.test("a damaged backup is exit code 1, and is verified without a data folder too", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const run = (...words: string[]) => Program.run(words, { cwd, env: ENV });
  await run("init");
  await Deno.rename(join(cwd, "data/secrets/db-key"), join(cwd, "key"));
  const key = ["--db-key-file", "key", "--store-backend", "file"];
  const first = new Program(["serve", "--listen", "127.0.0.1:0", ...key], { cwd, env: ENV });
  await first.logged(/"msg":"listening"/);
  first.signal("SIGTERM");
  await first.ended();
  const made = good(await run("backup", "create", "--to", "safe", "--json", ...key));
  assert.equal(made["via"], "stopped");
  await Deno.remove(join(cwd, "data"), { recursive: true });
  const path = String(made["path"]);
  assert.equal((await run("backup", "verify", path, ...key)).code, 0);
  const without = await run("backup", "verify", path);
  assert.equal(without.code, 1);
  assert.match(without.out, new RegExp(`DB key ${made["dbKeyId"]}, and no DB key was given`));
  await Deno.truncate(join(path, "blobs.list"), 0);
  await Deno.writeTextFile(join(path, "blobs.list"), "x");
  const damaged = await run("backup", "verify", path, "--json", ...key);
  assert.equal(damaged.code, 1);
  assert.equal(JSON.parse(damaged.out).ok, false);
  const restore = await run("backup", "restore", path, "--to", "new", ...key);
  assert.equal(restore.code, 1);
  assert.deepEqual(
    await Array.fromAsync(Deno.readDir(cwd), ({ name }) => name).then((names) => names.sort()),
    [
      "key",
      "safe",
    ],
  );
});

Deno.test("an identity is made once, and wrong usage is exit code 2", async () => {
  await using folder = await tempFolder();
  const cwd = folder.path;
  const run = (...words: string[]) => Program.run(words, { cwd, env: ENV });
  const [first, second] = [
    await run("backup", "identity", "age.key"),
    await run("backup", "identity", "age.key"),
  ];
  assert.match(first.out, /^age1[0-9a-z]+\n$/);
  assert.equal(second.out, first.out);
  assert.equal((await Deno.stat(join(cwd, "age.key"))).mode! & 0o777, 0o600);
  assert.match(await Deno.readTextFile(join(cwd, "age.key")), /^AGE-SECRET-KEY-1/m);
  for (
    const words of [
      ["backup", "restore", "somewhere"],
      ["backup", "prune", "--keep", "all"],
      ["backup", "prune", "--keep-within", "a while"],
      ["backup", "verify", "--identity", "missing.key"],
      ["backup", "create", "--backup-schedule", "sometimes"],
    ]
  ) {
    const { code, err } = await run(...words);
    assert.equal(code, 2, `${words.join(" ")}: ${err}`);
  }
});
