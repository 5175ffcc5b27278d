/** How `serve` ends: signals, open connections, parked waits, subscriptions, the drain timeout. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { utf8 } from "../../mod/base/bytes.ts";
import { CLOSE_CODES } from "../../mod/protocol/close_codes.ts";
import { requestFrame } from "../support/raw_stream.ts";
import { connectTo, newAccount, type Reachable } from "../support/test_client.ts";
import { Program } from "../support/program.ts";
import { tempFolder } from "../support/temp_folder.ts";

/** A server process in an empty folder, listening. */
async function startServe(cwd: string, ...words: string[]): Promise<{ program: Program; server: Reachable }> {
  const program = new Program(["serve", "--listen", "127.0.0.1:0", "--opaque-workers", "1", ...words], {
    cwd,
  });
  const port = Number((await program.logged(/"listen":"127\.0\.0\.1:(\d+)","version"/))[1]);
  const fingerprint = (await program.printed(/([0-9a-f]{64})\n/))[1]!;
  const accessToken = (await Deno.readTextFile(join(cwd, "data/secrets/auth-token"))).trim();
  return { program, server: { hostname: "127.0.0.1", port, fingerprint, accessToken } };
}

function messagesOf(program: Program): string[] {
  return program.log.map((line) => String(line.msg));
}

for (const name of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`${name} ends an idle server with exit code 0, and the log says so`, async () => {
    await using folder = await tempFolder();
    const { program } = await startServe(folder.path);
    await using _ = program;
    program.signal(name);
    assert.equal((await program.ended()).code, 0);
    const signalled = program.log.filter((line) => line.msg === "shutdown signal received");
    assert.deepEqual(signalled.map((line) => [line.level, line.signal]), [["info", name]]);
    assert.equal(messagesOf(program).at(-1), "stopped");
  });
}

Deno.test("a signal while the server starts ends it with exit code 0", async () => {
  await using folder = await tempFolder();
  await using program = new Program(["serve", "--listen", "127.0.0.1:0"], { cwd: folder.path });
  await program.logged(/OPAQUE ServerSetup/);
  program.signal("SIGTERM");
  assert.equal((await program.ended()).code, 0);
  assert.deepEqual(messagesOf(program).filter((text) => /signal|stopped/.test(text)), [
    "shutdown signal received",
    "stopped",
  ]);
});

Deno.test("a shutdown answers parked waits, tells subscribers and closes connections with a reason", async () => {
  await using folder = await tempFolder();
  const { program, server } = await startServe(folder.path);
  await using _ = program;
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  await using anonymous = await connectTo(server).then((link) => link.connection);
  const waiting = alice.connection.call("fetchWait", { timeoutMs: 60_000 });
  waiting.catch(() => {});
  const pushes = bob.connection.subscribe({ after: 0n, creditBytes: 0 });
  await pushes.next();
  const nextPush = pushes.next().then(() => "more", (error) => error.code);
  program.signal("SIGTERM");
  assert.deepEqual((await waiting).entries, []);
  assert.equal(await nextPush, "shuttingDown");
  for (const connection of [alice.connection, bob.connection, anonymous]) {
    assert.equal((await connection.closed).code, CLOSE_CODES.shuttingDown);
  }
  assert.equal((await program.ended()).code, 0);
  assert.deepEqual(program.log.filter((line) => line.level === "error"), []);
});

Deno.test("what was acknowledged before the shutdown is there after it", async () => {
  await using folder = await tempFolder();
  const first = await startServe(folder.path);
  await using _ = first.program;
  const alice = await newAccount(first.server, "alice");
  const sending = Promise.allSettled(
    Array.from({ length: 200 }, (_, n) => alice.enqueue([alice.deviceId], { payload: utf8(`message ${n}`) })),
  );
  first.program.signal("SIGTERM");
  const accepted = (await sending).filter((outcome) => outcome.status === "fulfilled").length;
  await alice[Symbol.asyncDispose]();
  assert.equal((await first.program.ended()).code, 0);
  await using again = new Program(["serve", "--listen", "127.0.0.1:0"], { cwd: folder.path });
  const port = Number((await again.logged(/"listen":"127\.0\.0\.1:(\d+)","version"/))[1]);
  await using back = await alice.again({ ...first.server, port });
  const { entries } = await back.connection.call("fetch", {});
  assert.ok(entries.length >= accepted, `${entries.length} of ${accepted}`);
});

Deno.test("an upload that stands still does not hold a shutdown beyond the drain timeout", async () => {
  await using folder = await tempFolder();
  const { program, server } = await startServe(folder.path, "--drain-timeout", "300ms");
  await using _ = program;
  await using alice = await newAccount(server, "alice");
  const raw = await alice.rawStream();
  await raw.write(requestFrame(1, "putBlob", { sha256: new Uint8Array(32), size: 1000n }), utf8("some"));
  await alice.connection.call("ping", {});
  program.signal("SIGTERM");
  assert.equal((await program.ended()).code, 0);
});

Deno.test("an HTTP client that sends half a request and stays does not hold a shutdown", async () => {
  await using folder = await tempFolder();
  const { program } = await startServe(
    folder.path,
    ...["--metrics-enabled", "--metrics-listen", "127.0.0.1:0", "--drain-timeout", "300ms"],
  );
  await using _ = program;
  const port = Number((await program.printed(/http:\/\/127\.0\.0\.1:(\d+)\/metrics/))[1]);
  using idle = await Deno.connect({ hostname: "127.0.0.1", port });
  using half = await Deno.connect({ hostname: "127.0.0.1", port });
  await idle.write(utf8("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"));
  await idle.read(new Uint8Array(1000));
  await half.write(utf8("GET /metrics HTTP/1.1\r\nHost:"));
  program.signal("SIGTERM");
  assert.equal((await program.ended()).code, 0);
});

Deno.test("Ctrl-C, which npx and deno task hand on again, is one signal", async () => {
  await using folder = await tempFolder();
  const { program, server } = await startServe(folder.path);
  await using _ = program;
  await using alice = await newAccount(server, "alice");
  program.signal("SIGINT");
  await program.logged(/shutdown signal received/);
  program.signal("SIGINT"); // the server still waits for its last replies to leave
  assert.equal((await alice.connection.closed).code, CLOSE_CODES.shuttingDown);
  assert.equal((await program.ended()).code, 0);
  assert.equal(messagesOf(program).at(-1), "stopped");
});

Deno.test("a second signal ends the server at once", async () => {
  await using folder = await tempFolder();
  const { program, server } = await startServe(folder.path, "--drain-timeout", "1h");
  await using _ = program;
  await using alice = await newAccount(server, "alice");
  const raw = await alice.rawStream();
  await raw.write(requestFrame(1, "putBlob", { sha256: new Uint8Array(32), size: 1000n }), utf8("some"));
  await alice.connection.call("ping", {});
  program.signal("SIGTERM");
  await program.logged(/shutdown signal received/);
  const pressing = setInterval(() => { // one that comes at once is the same press
    try {
      program.signal("SIGINT");
    } catch {
      clearInterval(pressing); // it has ended; what it printed is still being read
    }
  }, 100);
  assert.equal((await program.ended().finally(() => clearInterval(pressing))).code, 1);
  alice.link.transport.close(0, "the server is gone");
});
