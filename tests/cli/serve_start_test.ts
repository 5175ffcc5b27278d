/** `serve` in an empty folder: what a first start makes and says, and that the second makes nothing. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Program } from "../support/program.ts";
import { tempFolder } from "../support/temp_folder.ts";

const ANY_PORT = ["--listen", "127.0.0.1:0"];

/** Every file and folder below `path` with its mode, by relative name. */
async function modesBelow(path: string, prefix = ""): Promise<Record<string, string>> {
  const modes: Record<string, string> = {};
  for await (const entry of Deno.readDir(path)) {
    const name = prefix + entry.name;
    modes[name] = ((await Deno.lstat(join(path, entry.name))).mode! & 0o777).toString(8);
    if (entry.isDirectory) Object.assign(modes, await modesBelow(join(path, entry.name), `${name}/`));
  }
  return modes;
}

/** Starts a server, waits until it listens, ends it. */
async function startAndStop(cwd: string, words: readonly string[] = ANY_PORT) {
  await using program = new Program(["serve", ...words], { cwd });
  await program.logged(/"msg":"listening"/);
  program.signal("SIGTERM");
  const ended = await program.ended();
  return { ...ended, log: program.log };
}

Deno.test("a first start makes everything that is secret for its owner only, and nothing outside the data folder", async () => {
  await using folder = await tempFolder();
  const { code } = await startAndStop(folder.path);
  assert.equal(code, 0);
  assert.deepEqual(await modesBelow(folder.path), {
    "data": "700",
    "data/backups": "700",
    "data/blobs": "700",
    "data/blobs/tmp": "700",
    "data/lock": "600",
    "data/qpq.db": "600",
    "data/secrets": "700",
    "data/secrets/auth-token": "600",
    "data/secrets/db-key": "600",
    "data/tls": "700",
    "data/tls/ca.key": "600",
    "data/tls/ca.pem": "644",
    "data/tls/server.key": "600",
    "data/tls/server.pem": "644",
  });
  const secrets = join(folder.path, "data", "secrets");
  assert.match(await Deno.readTextFile(join(secrets, "db-key")), /^[0-9a-f]{64}\n$/);
  assert.match(await Deno.readTextFile(join(secrets, "auth-token")), /^[\w-]{43}\n$/);
});

Deno.test("a first start in production prints nothing but log lines, and one of them says how to try it", async () => {
  await using folder = await tempFolder();
  const env = { QPQ_PRODUCTION: "true", QPQ_ALLOW_KEY_IN_DATA_DIR: "true", QPQ_LISTEN: "127.0.0.1:0" };
  const cwd = folder.path;
  assert.equal((await Program.run(["init"], { cwd, env })).code, 0);
  await Deno.remove(join(cwd, "data", "tls"), { recursive: true });
  await using program = new Program(["serve"], { cwd, env });
  await program.logged(/"msg":"listening"/);
  program.signal("SIGTERM");
  const { out, err } = await program.ended();
  assert.equal(out, "");
  const lines = err.trim().split("\n").map((line) => JSON.parse(line));
  const { command, fingerprint } = lines.find(({ msg }) => msg.startsWith("first start; to try it"));
  assert.match(command, /--server localhost:\d+ --ca \S+ --auth-token-file \S+ --ping$/);
  assert.match(fingerprint, /^[0-9a-f]{64}$/);
});

Deno.test("a first start says in words what it made, and prints a client command without a secret in it", async () => {
  await using folder = await tempFolder();
  const { out, log } = await startAndStop(folder.path);
  const messages = log.map((line) => String(line.msg));
  const wanted = [
    /^generated and persisted new OPAQUE ServerSetup$/,
    /^made data folder /,
    /^made database key .*keep a copy/,
    /^made access token .*secrets\/auth-token/,
    /^made certificate authority .*tls\/ca\.pem/,
    /^made TLS certificate .*tls\/server\.pem/,
  ];
  for (const pattern of wanted) {
    assert.equal(messages.filter((text) => pattern.test(text)).length, 1, String(pattern));
  }
  const port = String(log.find((line) => line.msg === "listening")!.listen).split(":")[1];
  const command = out.split("\n").find((line) => line.includes("--ping"))!;
  assert.match(
    command.trim(),
    new RegExp(
      `client --server 127\\.0\\.0\\.1:${port} --ca \\./data/tls/ca\\.pem ` +
        "--auth-token-file \\./data/secrets/auth-token --ping$",
    ),
  );
  assert.match(out, /fingerprint is\s+[0-9a-f]{64}\n/);
  const token = (await Deno.readTextFile(join(folder.path, "data/secrets/auth-token"))).trim();
  const key = (await Deno.readTextFile(join(folder.path, "data/secrets/db-key"))).trim();
  for (const secret of [token, key]) assert.ok(!(out + JSON.stringify(log)).includes(secret));
});

Deno.test("a second start makes nothing and keeps the identity of the first", async () => {
  await using folder = await tempFolder();
  await startAndStop(folder.path);
  const files = ["secrets/auth-token", "secrets/db-key", "tls/ca.pem", "tls/ca.key", "tls/server.pem"];
  const read = () => Promise.all(files.map((name) => Deno.readTextFile(join(folder.path, "data", name))));
  const before = await read();
  const { code, out, log } = await startAndStop(folder.path);
  assert.equal(code, 0);
  assert.deepEqual(await read(), before);
  assert.equal(out, "");
  assert.deepEqual(log.filter((line) => /^made|OPAQUE ServerSetup/.test(String(line.msg))), []);
});

Deno.test("on a terminal every start prints fingerprint and client command, and Ctrl-C ends it in order", async () => {
  await using folder = await tempFolder();
  await startAndStop(folder.path);
  await using program = new Program(["serve", ...ANY_PORT], {
    cwd: folder.path,
    via: ["sh", "-c", ON_TERMINAL, "sh"],
    input: "open",
  });
  await program.printed(/fingerprint is\s+[0-9a-f]{64}\s[^]* --ping/);
  await program.type("\x03");
  await program.printed(/shutdown signal received[^]*stopped/);
});

Deno.test("a server whose stdout takes nothing runs, and ends in order", async () => {
  await using folder = await tempFolder();
  const via = ["sh", "-c", 'exec "$@" >/dev/full', "sh"];
  await using program = new Program(["serve", ...ANY_PORT], { cwd: folder.path, via });
  await program.logged(/"msg":"listening"/);
  program.signal("SIGTERM");
  const { code, err } = await program.ended();
  assert.equal(code, 0);
  assert.match(err, /"msg":"stopped"\}\n$/);
});

Deno.test("the printed command can be pasted when the data folder's name has spaces and quotes", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "it's my data");
  const { out } = await startAndStop(folder.path, [...ANY_PORT, "--data-dir", dataDir]);
  const command = out.split("\n").find((line) => line.includes("--ping"))!;
  const words = command.slice(command.indexOf("--server"));
  const shell = new Deno.Command("sh", { args: ["-c", `printf '%s\\n' ${words}`], stdout: "piped" });
  const pasted = new TextDecoder().decode((await shell.output()).stdout).split("\n");
  assert.equal(pasted[pasted.indexOf("--ca") + 1], join(dataDir, "tls/ca.pem"));
  assert.equal(pasted[pasted.indexOf("--auth-token-file") + 1], join(dataDir, "secrets/auth-token"));
});

Deno.test("several servers started at once in an empty folder: one runs, with the one key that is kept", async () => {
  await using folder = await tempFolder();
  const rivals = [1, 2, 3].map(() => new Program(["serve", ...ANY_PORT], { cwd: folder.path }));
  try {
    const outcomes = await Promise.all(rivals.map((program) =>
      Promise.race([
        program.logged(/"msg":"listening"/).then(() => "runs", () => "ended"),
        program.ended().then(() => "ended"),
      ])
    ));
    assert.equal(
      outcomes.filter((outcome) => outcome === "runs").length,
      1,
      rivals.map((r) => r.err).join("\n"),
    );
    for (const [index, program] of rivals.entries()) {
      if (outcomes[index] === "runs") {
        program.signal("SIGTERM");
        assert.equal((await program.ended()).code, 0);
      } else {
        assert.equal((await program.ended()).code, 1);
        assert.match(program.err, /in use by process \d+: stop that server first/);
      }
    }
  } finally {
    for (const program of rivals) await program[Symbol.asyncDispose]();
  }
  assert.equal((await startAndStop(folder.path)).code, 0, "the kept key opens the database");
});

Deno.test("init makes what a first start makes, says so, and makes nothing the second time", async () => {
  await using folder = await tempFolder();
  const first = await Program.run(["init"], { cwd: folder.path });
  assert.equal(first.code, 0, first.err);
  for (
    const what of ["data folder", "database key", "access token", "certificate authority", "TLS certificate"]
  ) {
    assert.match(first.out, new RegExp(`^made ${what} `, "m"));
  }
  const again = await Program.run(["init", "--json"], { cwd: folder.path });
  assert.deepEqual(JSON.parse(again.out), { made: [] });
  const { code, log } = await startAndStop(folder.path);
  assert.equal(code, 0);
  assert.deepEqual(log.filter((line) => /^made/.test(String(line.msg))), []);
});

Deno.test("log lines are JSON when stderr is no terminal", async () => {
  await using folder = await tempFolder();
  const { err } = await startAndStop(folder.path);
  for (const line of err.trimEnd().split("\n")) {
    const { ts, level, target, msg } = JSON.parse(line);
    assert.match(ts, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.match(level, /^(info|warn)$/);
    assert.match(target, /^qpq::/);
    assert.equal(typeof msg, "string");
  }
});

Deno.test("log lines are for people on a terminal", async () => {
  await using folder = await tempFolder();
  // script(1) runs the program on a terminal of its own and shows what appears there.
  await using program = new Program(["serve", ...ANY_PORT], {
    cwd: folder.path,
    via: ["sh", "-c", ON_TERMINAL, "sh"],
    input: "open",
  });
  await program.printed(/INFO +qpq::server listening listen=127\.0\.0\.1:\d+/);
  assert.doesNotMatch(program.out, /^\{"ts"/m);
  await program.type("\x03"); // a signal would end script(1) and leave the server behind
  await program.printed(/qpq::server stopped/);
});

/** Runs its words under script(1), which takes one command line only. */
const ON_TERMINAL = `for word do line="$line '$word'"; done; exec script -qec "$line" /dev/null`;

Deno.test("--version and --help go to stdout with exit code 0; unknown commands and flags are wrong usage", async () => {
  await using folder = await tempFolder();
  const run = (...words: string[]) => Program.run(words, { cwd: folder.path });
  assert.match((await run("--version")).out, /^\d+\.\d+\.\d+\n$/);
  const help = await run("--help");
  assert.deepEqual([help.code, help.err], [0, ""]);
  for (const command of ["serve", "init"]) assert.match(help.out, new RegExp(`^  ${command}\\b`, "m"));
  assert.match((await run("serve", "--help")).out, /--limits-queue-depth-max <integer>/);
  const unknownFlag = await run("serve", "--listn", "127.0.0.1:0");
  assert.equal(unknownFlag.code, 2);
  assert.match(unknownFlag.err, /unknown option '--listn'\n\(Did you mean --listen\?\)/);
  const unknownCommand = await run("srve");
  assert.equal(unknownCommand.code, 2);
  assert.match(unknownCommand.err, /There is no command srve: did you mean serve\? \(.* --help lists them\)/);
  assert.deepEqual(await modesBelow(folder.path), {}, "nothing was made");
});
