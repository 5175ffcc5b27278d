/** `store convert` there and back: what waits is still there, and nothing is converted that is in use. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ClientWorld } from "../support/client_world.ts";
import { Program } from "../support/program.ts";
import { ServerProcess } from "../support/server_process.ts";

Deno.test("store convert to file and back keeps accounts, sessions and messages; running and wrong ones are refused", async (t) => {
  await using world = await ClientWorld.start();
  const { dataDir, port } = world.server;
  const operator = (...words: string[]) =>
    Program.run(["store", "convert", ...words], { cwd: world.folder.path, env: { QPQ_LOG_FORMAT: "json" } });
  const toFile = { "QPQ_STORE_BACKEND": "file" };
  await world.register("alice", "bob");
  await world.succeedAs("bob", ["send", "alice", "across the stores"]);

  await t.step("not while the server runs", async () => {
    const { code, err } = await operator("--to", "file");
    assert.equal(code, 1);
    assert.match(err, /stop the server, and run this again/);
  });
  await world.server.end("SIGTERM");
  await t.step("a dry run changes nothing; the same kind and an unknown one are refused", async () => {
    const would = await operator("--to", "file", "--dry-run");
    assert.equal(would.code, 0, would.err);
    assert.match(would.out, /2 accounts and \d+ waiting messages? would be converted from sqlcipher to file/);
    await assert.rejects(Deno.stat(join(dataDir, "journal")), Deno.errors.NotFound);
    assert.match((await operator("--to", "sqlcipher")).err, /sqlcipher already/);
    assert.match((await operator("--to", "paper")).err, /`file` or `sqlcipher`, not paper/);
    assert.equal((await operator()).code, 2);
  });
  await t.step("to file", async () => {
    const done = await operator("--to", "file");
    assert.equal(done.code, 0, done.err);
    assert.match(done.out, /store_backend = "file".*\n.*qpq\.db\.old-1/);
    world.server = await ServerProcess.start({ dataDir, port, flags: ["--store-backend", "file"] });
    const { out } = await world.succeedAs("alice", ["recv"]);
    assert.match(out, /across the stores/);
    await world.succeedAs("bob", ["send", "alice", "from the journal"]);
    await world.server.end("SIGTERM");
  });
  await t.step("and back, after an interrupted attempt", async () => {
    // As a crash between the last two steps leaves it: both are there.
    await Deno.writeTextFile(join(dataDir, "qpq.db"), "what an interrupted conversion had made");
    const back = await Program.run(["store", "convert", "--to", "sqlcipher"], {
      cwd: world.folder.path,
      env: { QPQ_LOG_FORMAT: "json", ...toFile },
    });
    assert.equal(back.code, 0, back.err);
    assert.match(back.out, /interrupted conversion had made is .*qpq\.db\.old-2/);
    world.server = await ServerProcess.start({ dataDir, port });
    const { out } = await world.succeedAs("alice", ["recv"]);
    assert.match(out, /from the journal/);
  });
});
